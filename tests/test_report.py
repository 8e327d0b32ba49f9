"""Reports: what they say, and that the page stands alone whatever the data is called."""

import dataclasses
import html.parser
import re

import pytest

import unlearnable as ue
from unlearnable.datasets import Shapes
from unlearnable.engine.estimate import duration
from unlearnable.evaluation.countermeasures import countermeasure
from unlearnable.evaluation.report.figures import CLEAN, PROTECTED, Cell

HOSTILE = '<script>alert("1")</script>|`*'
VOID = {"meta", "img", "br", "hr", "link", "input", "line", "circle", "polyline"}


def cell(trained_on, counter, peak, *, seed=0, victim="tiny", last=None, epochs=3):
    curve = [0.1] + [peak] * (epochs - 1) if epochs > 1 else [peak]
    end = peak if last is None else last
    return Cell(trained_on, counter, victim, seed, end, peak, 0.99, curve, 60.0)


def entry(name, needs_clean=False):
    found = countermeasure(name)
    return {
        "name": name, "description": found.description, "parameters": found.parameters,
        "needs_clean": needs_clean,
    }  # fmt: skip


def report(cells, counters=("none", "jpeg-10"), *, planned=None, needs=(), **changes):
    png = "iVBORw0KGgo="
    change = {
        "images": 4, "linf": 8, "l2": 1.0, "l0": 9.0, "psnr": 33.3, "ssim": 0.9, "mean": 4.0,
        "share": 0.5,
    }  # fmt: skip
    example = {"clean": png, "change": png, "protected": png}
    made = ue.AuditReport(
        perturbation={
            "method": "SEM", "granularity": "sample-wise", "epsilon": "8/255", "norm": "Linf",
            "digest": "d1", "parameters": {"steps": 5},
        },
        dataset={
            "name": "Shapes", "images": 100, "classes": ["a", "b"], "num_classes": 10,
            "digest": "d2", "fraction": 1.0,
        },
        test={
            "name": "Shapes", "images": 50, "digest": "d3", "chance": 0.1, "held_out": None,
            "overlap": 0,
        },
        settings={
            "epochs": 3, "batch_size": 128, "peak_images": None, "image_size": None,
            "precision": "float32",
        },
        countermeasures=[entry(name, name in needs) for name in counters],
        victims=["tiny"],
        seeds=sorted({cell.seed for cell in cells}),
        cells=list(cells),
        planned=len(cells) if planned is None else planned,
        change=change,
        change_by_class={"a": change, "b": change | {"psnr": None}},
        examples=[{"label": "a"} | change | example, {"label": "b"} | change | example],
        machine={
            "device": "x86_64", "threads": 1, "python": "3", "torch": "2", "torchvision": "0",
            "unlearnable": "0",
        },
        date="2026-01-02T03:04:05+00:00",
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


BROKEN = [
    cell(PROTECTED, "none", 0.2), cell(CLEAN, "none", 0.9),
    cell(PROTECTED, "jpeg-10", 0.8, last=0.7), cell(CLEAN, "jpeg-10", 0.85),
]  # fmt: skip


class Page(html.parser.HTMLParser):
    """Checks that tags are balanced, and keeps what is there."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.resources, self.words = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.resources += [v for n, v in attrs if n in ("src", "href", "srcset", "action", "data")]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_the_worst_case_comes_first_in_plain_words():
    made = report(BROKEN)
    worst = made.worst()
    assert (worst.countermeasure, worst.protected.peak, worst.protected.last) == (
        "jpeg-10",
        0.8,
        0.7,
    )
    assert made.recovered(worst) == pytest.approx(0.7 / 0.8)
    assert made.outcome() == "broken" and made.headline() == "The protection did not hold"
    said = made.verdict()
    assert said.startswith("A victim that saves its training images as JPEG at quality 10 reaches")
    assert "80.0 %" in said and "85.0 %" in said and "88 %" in said and "20.0 %" in said
    assert str(made).splitlines()[-1].split() == [
        "jpeg-10",
        "tiny",
        *["80.0", "%", "70.0", "%", "85.0", "%"],
    ]


@pytest.mark.parametrize(
    ("peak", "clean", "outcome"),
    [(0.15, 0.9, "holds"), (0.5, 0.9, "weakened"), (0.7, 0.9, "broken"), (0.2, 0.2, "unknown")],
)
def test_the_outcome_follows_from_what_is_recovered(peak, clean, outcome):
    cells = [
        cell(PROTECTED, "none", 0.12), cell(CLEAN, "none", clean),
        cell(PROTECTED, "jpeg-10", peak), cell(CLEAN, "jpeg-10", clean),
    ]  # fmt: skip
    made = report(cells)
    assert made.outcome() == outcome
    assert ("too little" in made.verdict()) == (outcome == "unknown")
    assert made.headline() in made.to_html() and made.headline() in made.to_markdown()


def test_a_countermeasure_that_spoils_clean_images_too_says_little():
    cells = [
        cell(PROTECTED, "none", 0.12), cell(CLEAN, "none", 0.9),
        cell(PROTECTED, "jpeg-10", 0.2), cell(CLEAN, "jpeg-10", 0.8),
    ]  # fmt: skip
    spoilt = [cell(PROTECTED, "grayscale", 0.3), cell(CLEAN, "grayscale", 0.33)]
    names = ("none", "jpeg-10", "grayscale")
    made = report([*cells, *spoilt], names)
    assert [made.says_little(row) for row in made.rows()] == [False, False, True]
    assert (
        made.headline()
        == "The protection held against everything that was tried, but some tests are inconclusive"
    )
    said = "With grayscale, victims learn next to nothing from clean images either."
    assert made.verdict().endswith(said)
    assert "grayscale (worst case) (inconclusive)" in made.to_markdown()
    assert made.to_html().count('<span class="mark">inconclusive</span>') == 1
    learnt = report([*cells, spoilt[0], cell(CLEAN, "grayscale", 0.35)], names)
    assert not any(map(learnt.says_little, learnt.rows()))
    assert learnt.headline() == "The protection held against everything that was tried"
    # Where it is broken all the same, that is what counts.
    broken = report([*cells[:2], cell(PROTECTED, "jpeg-10", 0.8), cells[3], *spoilt], names)
    assert broken.outcome() == "broken" and "next to nothing" not in broken.verdict()


def test_the_worst_case_is_the_largest_share_of_what_a_victim_learns_from_clean_images():
    cells = [
        cell(PROTECTED, "none", 0.3), cell(CLEAN, "none", 0.9),
        cell(PROTECTED, "none", 0.28, victim="tiny-resnet"),
        cell(CLEAN, "none", 0.4, victim="tiny-resnet"),
    ]  # fmt: skip
    made = report(cells, ("none",), victims=["tiny", "tiny-resnet"])
    assert made.worst().victim == "tiny-resnet" and made.outcome() == "weakened"
    assert made.recovered(made.worst()) == pytest.approx(0.18 / 0.3)
    assert "60 % of what clean images give without a countermeasure" in made.verdict()


def test_a_victim_that_learns_nothing_is_no_worst_case():
    cells = [
        cell(PROTECTED, "none", 0.2), cell(CLEAN, "none", 0.9),
        cell(PROTECTED, "none", 0.13, victim="vit-small"),
        cell(CLEAN, "none", 0.12, victim="vit-small"),
    ]  # fmt: skip
    made = report(cells, ("none",), victims=["tiny", "vit-small"])
    assert made.worst().victim == "tiny"
    assert [made.says_little(row) for row in made.rows()] == [False, True]


def test_what_a_weaker_victim_learns_is_compared_with_what_it_can_learn():
    cells = [
        cell(PROTECTED, "none", 0.1), cell(CLEAN, "none", 1.0),
        cell(PROTECTED, "jpeg-10", 0.1), cell(CLEAN, "jpeg-10", 0.95),
        cell(PROTECTED, "none", 0.1, victim="mlp"), cell(CLEAN, "none", 0.6, victim="mlp"),
        cell(PROTECTED, "jpeg-10", 0.36, victim="mlp"), cell(CLEAN, "jpeg-10", 0.36, victim="mlp"),
    ]  # fmt: skip
    made = report(cells, victims=["tiny", "mlp"])
    assert made.worst().victim == "mlp" and made.recovered(made.worst()) == pytest.approx(0.52)
    assert not any(map(made.says_little, made.rows()))


@pytest.mark.parametrize(
    ("peak", "shown", "outcome"),
    [(0.373, "30 %", "holds"), (0.378, "31 %", "weakened"), (0.728, "70 %", "broken")],
)
def test_a_share_at_a_limit_is_judged_as_it_is_shown(peak, shown, outcome):
    made = report([cell(PROTECTED, "none", peak), cell(CLEAN, "none", 1.0)], ("none",))
    assert made.outcome() == outcome and f"that is {shown} of" in made.verdict()


def test_guessing_is_naming_the_most_frequent_class():
    made = report(BROKEN[:2], ("none",))
    often = dataclasses.replace(made, test=made.test | {"chance": 0.19})
    assert often.recovered(often.worst()) == pytest.approx(0.01 / 0.71)
    assert "19.0 %" in often.to_markdown()


def test_clean_images_in_the_trainers_hands_are_no_worst_case():
    cells = [*BROKEN, cell(PROTECTED, "unprotected-20", 0.88)]
    made = report(cells, ("none", "jpeg-10", "unprotected-20"), needs=("unprotected-20",))
    assert made.worst().countermeasure == "jpeg-10"
    assert made.rows()[-1].protected.peak == 0.88 and made.rows()[-1].clean is None


def test_no_countermeasure_is_said_to_be_none():
    made = report(BROKEN[:2], ("none",))
    assert made.headline() == "No countermeasure was tried" and "simply trains" in made.verdict()
    learnt = report([cell(PROTECTED, "none", 0.88), BROKEN[1]], ("none",))
    assert learnt.headline() == "The protection did not hold"


def test_less_than_guessing_recovers_nothing():
    made = report([cell(PROTECTED, "none", 0.097), BROKEN[1]], ("none",))
    for text in (made.verdict(), made.to_html(), made.to_markdown()):
        assert not re.search(r"[ >]-0\s%", text) and re.search(r"[ >]0\s%", text)


def test_unfinished_audits_say_so():
    made = report(BROKEN[:3], planned=8)
    assert not made.complete and "Only 3 of 8 cells" in made.verdict()
    Page(made.to_html())
    first = report(BROKEN[:1], planned=8)
    assert first.outcome() == "unknown" and "too little" not in first.verdict()
    assert "the clean baseline has not been measured yet" in first.verdict()
    two = report(BROKEN[:2], planned=8)
    assert two.headline() == "No countermeasure was tried"
    nothing = report([], planned=8)
    assert nothing.worst() is None and "Nothing has been measured" in nothing.verdict()
    Page(nothing.to_html())
    assert "–" in nothing.to_markdown() and str(nothing)


def test_what_holds_but_for_a_victim_that_diverged_is_inconclusive():
    lost = {"protected, jpeg-10, tiny, seed 0": "expected a finite loss, got nan"}
    held = [cell(PROTECTED, "none", 0.2), cell(PROTECTED, "grayscale", 0.2), BROKEN[1], BROKEN[3]]
    made = report(held, ("none", "jpeg-10", "grayscale"), planned=5, diverged=lost)
    assert made.headline().endswith("but some tests are inconclusive")
    assert "Left out, because the training diverged: protected, jpeg-10" in made.verdict()
    assert "so far" not in made.verdict() and "next to nothing" not in made.verdict()
    nothing = report([], planned=1, diverged=lost)
    assert nothing.verdict().startswith("Nothing has been measured yet. Left out")
    old = made.to_dict()
    del old["diverged"]
    assert ue.AuditReport.from_dict(old) == dataclasses.replace(made, diverged={})


def test_seeds_are_averaged_with_their_spread():
    cells = [
        cell(PROTECTED, "none", 0.2), cell(PROTECTED, "none", 0.4, seed=1), cell(CLEAN, "none", 0.9)
    ]  # fmt: skip
    made = report(cells, ("none",))
    reached = made.reached(PROTECTED, "none", "tiny")
    assert reached.seeds == 2 and reached.peak == pytest.approx(0.3)
    assert reached.peak_std == pytest.approx(0.1 * 2**0.5)
    assert "30.0 ± 14.1 %" in made.to_markdown()


def test_the_page_stands_alone_and_is_well_formed():
    text = report(BROKEN).to_html()
    page = Page(text)
    assert {"script", "link", "iframe"}.isdisjoint(page.tags)
    assert page.resources and all(r.startswith("data:image/png;base64,") for r in page.resources)
    assert "url(" not in text and "@import" not in text and "http" not in text
    assert page.tags.count("svg") == 2 and page.tags.count("img") == 6
    words = " ".join(page.words)
    for shown in (
        "80.0",
        "JPEG at quality 10",
        "33.3",
        "∞ dB",
        "d1",
        "steps=5",
        "torch 2",
        "2026-01-02",
    ):
        assert shown in words.replace("\N{NO-BREAK SPACE}", " ")
    for feature in ("prefers-color-scheme: dark", "@media print", "max-width: 36rem", "overflow-x"):
        assert feature in text
    assert text.count("worst case") == 1


def test_names_from_the_users_data_are_escaped():
    hostile = report(BROKEN)
    hostile = dataclasses.replace(
        hostile,
        dataset=hostile.dataset | {"name": HOSTILE},
        perturbation=hostile.perturbation | {"method": HOSTILE, "parameters": {"x": HOSTILE}},
        test=hostile.test | {"name": HOSTILE},
        change_by_class={HOSTILE: hostile.change},
        examples=[hostile.examples[0] | {"label": HOSTILE}],
        change=hostile.change | {"linf": HOSTILE, "images": HOSTILE},
        planned=HOSTILE,
    )
    text = hostile.to_html()
    page = Page(text)
    assert "script" not in page.tags and "<script" not in text
    assert text.count("&lt;script&gt;") >= 6
    markdown = hostile.to_markdown()
    assert not re.search(r"(?<!\\)<script", markdown) and r"\|\`\*" in markdown
    columns = {
        line.count("|") - line.count(r"\|") for line in markdown.splitlines() if line[:1] == "|"
    }
    assert columns == {7, 8, 3}
    linked = dataclasses.replace(hostile, test=hostile.test | {"name": "&lt; $x$ http://a.b"})
    assert r"\&lt; \$x\$ http\://a.b" in linked.to_markdown()


def test_hostile_class_names_reach_the_page_escaped_from_a_real_dataset(monkeypatch):
    from unlearnable.evaluation.audit.data import read_audit_data

    base = Shapes(size=40)
    base.classes = [HOSTILE, *Shapes.classes[1:]]
    perturbation = ue.OPS().fit(base, device="cpu", progress=False).perturbation_
    data = read_audit_data(base, perturbation, base, held_out=0.2, image_size=None, progress=False)
    assert HOSTILE in data.change_by_class()
    made = report(BROKEN, examples=data.examples())
    assert len(made.examples) == 8 and HOSTILE not in made.to_html()
    Page(made.to_html())


def test_reports_are_written_and_read_again(tmp_path):
    made = report(BROKEN)
    page = made.save(tmp_path / "out")
    assert page.read_text(encoding="utf-8") == made.to_html()
    assert ue.AuditReport.load(tmp_path / "out") == made
    made.save(tmp_path / "out")  # ours: replaced
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("keep")
    with pytest.raises(FileExistsError):
        made.save(tmp_path / "mine")
    with pytest.raises(FileNotFoundError):
        ue.AuditReport.load(tmp_path / "mine")


def test_names_that_are_no_unicode_are_written(tmp_path):
    odd = "caf\udce9 \x00 \u202e <b>"
    made = report(BROKEN, change_by_class={odd: report(BROKEN).change})
    made = dataclasses.replace(
        made,
        dataset=made.dataset | {"name": odd, "classes": [odd, "b"]},
        perturbation=made.perturbation | {"method": odd},
        examples=[made.examples[0] | {"label": odd}],
    )
    page = made.save(tmp_path / "out").read_text(encoding="utf-8")
    assert r"caf\udce9" in page and "<b>" not in page
    assert r"caf\udce9" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert ue.AuditReport.load(tmp_path / "out") == made


def test_charts_have_a_point_per_epoch():
    cells = [cell(PROTECTED, "none", 0.5), cell(CLEAN, "none", 0.9, epochs=1)]
    cells[0] = dataclasses.replace(cells[0], curve=[0.0, 1.0, 0.5])
    page = report(cells, ("none",)).to_html()
    points = re.search(r'protected" points="([^"]*)"', page).group(1).split()
    heights = [float(point.split(",")[1]) for point in points]
    assert len(points) == 3 and heights[1] < heights[2] < heights[0]
    assert page.count("<circle") == 1 and page.count("<polyline") == 1


def test_the_style_is_on_the_page_as_it_is_written():
    style = re.search(r"<style>(.*?)</style>", report(BROKEN).to_html(), re.DOTALL).group(1)
    assert '"Segoe UI"' in style and "&" not in style and style.count("{") == style.count("}")


def test_times_read_well():
    assert [duration(s) for s in (0.2, 60, 600, 7200)] == ["1 s", "60 s", "10 min", "2.0 h"]


# --- knowing the method --------------------------------------------------------------------------


def knowing(standard, adaptive, *, clean=0.9, **changes):
    """A report of one countermeasure that knows nothing and of one that knows the method."""
    cells = [
        cell(PROTECTED, "none", 0.12), cell(CLEAN, "none", clean),
        cell(PROTECTED, "jpeg-10", standard), cell(CLEAN, "jpeg-10", 0.85),
        cell(PROTECTED, "shift-removal", adaptive), cell(CLEAN, "shift-removal", 0.88),
    ]  # fmt: skip
    made = report(cells, ("none", "jpeg-10", "shift-removal"), **changes)
    entries = [e | {"adaptive": e["name"] == "shift-removal"} for e in made.countermeasures]
    about = made.perturbation | {"who_can_undo": ["Whoever has <the> labels can."]}
    return dataclasses.replace(made, countermeasures=entries, perturbation=about)


def test_both_worst_cases_are_said_in_plain_words():
    made = knowing(0.3, 0.8)
    assert made.worst().countermeasure == made.worst_adaptive.countermeasure == "shift-removal"
    assert made.worst_standard.countermeasure == "jpeg-10"
    assert made.verdict() == (
        "A victim that estimates each class's shift of colours and undoes it reaches 80.0 % "
        "accuracy at best; on clean images the same victim reaches 88.0 %. Above chance, "
        "that is 88 % of what clean images give without a countermeasure. This requires knowing "
        "the method; of the victims that do not know it, the one that saves its training images "
        "as JPEG at quality 10 gets furthest and reaches 30.0 %, which is 25 % of what clean "
        "images give. Without a countermeasure, protected images give 12.0 %."
    )
    other = knowing(0.8, 0.3)
    assert other.worst() == other.worst_standard != other.worst_adaptive
    assert (
        "Knowing the method does not help more: of the victims that know it, the one that "
        "estimates each class's shift of colours and undoes it gets furthest and reaches 30.0 %, "
        "which is 25 % of what"
    ) in other.verdict()


@pytest.mark.parametrize(
    ("standard", "adaptive", "headline"),
    [
        (0.2, 0.2, "The protection held against everything that was tried"),
        (
            0.2, 0.5,
            "The protection held against trainers who do not know the method, but only in part "
            "against those who do",
        ),
        (
            0.2, 0.8,
            "The protection held against trainers who do not know the method, but not against "
            "those who do",
        ),
        (
            0.5, 0.8,
            "The protection held in part, but not at all against trainers who know the method",
        ),
        (0.5, 0.5, "The protection held in part"),
        (0.8, 0.2, "The protection did not hold"),
    ],
)  # fmt: skip
def test_the_headline_tells_those_who_know_the_method_from_the_others(standard, adaptive, headline):
    made = knowing(standard, adaptive)
    assert made.headline() == headline
    assert headline in made.to_html() and headline in made.to_markdown()


def test_pages_show_both_worst_cases_and_who_can_undo_it():
    made = knowing(0.3, 0.8)
    page = made.to_html()
    words = " ".join(Page(page).words)
    assert page.count("<dt>Worst case</dt>") == 1 == page.count("<dt>Worst case, method known</dt>")
    assert page.count('<span class="mark">worst case</span>') == 2
    assert page.count('<span class="mark">knows the method</span>') == 1
    assert page.count("<tr class=worst>") == 2
    assert "Who can undo it" in words and "Whoever has <the> labels can." in words
    assert "<the>" not in page
    markdown = made.to_markdown()
    assert "shift-removal (knows the method) (worst case)" in markdown
    assert r"## Who can undo it" in markdown and r"\<the" in markdown
    assert "shift-removal (knows the method)" in str(made)


def test_both_worst_cases_are_in_the_json():
    found = knowing(0.3, 0.8).to_dict()["worst_case"]
    assert found["standard"] == {
        "countermeasure": "jpeg-10", "victim": "tiny", "peak": 0.3, "last": 0.3,
        "clean_peak": 0.85, "recovered": pytest.approx(0.25),
    }  # fmt: skip
    assert found["adaptive"]["countermeasure"] == "shift-removal"
    assert report(BROKEN).to_dict()["worst_case"]["adaptive"] is None
    assert report([], planned=8).to_dict()["worst_case"] == {"standard": None, "adaptive": None}


def test_reports_of_earlier_releases_are_read_and_say_what_they_said(tmp_path):
    made = report(BROKEN)
    content = made.to_dict()
    del content["worst_case"]
    assert "adaptive" not in content["countermeasures"][0]
    assert "who_can_undo" not in content["perturbation"]
    read = ue.AuditReport.from_dict(content)
    assert read == made and read.worst_adaptive is None and read.worst_standard == read.worst()
    page = read.to_html()
    assert "Who can undo it" not in page and "method known" not in page
    assert read.to_markdown().count("worst case") == 1
    assert ue.AuditReport.load(knowing(0.3, 0.8).save(tmp_path / "a").parent) == knowing(0.3, 0.8)


def test_where_victims_learn_too_little_nothing_is_said_about_knowing_the_method():
    made = knowing(0.1, 0.12, clean=0.2)
    assert made.outcome() == "unknown" and "the method" not in made.verdict()


def test_an_audit_whose_adaptive_part_is_unfinished_has_one_worst_case():
    made = knowing(0.3, 0.8)
    early = dataclasses.replace(made, cells=made.cells[:4])
    assert early.worst_adaptive is None and "know the method" not in early.verdict()
    assert early.to_html().count("Worst case") == 1
