"""Countermeasures joined by "+": names, places, and what cannot be composed."""

import json

import pytest
import torch
from torch import nn

import unlearnable as ue
from unlearnable.cli import choices
from unlearnable.engine.run import Run
from unlearnable.engine.train import Batch, to_float
from unlearnable.evaluation import Countermeasure, countermeasure
from unlearnable.evaluation.countermeasures.base import NoCountermeasure
from unlearnable.evaluation.countermeasures.composition import Composition
from unlearnable.evaluation.countermeasures.images import JPEG, Grayscale
from unlearnable.evaluation.countermeasures.pretrained import FineTuning


@pytest.fixture(scope="module")
def pixels():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (16, 3, 16, 12), dtype=torch.uint8, generator=generator)
    return images, torch.arange(16) % 3


class Noted(Countermeasure):
    """Adds its name to a list at each of its hooks."""

    description = "a victim that is watched"

    def __init__(self, name, calls, test_images=False):
        self.calls, self.test_images, self._name = calls, test_images, name

    name = property(lambda self: self._name)

    def _note(self, hook):
        self.calls.append(f"{self._name} {hook}")

    def on_images(self, images, labels):
        self._note(f"images {len(images)}")
        return images

    def on_batch(self, batch, run, done):
        self._note("batch")
        return batch


@pytest.mark.parametrize(
    "name",
    ["jpeg-10+grayscale", "channel-normalization+jpeg-10", "cutmix+adversarial-training-4-steps-3",
     "unprotected-20+jpeg-10+bit-depth-2", "adversarial-training-l2-0.5+fine-tuning"],
)  # fmt: skip
def test_compositions_have_the_names_that_lead_to_them(name):
    found = countermeasure(name)
    assert found.name == name and countermeasure(found) is found == countermeasure(name)
    parts = [countermeasure(part) for part in name.split("+")]
    assert found.parameters == {part.name: part.parameters for part in parts}
    assert json.loads(json.dumps(found.parameters)) == found.parameters
    assert found.description.startswith("a victim that first ")
    for part in parts:
        assert part.description.removeprefix("a victim that ") in found.description


def test_images_are_changed_by_one_part_after_the_other(pixels):
    images, labels = pixels
    grey = Grayscale().on_images(images.clone(), labels)
    found = countermeasure("grayscale+jpeg-10").on_images(images.clone(), labels)
    assert torch.equal(found, JPEG(10).on_images(grey, labels))
    other = countermeasure("jpeg-10+grayscale").on_images(images.clone(), labels)
    assert not torch.equal(found, other)
    assert torch.equal(other[:, 0], other[:, 1])


def test_test_images_are_treated_by_those_parts_alone_that_treat_them(pixels):
    images, labels = pixels
    both = countermeasure("jpeg-10+channel-normalization")
    assert both.test_images and not countermeasure("jpeg-10+grayscale").test_images
    alone = countermeasure("channel-normalization").on_images(images.clone(), labels)
    assert torch.equal(both.on_test_images(images.clone(), labels), alone)


def test_parts_act_in_their_order_at_each_place(pixels):
    calls = []
    a, b, c = (Noted(name, calls, test_images=name == "b") for name in "abc")
    found = Composition((a, Composition((b, c))))
    assert found.parts == (a, b, c) and found.name == "a+b+c"
    victim = nn.Sequential(nn.Flatten(), nn.Linear(576, 3))
    test = (pixels[0][:6], pixels[1][:6])
    ue.evaluate(
        pixels, test, victim, countermeasure=found, epochs=1, seeds=1, device="cpu", progress=False
    )
    assert calls == [
        "a images 16", "b images 16", "c images 16", "b images 6", "a batch", "b batch", "c batch",
    ]  # fmt: skip


def test_batches_go_through_all_parts(pixels):
    images, labels = pixels
    run = Run(images, labels, 3, seed=0)
    for index in run.batches(1, 16):
        batch = countermeasure("cutmix+cutout").on_batch(
            Batch(to_float(images[index]), labels[index]), run, 0.0
        )
    assert batch.targets.shape == (16, 3)  # mixed
    assert (batch.images == 0).flatten(1).float().mean(1).min() > 0  # and cut out


def test_what_it_takes_is_that_of_the_parts():
    assert countermeasure("cutmix+adversarial-training-4-steps-3").passes == 4
    assert countermeasure("jpeg-10+grayscale").passes == 1
    assert countermeasure("fine-tuning+jpeg-10").learning_rate == FineTuning().learning_rate
    assert countermeasure("jpeg-10+grayscale").learning_rate == Countermeasure.learning_rate
    assert countermeasure("jpeg-10+unprotected-20").needs_clean_images
    assert not countermeasure("jpeg-10+grayscale").needs_clean_images
    assert countermeasure("class-mean-subtraction+jpeg-10").knows_method


