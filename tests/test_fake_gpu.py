"""What runs on a GPU, run without one: devices agree, and Python seldom waits for the GPU."""

import re
from collections import Counter

import pytest
import torch
from fake_gpu import CUDA, FakeGPU

from unlearnable.data.cache import ImageStore
from unlearnable.datasets import Shapes
from unlearnable.engine.degradation import DEGRADATIONS
from unlearnable.engine.models import build_model
from unlearnable.engine.random import Draws
from unlearnable.engine.recipes import RECIPES
from unlearnable.engine.run import Run
from unlearnable.evaluation.countermeasures import NAMES, countermeasure
from unlearnable.evaluation.countermeasures.pretrained import FineTuning
from unlearnable.evaluation.countermeasures.projection import OrthogonalProjection
from unlearnable.evaluation.evaluate import Training, train_victims
from unlearnable.methods import AUE, BAIT, EM, METHODS, SEM, SEP, ColourShift, RandomNoise
from unlearnable.methods.row_buffer import RowBuffer

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{warning}")
    for warning in (
        "User provided device_type of 'cuda'",  # autocast has no GPU
        "Accessing the data pointer of FakeTensor",
        "EM ended after max_rounds",
    )
]
COUNT, CLASSES, BATCH = 32, 4, 16

# Loop -> how often Python waits for the GPU in a pass through its body, inner loops apart. Loops
# that are not here never wait.
AT_MOST = {
    "epochs": {"read": 2},  # mean loss and accuracy
    "blocks of 50 steps": {"read": 2},
    "rounds": {"read": 3},  # and the share of errors, which ends EM
    "restart": {"send": len(build_model("tiny", CLASSES).state_dict())},  # new weights
}
# A class without images is refused before the search.
ALIGNED = AT_MOST | {"perturbations": {"mask": 1}, "extend": {"mask": 1}}
# Which images of a batch are among the first of their class.
CHOSEN = AT_MOST | {"colours": {"mask": 1}}
VICTIM = {"epochs": {"read": 2, "item": 1}}  # and the accuracy on the test images

SHORT = {
    "surrogate": "tiny", "train_steps": 2, "train_epochs": 1, "steps": 1, "final_steps": 1,
    "extend_steps": 1, "max_rounds": 1, "round_steps": 2, "checkpoints": 1, "restarts": 1,
    "robust_steps": 1, "batch_size": BATCH, "particles": 2, "iterations": 1, "rounds": 3,
    "pretrained_surrogate": False,
}  # fmt: skip
EACH = dict.fromkeys((*DEGRADATIONS, "grayscale+jpeg"), 1 / 8)
VARIANTS = [(method, {}) for method in METHODS] + [
    (EM, {"granularity": "class-wise"}),
    (AUE, {"granularity": "class-wise"}),
    (SEM, {"norm": "L2", "warm_start": False}),
    (SEM, {"augment": EACH}),
    (EM, {"augment": EACH | {"crop-flip": 0.5}}),
    (SEP, {"augment": EACH | {"crop-flip": 1.0}}),
    (SEP, {"feature_alignment": True, "variance_reduction": True, "inner_steps": 2}),
    (BAIT, {"search": "generator"}),
    (ColourShift, {"search": "swarm"}),
    (ColourShift, {"search": "swarm", "class_images": 3}),
]
# L-BFGS reads what it finds at every step, and the weights of ImageNet are read from a file.
COUNTERMEASURES = [re.sub("[A-Z]+", "4", name) for name in NAMES if "imagenet" not in name]


