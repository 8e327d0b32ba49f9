"""Exactness of what methods are built from."""

import contextlib

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unlearnable.engine.augment import CropFlip
from unlearnable.engine.distributed import Group
from unlearnable.engine.kernels import fastest_convolutions
from unlearnable.engine.models import build_model, reset_weights
from unlearnable.engine.networks import Networks
from unlearnable.engine.pgd import pgd, project, random_start
from unlearnable.engine.precision import full_float32
from unlearnable.engine.random import Draws
from unlearnable.engine.run import Run
from unlearnable.engine.train import sgd


def make_run(count=40, **options):
    images = torch.arange(count * 3 * 8 * 8).reshape(count, 3, 8, 8).remainder(256).to(torch.uint8)
    return Run(images, torch.arange(count) % 5, 5, **options)


def in_batch(run, size=16):
    return next(iter(run.batches(1, size)))


@pytest.mark.parametrize("maximize", [False, True])
def test_pgd_reaches_the_closed_form_optimum_of_a_linear_model(maximize):
    weight = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0))
    images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    found = pgd(
        lambda x: (x * weight).sum(),
        images,
        torch.zeros_like(images),
        epsilon=8 / 255,
        step_size=3 / 255,
        steps=4,
        maximize=maximize,
    )
    sign = weight.sign() if maximize else -weight.sign()
    best = (images + 8 / 255 * sign).clamp(0, 1) - images
    assert torch.allclose(found, best, atol=1e-6)


def test_l2_pgd_reaches_the_closed_form_optimum_of_a_linear_model():
    weight = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0))
    images = torch.full((2, 3, 8, 8), 0.5)
    options = {"epsilon": 0.5, "step_size": 0.2, "steps": 5, "norm": "L2"}
    found = pgd(lambda x: (x * weight).sum(), images, torch.zeros_like(images), **options)
    assert torch.allclose(found, (-0.5 * weight / weight.norm()).expand_as(found), atol=1e-5)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_a_shared_perturbation_keeps_what_one_of_its_images_has_no_room_for(norm):
    images = torch.stack([torch.ones(3, 2, 2), torch.full((3, 2, 2), 0.5)])
    start = torch.full((2, 3, 2, 2), 0.03)
    seen = []

    def loss(perturbed):
        seen.append(perturbed.detach())
        return -perturbed.sum()

    options = {"epsilon": 0.2, "step_size": 0.01, "steps": 2, "norm": norm}
    alone = pgd(loss, images, start, **options)
    seen.clear()
    shared = pgd(loss, images, start, **options, shared=True)
    assert alone[0].abs().max() == 0
    assert torch.equal(shared[0], shared[1]) and torch.allclose(shared[1], alone[1])
    assert (shared > start).all()
    assert all(x.min() >= 0 and x.max() <= 1 for x in seen)  # the loss is that of real pixels
    far = pgd(loss, images, 9 * start, **options, shared=True)
    largest = far.abs().max() if norm == "Linf" else far.flatten(1).norm(dim=1).max()
    assert largest == pytest.approx(0.2)


def test_no_steps_give_the_projected_start():
    images = torch.tensor([0.0, 0.5, 1.0]).view(1, 1, 1, 3)
    start = torch.tensor([-1.0, 1.0, 1.0]).view(1, 1, 1, 3)
    found = pgd(lambda x: x.sum(), images, start, epsilon=0.1, step_size=0.1, steps=0)
    assert torch.allclose(found.flatten(), torch.tensor([0.0, 0.1, 0.0]))


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_random_starts_fill_the_budget_and_differ_per_image(norm):
    run = make_run()
    in_batch(run)
    images = torch.full((16, 3, 8, 8), 0.5)
    starts = random_start(images, 0.1, run.rng("x"), norm)
    sizes = starts.abs().amax((1, 2, 3)) if norm == "Linf" else starts.flatten(1).norm(dim=1)
    assert sizes.max() <= 0.1 + 1e-6 and sizes.min() > 0.08
    assert len({tuple(start.flatten().tolist()) for start in starts}) == 16
    assert torch.allclose(project(starts, images, 0.1, norm), starts, atol=1e-6)


def reference_crop_flip(image, down, right, flip):
    padded = F.pad(image, (4, 4, 4, 4))
    if flip:
        padded = padded.flip(-1)
        right = -right
    height, width = image.shape[1:]
    return padded[:, 4 + down : 4 + down + height, 4 + right : 4 + right + width]


def test_crops_and_flips_are_whole_pixel_copies_drawn_per_image():
    run = make_run(64)
    in_batch(run, 64)
    images = torch.rand(64, 3, 9, 13)
    draw = CropFlip.draw(64, run.rng("crop"))
    seen = draw(images)
    for image, shown, (down, right), flip in zip(
        images, seen, draw.shifts.tolist(), draw.flips.tolist(), strict=True
    ):
        assert torch.equal(shown, reference_crop_flip(image, down, right, flip))
    assert len({tuple(shift) for shift in draw.shifts.tolist()}) > 20
    assert set(draw.flips.tolist()) == {True, False}
    assert draw.shifts.min() == -4 and draw.shifts.max() == 4


