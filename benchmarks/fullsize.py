"""What it costs to protect photos at their own size, once a victim has resized them.

    python benchmarks/fullsize.py --rounds 40 --epochs 12 --seeds 2

Shapes are generated at 48 to 96 pixels, half of them cut to 3:4 or 4:3. Perturbations are learned
at 32 pixels, and victims train at 32: on clean photos, on copies protected at 32, and on photos
protected at their own size that the victim resizes with several filters. Beside the accuracy, the
result gives what is left of the learned change in the resized copy: its correlation with the
learned change, and its strength along it (1 would be all). --visibility learns and applies the
perturbations under a mask, and writes a separate result file. --table writes the table of
docs/how-to/photos.md from the result.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from kept import kept
from PIL import Image, ImageOps
from record import DOCS, RESULTS, Record, fill, where
from torch.utils.data import Dataset

import unlearnable as ue
from unlearnable.data.image import pixels_of
from unlearnable.datasets import Shapes
from unlearnable.perturbation.visibility import VISIBILITIES

PAGE = DOCS / "how-to" / "photos.md"
LEARNED = 32
SIDES = (48, 64, 80, 96)
FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "box": Image.Resampling.BOX,
}
METHODS: dict[str, Any] = {
    "EM": lambda args: ue.EM.preset("demo", max_rounds=args.rounds),
    "EM class-wise": lambda args: ue.EM.preset(
        "demo", granularity="class-wise", max_rounds=args.rounds
    ),
    "SEM": lambda args: ue.SEM.preset("demo", train_steps=args.train_steps),
    "LSP": lambda args: ue.LSP(),
    "AR": lambda args: ue.AR(),
    "ClassConvolution": lambda args: ue.ClassConvolution(),
}


class Photos(Dataset[Any]):
    """Shapes of several sizes, square, lying and standing."""

    def __init__(self, size: int, *, train: bool = True) -> None:
        drawn = [Shapes(train, size=size, side=side) for side in SIDES]
        self.classes = Shapes.classes
        self.targets = drawn[0].targets
        self.images = [self._cut(drawn[i % 4].data[i], i // 4 % 4) for i in range(size)]
        # Each size is drawn from the same stream, so that labels agree.
        assert all(shapes.targets == self.targets for shapes in drawn)

    @staticmethod
    def _cut(pixels: Any, shape: int) -> Image.Image:
        image = Image.fromarray(pixels)
        side = image.width
        narrow = {1: (side * 3 // 4, side), 3: (side, side * 3 // 4)}
        return ImageOps.fit(image, narrow.get(shape, image.size))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return self.images[index], self.targets[index]


class Resized(Dataset[Any]):
    """What a victim makes of photos: their centre at the size that it trains at."""

    def __init__(self, dataset: Any, filter: Image.Resampling) -> None:
        self.dataset, self.filter = dataset, filter
        self.classes, self.targets = dataset.classes, dataset.targets

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        image, label = self.dataset[index]
        return ImageOps.fit(image, (LEARNED, LEARNED), self.filter), label


def left(learned: Any, clean: Any, seen: Any, images: int = 200) -> dict[str, float]:
    """Correlation of the change that is seen with the one that was learned, and share along it."""
    before, after = [], []
    for index in range(min(images, len(seen))):
        small, large = learned.clean(index)[0], clean[index][0]
        change = pixels_of(learned[index][0]).astype(int) - pixels_of(small)
        before.append(change.ravel())
        after.append((pixels_of(seen[index][0]).astype(int) - pixels_of(large)).ravel())
    a, b = np.concatenate(before), np.concatenate(after)
    share = float((a * b).sum() / max(1, (a * a).sum()))
    return {"correlation": round(float(np.corrcoef(a, b)[0, 1]), 3), "along": round(share, 3)}


def table(result: dict[str, Any]) -> str:
    """Accuracy on clean photos by method and by what the victim trains on."""
    settings, cells = result["settings"], result["cells"]
    head = ["method", f"copies of {LEARNED} pixels", *(f"full size, {name}" for name in FILTERS)]
    head.append(f"left of the change, {' / '.join(FILTERS)}")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for method in METHODS:
        if f"{method}, at {LEARNED}" not in cells:
            continue
        full = [cells.get(f"{method}, full size, {name}") for name in FILTERS]
        columns = [f"{100 * cells[f'{method}, at {LEARNED}']['last']:.1f}"]
        columns += ["" if cell is None else f"{100 * cell['last']:.1f}" for cell in full]
        columns.append(" / ".join("" if c is None else f"{c['left']['along']:.2f}" for c in full))
        lines.append(f"| {method} | {' | '.join(columns)} |")
    note = (
        f"Test accuracy on clean photos in percent after the last epoch, mean of "
        f"{settings['seeds']} seeds; without protection {100 * cells['clean']['last']:.1f}. "
        f"{settings['images']:,} generated photos of {min(SIDES)} to {max(SIDES)} pixels, network "
        f"{settings['victim']}, {settings['epochs']} epochs. {result['date']}, {where(result)}."
    )
    return "\n".join([*lines, "", note])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--test-images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=100, help="of EM, at most")
    parser.add_argument("--train-steps", type=int, default=400, help="of SEM")
    parser.add_argument("--victim", default="tiny")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "work" / "fullsize")
    parser.add_argument("--visibility", choices=VISIBILITIES, default="full")
    parser.add_argument("--out", type=Path, help="by default a file of each visibility")
    parser.add_argument("--table", action="store_true", help=f"write the table of {PAGE.name}")
    args = parser.parse_args()
    masked = {} if args.visibility == "full" else {"visibility": args.visibility}
    args.out = args.out or RESULTS / f"{'-'.join(['fullsize', *masked.values(), 'cpu'])}.json"
    if args.table:
        command = " ".join(["fullsize.py", *(f"--visibility {name}" for name in masked.values())])
        fill(PAGE, command, table(json.loads(args.out.read_text())))
        return
    names = ("images", "test_images", "rounds", "train_steps", "victim", "epochs", "seeds")
    settings = {name: getattr(args, name) for name in names}
    settings |= {"sides": list(SIDES), "learned": LEARNED} | masked
    record = Record(args.out, settings, args.device)
    photos, test = Photos(args.images), Photos(args.test_images, train=False)

    def measure(name: str, dataset: Any, **more: Any) -> None:
        if name in record.cells:
            return
        evaluation = ue.evaluate(
            dataset,
            test,
            args.victim,
            epochs=args.epochs,
            seeds=args.seeds,
            image_size=LEARNED,
            device=args.device,
            progress=False,
        )
        figures = {"last": evaluation.mean("last"), "peak": evaluation.mean("peak")}
        cell = {which: round(value, 4) for which, value in figures.items()} | more
        record.put(name, cell | {"victims": evaluation.to_dict()})
        print(f"{name}: {evaluation} {more or ''}")

    measure("clean", photos)
    for name in args.only:
        method = METHODS[name](args)
        if masked and not method.masked:
            continue
        work = map(str, (args.images, args.rounds, args.train_steps, *masked.values()))
        options = {"image_size": LEARNED, "device": args.device, **masked}
        perturbation = kept(
            args.work / "-".join(work) / name.replace(" ", "-"),
            {"method": repr(method), "images": args.images} | masked,
            lambda _, method=method, options=options: method.fit(photos, progress=False, **options),
        )
        learned = ue.ProtectedDataset(photos, perturbation)
        measure(f"{name}, at {LEARNED}", learned)
        full = ue.ProtectedDataset(photos, perturbation, full_size=True)
        for filter, resampling in FILTERS.items():
            seen = Resized(full, resampling)
            what = left(learned, Resized(photos, resampling), seen)
            measure(f"{name}, full size, {filter}", seen, left=what)


if __name__ == "__main__":
    main()
