"""How precisely networks run: decided once for a run, by the hardware and a short trial."""

from __future__ import annotations

import contextlib
import copy
import functools
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .folding import FoldedNetwork
from .random import global_seed

_FASTER = 1.2  # times as fast as float32 bf16 has to be
# Least cosine to the gradient in float32. Fresh networks reach 0.93 in a search and 0.96 in
# training, trained ones 0.99; kernels that compute something else stay below 0.7.
_SEARCH, _TRAINING = 0.9, 0.8
_IMAGES, _SECONDS = 64, 0.1  # of the trial: most images, and what a pass may take

logger = logging.getLogger(__name__)


class Pace(NamedTuple):
    """Seconds per image, forward and backward: in training and in a search."""

    training: float
    search: float


class Precision(NamedTuple):
    """``"float32"`` or ``"bf16"``, and why.

    Attributes:
        name: Name of the precision.
        reason: The reason, which depends only on the answer.
        figures: The measurements as text.
        pace: Pace of the network in this precision, if it was measured.
    """

    name: str
    reason: str
    figures: str = ""
    pace: Pace | None = None


def check_precision(precision: str) -> str:
    """Checks a precision named by the user; raises ``ValueError`` if it is unknown."""
    if precision not in ("auto", "float32", "bf16"):
        raise ValueError(f'expected precision to be "auto", "float32" or "bf16", got {precision!r}')
    return precision


def as_fitted(precision: str, fitted: str, device: torch.device) -> str:
    """A precision named by the user; ``"auto"`` means that of an earlier fit if supported."""
    if check_precision(precision) != "auto":
        return precision
    return fitted if fitted != "bf16" or bf16_in_hardware(device) else "float32"