def test_crops_are_differentiable():
    run = make_run()
    in_batch(run)
    images = torch.rand(16, 1, 5, 6, dtype=torch.float64, requires_grad=True)
    draw = CropFlip.draw(16, run.rng("crop"))
    (gradient,) = torch.autograd.grad(draw(images).sum(), images)
    shown = draw(torch.ones_like(images)).flatten(1).sum(1)
    assert torch.allclose(gradient.flatten(1).sum(1), shown)


def test_resnet18_has_the_published_number_of_weights():
    model = build_model("resnet18", 10)
    assert sum(weight.numel() for weight in model.parameters()) == 11_173_962
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 10)


def test_tiny_has_the_documented_number_of_weights():
    model = build_model("tiny", 10)
    assert sum(weight.numel() for weight in model.parameters()) == 139_810
    assert build_model("tiny", 3, channels=1)(torch.rand(2, 1, 28, 28)).shape == (2, 3)


def test_weights_follow_from_the_seed_alone():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first, again, other = (build_model("tiny", 10, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first[1].weight, again[1].weight)
    assert not torch.equal(first[1].weight, other[1].weight)
    reset_weights(first, seed=5)
    reset_weights(again, seed=5)
    assert torch.equal(first[1].weight, again[1].weight)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_layer_that_cannot_be_reset_is_named():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

    with pytest.raises(ValueError, match=r"1 \(Odd\)"):
        reset_weights(nn.Sequential(nn.Linear(2, 2), Odd()))


@pytest.mark.parametrize("count", [1, 5, 8, 41, 100])
def test_a_sweep_covers_every_image_exactly_once(count):
    seen = torch.cat(list(make_run(count).sweep(16)))
    assert sorted(seen.tolist()) == list(range(count))


def test_an_epoch_of_batches_repeats_nothing_and_goes_on_over_calls():
    run = make_run(64)
    first = torch.cat([*run.batches(2, 16), *run.batches(2, 16)])
    assert sorted(first.tolist()) == list(range(64))
    second = torch.cat(list(run.batches(4, 16)))
    assert sorted(second.tolist()) == list(range(64)) and second.tolist() != first.tolist()


def test_each_batch_takes_as_many_images_from_every_shard():
    for index in make_run(85).batches(10, 24):
        assert torch.bincount(index % 8, minlength=8).tolist() == [3] * 8


def test_batches_of_a_small_set_shrink():
    run = make_run(10)
    assert len(in_batch(run, 128)) == 8 and run.batches_per_epoch(128) == 1


def test_draws_depend_on_purpose_and_position_and_seed():
    def draw(seed, purpose, skip=0):
        run = make_run(seed=seed)
        in_batch(run)
        for _ in range(skip):
            run.rng(purpose)
        return run.rng(purpose).uniform((16, 2), 0, 1)

    assert torch.equal(draw(0, "a"), draw(0, "a"))
    for other in (draw(1, "a"), draw(0, "b"), draw(0, "a", skip=1)):
        assert not torch.equal(draw(0, "a"), other)
    run = make_run()
    in_batch(run)
    with pytest.raises(ValueError, match="multiple"):
        run.rng("a").uniform((17, 2), 0, 1)


def test_stop_ends_the_loop_after_its_step():
    run, seen = make_run(), []
    for step in run.steps(10):
        seen.append(step)
        run.stop(step == 3)
    assert seen == [0, 1, 2, 3]
    assert list(run.steps(2)) == [0, 1]


def test_frozen_restores_modes_and_gradients_even_after_an_error():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    model[1].eval()
    model[2].weight.requires_grad_(False)
    modes = [module.training for module in model.modules()]
    with pytest.raises(RuntimeError, match="inside"), make_run().frozen(model):
        assert not any(module.training for module in model.modules())
        assert not any(weight.requires_grad for weight in model.parameters())
        raise RuntimeError("inside")
    assert [module.training for module in model.modules()] == modes
    assert [weight.requires_grad for weight in model.parameters()] == [True] * 4 + [False, True]


def test_train_step_lowers_the_loss_and_clips_the_gradient():
    run = make_run()
    model = build_model("tiny", 5)
    optimizer = sgd(model, lr=0.05)
    run.track(model=model, optimizer=optimizer)
    index = in_batch(run, 32)
    images, labels = run.images[index].float() / 255, run.labels[index]

    def step():
        return run.train_step(
            model, optimizer, lambda net: F.cross_entropy(net(images), labels), clip_norm=0.5
        )

    first = step()
    norms = [weight.grad.norm() for weight in model.parameters()]
    assert torch.stack(norms).norm() <= 0.5 + 1e-4
    for _ in range(20):
        last = step()
    assert last < first
    assert run.passes == 21 * 32
    with pytest.raises(ValueError, match="again"):
        run.track(model=model)


# --- devices and precision ------------------------------------------------------------------------

GPU = torch.device("cuda")  # its name alone: these tests run without one


def tf32_settings():
    older = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    return older, newer_settings()


def newer_settings():
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    if not hasattr(cudnn, "conv"):
        return None  # an older torch
    return [product.fp32_precision for product in (cudnn.conv, cudnn.rnn, matmul)]


@pytest.fixture
def tf32():
    """Settings of a caller who wants TF32."""
    cudnn, matmul = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("medium")
    yield
    torch.backends.cudnn.allow_tf32 = cudnn
    torch.set_float32_matmul_precision(matmul)


def test_float32_is_not_tf32_and_the_callers_settings_come_back(tf32):
    before = tf32_settings()
    with pytest.raises(RuntimeError, match="inside"), full_float32(GPU):
        assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
        raise RuntimeError("inside")
    assert tf32_settings() == before
    with full_float32(torch.device("cpu")):
        assert tf32_settings() == before


@pytest.mark.skipif(newer_settings() is None, reason="this torch has no such settings")
def test_float32_is_not_tf32_for_callers_of_the_newer_settings_either(tf32):
    conv = torch.backends.cudnn.conv
    conv.fp32_precision = "ieee"  # from here on the older settings cannot be read
    try:
        before = newer_settings()
        with full_float32(GPU):
            assert newer_settings() == ["ieee"] * 3
        assert newer_settings() == before == ["ieee", "tf32", "tf32"]
    finally:
        conv.fp32_precision = "tf32"


@pytest.mark.parametrize(("precision", "expected"), [("float32", False), ("bf16", True)])
def test_passes_and_gradients_of_float32_are_without_tf32(precision, expected, tf32, monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *args, **options: contextlib.nullcontext())
    monkeypatch.setattr(
        "unlearnable.engine.networks.global_seed", lambda *a: contextlib.nullcontext()
    )
    networks = Networks(GPU, precision, compile=False, group=Group())
    weight, seen = nn.Linear(1, 1), []

    def loss_fn(network):
        loss = network(torch.ones(1, 1)).sum()
        loss.register_hook(lambda slope: seen.append(torch.backends.cudnn.allow_tf32))
        seen.append(torch.backends.cudnn.allow_tf32)
        return loss

    networks.update(weight, sgd(weight), loss_fn, clip_norm=None, seed=0)
    assert seen == [expected, expected]


@pytest.fixture
def benchmark():
    """Whether cuDNN tries its kernels, as the caller has it."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    yield lambda: torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = before


def test_the_fastest_convolutions_are_chosen_on_gpus_and_the_callers_setting_comes_back(benchmark):
    with pytest.raises(RuntimeError, match="inside"), fastest_convolutions(GPU):
        assert benchmark()
        raise RuntimeError("inside")
    assert not benchmark()
    with fastest_convolutions(torch.device("cpu")):
        assert not benchmark()
    torch.backends.cudnn.benchmark = True
    with fastest_convolutions(GPU):
        assert benchmark()
    assert benchmark()


def test_who_asked_for_deterministic_results_keeps_the_usual_convolutions(benchmark, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    with fastest_convolutions(GPU):
        assert not benchmark()
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    with fastest_convolutions(GPU):
        assert not benchmark()


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_passes_and_gradients_use_the_fastest_convolutions(precision, benchmark, monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *args, **options: contextlib.nullcontext())
    monkeypatch.setattr(
        "unlearnable.engine.networks.global_seed", lambda *a: contextlib.nullcontext()
    )
    networks = Networks(GPU, precision, compile=False, group=Group())
    weight, seen = nn.Linear(1, 1), []

    def loss_fn(network):
        loss = network(torch.ones(1, 1)).sum()
        loss.register_hook(lambda slope: seen.append(benchmark()))
        seen.append(benchmark())
        return loss

    networks.update(weight, sgd(weight), loss_fn, clip_norm=None, seed=0)
    with networks.autocast():  # of searches
        seen.append(benchmark())
    assert seen == [True] * 3 and not benchmark()


def test_draws_on_the_cpu_are_moved_to_where_they_are_wanted():
    drawn = Draws([3], None, torch.device("meta"), draw_on=torch.device("cpu"))
    assert drawn.uniform((4,), 0, 1).device.type == "meta"
    run = Run(torch.zeros(16, 1, 2, 2, dtype=torch.uint8), torch.zeros(16).long(), 2)
    run.device = torch.device("meta")  # stands for a GPU; random generators of its own it has not
    assert run.global_rng("x").normal((3, 2)).device.type == "meta"
    in_batch(run, 16)
    assert run.rng("x", device="cpu").integers((16,), 0, 2).device.type == "meta"


def test_draws_on_the_cpu_are_those_of_a_run_on_the_cpu():
    run, again = make_run(), make_run()
    in_batch(run), in_batch(again)
    expected = run.rng("x").uniform((16, 2), 0, 1)
    assert torch.equal(again.rng("x", device="cpu").uniform((16, 2), 0, 1), expected)
