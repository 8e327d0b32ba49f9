"""Makes the pre-made perturbations of CIFAR-10 and 100, measures them, and lists them.

Those that come with the package, on a CPU in about half an hour on one core:

    python benchmarks/release.py ROOT --images 10000 --victim tiny --epochs 12

Those with a row per image that a network in the package computes where they are used; clean victims
are those of recipes.py, which are the same, or those that another result of this command has:

    python benchmarks/release.py ROOT --surrogates --work WORK --only cifar10-sem --preset fast \
        --victim resnet9 --epochs 12 --recipe fast --clean benchmarks/results/recipes-cpu.json \
        --result benchmarks/results/release-surrogates-cpu.json
    python benchmarks/release.py ROOT --surrogates --work WORK --only cifar10-sep --preset fast \
        --surrogate tiny --victim resnet9 --epochs 12 --recipe fast \
        --clean benchmarks/results/recipes-cpu.json \
        --result benchmarks/results/release-sep-cpu.json
    python benchmarks/release.py ROOT --surrogates --work WORK --only cifar10-miue --preset fast \
        --surrogate tiny --victim resnet9 --epochs 12 --recipe fast \
        --clean benchmarks/results/recipes-cpu.json \
        --result benchmarks/results/release-miue-cpu.json
    python benchmarks/release.py ROOT --surrogates --work WORK \
        --only cifar10-em cifar10-rem cifar10-tap --preset fast --surrogate tiny \
        --victim resnet9 --epochs 12 --recipe fast \
        --result benchmarks/results/release-surrogates-gpu.json

Those with a row per image, as folders ready to be pushed:

    python benchmarks/release.py ROOT --sample-wise OUT --device cuda --preset paper \
        --victim resnet18 --epochs 60 --seeds 3 --result benchmarks/results/release-gpu.json
    unlearnable push OUT/cifar10-sem OWNER/cifar10-sem --public
    python benchmarks/release.py --pushed OUT/cifar10-sem OWNER/cifar10-sem COMMIT

Those of CIFAR-100, from a folder with ``cifar-100-python``:

    python benchmarks/release.py ROOT --dataset cifar100 --only cifar100-lasting \
        --victim resnet9 --epochs 12 --recipe fast \
        --result benchmarks/results/release-cifar100-lasting-gpu.json
    python benchmarks/release.py ROOT --dataset cifar100 --surrogates --only cifar100-em \
        --preset fast --surrogate tiny --victim resnet9 --epochs 12 --recipe fast \
        --result benchmarks/results/release-cifar100-em-gpu.json
    python benchmarks/release.py ROOT --dataset cifar100 --surrogates \
        --only cifar100-sem cifar100-tap cifar100-rem cifar100-sep cifar100-miue \
        --preset fast --surrogate tiny --victim resnet9 --epochs 12 --recipe fast \
        --clean benchmarks/results/release-cifar100-em-gpu.json \
        --result benchmarks/results/release-cifar100-cpu.json

ROOT is a folder with ``cifar-10-batches-py`` or ``cifar-100-python``. Every perturbation is fitted
on all 50,000 training images; its strength is measured with victims trained on the first --images
of them. The command continues where it was stopped: what already exists is not fitted again, and
what is in --result is not measured again. With --surrogates, fits continue from checkpoints in
--work, which may hold fits of strength.py under the artefacts' names, victims get all images, and
--compare also trains them on the fitted rows.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from cifar import first, opened
from cifar10 import CLASS_WISE
from record import RESULTS, Record
from torch.utils.data import Subset
from torchvision.datasets import CIFAR10, CIFAR100

import unlearnable as ue
from unlearnable.hub.catalogue import FILE
from unlearnable.io.files import write_json
from unlearnable.methods.premade import make_small, save_small, surrogate_digest
from unlearnable.perturbation.card import write_card

# Small enough for the package: a row, a pixel or a kernel per class, or an algorithm.
SHIPPED: dict[str, tuple[type[ue.Method], dict[str, Any]]] = {
    "cifar10-ops": (ue.OPS, {}),
    "cifar10-class-convolution": (ue.ClassConvolution, {}),
    "cifar10-ar": (ue.AR, {}),
    "cifar10-lsp": (ue.LSP, {}),
    "cifar10-em-class-wise": (ue.EM, CLASS_WISE),
    "cifar10-colour-shift": (ue.ColourShift, {}),
    "cifar10-smooth-fields": (ue.SmoothFields, {"epsilon": 24 / 255}),
    "cifar10-gratings": (ue.Gratings, {}),
    "cifar10-lasting": (ue.Lasting, {}),
    "cifar100-lasting": (ue.Lasting, {}),
}
# Each checkpoint adds to the package, and small ones do little within the usual 2/255.
_SMALL_SEP = {"checkpoints": 6, "epsilon": 8 / 255, "step_size": 2 / 255}
SAMPLE_WISE: dict[str, tuple[type[ue.Method], dict[str, Any]]] = {
    "cifar10-sem": (ue.SEM, {}),
    "cifar10-sep": (ue.SEP, _SMALL_SEP),
    "cifar10-em": (ue.EM, {}),
    "cifar10-tap": (ue.TAP, {}),
    "cifar10-rem": (ue.REM, {}),
    "cifar10-miue": (ue.MIUE, {}),
    "cifar100-sem": (ue.SEM, {}),
    "cifar100-em": (ue.EM, {}),
    "cifar100-tap": (ue.TAP, {}),
    "cifar100-rem": (ue.REM, {}),
    "cifar100-sep": (ue.SEP, _SMALL_SEP),
    "cifar100-miue": (ue.MIUE, {}),
}
DATASETS = {"cifar10": CIFAR10, "cifar100": CIFAR100}
_EXAMPLES = 10  # images whose rows are kept beside a network


def check_same(found: ue.Perturbation, method: ue.Method, folder: Path) -> None:
    """Refuses what an earlier start left if it was fitted with anything else."""
    given = found.config["method"]
    if found.config["method"] == type(method).__name__:
        given = repr(type(method)(**found.config["parameters"]))
    if given != repr(method):
        raise SystemExit(
            f"expected in {folder} what {method!r} gives, found what is of {given}; delete that "
            f"folder, or choose another one"
        )


def fitted(name: str, folder: Path, train: Any, args: argparse.Namespace) -> ue.Perturbation:
    """From its folder where an earlier start left it."""
    cls, overrides = (SHIPPED | SAMPLE_WISE)[name]
    method = cls.preset(args.preset, **overrides)
    if folder.is_dir():
        found = ue.Perturbation.from_pretrained(folder)
        check_same(found, method, folder)
        return found
    method.fit(train, device=args.device, checkpoint=folder.with_name(f"{name}-checkpoint"))
    method.perturbation_.save_pretrained(folder)
    return method.perturbation_


def accuracies(name: str, dataset: Any, test: Any, record: Record, args: Any) -> list[float]:
    """Last clean-test accuracy of each victim, from the record where it is there."""
    settings = record.settings
    cell = record.cells.get(name)
    if cell is None:
        dataset = first(dataset, settings["images"])
        evaluation = ue.evaluate(
            dataset,
            test,
            settings["victim"],
            epochs=settings["epochs"],
            seeds=settings["seeds"],
            recipe=settings.get("recipe", "standard"),
            device=args.device,
            precision=args.precision,
        )
        print(f"{name}: {evaluation}", flush=True)
        cell = {"last": evaluation.last, "peak": evaluation.peak}
        record.put(name, cell)
    last: list[float] = cell["last"]
    return last


def listed(perturbation: ue.Perturbation, name: str, **place: Any) -> None:
    """Adds a perturbation to the catalogue, or changes what it says."""
    entries = {entry["name"]: entry for entry in json.loads(FILE.read_text(encoding="utf-8"))}
    info, source = perturbation.info(), perturbation.config["source"]
    fields = ("method", "image_shape", "epsilon", "norm", "bytes", "digest")
    entries[name] = {
        "name": name,
        **{field: info[field] for field in fields},
        "dataset": source["name"],
        "images": source["images"],
        **place,
    }
    write_json(FILE, [entries[name] for name in sorted(entries)])


def with_surrogate(name: str, train: Any, test: Any, record: Record, args: Any) -> None:
    """Fits one of SAMPLE_WISE, puts its network into the package, and measures what that gives."""
    place, folder = args.work / name, FILE.parent / "pretrained" / name
    cls, overrides = SAMPLE_WISE[name]
    network = {} if args.surrogate is None else {"surrogate": args.surrogate}
    asked = cls.preset(args.preset, **overrides, **network)
    if not place.is_dir():
        checkpoint = args.work / f"{name}-checkpoint"
        asked.fit(train, device=args.device, precision=args.precision, checkpoint=checkpoint)
        asked.save_pretrained(place)
    method = cls.from_pretrained(place)
    check_same(method.perturbation_, asked, place)
    method.perturbation_.config["source"]["name"] = DATASETS[args.dataset].__name__
    if args.compare:
        own = ue.ProtectedDataset(train, method.perturbation_)
        accuracies(f"{name}, fitted rows", own, test, record, args)
    firsts = [train.targets.index(label) for label in range(_EXAMPLES)]
    make_small(method, Subset(train, firsts))
    save_small(method, folder)
    listed_with_surrogate(method.perturbation_, name, folder)
    start, worked = time.perf_counter(), time.process_time()
    computed = ue.Perturbation.from_pretrained(name, dataset=train, device=args.device)
    seconds, worked = time.perf_counter() - start, time.process_time() - worked
    if f"{name}, rows" not in record.cells:
        taken = {"seconds": round(seconds, 1), "cpu_seconds": round(worked, 1)}
        record.put(f"{name}, rows", taken | {"images": len(computed)})
    protected = ue.ProtectedDataset(train, computed)
    last = accuracies(name, protected, test, record, args)
    method.perturbation_.config["strength"] = strength(record, last)
    save_small(method, folder)
    listed_with_surrogate(method.perturbation_, name, folder)


def clean_from(path: Path, record: Record) -> None:
    """Takes the clean victims of recipes.py or of another release, where these are the same."""
    result, settings = json.loads(path.read_text()), record.settings
    known, cells = result["settings"], result["cells"]
    if known == settings:
        record.put("clean", cells["clean"])
        return
    same = {"network": "victim", "recipe": "recipe", "epochs": "epochs"}
    if any(known.get(theirs) != settings.get(ours) for theirs, ours in same.items()):
        raise SystemExit(f"expected clean victims trained like {settings}, got {known} in {path}")
    cells = [cells[f"seed {seed}"] for seed in range(settings["seeds"])]
    record.put("clean", {which: [cell[which] for cell in cells] for which in ("last", "peak")})


def listed_with_surrogate(perturbation: ue.Perturbation, name: str, folder: Path) -> None:
    """As :func:`listed`, with the size of all files and the digest of the surrogate's."""
    size = sum(path.stat().st_size for path in folder.iterdir())
    listed(perturbation, name, surrogate=surrogate_digest(folder), bytes=size)


