"""What ``evaluate``, ``audit`` and ``verify`` do."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .arguments import chosen, loaded, open_dataset
from .terminal import show

_SMALL: dict[str, Any] = {"victims": ["tiny"], "epochs": 12}
_QUICK: dict[str, Any] = _SMALL | {
    "countermeasures": [
        "none", "grayscale", "jpeg-10", "jpeg-30", "orthogonal-projection",
        "adversarial-training-4-steps-3", "unprotected-20", "clean-part-only-20",
    ],
}  # fmt: skip


def evaluate_victims(args: argparse.Namespace) -> None:
    """Train victims on a dataset and test them on clean images."""
    from ..evaluation.evaluate import evaluate
    from ..protected.dataset import ProtectedDataset

    train = open_dataset(args.train)
    if args.perturbation is not None:
        train = ProtectedDataset(train, loaded(args, train))
    test = open_dataset(args.test, train=False)
    evaluation = evaluate(train, test, args.victim, **chosen(args, evaluate))
    show(args, evaluation.to_dict(), str(evaluation))


def audit_perturbation(args: argparse.Namespace) -> None:
    """Try countermeasures against a saved perturbation and report the worst case."""
    from ..engine.device import pick_device
    from ..evaluation.audit.runner import audit
    from ..protected.dataset import ProtectedDataset

    # Without a GPU, the victims and epochs that audit has by default take days.
    small = _SMALL if pick_device(args.device).type == "cpu" else {}
    options = {name: value for name, value in chosen(args, audit).items() if value is not None}
    dataset = open_dataset(args.dataset)
    report = audit(
        ProtectedDataset(dataset, loaded(args, dataset), full_size=args.full_size),
        None,
        None if args.test is None else open_dataset(args.test, train=False),
        **((_QUICK if args.quick else small) | options),
    )
    text = str(report)
    if args.folder is not None:
        text += f"\n\nOpen {Path(args.folder) / 'report.html'}"
    shown = {name: value for name, value in report.to_dict().items() if name != "examples"}
    show(args, shown, text)


def verify_folder(args: argparse.Namespace) -> int:
    """Check which pictures of a folder are protected, using their key."""
    from ..hub.catalogue import computed
    from ..protected.verify import verify

    if args.originals is None and computed(args.perturbation) is not None:
        raise ValueError(
            f"expected --originals with {args.perturbation}, because its rows are computed for "
            f"your images, got none; pass the folder of the originals"
        )
    originals = None if args.originals is None else open_dataset(args.originals)
    perturbation = loaded(args, originals)
    found = verify(args.folder, perturbation, originals, progress=args.progress)
    show(args, found.to_dict(), str(found))
    return 0 if found.whole else 1
