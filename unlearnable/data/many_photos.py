"""Many photos at once: few large ones in memory together, and all bad ones in one error."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence

from .photo import LEAVE_OUT, REPLACE

_TOGETHER = 25_000_000  # pixels of photos that are decoded at once; a larger one is alone
_SHOWN = 20  # files that an error lists
_turn = threading.Condition()
_pixels = 0  # of the photos that are being decoded


@contextlib.contextmanager
def few_at_once(size: tuple[int, int]) -> Iterator[None]:
    """Makes threads wait until there is memory to decode a photo of this width and height."""
    global _pixels
    own = size[0] * size[1]
    with _turn:
        _turn.wait_for(lambda: not _pixels or _pixels + own <= _TOGETHER)
        _pixels += own
    try:
        yield
    finally:
        with _turn:
            _pixels -= own
            _turn.notify_all()


class BadPhotosError(ValueError):
    """Several photos cannot be used; ``count`` says how many."""

    count = 0


def bad_photos(count: int, bad: Sequence[str]) -> BadPhotosError:
    """The error for ``count`` photos of which some are bad, with what is wrong with each."""
    listed = [text.removesuffix(f"; {LEAVE_OUT}").removesuffix(f"; {REPLACE}") for text in bad]
    some = "\n  ".join(listed[:_SHOWN])
    more = f"\n  … and {len(bad) - _SHOWN:,} more" if len(bad) > _SHOWN else ""
    error = BadPhotosError(
        f"expected {count:,} photos, got {count - len(bad):,} and {len(bad):,} bad "
        f"{'file' if len(bad) == 1 else 'files'}:\n  {some}{more}\n"
        f"repair {'it, or move it' if len(bad) == 1 else 'them, or move them'} out of the folder"
    )
    error.count = len(bad)
    return error
