"""What the page says, to people who know photos and no machine learning."""

from __future__ import annotations

import math
import os
from pathlib import Path

from ...engine.estimate import duration
from ...io.files import is_full

TITLE = "Protect photos before you publish them"
PRIVATE = (
    "Your photos stay on this computer: nothing is uploaded, and no internet is needed. What lies "
    "here is deleted when the program ends."
)
THREE_SENTENCES = (
    "<strong>It hinders</strong> programs that learn from scratch, from the copies that you "
    "publish, to tell what pictures show.",
    "<strong>It does not stop</strong> image generators, imitation of a style (LoRA and the like), "
    "face search, or programs that already know pictures; against imitation of a style people use "
    "Glaze and Nightshade.",
    "<strong>It is no lock:</strong> who takes the trouble can remove it, photos that are online "
    "already stay as they are, and from fewer than about a hundred photos of each kind nobody can "
    "say how well it works.",
)
ABOUT_OTHERS = (
    "Photos of one kind alone cannot be told from anything. With some other pictures beside them, "
    "such as photos of other people or places, a pattern is learned that yours can be told by. The "
    "others are not changed, and are not among the copies."
)
LOOKS = {
    "low": "Looks untouched",
    "medium": "Slight grain, stronger",
    "high": "Visible grain, strongest",
}
START = "Protect the photos"
NEXT = "Publish these copies, not your originals. They carry no place, camera or author."
KEY_WARNING = (
    "<strong>Keep the private key, and do not publish it.</strong> Whoever has it can remove the "
    "protection. With it you can check later whether copies are still protected."
)
COMPARE = "Left the original, right the copy. Drag the line; scroll or pinch to look closer."
KEY_README = """\
The private key of your protected photos. Keep it, and do not publish it: whoever has it can remove
the protection from the copies.

perturbation/  what was added to the photos, and what it was learned with
notes/         lists of the copies; put both files beside the copies to check these

To check whether copies are still protected:

    unlearnable verify COPIES perturbation --originals PHOTOS
"""


def time_needed(seconds: float) -> str:
    """How long something takes, as one would say it."""
    if not math.isfinite(seconds):
        return "time not known"
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute"
    if minutes < 90:
        return "about a minute" if minutes == 1 else f"about {minutes} minutes"
    return f"about {duration(seconds)}"


def time_left(seconds: float) -> str:
    """The same of what is left, or nothing where that is not known."""
    return f"{time_needed(seconds)} left" if math.isfinite(seconds) else ""


def plain(error: BaseException, *folders: Path) -> str:
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
    for folder in folders:
        text = text.replace(f"{folder}{os.sep}", "").replace(str(folder), "your photos")
    return text
