"""The command ``demo``: clean, random-noise and SEM-protected Shapes in a few minutes on a CPU."""

from __future__ import annotations

import argparse
import os
import platform
import time
from pathlib import Path
from typing import Any

from .._version import __version__
from ..io.files import claim_folder, write_json
from .arguments import chosen
from .terminal import quoted, show

RESULT = "result.json"
VICTIM = "tiny"


def demo(args: argparse.Namespace) -> None:
    """Try it out: fit, protect and evaluate on generated images."""
    result = run_demo(args.out, **chosen(args, run_demo))
    show(args, result, demo_table(result))


def run_demo(
    folder: str | Path,
    *,
    seed: int = 0,
    device: str = "auto",
    progress: bool = True,
    force: bool = False,
    size: int | None = None,
    epochs: int = 12,
    **parameters: Any,
) -> dict[str, Any]:
    """Fits SEM on generated images, trains a victim on each kind of data, and writes the results.

    The folder receives ``comparison.png``, ``curves.png`` (with the extra ``plot``), the artefact
    in ``sem/``, and ``result.json``, whose content is returned. ``size`` is the number of training
    images and of test images; ``parameters`` override those of SEM's preset ``"demo"``.
    """
    import torch

    from ..data.shapes import Shapes
    from ..evaluation.evaluate import evaluate
    from ..evaluation.report.curves import plot_curves
    from ..methods.random_noise import RandomNoise
    from ..methods.sem import SEM
    from ..protected.figures import comparison

    folder = claim_folder(folder, RESULT, force=force)
    start = time.perf_counter()
    train, test = Shapes(train=True, size=size), Shapes(train=False, size=size)
    options: dict[str, Any] = {"device": device, "progress": progress}
    sem = SEM.preset("demo", seed=seed, **parameters).fit(train, **options)
    fitted = time.perf_counter() - start
    noise = RandomNoise(seed=seed).fit(train, **options)
    protected = sem.protect(train)
    sets = {"clean": train, "random noise": noise.protect(train), "SEM": protected}
    evaluations = {
        name: evaluate(dataset, test, VICTIM, epochs=epochs, seeds=[seed], **options)
        for name, dataset in sets.items()
    }
    sem.perturbation_.config["strength"] = {
        "victim": VICTIM,
        "epochs": epochs,
        "seeds": [seed],
        "clean": evaluations["clean"].last,
        "protected": evaluations["SEM"].last,
    }
    sem.save_pretrained(folder / "sem", force=True)  # that of an earlier demo, whose folder this is
    comparison(protected.pixel_pairs(range(min(8, len(protected))))).save(folder / "comparison.png")
    curves = ["curves.png"] if plot_curves(evaluations, folder / "curves.png") else []
    result = {
        "format": "unlearnable-demo",
        "victims": {name: evaluation.to_dict() for name, evaluation in evaluations.items()},
        "method": repr(sem),
        "fit_seconds": round(fitted, 1),
        "folder": str(folder),
        "files": ["comparison.png", *curves, "sem/", RESULT],
        "seconds": round(time.perf_counter() - start, 1),
        "machine": {
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "unlearnable": __version__,
        },
    }
    write_json(folder / RESULT, result)
    return result


def demo_table(result: dict[str, Any]) -> str:
    """Formats the demo's result for a terminal."""
    lines = [f"{'a victim trained on':<22}{'test accuracy, last':>20}{'peak':>9}{'train':>9}"]
    for name, victim in result["victims"].items():
        figures = [f"{100 * victim[which][0]:.1f} %" for which in ("last", "peak", "train")]
        lines.append(f"{name + ' images':<22}{figures[0]:>20}{figures[1]:>9}{figures[2]:>9}")
    folder = Path(result["folder"])
    lines += ["", f"Took {result['seconds']:.0f} s. Results:"]
    lines += [f"  {folder / file}" for file in result["files"]]
    saved, out = (quoted(str(f)) for f in (folder / "sem", f"{folder}-audit"))
    lines += ["", "To try countermeasures against it, which takes a few minutes, run:"]
    audit = f"unlearnable audit shapes --perturbation {saved} --test shapes --quick --out {out}"
    return "\n".join([*lines, f"  {audit}"])
