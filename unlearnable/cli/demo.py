"""The whole story in a few minutes on a CPU: clean, random-noise and SEM-protected Shapes."""

from __future__ import annotations

import os
import platform
import shlex
import time
from pathlib import Path
from typing import Any

import torch

from .._version import __version__
from ..data.shapes import Shapes
from ..evaluation.evaluate import Evaluation, evaluate
from ..evaluation.report.curves import plot_curves
from ..io.files import claim_folder, write_json
from ..methods.random_noise import RandomNoise
from ..methods.sem import SEM
from ..protected.figures import comparison

RESULT = "result.json"
_VICTIM, _EPOCHS = "tiny", 12


def run_demo(
    folder: str | Path,
    *,
    seed: int = 0,
    device: str = "auto",
    progress: bool = True,
    force: bool = False,
) -> dict[str, Any]:
    """Fits SEM on generated images, trains a victim on each kind of data, writes what was seen.

    Args:
        folder: Gets ``comparison.png``, ``curves.png`` (with the extra ``plot``), the artefact in
            ``sem/``, and ``result.json``.
        seed: Of the fit and of the victims.
        device: As for :meth:`Method.fit`.
        progress: Show bars.
        force: Write into a folder that holds other things.

    Returns:
        What ``result.json`` holds.
    """
    folder = claim_folder(folder, RESULT, force=force)
    start = time.perf_counter()
    train, test = Shapes(train=True), Shapes(train=False)
    sem = SEM.preset("demo", seed=seed).fit(train, device=device, progress=progress)
    fitted = time.perf_counter() - start
    noise = RandomNoise(seed=seed).fit(train, device=device, progress=progress)
    protected = sem.protect(train)
    evaluations: dict[str, Evaluation] = {
        name: evaluate(
            dataset,
            test,
            _VICTIM,
            epochs=_EPOCHS,
            seeds=[seed],
            device=device,
            progress=progress,
        )
        for name, dataset in (
            ("clean", train),
            ("random noise", noise.protect(train)),
            ("SEM", protected),
        )
    }
    sem.perturbation_.config["strength"] = {
        "victim": _VICTIM,
        "epochs": _EPOCHS,
        "seeds": [seed],
        "clean": evaluations["clean"].last,
        "protected": evaluations["SEM"].last,
    }
    sem.save_pretrained(folder / "sem", force=force)
    comparison(protected.pixel_pairs(range(8))).save(folder / "comparison.png")
    files = ["comparison.png", "sem/", RESULT]
    if plot_curves(evaluations, folder / "curves.png"):
        files.insert(1, "curves.png")
    result = {
        "format": "unlearnable-demo",
        "victims": {name: evaluation.to_dict() for name, evaluation in evaluations.items()},
        "method": repr(sem),
        "fit_seconds": round(fitted, 1),
        "seconds": round(time.perf_counter() - start, 1),
        "machine": {
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "unlearnable": __version__,
        },
        "folder": str(folder),
        "files": files,
    }
    write_json(folder / RESULT, result)
    return result


def demo_table(result: dict[str, Any]) -> str:
    """The demo's result for a terminal."""
    lines = [f"{'a victim trained on':<22}{'test accuracy, last':>20}{'peak':>9}{'train':>9}"]
    for name, victim in result["victims"].items():
        figures = [f"{100 * victim[which][0]:.1f} %" for which in ("last", "peak", "train")]
        lines.append(f"{name + ' images':<22}{figures[0]:>20}{figures[1]:>9}{figures[2]:>9}")
    folder = Path(result["folder"])
    lines += ["", f"Took {result['seconds']:.0f} s. Look at:"]
    lines += [f"  {folder / file}" for file in result["files"]]
    saved, out = (shlex.quote(str(f)) for f in (folder / "sem", Path(f"{folder}-audit")))
    lines += ["", "To try countermeasures against it, which takes some minutes:"]
    lines += [
        f"  unlearnable audit shapes --perturbation {saved} --test shapes --quick --out {out}"
    ]
    return "\n".join(lines)
