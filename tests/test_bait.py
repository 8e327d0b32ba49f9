"""BAIT: rows that bind images of other classes to theirs."""

import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import unlearnable as ue
from unlearnable.engine.checkpoint import Checkpoint
from unlearnable.engine.generator import ImageToImage
from unlearnable.engine.models import build_model
from unlearnable.engine.run import Run
from unlearnable.evaluation.countermeasures.imagenet import fit_linear
from unlearnable.methods import bound_rows
from unlearnable.methods.bound_generator import generator_step, wrong_classes

CLASSES, EPSILON = 3, 8 / 255
TINY = {
    "rounds": 3, "round_steps": 1, "batch_size": 8, "generator_width": 4, "generator_blocks": 1,
}  # fmt: skip


def images_and_labels(count=12):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)
    return images, torch.arange(count) % CLASSES


def test_wrong_classes_are_the_most_and_the_least_likely_of_the_others():
    logits = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(20) % 5
    for largest in (True, False):
        for index, found in enumerate(wrong_classes(logits, labels, largest=largest).tolist()):
            others = [c for c in range(5) if c != labels[index]]
            value = lambda c, row=logits[index]: row[c].item()
            assert found == (max if largest else min)(others, key=value)


@pytest.mark.parametrize("stage", [0, 2])
@pytest.mark.parametrize("absent", [False, True])
def test_a_step_of_the_generator_goes_down_the_loss_as_it_is_defined(stage, absent):
    images, labels = images_and_labels()
    if absent:
        labels = labels % 2  # of class 2 there is no image, and its row is that of the last round
    network, generator = build_model("tiny", CLASSES).eval(), ImageToImage(3, 4, 1)
    with torch.no_grad():
        network[-1].weight *= 30  # or one class is the most likely of all images
    rows = torch.rand(CLASSES, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * EPSILON
    expected = copy.deepcopy(generator)
    pixels = images.float() / 255
    made = expected(pixels)
    with torch.no_grad():
        logits = network(pixels)
    total = 0
    for index, image in enumerate(pixels):
        others = [c for c in range(CLASSES) if c != labels[index]]
        target = (max if stage == 0 else min)(others, key=lambda c: logits[index, c].item())
        members = [made[i] for i in range(len(made)) if labels[i] == target]
        row = EPSILON * sum(members) / len(members) if members else rows[target]
        logit = network((image + row).clamp(0, 1)[None])
        total = total + F.cross_entropy(logit, torch.tensor([target]))
    slopes = torch.autograd.grad(total / len(pixels), list(expected.parameters()))

    run = Run(images, labels, CLASSES)
    before = copy.deepcopy(list(generator.parameters()))
    optimizer = torch.optim.SGD(generator.parameters(), lr=1.0)
    run.track(ahead=network, generator=generator)
    for index in run.batches(1, 12):
        assert len(index) == 8 or len(index) == 12
        generator_step(run, torch.arange(12), stage, network, generator, optimizer, rows, EPSILON)
    run.close()
    for weight, old, slope in zip(generator.parameters(), before, slopes, strict=True):
        torch.testing.assert_close(old - weight, slope, rtol=1e-3, atol=1e-5)


def test_rows_are_the_means_of_what_the_generator_makes_of_their_images(monkeypatch):
    data, seen = images_and_labels(), []
    track = Run.track
    keep = lambda self, **state: seen.append(state) or track(self, **state)
    monkeypatch.setattr(Run, "track", keep)
    fitted = ue.BAIT("tiny", pretrained_surrogate=False, **TINY)
    fitted.fit(data, device="cpu", precision="float32", progress=False)
    generator = seen[0]["generator"].eval()
    with torch.no_grad():
        made = EPSILON * generator(data[0].float() / 255)
    for label, row in enumerate(np.asarray(fitted.perturbation_.rows)):
        mean = 255 * made[data[1] == label].mean(0)
        assert (torch.from_numpy(row).float() - mean).abs().max() <= 0.5 + 1e-3


ROWS = {"search": "rows", "rounds": 5, "round_steps": 2, "steps": 3, "batch_size": 8}


def test_the_slope_of_rows_is_that_of_the_loss_as_it_is_defined(monkeypatch):
    images, labels = images_and_labels()
    network = build_model("tiny", CLASSES).eval()
    rows = torch.rand(CLASSES, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * EPSILON
    monkeypatch.setattr(bound_rows.CropFlip, "draw", lambda *arguments: lambda shown: shown)
    run = Run(images, labels, CLASSES)
    run.track(network=network)
    index = torch.arange(12)
    drawn = torch.randint(1, CLASSES, (12,), generator=torch.Generator().manual_seed(2))
    monkeypatch.setattr(
        run, "rng", lambda purpose: SimpleNamespace(integers=lambda shape, low, high: drawn)
    )
    for _ in run.batches(1, 12):
        found = bound_rows.binding_slope(run, index, network, rows)
    run.close()
    own, total = rows.clone().requires_grad_(), 0
    for position, image in enumerate(images.float() / 255):
        target = int(labels[position] + drawn[position]) % CLASSES
        assert target != labels[position]
        logits = network((image + own[target]).clamp(0, 1)[None])
        total = total + F.cross_entropy(logits, torch.tensor([target]))
    (expected,) = torch.autograd.grad(total, own)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    assert found.abs().amax((1, 2, 3)).min() > 0


def test_a_row_search_stopped_anywhere_continues_to_the_same_bytes(tmp_path, monkeypatch):
    data, save = images_and_labels(21), Checkpoint.save

    def fit(folder):
        method = ue.BAIT("tiny", pretrained_surrogate=False, **ROWS)
        method.fit(
            data, device="cpu", precision="float32", progress=False,
            checkpoint=tmp_path / folder, checkpoint_every=0,
        )  # fmt: skip
        return np.asarray(method.perturbation_.rows).tobytes(), method.history_

    saves = []
    monkeypatch.setattr(Checkpoint, "save", lambda self, state: saves.append(save(self, state)))
    undisturbed = fit("undisturbed")
    assert len(saves) > 5 * (1 + 3)
    for last in range(1, len(saves), 3):
        left = [last]

        def stop_after(self, state, left=left):
            save(self, state)
            left[0] -= 1
            if not left[0]:
                raise MemoryError("stopped")

        monkeypatch.setattr(Checkpoint, "save", stop_after)
        with pytest.raises(MemoryError, match="stopped"):
            fit(f"stopped-{last}")
        monkeypatch.setattr(Checkpoint, "save", save)
        assert fit(f"stopped-{last}") == undisturbed


def test_what_the_generator_made_before_there_was_a_choice_keeps_its_digest():
    recorded = ue.BAIT()._identity["parameters"]
    assert not {"search", "steps", "step_size"} & set(recorded)
    changed = ue.BAIT(search="rows", steps=9)._identity["parameters"]
    assert changed.keys() - recorded.keys() == {"search", "steps"}


@pytest.mark.parametrize(
    "search",
    [
        {"round_steps": 1, "generator_rate": 0.01, "generator_width": 4, "generator_blocks": 1},
        {"search": "rows", "round_steps": 2, "steps": 20, "step_size": 4 / 255},
    ],
    ids=["generator", "rows"],
)
def test_rows_bind_other_images_to_their_class(search, monkeypatch):
    """A linear classifier with learned weights stands for a pretrained network.

    It knows every pixel by its place, so that images keep theirs.
    """
    monkeypatch.setattr(bound_rows.CropFlip, "draw", lambda *arguments: lambda shown: shown)
    images, labels = images_and_labels(48)
    middles = torch.rand(CLASSES, 3, 8, 8, generator=torch.Generator().manual_seed(3)) * 30
    images = (images.float() / 2 + middles[labels]).byte()
    pixels = images.float() / 255
    known = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, CLASSES))
    weight, bias = fit_linear(pixels.flatten(1), labels, CLASSES, 0.1)
    known[1].weight.data.copy_(weight)
    known[1].bias.data.copy_(bias)
    method = ue.BAIT(
        known, rounds=12, learning_rate=0.001, epsilon=32 / 255, batch_size=8, **search
    )
    fitted = method.fit((images, labels), device="cpu", precision="float32", progress=False)
    rows = torch.from_numpy(np.asarray(fitted.perturbation_.rows)).float() / 255
    targets = (labels + 1) % CLASSES
    with torch.no_grad():
        clean = (known(pixels).argmax(1) == targets).float().mean()
        bound = (known((pixels + rows[targets]).clamp(0, 1)).argmax(1) == targets).float().mean()
    assert clean < 0.1 and bound > 0.6


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="multiple of 4"):
        ue.BAIT(generator_width=6)._validate()
    with pytest.raises(ValueError, match="class-wise"):
        ue.BAIT(granularity="sample-wise")._validate()


@pytest.mark.parametrize("size", [(8, 8), (5, 11), (1, 2)])
def test_the_generator_keeps_the_size_of_images(size):
    images = torch.rand(2, 1, *size, generator=torch.Generator().manual_seed(0))
    made = ImageToImage(1, 4, 1)(images)
    assert made.shape == images.shape and made.abs().max() <= 1


@pytest.mark.parametrize("sizes", [TINY, ROWS], ids=["generator", "rows"])
def test_passes_are_counted_as_they_are_made(sizes):
    method = ue.BAIT("tiny", pretrained_surrogate=False, **sizes)
    method.fit(images_and_labels(21), device="cpu", progress=False)
    assert method.perturbation_.config["history"]["passes"] == method.passes(21)
    assert math.isfinite(method.history_[-1]["loss"])
    assert len(method.history_) == sizes["rounds"]
