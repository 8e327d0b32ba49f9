"""The card: facts, and names that cannot break it."""

import inspect
import io
import re
import sys

import numpy as np
import pytest
import torch
from huggingface_hub import DatasetCard
from PIL import Image

import unlearnable as ue
from unlearnable.io.yaml import yaml_block
from unlearnable.perturbation.card import write_card
from unlearnable.perturbation.front_matter import size_category
from unlearnable.perturbation.papers import PAPERS
from unlearnable.perturbation.preview import preview_of

yaml = pytest.importorskip("yaml")  # comes with the Hub's client

NASTY = [
    'a": b\n---\n# x',
    "{{ x }}: [1, &a *a",
    "| pipe | ` <script>alert(1)</script> ![x](https://e.com) \\",
    "\x00\x1b\u2028\ud800 é 猫 😀 '",
    "---",
    "",
    "no",
    "x" * 5000,
]


def parts(card):
    _, front, body = card.split("---\n", 2)
    return yaml.safe_load(front), body


def card_of(perturbation, repo_id, **options):
    return write_card(perturbation.info(), perturbation.config, repo_id, **options)


def with_config(perturbation, **changes):
    keyed = {n: perturbation.tensors[n] for n in ("keys", "labels", "thumbnails")}
    return ue.Perturbation(perturbation.rows, perturbation.config | changes, **keyed)


def test_a_card_says_what_it_is(perturbation):
    front, body = parts(card_of(perturbation, "owner/p", license="cc-by-4.0"))
    assert front["license"] == "cc-by-4.0" and front["library_name"] == "unlearnable"
    assert front["tags"] == [
        "unlearnable",
        "unlearnable-examples",
        "RandomNoise",
        "arxiv:2101.04898",
    ]
    assert front["size_categories"] == ["n<1K"]
    assert front["viewer"] is False and not {"configs", "dataset_info"} & set(front)
    assert front["task_categories"] == ["image-classification"] and front["source_datasets"] == [
        "Shapes"
    ]
    assert front["pretty_name"] == "RandomNoise for Shapes"
    source = perturbation.config["source"]
    for fact in (
        "Linf 8/255",
        "| epsilon | 8/255 |",
        perturbation.digest,
        source["digest"],
        "| 40 |",
    ):
        assert fact in body
    assert "Not measured." in body and "JPEG" in body and "pretrained" in body
    assert 'from_pretrained("owner/p")' in body
    assert "license" not in parts(card_of(perturbation, "owner/p"))[0]


def test_a_card_says_what_other_code_made(perturbation, class_wise):
    imported = {"file": "em.pt", "format": "unit"}
    other = with_config(perturbation, imported=imported, parameters={})
    _, body = parts(card_of(other, "owner/p"))
    assert "Imported with the Python package `unlearnable` from a file that other" in body
    assert "file em.pt, format unit" in body and "## Parameters\n\nNot known.\n" in body
    for ours in (perturbation, class_wise):
        _, body = parts(card_of(ours, "owner/p"))
        assert "Made with the Python package `unlearnable`." in body and "imported" not in body
    assert body.startswith("\n# ") and "A perturbation for each class of a dataset" in body
    _, body = parts(card_of(other.then(class_wise), "owner/p"))
    assert "Imported with" in body and "file em.pt, format unit" in body


def test_measured_strength(perturbation):
    measured = {"clean": [0.9, 0.92], "protected": [0.2, 0.3], "seeds": [0, 1], "victim": "tiny"}
    _, body = parts(card_of(with_config(perturbation, strength=measured), "owner/p"))
    assert "clean images | 91.0% ± 1.4 (standard deviation over 2 seeds)" in body
    assert "protected images | 25.0% ± 7.1" in body
    assert "| seeds | 0, 1 |" in body and "| victim | tiny |" in body
    one = {"clean": [0.9], "protected": [0.2], "seeds": [3]}
    assert "90.0% (one seed)" in card_of(with_config(perturbation, strength=one), "owner/p")
    for other in ({"worst": {"JPEG 10": 0.8}}, {"clean": [], "protected": [], "seeds": []}, "weak"):
        assert "Not measured" not in card_of(with_config(perturbation, strength=other), "o/p")
    assert "JPEG 10 0.8" in card_of(
        with_config(perturbation, strength={"worst": {"JPEG 10": 0.8}}), "owner/p"
    )


