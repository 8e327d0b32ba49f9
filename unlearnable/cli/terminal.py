"""What reaches the terminal: our own words in lines of their own, and no library's noise."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import re
import shlex
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from ..engine.sizes import readable_size
from ..errors import ArtefactError, UnknownImageError
from ..io.files import WriteError, is_full

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # without tabs and ends of lines
_PACKAGE = __name__.split(".")[0]
_WARNINGS = ("warnings", "_py_warnings", __name__)  # modules between a warning and who gave it
_EXPLAINED = (
    ValueError, TypeError, OSError, RuntimeError, ImportError, ArtefactError, UnknownImageError
)  # fmt: skip


@contextlib.contextmanager
def own_words_only(*, debug: bool) -> Iterator[None]:
    """Shows this package's logs and warnings, one per line, and other packages' logged warnings.

    With ``debug``, or if Python's warning options are set, other packages' warnings are shown too,
    as Python shows them. Characters missing from the terminal's encoding are escaped.
    """
    root, own = logging.getLogger(), logging.getLogger(_PACKAGE)
    levels = root.level, own.level
    handler = None
    if not root.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        root.addHandler(handler)
    own.setLevel(logging.INFO)
    if debug:
        root.setLevel(logging.INFO)
    with warnings.catch_warnings(), any_character(sys.stdout), any_character(sys.stderr):
        if not debug and not sys.warnoptions:
            warnings.showwarning = _show_warning
        try:
            yield
        finally:
            root.setLevel(levels[0])
            own.setLevel(levels[1])
            if handler is not None:
                root.removeHandler(handler)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """In place of ``warnings.showwarning``: ours as a line, those of libraries not at all."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__") in _WARNINGS:
        frame = frame.f_back
    if str(frame.f_globals.get("__name__")).split(".")[0] == _PACKAGE:
        print(f"unlearnable: {harmless(message)}", file=sys.stderr)


@contextlib.contextmanager
def any_character(stream: TextIO) -> Iterator[None]:
    """File names need not be Unicode, and not every terminal has every sign."""
    if not isinstance(stream, io.TextIOWrapper) or stream.errors != "strict":
        yield
        return
    stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        stream.reconfigure(errors="strict")


def show(args: argparse.Namespace, values: Any, text: str | None = None) -> None:
    """Prints values as JSON if requested; otherwise the text, or one line per value."""
    if args.json:
        text = json.dumps(values, indent=2)
    elif text is None:
        from ..perturbation.card import words

        lines = [[n, words(v).replace("\n", "\\n")] for n, v in values.items() if v is not None]
        text = aligned(lines)
    put_out(text)


def harmless(text: Any) -> str:
    """Escapes what steers a terminal: names come from files and from what others share."""
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", str(text))


def aligned(lines: list[list[str]]) -> str:
    """Aligns lines of words in columns."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def quoted(word: str) -> str:
    """A word of a command as it is typed: Windows' own shell knows no single quotes."""
    if os.name != "nt":
        return shlex.quote(word)
    if re.fullmatch(r"[\w:./\\-]+", word):
        return word
    return f'"{word}{chr(92) * word.endswith(chr(92))}"'  # else the last one is of the quote


def put_out(text: str) -> None:
    """Prints a result immediately; raises ``WriteError`` if it cannot be printed."""
    try:
        print(harmless(text), flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        drop_output()
        text = f"could not write to standard output: {error.strerror}"
        raise WriteError(error.errno, text) from error


def drop_output() -> None:
    """Discards remaining output so that the final flush does not fail."""
    with contextlib.suppress(OSError), Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def sentence(error: Exception, *, debug: bool) -> str:
    """An error as text; unexpected ones are named by their type."""
    text = str(error)
    if isinstance(error, OSError) and error.errno is not None and not isinstance(error, WriteError):
        text = f"{error.strerror}"
        if error.filename is not None:
            text = f"{os.fsdecode(error.filename)}: {text}"
        elif is_full(error):
            text += "; " + _free_places()
    if isinstance(error, _EXPLAINED) and text:
        return text
    text = f"{type(error).__name__}: {text}".removesuffix(": ")
    return text if debug else f"{text}; pass --debug to see where"


def _free_places() -> str:
    """Where files may have been written that an error does not name."""
    places = dict.fromkeys([str(Path.cwd()), tempfile.gettempdir()])
    sizes = {place: readable_size(shutil.disk_usage(place).free) for place in places}
    free = [f"{size} are free at {place}" for place, size in sizes.items()]
    return f"{' and '.join(free)}: free some space there, or set TMPDIR to another folder"