def bf16_in_hardware(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 in hardware; emulation can be a hundred times slower."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return any(name in _cpu_features() for name in ("amx_bf16", "avx512_bf16"))


@functools.lru_cache(maxsize=1)
def _cpu_features() -> set[str]:
    known = getattr(torch.cpu, "get_capabilities", None)
    if known is not None:
        return {name for name, there in known().items() if there}
    with contextlib.suppress(OSError):  # releases of torch without it, on Linux
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return set(next((line for line in lines if line.startswith("flags")), "").split())
    return set()


_CHOSEN: dict[object, Precision] = {}  # in one process, equal networks get the same answer


def choose_precision(network: nn.Module, images: Tensor, labels: Tensor) -> Precision:
    """Resolves ``"auto"`` for a network: bf16 if it is faster and the gradients agree.

    A copy of the network is tried for about a second; the global random state is not changed.

    Args:
        network: Network from float images (B, C, H, W) in [0, 1] to logits (B, K).
        images: Some of the images it will see, on its device; 64 are enough.
        labels: Their classes, int64, (B,).
    """
    device = images.device
    if not bf16_in_hardware(device):
        return Precision("float32", f"the {device.type} has no bfloat16 in hardware")
    if not any(weight.requires_grad for weight in network.parameters()):
        return Precision("float32", "the network has no weights to train")
    key = _key(network, images)
    if key not in _CHOSEN:
        try:
            _CHOSEN[key] = _tried(network, images[:_IMAGES], labels[:_IMAGES])
        except Exception as error:  # a caller's network may lack what bf16 needs in any way
            _CHOSEN[key] = Precision("float32", f"bf16 fails ({type(error).__name__}: {error})")
        logger.info("precision %s: %s%s", *_CHOSEN[key][:3])
    return _CHOSEN[key]


def _key(network: nn.Module, images: Tensor) -> object:
    """The same for equal networks on images of one size."""
    weights = tuple((name, tuple(weight.shape)) for name, weight in network.named_parameters())
    return type(network), repr(network), weights, images.shape[1:], str(images.device)


_PACES: dict[object, Pace | None] = {}


def measure_pace(network: nn.Module, images: Tensor, labels: Tensor, precision: str) -> Pace | None:
    """Measures the speed of a network in ``"float32"`` or ``"bf16"``; other arguments as above.

    A copy of it is timed for less than a second, once per process. Returns None if it fails.
    """
    key = _key(network, images), precision
    if key not in _PACES:
        half, device = precision == "bf16", images.device
        try:
            with global_seed(0, device), _one_thread(device), _passes_in(half, device):
                model = _copy(network, device)
                few, theirs = _affordable(model, images[:_IMAGES], labels[:_IMAGES])
                step = functools.partial(_weight_gradient, model, few, theirs)
                learned = min(_timed(step, device)[0] for _ in range(2))
                searched, _ = _search(model, few, theirs, half)
            _PACES[key] = _pace(learned, searched, few)
        except Exception:  # a caller's network may lack what is needed in any way
            _PACES[key] = None
    return _PACES[key]


def _copy(network: nn.Module, device: torch.device) -> nn.Module:
    """In training mode; its running statistics are the mean of all batches of the trial."""
    model = copy.deepcopy(network).to(device).to(memory_format=torch.channels_last).train()
    for layer in model.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.momentum = None
            layer.reset_running_stats()
    return model


def _search(model: nn.Module, images: Tensor, labels: Tensor, half: bool) -> tuple[float, Tensor]:
    """Seconds and result of a search's gradient."""
    frozen = FoldedNetwork(model, images, low_precision=half).refreshed().eval()
    step = functools.partial(_image_gradient, frozen, images, labels)
    return min((_timed(step, images.device) for _ in range(2)), key=lambda timed: timed[0])


def _tried(network: nn.Module, images: Tensor, labels: Tensor) -> Precision:
    device = images.device
    with global_seed(0, device), _one_thread(device):
        model = _copy(network, device)
        images, labels = _affordable(model, images, labels)
        seconds: list[list[float]] = [[], []]
        learned, searched, searching = {}, {}, {}
        for half in 4 * (False, True):  # in turns: what else happens slows both
            with _passes_in(half, device):
                spent, learned[half] = _timed(
                    functools.partial(_weight_gradient, model.train(), images, labels), device
                )
                seconds[half].append(spent)
        for half in (False, True):
            with _passes_in(half, device):
                searching[half], searched[half] = _search(model, images, labels, half)
    faster = min(seconds[False]) / min(seconds[True])
    search, training = (
        _cosine(found[False].double(), found[True].double()) for found in (searched, learned)
    )
    figures = (
        f" ({faster:.1f} times as fast as float32, cosines of {search:.3f} (images) and "
        f"{training:.3f} (weights) between their gradients)"
    )
    sound = search >= _SEARCH and training >= _TRAINING  # not so for NaN
    half = faster >= _FASTER and sound
    pace = _pace(min(seconds[half]), searching[half], images)
    if half:
        return Precision("bf16", "bf16 is faster, with the same gradients", figures, pace)
    fault = "is hardly faster" if sound else "gives other gradients"
    return Precision("float32", f"bf16 {fault}", figures, pace)


def _pace(learned: float, searched: float, images: Tensor) -> Pace:
    """From seconds for all images of a trial, which on a CPU has one of the threads there are."""
    threads = torch.get_num_threads() if images.device.type == "cpu" else 1
    share = threads * len(images)
    return Pace(learned / share, searched / share)


@contextlib.contextmanager
def _passes_in(half: bool, device: torch.device) -> Iterator[None]:
    exact = contextlib.nullcontext() if half else full_float32(device)
    with exact, torch.autocast(device.type, torch.bfloat16, enabled=half):
        yield


def _cosine(one: Tensor, other: Tensor) -> float:
    return (one @ other / (one.norm() * other.norm())).item()  # NaN where a gradient is zero


def _affordable(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """As many of the images as a pass in float32 has time for."""
    few = min(8, len(images))
    while True:
        some, theirs = images[:few], labels[:few]
        spent, _ = _timed(functools.partial(_weight_gradient, model, some, theirs), images.device)
        if few == len(images) or spent > _SECONDS / 2:
            return some, theirs
        few = min(2 * few, len(images))


def _weight_gradient(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    with global_seed(0, images.device):  # of dropout and its like
        loss = F.cross_entropy(model(images), labels)
    slopes = torch.autograd.grad(loss, weights, allow_unused=True)
    return torch.cat([slope.float().flatten() for slope in slopes if slope is not None])


def _image_gradient(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    leaf = images.clone().requires_grad_()
    (slope,) = torch.autograd.grad(F.cross_entropy(model(leaf), labels, reduction="sum"), leaf)
    return slope.flatten()


@contextlib.contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    """Inside, a CPU works with one thread, whose own time other work on the machine leaves alone.

    Several threads wait for one another wherever one of them has to share its core, and the shorter
    the passes, the longer: bf16 would lose on a busy machine.
    """
    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if device.type == "cpu":
            torch.set_num_threads(threads)


def _timed(call: Callable[[], Tensor], device: torch.device) -> tuple[float, Tensor]:
    clock = time.thread_time if device.type == "cpu" else time.perf_counter
    start = clock()
    found = call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - start, found


@contextlib.contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Switches off TF32 on a GPU, with which float32 products keep only 10 of 23 bits.

    The caller's settings are restored. Other devices are not affected.
    """
    with contextlib.ExitStack() as restored:
        if device.type == "cuda":
            _switch_tf32_off(restored)
        yield


def _switch_tf32_off(restored: contextlib.ExitStack) -> None:
    cudnn: Any = torch.backends.cudnn
    matmul: Any = torch.backends.cuda.matmul
    try:
        if cudnn.allow_tf32:
            restored.callback(setattr, cudnn, "allow_tf32", True)
            cudnn.allow_tf32 = False
        if matmul.allow_tf32:
            before = torch.get_float32_matmul_precision()
            restored.callback(torch.set_float32_matmul_precision, before)
            torch.set_float32_matmul_precision("highest")
    except RuntimeError:  # the caller uses torch's newer settings, with which these do not mix
        for product in (cudnn.conv, cudnn.rnn, matmul):
            restored.callback(setattr, product, "fp32_precision", product.fp32_precision)
            product.fp32_precision = "ieee"
