"""The words of a report, the same on the page and in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .report import BREAKS, HOLDS, AuditReport, Row, duration

COLUMNS = ("protected, peak", "protected, last", "clean, peak", "recovered")
LIMITS = (
    "Protection is empirical. Another countermeasure, network or training schedule may recover "
    "more than those tried here, and nothing here bounds what one that is not known yet recovers.",
    "The peak is the best epoch judged on test images, which errs on the trainer's side. Figures "
    "hold for this dataset, image size, networks and number of epochs.",
    "Keep clean originals and the perturbation to yourself: pairs of clean and protected images "
    "are enough to learn to undo it.",
)


def dataset_name(report: AuditReport) -> str:
    """Name and size of the training images."""
    return f"{report.dataset['name']} ({report.dataset['images']:,} images)"


def title(report: AuditReport) -> str:
    """Of the page."""
    return f"Audit of {report.perturbation['method']} on {report.dataset['name']}"


def how_to_read(report: AuditReport) -> str:
    """What the columns of the table say."""
    return (
        "High figures mean a weak protection. Peak is the best epoch, last the end of training; "
        "the clean column is the same victim and countermeasure on clean images. Recovered is the "
        "peak on protected images as a share of what clean images give without a countermeasure, "
        f"both beyond guessing ({100 * report.chance:.1f} %): up to {100 * HOLDS:.0f} % the "
        f"protection held, from {100 * BREAKS:.0f} % it does not. A countermeasure says little "
        f"about the protection where it leaves clean images no more than {100 * HOLDS:.0f} %."
    )


def marks(report: AuditReport, row: Row) -> list[str]:
    """What stands beside the name of a countermeasure in the table."""
    found = {"worst case": row == report.worst(), "says little": report.says_little(row)}
    return [mark for mark, holds in found.items() if holds]


def change_cells(change: Mapping[str, Any]) -> dict[str, str]:
    """Imperceptibility by column."""
    psnr = change["psnr"]
    return {
        "PSNR": "∞ dB" if psnr is None else f"{psnr:.1f} dB",
        "SSIM": f"{change['ssim']:.3f}",
        "largest change": f"{change['linf']}",
        "mean change": f"{change['mean']:.2f}",
        "changed pixels": f"{100 * change['share']:.1f} %",
        "images": f"{change['images']}",
    }


def facts(report: AuditReport) -> dict[str, str]:
    """Everything that the figures depend on, by name."""
    own, data, test, used = report.perturbation, report.dataset, report.test, report.settings
    machine = report.machine
    parameters = ", ".join(f"{name}={value}" for name, value in own["parameters"].items())
    held = test["held_out"]
    from_where = test["name"] if held is None else f"{100 * held:.0f} % of the images held out"
    budget = "none" if own["epsilon"] is None else f"{own['epsilon']} ({own['norm']})"
    peak = used["peak_images"]
    told = {
        "Method": f"{own['method']}, {own['granularity']}",
        "Budget": budget,
        "Parameters": parameters or "none",
        "Perturbation": f"digest {own['digest']}",
        "Training images": (
            f"{data['name']}, {data['images']:,} images of {data['num_classes']} classes, "
            f"{100 * data['fraction']:.0f} % of them protected; digest {data['digest']}"
        ),
        "Test images": f"{from_where}, {test['images']:,} clean images; digest {test['digest']}",
        "Victims": ", ".join(report.victims),
        "Training": (
            f"{used['epochs']} epochs, batches of {used['batch_size']}, SGD with momentum 0.9, "
            f"weight decay 5e-4, cosine schedule, random crops and flips; {used['precision']}"
        ),
        "Peak": "on all test images" if peak is None else f"on {peak:,} of the test images",
        "Seeds": ", ".join(map(str, report.seeds)),
        "Cells": f"{len(report.cells)} of {report.planned}",
        "Time taken": duration(report.seconds),
        "Date": report.date,
        "Machine": f"{machine['device']}, {machine['threads']} threads",
        "Versions": ", ".join(
            f"{name} {machine[name]}" for name in ("unlearnable", "torch", "torchvision", "python")
        ),
    }
    if used["image_size"] is not None:
        told["Image size"] = "x".join(map(str, used["image_size"]))
    if test["overlap"]:
        told["Warning"] = f"{test['overlap']} test images are among the training images"
    return told