def test_a_stack_has_the_parameters_of_each_part(perturbation, class_wise):
    card = card_of(perturbation.then(class_wise), "owner/p")
    assert card.count("## Parameters of RandomNoise") == 2
    assert card.count("| epsilon | 8/255 |") == 2


@pytest.mark.parametrize("name", NASTY)
def test_names_break_neither_yaml_nor_markdown(name, perturbation):
    plain = card_of(perturbation, "owner/p")
    nasty = with_config(
        perturbation,
        method=name,
        source={"name": name, "images": 40, "digest": name},
        classes=[name, *"bcdefghij"],
        parameters={name: name, "surrogate": {name: [name]}},
        strength={name: name},
    )
    card = card_of(nasty, "owner/p", license=name)
    front, body = parts(card)
    assert list(front) == ["pretty_name", "license", *list(parts(plain)[0])[1:]]
    shown = "".join(c if c.isprintable() else " " for c in name)[:100]
    assert " ".join(shown.split()) in front["source_datasets"][0]
    assert all(len(value) <= 200 for value in (front["license"], front["pretty_name"]))
    assert [line for line in body.splitlines() if line.startswith("## ")] == [
        line for line in plain.splitlines() if line.startswith("## ") and line != "## Citation"
    ]
    assert not re.findall(r"(?<!\\)(<script|!\[|\[x|\{\{)|https:", body)
    tables = [line for line in body.splitlines() if line.startswith("|")]
    assert all(line.replace("\\\\", "").replace("\\|", "").count("|") == 3 for line in tables)
    card.encode()  # no half characters


@pytest.mark.parametrize(
    ("rows", "category"),
    [
        (1, "n<1K"),
        (999, "n<1K"),
        (1_000, "1K<n<10K"),
        (9_999, "1K<n<10K"),
        (50_000, "10K<n<100K"),
        (1_281_167, "1M<n<10M"),
        (10**9, "1B<n<10B"),
        (10**12 - 1, "100B<n<1T"),
        (10**12, "n>1T"),
        (10**15, "n>1T"),
    ],
)
def test_sizes_are_those_of_the_hub(rows, category):
    assert size_category(rows) == category


def test_the_size_is_that_of_what_the_repository_has(perturbation, class_wise):
    many = {"source": {"name": "Shapes", "images": 50_000, "digest": "0"}}
    card = card_of(with_config(perturbation, **many), "owner/p")
    assert parts(card)[0]["size_categories"] == ["10K<n<100K"]
    of_classes = ue.Perturbation(class_wise.rows, class_wise.config | many)
    assert parts(card_of(of_classes, "owner/p"))[0]["size_categories"] == ["n<1K"]


def test_every_method_is_cited_as_its_docstring_names_the_paper():
    assert set(PAPERS) == {method.__name__ for method in ue.METHODS}
    for method in ue.METHODS:
        first = inspect.getdoc(method).split("\n")[0]
        paper = PAPERS[method.__name__]
        surname, venue, year, arxiv = re.search(
            r"\((?:the control of |built on )?([\w-]+) et al\., (\w+) (\d+), arXiv:([\d.]+)\)$",
            first,
        ).groups()
        assert (paper.venue, str(paper.year), paper.arxiv) == (venue, year, arxiv)
        assert paper.authors.split(" and ")[0].endswith(surname)


