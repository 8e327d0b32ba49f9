"""The card: facts, and names that cannot break it."""

import re

import pytest

import unlearnable as ue
from unlearnable.perturbation.card import write_card

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
    assert front["license"] == "cc-by-4.0" and front["tags"] == ["unlearnable-examples"]
    assert front["viewer"] is False and front["source_datasets"] == ["Shapes"]
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
        line for line in plain.splitlines() if line.startswith("## ")
    ]
    assert not re.findall(r"(?<!\\)(<script|!\[|\[x|\{\{)|https:", body)
    tables = [line for line in body.splitlines() if line.startswith("|")]
    assert all(line.replace("\\\\", "").replace("\\|", "").count("|") == 3 for line in tables)
    card.encode()  # no half characters
