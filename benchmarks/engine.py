"""How much of the bare network's speed remains in a fit, and what low precision gains.

    python benchmarks/engine.py --out benchmarks/results/engine-cpu.json
    python benchmarks/engine.py --device cuda --surrogate resnet18 --compile \
        --out benchmarks/results/engine-gpu.json

For each method, three runs take turns in one process: a short fit, the same fit in float32, and a
bare loop of the same image passes. The bare loop has the same network and batch sizes, forward and
backward, and nothing else. It runs in the fit's precision, and with BatchNorm folded into the
convolutions where the weights do not change. The ratio is the fit's passes per second divided by
the bare loop's; an engine that costs nothing would have 1. On a GPU the bare loop also runs
compiled, and the result gives its share of the card's measured bf16 matrix rate.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from record import RESULTS, Record
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import unlearnable as ue
from unlearnable.datasets import Shapes
from unlearnable.engine.device import pick_device
from unlearnable.engine.folding import FoldedNetwork
from unlearnable.engine.models import build_model
from unlearnable.engine.precision import choose_precision
from unlearnable.engine.run import Run
from unlearnable.engine.train import sgd

# Enough work for a steady rate; inner settings as in the papers where a CPU can do that.
_LARGE = {
    "EM": {"steps": 8, "round_steps": 4, "max_rounds": 1, "stop_error": 1.0, "batch_size": 512},
    "REM": {
        "train_steps": 2,
        "final_steps": 0,
        "warm_start": True,
        "batch_size": 128,
        "robust_steps": 2,
        "steps": 4,
    },
    "SEM": {"train_steps": 2, "final_steps": 0, "warm_start": True, "batch_size": 128},
    "TAP": {"train_epochs": 1, "steps": 4, "restarts": 1, "batch_size": 128},
    "SEP": {"train_epochs": 2, "checkpoints": 2, "steps": 3, "batch_size": 128},
}
_SMALL = {
    "EM": {"steps": 4, "round_steps": 4, "max_rounds": 1, "stop_error": 1.0, "batch_size": 128},
    "REM": {"train_steps": 2, "final_steps": 0, "warm_start": True, "robust_steps": 2, "steps": 2,
            "eot_samples": 2},
    "SEM": {"train_steps": 2, "final_steps": 0, "warm_start": True, "robust_steps": 4, "steps": 4,
            "eot_samples": 2},
    "TAP": {"train_epochs": 1, "steps": 6, "restarts": 1},
    "SEP": {"train_epochs": 1, "checkpoints": 1, "steps": 6},
}  # fmt: skip
# On a GPU, which needs as much for seconds of work.
_LONGER: dict[str, dict[str, Any]] = {
    "EM": {"steps": 80},
    "REM": {"train_steps": 40},
    "SEM": {"train_steps": 40},
    "TAP": {"steps": 80},
    "SEP": {"steps": 40},
}
METHODS: dict[str, type[ue.Method]] = {
    method.__name__: method for method in (ue.EM, ue.REM, ue.SEM, ue.TAP, ue.SEP)
}


def passes_of(method: ue.Method, images: int) -> list[tuple[str, int, int]]:
    """What the fit does: (kind, batch, times), kind being search, train or look."""
    p = method.get_params()
    batch = p["batch_size"] // 8 * 8
    if isinstance(method, ue.EM):
        sweep = images // batch
        return [
            ("train", batch, p["round_steps"]),
            ("search", batch, sweep * p["steps"]),
            ("look", batch, sweep),
        ]
    if isinstance(method, (ue.TAP, ue.SEP)):
        sweep = images // batch
        train = ("train", batch, p["train_epochs"] * sweep)
        if isinstance(method, ue.SEP):
            return [train, ("search", batch, sweep * p["steps"] * p["checkpoints"])]
        each = sweep * p["restarts"]
        return [train, ("search", batch, each * p["steps"]), ("look", batch, each)]
    eot, steps = p["eot_samples"], p["train_steps"]
    adversary = ("search", batch, steps * p["robust_steps"])
    inside = 1 if type(method) is ue.SEM else 1 + p["robust_steps"]
    return [
        ("search", batch * eot, steps * p["steps"] * inside),
        adversary,
        ("train", batch, steps),
    ]


class Bare:
    """Only the network, on images that lie ready."""

    def __init__(self, surrogate: str, device: torch.device, precision: str, compile: bool) -> None:
        self.model = build_model(surrogate, 10).to(device).to(memory_format=torch.channels_last)
        self.optimizer = sgd(self.model)
        self.device = device
        self.half = precision == "bf16"
        self.folded: FoldedNetwork | None = None  # as in a fit, which compiles or folds
        if compile:
            self.model.compile(dynamic=False)
        else:
            sample, _ = self.batch(2)
            self.folded = FoldedNetwork(self.model, sample, low_precision=self.half)

    def batch(self, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Images and labels of no meaning."""
        images = torch.rand(size, 3, 32, 32, device=self.device)
        return images, torch.arange(size, device=self.device) % 10

    def loss(
        self, images: torch.Tensor, labels: torch.Tensor, frozen: bool = False
    ) -> torch.Tensor:
        """Of the network in its precision."""
        network = self.folded.refreshed() if frozen and self.folded else self.model
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            return F.cross_entropy(network(images), labels)

    def run(self, work: list[tuple[str, int, int]]) -> float:
        """Seconds that the passes take."""
        batches = {size: self.batch(size) for _, size, _ in work}
        wait(self.device)
        start = time.perf_counter()
        for kind, size, times in work:
            images, labels = batches[size]
            self.model.train(kind == "train")
            for _ in range(times):
                if kind == "train":
                    self.optimizer.zero_grad(set_to_none=True)
                    self.loss(images, labels).backward()
                    self.optimizer.step()
                elif kind == "search":
                    leaf = images.detach().requires_grad_()
                    torch.autograd.grad(self.loss(leaf, labels, frozen=True), leaf)
                else:
                    with torch.no_grad():
                        self.loss(images, labels, frozen=True)
        wait(self.device)
        return time.perf_counter() - start


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def fit(
    method: ue.Method, dataset: Any, device: torch.device, precision: str, compile: bool
) -> tuple[float, int]:
    """Seconds inside the algorithm, and its image passes."""
    learn, found = method._learn, []

    def timed(run: Run) -> Any:
        wait(device)
        start = time.perf_counter()
        surrogate = learn(run)
        wait(device)
        found.append((time.perf_counter() - start, run.passes))
        return surrogate

    method._learn = timed  # type: ignore[method-assign]
    method.fit(dataset, device=device, progress=False, precision=precision, compile=compile)
    return found[0]