def test_what_is_timed_are_the_timed_parts():
    timed = countermeasure("orthogonal-projection+jpeg-10").for_timing(256, 50_000)
    assert [part.name for part in timed.parts] == ["orthogonal-projection", "jpeg-10"]
    assert timed.parts[0].epochs == 20 and timed.parts[0].min_updates == 0
    assert countermeasure("fine-tuning+jpeg-10").for_timing(1, 2) == JPEG(10)
    nothing = countermeasure("fine-tuning+unprotected-20").for_timing(1, 2)
    assert nothing == NoCountermeasure()


def test_a_victim_that_one_part_cannot_have_is_refused():
    with pytest.raises(ValueError, match="Linear layer"):
        countermeasure("jpeg-10+fine-tuning").check_victim("torchvision:squeezenet1_1")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("jpeg-10+jpeg-10", "jpeg-10 appears twice"),
        ("none+jpeg-10", "omit it"),
        ("unprotected-20+clean-part-only-10", "each decide which clean images there are"),
        ("adversarial-training-4+adversarial-training-8", "each choose the images of a step"),
        ("ueraser+adversarial-training-4", "several draws.* accepts only one"),
        ("adversarial-training-4+ueraser-max", "several draws.* accepts only one"),
        ("ueraser+cutmix", "name cutmix first"),
        ("ueraser-max+jpeg-10+orthogonal-projection", "name orthogonal-projection first"),
    ],
)
def test_what_cannot_be_composed_is_refused_with_a_reason(name, reason):
    with pytest.raises(
        ValueError, match=f"can be combined, got '{name}'.*{reason}".replace("+", r"\+")
    ):
        countermeasure(name)


def test_two_starts_are_refused():
    other = FineTuning((torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.arange(2)))
    with pytest.raises(ValueError, match="each decide how training starts"):
        Composition((FineTuning(), other))


def test_mixes_before_several_draws_are_fine(pixels):
    images, labels = pixels
    run = Run(images, labels, 3, seed=0)
    for index in run.batches(1, 16):
        batch = countermeasure("cutmix+ueraser-max").on_batch(
            Batch(to_float(images[index]), labels[index]), run, 0.0
        )
    assert batch.images.shape == (80, 3, 16, 12) and batch.targets.shape == (16, 3)


@pytest.mark.parametrize("name", ["jpg-10+grayscale", "jpeg-10+", "+", "jpeg-10 + grayscale"])
def test_unknown_parts_raise_with_the_list(name):
    with pytest.raises(ValueError, match=r"jpeg-QUALITY.*fine-tuning"):
        countermeasure(name)


@pytest.mark.parametrize(
    ("typed", "name"),
    [("Standard", "standard"), ("ADAPTIVE", "adaptive"), ("JPEG10+GrayScale", "jpeg-10+grayscale"),
     ("channel_normalization+JPEG_77", "channel-normalization+jpeg-77"),
     ("Adversarial_Training_8_Steps_7", "adversarial-training-8-steps-7")],
)  # fmt: skip
def test_the_command_line_reads_compositions_and_sets_without_regard_to_case(typed, name):
    assert choices.countermeasure_name(typed) == name


def test_a_description_is_in_the_order_of_what_happens():
    for name in ("colour-jitter+jpeg-10", "jpeg-10+colour-jitter"):
        assert countermeasure(name).description.startswith("a victim that first saves its training")
    together = countermeasure("jpeg-10+adversarial-training-4")
    assert together.needs_one_draw and not countermeasure("jpeg-10+cutout").needs_one_draw


def test_names_are_no_parts():
    with pytest.raises(TypeError, match="expected countermeasures to compose, got 'grayscale'"):
        Composition((JPEG(10), "grayscale"))


class Own(Countermeasure):
    """Two draws of each image at a hook, as whatever ``form`` makes of them."""

    name = "own"
    description = "a victim that mirrors"
    several_draws = True

    def __init__(self, hook, form):
        def act(batch, *_):
            images, targets = batch
            return form(torch.stack([images, images.flip(3)], 1).flatten(0, 1), targets)

        setattr(self, hook, act)


@pytest.mark.parametrize("hook", ["on_batch", "on_step"])
@pytest.mark.parametrize("among_others", [False, True])
def test_a_plain_pair_from_a_hook_is_a_batch_and_anything_else_is_refused(
    pixels, hook, among_others
):
    def losses(form):
        counter = Own(hook, form)
        parts = (Grayscale(), counter, Noted("watch", []))
        return ue.evaluate(
            pixels, pixels, nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 12, 3)), epochs=1,
            seeds=1, batch_size=8, progress=False, device="cpu",
            countermeasure=Composition(parts) if among_others else counter,
        ).losses  # fmt: skip

    expected = losses(Batch)
    assert losses(lambda *pair: pair) == losses(lambda *pair: list(pair)) == expected
    for form in (
        lambda *_: None, lambda images, _: images, lambda images, targets: (images, targets, 1),
        lambda images, targets: (images[:-1], targets), lambda images, _: (images, 5),
        lambda images, targets: (images[:0], targets[:0]),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="expected own to give a batch"):
            losses(form)
