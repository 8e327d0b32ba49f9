"""What the page says, to people who know photos and no machine learning."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from ...engine.estimate import duration
from ...io.files import is_full
from ...protected.share_left import HARDLY

TITLE = "Protect photos before you publish them"
PRIVATE = (
    "Your photos stay on this computer: nothing is uploaded, and you need no internet connection. "
    "The files on this page are deleted when you close the program."
)
THREE_SENTENCES = (
    "<strong>It hinders</strong> programs that learn from scratch, from the copies you publish, "
    "to recognise what pictures show.",
    "<strong>It does not stop</strong> image generators, style imitation (LoRA and the like), "
    "face search, or programs that have already learned from other pictures. Against style "
    "imitation, people use Glaze and Nightshade.",
    "<strong>It is not a lock.</strong> Anyone determined can remove it. Photos that are already "
    "online stay unprotected. With fewer than about a hundred photos of each kind, nobody can "
    "measure how well it works.",
)
ABOUT_OTHERS = (
    "If your photos are all of one kind, there is nothing to tell them apart from. Add some other "
    "pictures, such as photos of other people or places, and the program learns a pattern that "
    "sets yours apart. The other pictures are not changed, and no copies of them are made."
)
LOOKS = {
    "low": "Looks untouched",
    "medium": "Slight grain, stronger",
    "high": "Visible grain, strongest",
}
START = "Protect the photos"
NEXT = "Publish these copies, not your originals. They contain no location, camera or author data."
KEY_WARNING = (
    "<strong>Keep the private key, and do not publish it.</strong> Anyone who has it can remove "
    "the protection. You need it to check later whether copies are still protected."
)
COMPARE = (
    "The original is on the left, the copy on the right. Drag the line to compare; scroll or "
    "pinch to zoom."
)
KEY_README = """\
This is the private key of your protected photos. Keep it, and do not publish it: anyone who has it
can remove the protection from the copies.

perturbation/  what was added to the photos, and how it was learned
notes/         lists of the copies; put both files into the folder of the copies to check them

To check whether copies are still protected:

    unlearnable verify COPIES perturbation --originals PHOTOS
"""

_SHOWN = 5  # copies that a caution names


def cautions(bare: Sequence[str], count: int, left: float | None) -> list[str]:
    """What is wrong with finished copies.

    Args:
        bare: Names of the copies in which no pixel changed.
        count: Number of all copies.
        left: The share of the change that is left in JPEG files, if it is known.
    """
    found = []
    if bare:
        some = ", ".join(bare[:_SHOWN]) + ", …" * (len(bare) > _SHOWN)
        are, them = ("is", "it") if len(bare) == 1 else ("are", "them")
        found.append(
            f"{len(bare):,} of {count:,} copies {are} not protected, because the change leaves "
            f"every pixel as it was: {some}. Do not publish {them}, or choose a stronger change."
        )
    if left is not None and left < HARDLY:
        found.append(
            f"Only {left:.0%} of the change is left in these JPEG files, so the copies are hardly "
            f"protected. Choose PNG."
        )
    return found


def time_needed(seconds: float) -> str:
    """A length of time in everyday words."""
    if not math.isfinite(seconds):
        return "time unknown"
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute"
    if minutes < 90:
        return "about a minute" if minutes == 1 else f"about {minutes} minutes"
    return f"about {duration(seconds)}"


def time_left(seconds: float) -> str:
    """The time left in everyday words, or nothing if it is unknown."""
    return f"{time_needed(seconds)} left" if math.isfinite(seconds) else ""


def plain(error: BaseException, *folders: Path) -> str:
    """An error for the page, without the temporary folders that hold the photos."""
    if isinstance(error, MemoryError):
        return (
            "This computer ran out of memory. Close other programs, or protect fewer photos "
            "at once."
        )
    if isinstance(error, OSError) and is_full(error):
        return "The disk is full. Free some space, or protect fewer photos at once."
    text = str(error)
    if isinstance(error, OSError) and error.strerror and error.filename:
        text = f"{os.fsdecode(error.filename)}: {error.strerror}"
    known = isinstance(error, (ValueError, TypeError, OSError, RuntimeError, ImportError))
    if not known or not text:
        text = f"Something unexpected went wrong ({type(error).__name__}: {text})"
    for folder in folders:
        text = text.replace(f"{folder}{os.sep}", "").replace(str(folder), "your photos")
    return text
