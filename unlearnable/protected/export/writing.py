"""Files of images written in order, large ones while the next images are read and changed."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from ...data.image import pixels_of, to_pil
from ...data.photo import load_photo
from ...perturbation.visibility import are_grey
from ..manifest import Exported, Manifest
from ..share_left import ShareLeft
from .encoding import Encoding
from .journal import Written

# Pixels of images whose PNG file is written while the next ones are read: it pays, and the memory
# of all is not much more than other formats take for one.
BESIDE = range(1 << 18, 25_000_000)


class Pending(NamedTuple):
    """A file that is to be written.

    Attributes:
        write: Writes it.
        beside: Whether the next images are to be read and changed meanwhile.
        reused: Whether it is there already.
    """

    write: Callable[[], Written]
    beside: bool = False
    reused: bool = False


def in_order(files: Iterator[Pending]) -> Generator[tuple[Written, bool]]:
    """Writes files, some in a thread; what was written, and whether it was there already."""
    with ThreadPoolExecutor(1, thread_name_prefix="copies") as writer:
        running: Future[Written] | None = None
        for file in files:
            write, beside, reused = file
            del file  # nothing here holds on to an image
            # One at a time: a kill must not cost more than the copy that it interrupts.
            if running is not None:
                yield running.result(), False
                running = None
            if beside:
                running = writer.submit(write)
            else:
                yield write(), reused
            del write
        if running is not None:
            yield running.result(), False


def prepared(
    image: Exported,
    file: str,
    folder: Path,
    encoding: Encoding,
    manifest: Manifest,
    original: Path | None,
) -> Pending:
    """What is left to do for the file of an image; it holds only as much of it as that needs."""
    grey = manifest.keeps_grey and bool(are_grey(image.pixels[None]).all())
    pictures = [to_pil(image.pixels[:1] if grey else image.pixels)]
    # Its pixels need not be there while the largest encoders work.
    entry = None if encoding.lossy else manifest.entry(image, file)
    lossy = image if encoding.lossy else None
    info = image.info
    beside = encoding.format == "png" and image.pixels[0].size in BESIDE

    def write() -> Written:
        target, notes = folder / file, () if info is None else info.notes
        found = original.stat() if original is not None and original.exists() else None
        encoding.save(pictures.pop(), target, info)
        if found is not None and manifest.keeps_metadata:
            os.utime(target, ns=(found.st_mtime_ns, found.st_mtime_ns))
        if entry is not None:
            return Written(entry, notes)
        assert lossy is not None
        pixels = pixels_of(load_photo(target))
        left = ShareLeft()
        left.add(lossy.unchanged, lossy.pixels, pixels)
        sizes = None if found is None else (target.stat().st_size, found.st_size)
        return Written(manifest.entry(lossy, file, pixels), notes, left.sums, sizes)

    return Pending(write, beside)