def test_a_stack_cites_each_paper_once(perturbation, class_wise, shapes):
    lsp = ue.LSP().fit(shapes, device="cpu", progress=False).perturbation_
    front, body = parts(card_of(perturbation.then(class_wise).then(lsp), "owner/p"))
    assert front["tags"][2:] == ["RandomNoise", "LSP", "arxiv:2101.04898", "arxiv:2111.00898"]
    assert re.findall(r"@inproceedings{(\w+),", body) == [
        "huang2021unlearnable",
        "yu2022availability",
    ]
    assert "eprint = {2111.00898}" in body and "title = {{Availability Attacks" in body
    unknown = parts(card_of(with_config(perturbation, method="mine"), "owner/p"))
    assert unknown[0]["tags"] == ["unlearnable", "unlearnable-examples", "mine"]
    assert "Citation" not in unknown[1]


@pytest.mark.parametrize("text", [*NASTY, "\U000e0001", "\U0001f600 \x85\u2028\ufeff", "null", "1"])
def test_yaml_of_any_text_comes_back(text):
    name = text[:100]  # YAML's keys are short
    values = {"a": text, name: [text, {"c": {name: [text], "d": []}, "e": 1}, True, None]}
    written = yaml_block(values)
    written.encode()
    assert yaml.safe_load(written) == values


def test_the_hubs_client_reads_the_card(perturbation):
    preview = preview_of(perturbation._kind)
    text = card_of(perturbation, "owner/p", license="mit", preview=preview)
    data = DatasetCard(text).data.to_dict()
    assert data["license"] == "mit" and data["size_categories"] == ["n<1K"]
    assert DatasetCard(f"---\n{DatasetCard(text).data.to_yaml()}\n---\n").data.to_dict() == data


# --- the preview ---------------------------------------------------------------------------------


def pictures(preview):
    """Pixels (N, H, W, C) and class names of a preview."""
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = parquet.read_table(io.BytesIO(preview.content)).to_pylist()
    found = [Image.open(io.BytesIO(row["perturbation"]["bytes"])) for row in rows]
    assert preview.rows == len(rows)
    return [np.asarray(picture) for picture in found], [row["class"] for row in rows]


def test_a_preview_shows_a_row_of_each_class_around_grey(perturbation, class_wise):
    for what, labels in ((perturbation, perturbation.labels), (class_wise, np.arange(10))):
        shown, classes = pictures(preview_of(what._kind))
        firsts = [int(np.flatnonzero(labels == label)[0]) for label in np.unique(labels)]
        assert classes == [what.config["classes"][labels[first]] for first in firsts]
        for pixels, first in zip(shown, firsts, strict=True):
            row = what.rows[first].astype(int).transpose(1, 2, 0)
            np.testing.assert_array_equal(pixels, np.clip(128 + 16 * row, 0, 255))


def test_a_preview_is_small_and_repeatable(fit):
    data = np.random.default_rng(0).integers(0, 256, (20, 3, 160, 120), np.uint8)
    large = fit((torch.from_numpy(data), torch.arange(20)))
    preview = preview_of(large._kind)
    assert len(preview.content) < 200_000 and preview == preview_of(large._kind)
    shown, classes = pictures(preview)
    assert {pixels.shape for pixels in shown} == {(48, 48, 3)}
    assert classes == [str(label) for label in range(16)]


@pytest.mark.parametrize("method", [ue.OPS, ue.LSP, ue.AR, ue.ClassConvolution, ue.ColourShift])
def test_every_kind_has_a_preview(method, shapes, perturbation):
    made = method().fit(shapes, device="cpu", progress=False).perturbation_
    preview = preview_of(made._kind)
    shown, classes = pictures(preview)
    assert classes == shapes.classes and all((pixels != 128).any() for pixels in shown)
    assert preview_of(made.then(perturbation)._kind) == preview, "of a stack, the first part"


def test_without_pyarrow_there_is_none(perturbation, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert preview_of(perturbation._kind) is None
    assert "Preview" not in card_of(perturbation, "owner/p")