def matrix_rate(device: torch.device) -> float:
    """bf16 multiply-adds per second times two, of a large matrix product."""
    a = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
    for repeats in (3, 20):
        wait(device)
        start = time.perf_counter()
        for _ in range(repeats):
            a @ a
        wait(device)
    return 2 * 8192**3 * 20 / (time.perf_counter() - start)


def flops_of_a_pass(surrogate: str) -> float:
    """Of one image forward and backward to the pixels."""
    model = build_model(surrogate, 10).eval().requires_grad_(False)
    images = torch.rand(8, 3, 32, 32, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        torch.autograd.grad(model(images).sum(), images)
    return counter.get_total_flops() / 8


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--surrogate", nargs="+", default=["resnet9", "resnet18"])
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS / "engine-cpu.json")
    args = parser.parse_args()
    device = pick_device(args.device)
    record = Record(args.out, {"precision": args.precision, "repeats": args.repeats}, args.device)
    rate = matrix_rate(device) if device.type == "cuda" else None
    for surrogate in args.surrogate:
        large = surrogate != "resnet18" or device.type == "cuda"
        dataset = Shapes(size=1024 if large else 384)
        precision = args.precision
        if precision == "auto":
            images = torch.from_numpy(dataset.data[:64]).permute(0, 3, 1, 2).float() / 255
            labels = torch.tensor(dataset.targets[:64])
            model = build_model(surrogate, 10).to(device)
            chosen = choose_precision(model, images.to(device), labels.to(device))
            precision = chosen.name
            print(f"{surrogate}: {precision}, {chosen.reason}{chosen.figures}", flush=True)
        for name, settings in (_LARGE if large else _SMALL).items():
            cell_name = f"{name}, {surrogate}" + (", compiled" if args.compile else "")
            if cell_name in record.cells:
                continue
            overrides: dict[str, Any] = dict(settings)
            if device.type == "cuda":
                overrides |= _LONGER[name]
            method = METHODS[name](surrogate, **overrides)
            work = passes_of(method, len(dataset))
            expected = sum(size * times for _, size, times in work)
            bares = {"eager": Bare(surrogate, device, precision, False)}
            if args.compile:
                bares["compiled"] = Bare(surrogate, device, precision, True)
            ratios, fits, full = [], [], []
            best: dict[str, list[float]] = {kind: [] for kind in bares}
            for repeat in range(args.repeats + 1):
                times = {kind: bare.run(work) for kind, bare in bares.items()}
                seconds, passes = fit(
                    METHODS[name](surrogate, **overrides), dataset, device, precision, args.compile
                )
                if passes != expected:
                    raise SystemExit(f"{cell_name}: {passes} passes, expected {expected}")
                if repeat:  # the first one warms up
                    ratios.append(min(times.values()) / seconds)
                    fits.append(passes / seconds)
                    if precision != "float32":
                        method = METHODS[name](surrogate, **overrides)
                        spent, _ = fit(method, dataset, device, "float32", args.compile)
                        full.append(passes / spent)
                    for kind, spent in times.items():
                        best[kind].append(passes / spent)
            cell: dict[str, Any] = {
                "method": repr(method),
                "passes": expected,
                "precision": precision,
                "ratio": round(statistics.median(ratios), 3),
                "ratios": [round(ratio, 3) for ratio in ratios],
                "fit_passes_per_second": round(statistics.median(fits), 1),
                "bare_passes_per_second": {
                    kind: round(statistics.median(rates), 1) for kind, rates in best.items()
                },
            }
            if full:
                cell["float32_passes_per_second"] = round(statistics.median(full), 1)
                cell["times_as_fast_as_float32"] = round(
                    statistics.median(a / b for a, b in zip(fits, full, strict=True)), 2
                )
            if rate is not None:
                flops = flops_of_a_pass(surrogate) * statistics.median(fits)
                cell["matrix_rate_tflops"] = round(rate / 1e12, 1)
                cell["share_of_matrix_rate"] = round(flops / rate, 3)
            record.put(cell_name, cell)
            print(f"{cell_name}: {cell}", flush=True)


if __name__ == "__main__":
    main()
