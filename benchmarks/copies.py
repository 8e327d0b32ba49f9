"""What victims learn from protected copies as people publish them: each visibility, PNG and JPEG.

    python benchmarks/copies.py photos
    python benchmarks/copies.py cifar10 ROOT

SEM is learned under each visibility, and Lasting is compared with it at low. For "photos",
generated photos of 48 to 96 pixels, it is learned at 32 pixels; the copies keep the photos' size,
and victims resize them to 32 pixels, bicubic. For "cifar10", it protects the first 10,000 training
images; ROOT is a folder with ``cifar-10-batches-py``. Victims read the copies as they are (PNG), or
saved as JPEG as ``export`` does, with colour at full size, and read again. All victims are tested
on clean images. Cells that already exist are not measured again. --table writes the tables of
docs/how-to/photos.md from the results.
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from typing import Any

from cifar import AnyCIFAR10, first
from cifar10 import accuracy_shown
from fullsize import LEARNED, Photos, Resized
from kept import kept
from PIL import Image
from record import DOCS, RESULTS, Record, fill, where
from torch.utils.data import Dataset

import unlearnable as ue
from unlearnable.perturbation.visibility import VISIBILITIES

PAGE = DOCS / "how-to" / "photos.md"
QUALITIES = {"PNG": None, "JPEG 95": 95, "JPEG 85": 85, "JPEG 75": 75}
STEPS = {"photos": 400, "cifar10": 800}  # of SEM
IMAGES = {"photos": 3_000, "cifar10": 10_000}
TRAINED_ON = {"photos": "generated photos", "cifar10": "images of CIFAR-10"}
# Low visibility is what photos get where nothing else is asked for: it is measured first.
ORDER = sorted(("clean", *VISIBILITIES), key=["clean", "low", "medium", "high", "full"].index)
LASTING = "Lasting, low"


class Copies(Dataset[Any]):
    """Images as they are read from the files that they were saved to."""

    def __init__(self, dataset: Any, classes: list[str], quality: int | None) -> None:
        items = [dataset[index] for index in range(len(dataset))]
        self.images = [self._saved(image, quality) for image, _ in items]
        self.classes, self.targets = classes, [label for _, label in items]

    @staticmethod
    def _saved(image: Image.Image, quality: int | None) -> Image.Image:
        if quality is None:
            return image
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality, subsampling=0)
        return Image.open(file).convert("RGB")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return self.images[index], self.targets[index]


def perturbation_of(name: str, train: Any, args: argparse.Namespace) -> ue.Perturbation:
    """Of a visibility, from --work where an earlier start left it."""
    method: ue.Method = ue.SEM.preset("demo", train_steps=STEPS[args.dataset])
    method = ue.Lasting() if name == LASTING else method
    level = name.removeprefix("Lasting, ")
    made_with = {
        "method": repr(method), "visibility": level, "dataset": args.dataset, "images": len(train)
    }  # fmt: skip
    return kept(
        args.work / f"{args.dataset}-{len(train)}-{name.replace(', ', '-')}",
        made_with,
        lambda _: method.fit(train, visibility=level, progress=False, image_size=LEARNED),
    )


def table(result: dict[str, Any]) -> str:
    """A row for each visibility, a column for each kind of file."""
    cells, settings = result["cells"], result["settings"]
    kinds = [kind for kind in QUALITIES if any(name.endswith(f", {kind}") for name in cells)]
    lines = [f"| visibility | {' | '.join(kinds)} |", "|---" * (len(kinds) + 1) + "|"]
    for name in (*ORDER, LASTING):
        found = [cells.get(f"{name}, {kind}") for kind in kinds]
        if any(found):
            lines.append(f"| {name} | {' | '.join(map(accuracy_shown, found))} |")
    note = (
        f"Test accuracy on clean images in percent after the last epoch, mean and spread over "
        f"{settings['seeds']} victims; {settings['images']:,} {TRAINED_ON[settings['dataset']]}, "
        f"SEM preset demo with {settings['train_steps']} steps, victim {settings['victim']}, "
        f"{settings['epochs']} epochs. {result['date']}, {where(result)}."
    )
    return "\n".join([*lines, "", note])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", choices=IMAGES)
    parser.add_argument("root", nargs="?", help="folder with cifar-10-batches-py")
    parser.add_argument("--images", type=int, help="to train on; 3,000 and 10,000 by default")
    parser.add_argument("--victim", default="tiny")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=[*ORDER, LASTING], default=[*ORDER, LASTING])
    parser.add_argument("--kinds", nargs="+", choices=QUALITIES, default=list(QUALITIES))
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "work" / "copies")
    parser.add_argument("--out", type=Path, help="by default a file of each dataset")
    parser.add_argument("--table", action="store_true", help="make the table of --out and end")
    args = parser.parse_args()
    args.out = args.out or RESULTS / f"copies-{args.dataset}-cpu.json"
    if args.table:
        fill(PAGE, f"copies.py {args.dataset}", table(json.loads(args.out.read_text())))
        return
    is_photos, count = args.dataset == "photos", args.images or IMAGES[args.dataset]
    settings = {name: getattr(args, name) for name in ("dataset", "victim", "epochs", "seeds")}
    settings |= {"images": count, "train_steps": STEPS[args.dataset]}
    record = Record(args.out, settings)
    train: Any = Photos(count) if is_photos else first(AnyCIFAR10(args.root), count)
    test: Any = Photos(1_000, train=False) if is_photos else AnyCIFAR10(args.root, train=False)

    for kind in args.kinds:
        for name in args.only:
            if f"{name}, {kind}" in record.cells:
                continue
            dataset = train
            if name != "clean":
                perturbation = perturbation_of(name, train, args)
                dataset = ue.ProtectedDataset(train, perturbation, full_size=is_photos)
            copies: Any = Copies(dataset, test.classes, QUALITIES[kind])
            if is_photos:
                copies = Resized(copies, Image.Resampling.BICUBIC)
            found = ue.evaluate(
                copies,
                test,
                args.victim,
                epochs=args.epochs,
                seeds=args.seeds,
                progress=False,
                image_size=LEARNED,
            )
            record.put(f"{name}, {kind}", {"victims": found.to_dict()})
            print(f"{name}, {kind}: {found}", flush=True)


if __name__ == "__main__":
    main()