def strength(record: Record, protected: list[float]) -> dict[str, Any]:
    """What was measured, as it is kept beside a perturbation."""
    settings = record.settings
    return {
        "clean": record.cells["clean"]["last"],
        "protected": protected,
        "seeds": list(range(settings["seeds"])),
        "victim": settings["victim"],
        "epochs": settings["epochs"],
        "training images": settings["images"],
        "date": record.date,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "root", nargs="?", help="folder with cifar-10-batches-py or cifar-100-python"
    )
    parser.add_argument("--dataset", default="cifar10", choices=list(DATASETS))
    parser.add_argument("--sample-wise", type=Path, metavar="OUT")
    parser.add_argument("--surrogates", action="store_true")
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "work" / "release")
    parser.add_argument("--compare", action="store_true", help="measure the fitted rows, too")
    parser.add_argument("--clean", type=Path, help="result of recipes.py, or of this command")
    parser.add_argument("--recipe", help="of victims; standard unless given")
    parser.add_argument("--pushed", nargs=3, metavar=("FOLDER", "REPO", "COMMIT"))
    parser.add_argument("--only", nargs="+", choices=list(SHIPPED | SAMPLE_WISE))
    parser.add_argument("--preset", default="demo", choices=["paper", "fast", "demo"])
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--victim", default="resnet18")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--surrogate", help="in place of the preset's, with --surrogates")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", choices=["auto", "float32", "bf16"])
    parser.add_argument("--result", type=Path, default=RESULTS / "release-cpu.json")
    args = parser.parse_args()
    if args.pushed:
        folder, repo, commit = args.pushed
        name = Path(folder).name
        listed(ue.Perturbation.from_pretrained(folder), name, repo=repo, commit=commit)
        return

    settings = {name: getattr(args, name) for name in ("images", "victim", "epochs", "seeds")}
    settings |= {} if args.recipe is None else {"recipe": args.recipe}
    settings |= {} if args.dataset == "cifar10" else {"dataset": args.dataset}
    record = Record(args.result, settings, args.device)
    train = opened(args.dataset, args.root)
    train.__class__ = DATASETS[args.dataset]  # whose name the artefacts state
    test = opened(args.dataset, args.root, train=False)
    if args.clean and "clean" not in record.cells:
        clean_from(args.clean, record)
    accuracies("clean", train, test, record, args)

    def asked(chosen: Any) -> list[str]:
        return args.only or [name for name in chosen if name.startswith(f"{args.dataset}-")]

    if args.surrogates:
        for name in asked(SAMPLE_WISE):
            with_surrogate(name, train, test, record, args)
        return
    chosen = SHIPPED if args.sample_wise is None else SAMPLE_WISE
    for name in asked(chosen):
        folder = (args.sample_wise or FILE.parent / "pretrained") / name
        perturbation = fitted(name, folder, train, args)
        protected = accuracies(name, ue.ProtectedDataset(train, perturbation), test, record, args)
        perturbation.config["strength"] = strength(record, protected)
        perturbation.save_pretrained(folder)
        if args.sample_wise is None:
            listed(perturbation, name)
        else:
            (folder / "README.md").write_text(write_card(perturbation, f"OWNER/{name}"))


if __name__ == "__main__":
    main()
