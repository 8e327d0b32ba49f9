"""What a protected CIFAR-10 costs in a DataLoader, compared with the plain one.

    python benchmarks/loading.py ROOT

ROOT is a folder with ``cifar-10-batches-py``. Epochs of the plain and of the protected dataset are
read in turn, with the usual augmentation and persistent workers. Each pair of epochs gives a ratio,
and the cell records the median, so that other load on the machine affects both. The cell "memory"
records what a spawned worker takes when it starts, and after it has read --images images.
"""

from __future__ import annotations

import argparse
import re
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from cifar import AnyCIFAR10
from PIL import Image
from record import RESULTS, Record
from torch import multiprocessing
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision.transforms import Compose, Normalize, RandomCrop, RandomHorizontalFlip, ToTensor

import unlearnable as ue

METHODS: dict[str, ue.Method] = {
    "RandomNoise": ue.RandomNoise(),
    "RandomNoise class-wise": ue.RandomNoise(granularity="class-wise"),
    "OPS": ue.OPS(),
    "ClassConvolution": ue.ClassConvolution(),
    "LSP": ue.LSP(),
    "AR": ue.AR(),
}
ITEMS = "RandomNoise, a dataset's own items"  # read one by one, as PIL images
TRANSFORM = Compose(
    [
        RandomCrop(32, padding=4),
        RandomHorizontalFlip(),
        ToTensor(),
        Normalize([0.491, 0.482, 0.447], [0.247, 0.243, 0.262]),
    ]
)


class OwnItems(Dataset[Any]):
    """CIFAR-10 as people write datasets themselves."""

    def __init__(self, whole: AnyCIFAR10) -> None:
        self.pixels, self.targets, self.transform = whole.data, whole.targets, TRANSFORM
        self.classes = whole.classes

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image: Any = Image.fromarray(self.pixels[index])
        if self.transform is not None:
            image = self.transform(image)
        return image, self.targets[index]


def loader_of(dataset: Any, args: argparse.Namespace) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(0)
    return DataLoader(
        dataset,
        args.batch_size,
        sampler=RandomSampler(dataset, num_samples=args.images, generator=generator),
        num_workers=args.workers,
        persistent_workers=args.workers > 0,
    )


def seconds_of_an_epoch(loader: DataLoader[Any]) -> float:
    start = time.perf_counter()
    for _ in loader:
        pass
    return time.perf_counter() - start


def compare(plain: Any, protected: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Seconds of epochs read in turn, and the median of their ratios."""
    loaders = {"plain": loader_of(plain, args), "protected": loader_of(protected, args)}
    seconds: dict[str, list[float]] = {name: [] for name in loaders}
    for number in range(args.pairs + 1):
        for name in list(loaders)[:: 1 if number % 2 else -1]:
            taken = seconds_of_an_epoch(loaders[name])
            if number:  # the first epochs start the workers
                seconds[name].append(round(taken, 3))
    ratios = [b / a for a, b in zip(*seconds.values(), strict=True)]
    return {
        "ratio": round(statistics.median(ratios), 3),
        "from": round(min(ratios), 3),
        "to": round(max(ratios), 3),
        "plain_us_per_image": round(1e6 * min(seconds["plain"]) / args.images, 1),
        "protected_us_per_image": round(1e6 * min(seconds["protected"]) / args.images, 1),
        "seconds": seconds,
    }


def read(dataset: Any, images: int, answer: Any) -> None:
    """What a spawned worker does; says how much memory it has before and after."""
    torch.set_num_threads(1)
    first = {f"{what}, at first": size for what, size in _megabytes().items()}
    for start in range(0, images, 128):
        indices: Any = range(start, min(start + 128, images))
        many = getattr(dataset, "__getitems__", None)
        _ = many(indices) if many else [dataset[index] for index in indices]
    answer.send(first | _megabytes())


def _megabytes() -> dict[str, float]:
    rollup = Path("/proc/self/smaps_rollup").read_text()
    kilobytes = {name: int(size) for name, size in re.findall(r"(\w+): +(\d+) kB", rollup)}
    # What is mapped from files or shared with the parent is there once for all workers.
    return {"own": kilobytes["Anonymous"] / 1024, "resident": kilobytes["Rss"] / 1024}


def memory(
    datasets: dict[str, Any], args: argparse.Namespace
) -> Iterator[tuple[str, dict[str, float]]]:
    context = multiprocessing.get_context("spawn")
    for name, dataset in datasets.items():
        answer, end = context.Pipe(duplex=False)
        process = context.Process(target=read, args=(dataset, args.images, end))
        process.start()
        end.close()
        yield name, {what: round(size, 1) for what, size in answer.recv().items()}
        process.join()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", help="folder with cifar-10-batches-py")
    parser.add_argument("--images", type=int, default=20_000, help="of an epoch")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--only", nargs="+", choices=[*METHODS, ITEMS, "memory"])
    parser.add_argument("--out", type=Path, default=RESULTS / "loading-cpu.json")
    args = parser.parse_args()
    chosen = ("images", "pairs", "workers", "batch_size")
    record = Record(args.out, {name: getattr(args, name) for name in chosen}, "cpu")
    plain = AnyCIFAR10(args.root, transform=TRANSFORM)
    for name in args.only or [*METHODS, ITEMS, "memory"]:
        if name in record.cells:
            continue
        if name == "memory":
            perturbation = ue.RandomNoise().fit(plain, progress=False).perturbation_
            with tempfile.TemporaryDirectory() as folder:
                loaded = ue.Perturbation.from_pretrained(perturbation.save_pretrained(folder))
                datasets = {
                    "plain": plain,
                    "protected, fitted": ue.ProtectedDataset(plain, perturbation),
                    "protected, loaded": ue.ProtectedDataset(plain, loaded),
                }
                cell: dict[str, Any] = {"megabytes": dict(memory(datasets, args))}
        elif name == ITEMS:
            own = OwnItems(plain)
            cell = compare(own, ue.RandomNoise().fit(own, progress=False).protect(own), args)
        else:
            protected = METHODS[name].fit(plain, progress=False).protect(plain)
            cell = compare(plain, protected, args)
        record.put(name, cell)
        shown = {what: value for what, value in cell.items() if what != "seconds"}
        print(f"{name}: {shown}", flush=True)


if __name__ == "__main__":
    main()
