"""What the page says, to people who know photos and no machine learning."""

from __future__ import annotations

import math
import os
from pathlib import Path

from ..engine.estimate import duration
from ..io.files import is_full

TITLE = "Protect photos before you publish them"
PRIVATE = (
    "Your photos stay on this computer: nothing is uploaded, and the page works without the internet."
)
THREE_SENTENCES = (
    "<strong>It hinders</strong> programs that learn from scratch, from the copies that you publish, "
    "what your pictures show.",
    "<strong>It does not stop</strong> image generators, copies of a style (LoRA and the like), face "
    "search, or programs that already know pictures; for style there are Glaze and Nightshade, "
    "against face search nothing that holds.",
    "<strong>It can be removed</strong> by who takes the trouble, it does nothing for photos that are "
    "online already, and how well it works can be measured only from about a hundred photos of each "
    "kind on.",
)
VISIBILITIES = {
    "low": "Looks untouched",
    "medium": "Slight grain, protects more",
    "high": "Visible grain, protects most",
}
KEY_WARNING = (
    "<strong>Keep the private key, and do not publish it.</strong> Whoever has it can remove the "
    "protection. You need it to check copies later, or to protect more photos the same way."
)
KEY_README = """\
The private key of your protected photos. Keep it, and do not publish it: whoever has it can remove the
protection from the copies.

perturbation/  what was added to the photos, and what it was learned with
notes/         lists of the copies; put both files beside the copies to check these

To check whether copies are still protected:

    unlearnable verify COPIES perturbation --originals PHOTOS
"""


def time_left(seconds: float) -> str:
    """How long something still takes, as one would say it."""
    if not math.isfinite(seconds):
        return ""
    if seconds < 45:
        return "less than a minute left"
    minutes = round(seconds / 60)
    if minutes < 90:
        return "about a minute left" if minutes <= 1 else f"about {minutes} minutes left"
    return f"about {duration(seconds)} left"


def sentence(error: BaseException, folder: Path) -> str:
    """An error for the page, without the folders in which the photos lie for the time being."""
    if isinstance(error, MemoryError):
        return "The memory is full. Close other programs, or protect fewer photos at once."
    if isinstance(error, OSError) and is_full(error):
        return "The disk is full. Make room, or protect fewer photos at once."
    text = str(error)
    if isinstance(error, OSError) and error.strerror and error.filename:
        text = f"{os.fsdecode(error.filename)}: {error.strerror}"
    known = isinstance(error, (ValueError, TypeError, OSError, RuntimeError, ImportError))
    if not known or not text:
        text = f"Something unforeseen went wrong ({type(error).__name__}: {text})"
    return text.replace(f"{folder}{os.sep}", "").replace(str(folder), "your photos")