def images_and_labels():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (COUNT, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return images, torch.arange(COUNT) % CLASSES


def waits(gpu):
    return {title: dict(+seen) for title, seen in gpu.by_loop.items() if seen}


def on_gpu(method):
    images, labels = (tensor.to(CUDA) for tensor in images_and_labels())
    rows = None
    if method._has_rows:
        rows = RowBuffer(images.shape, *method._budget(images.shape[1:]), CUDA)
    return Run(images, labels, CLASSES, rows=rows)


@pytest.mark.parametrize(("method", "options"), VARIANTS)
def test_methods_learn_on_a_gpu_and_seldom_wait_for_it(method, options):
    known = method.__dataclass_fields__
    short = {name: value for name, value in SHORT.items() if name in known}
    method = method.preset("fast", **(short | options))
    with FakeGPU() as gpu:
        run = on_gpu(method)
        surrogate = method._learn(run)
        run.close()
        if method._has_rows:
            run = on_gpu(method)
            if surrogate is not None:
                run.track(surrogate=surrogate)
            for index in run.sweep(BATCH, title="extend"):
                run.rows[index] = method._perturb(run, index, surrogate)
            assert "extend" in gpu.by_loop
    allowed = ALIGNED if options.get("feature_alignment") else AT_MOST
    allowed = CHOSEN if options.get("class_images") else allowed
    if options.get("search") == "generator":
        allowed = AT_MOST | {"rounds": {"read": 2}}
    assert waits(gpu) == {title: allowed[title] for title in allowed if title in gpu.by_loop}


def short(name):
    if name == "orthogonal-projection":
        return OrthogonalProjection(epochs=1, min_updates=0)
    if name == "fine-tuning":
        return FineTuning(Shapes(size=COUNT), epochs=1)
    return countermeasure(name)


def train_victim(counter, *, recipe="standard", victim="tiny"):
    """Waits of one epoch."""
    images, labels = images_and_labels()
    training = Training(RECIPES[recipe], 1, [0], BATCH, None, CUDA, "float32")
    store = ImageStore(images, labels, None, None, None, CLASSES, None, "random")
    with FakeGPU() as gpu:
        train_victims(store, store, victim, counter, training)
    assert "steps" in gpu.by_loop
    return waits(gpu)


@pytest.mark.parametrize("name", COUNTERMEASURES)
def test_victims_train_on_a_gpu_and_wait_for_it_at_the_end_of_an_epoch(name):
    assert train_victim(short(name)) == VICTIM


def test_victims_of_the_fast_recipe_wait_no_more_often():
    assert train_victim(countermeasure("none"), recipe="fast", victim="resnet9") == VICTIM


# --- draws ----------------------------------------------------------------------------------------

SEEDS, IMAGES = list(range(8)), [2] * 8


def test_few_numbers_per_image_reach_a_gpu_by_one_copy_that_nothing_waits_for():
    with FakeGPU() as gpu:
        drawn = Draws(SEEDS, IMAGES, CUDA).integers((16, 2), -4, 5)
        assert drawn.device == CUDA
    assert (gpu.launches, gpu.generators["cuda"], +gpu.waits) == (1, 0, Counter())


def test_indices_of_a_batch_reach_a_gpu_by_one_copy_too():
    with FakeGPU() as gpu:
        run = on_gpu(RandomNoise())
        for batches in (run.batches(1, BATCH), run.sweep(BATCH)):
            before = gpu.launches, gpu.waits.copy()
            for index in batches:
                assert index.device == CUDA
                assert (gpu.launches - before[0], gpu.waits - before[1]) == (1, Counter())
                before = gpu.launches, gpu.waits.copy()


def test_noise_for_pixels_is_drawn_on_the_gpu():
    with FakeGPU() as gpu:
        draws = Draws(SEEDS, IMAGES, CUDA)
        assert draws.uniform((16, 3, 32, 32), 0, 1).device == CUDA
    assert (gpu.launches, gpu.generators["cuda"], +gpu.waits) == (8, 8, Counter())


def test_draws_on_the_cpu_for_a_gpu_are_those_of_a_run_on_the_cpu():
    here, there = (Draws(SEEDS, IMAGES, device) for device in (torch.device("cpu"), CUDA))
    for _ in range(2):
        assert torch.equal(here.uniform((16, 5), 0, 1), there.on_cpu().uniform((16, 5), 0, 1))
        assert torch.equal(here.on_cpu().normal((16,)), there.on_cpu().normal((16,)))


# --- the stand-in itself --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "act"),
    [
        ("item", lambda x: x.sum().item()),
        ("item", lambda x: bool(x.sum() > 0)),
        ("item", lambda x: int(x.argmax())),
        ("read", lambda x: x.tolist()),
        ("read", lambda x: x.cpu().numpy()),
        ("mask", lambda x: x.nonzero()),
        ("mask", lambda x: x[x > 0]),
        ("send", lambda x: torch.tensor([1.0, 2.0], device=CUDA)),
        ("send", lambda x: torch.ones(2).to(CUDA, non_blocking=True)),
        ("send", lambda x: torch.ones(2).pin_memory().to(CUDA)),
        ("send", lambda x: x[torch.tensor([0])]),
        ("send", lambda x: x.copy_(torch.ones(4))),
        (None, lambda x: torch.ones(2).pin_memory().to(CUDA, non_blocking=True)),
        (None, lambda x: (x[torch.zeros(2, dtype=torch.int64, device=CUDA)] + 1).to(CUDA)),
        (None, lambda x: torch.where(x > 0, x, 1.0).double()),
    ],
)
def test_what_makes_python_wait_is_counted(kind, act):
    with FakeGPU() as gpu:
        act(torch.zeros(4, device=CUDA))
    assert dict(+gpu.waits) == ({} if kind is None else {kind: 1})


def test_tensors_of_two_devices_do_not_mix():
    with FakeGPU(), pytest.raises(RuntimeError, match="same device"):
        torch.zeros(4, device=CUDA) + torch.zeros(4)


def test_waits_are_those_of_the_innermost_loop():
    with FakeGPU() as gpu:
        run = on_gpu(RandomNoise())
        for _ in run.steps(2, "outer"):
            for index in run.sweep(BATCH, title="inner"):
                run.labels[index].sum().item()
            run.labels.tolist()
    assert waits(gpu) == {"outer": {"read": 1}, "inner": {"item": 1}}
