"""The command ``unlearnable``, and how errors reach the user."""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import Sequence

from ..errors import ArtefactError, UnknownImageError
from .parser import make_parser

_EXPLAINED = (
    ValueError, TypeError, OSError, RuntimeError, ImportError, ArtefactError, UnknownImageError
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Returns:
        0; 1 for an error that is explained, or a folder that is not wholly protected; 130 for
        Ctrl-C.
    """
    typed = sys.argv[1:] if argv is None else argv
    # argparse takes -1/255 for an option, but " -1/255" for a value.
    args = make_parser().parse_args([re.sub(r"^(?=-[\d.]+/)", " ", word) for word in typed])
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        return args.run(args) or 0
    except KeyboardInterrupt as interrupt:
        print(f"unlearnable: {interrupt or 'interrupted'}", file=sys.stderr)
        return 130
    except Exception as error:
        if args.debug:
            traceback.print_exc()
        text = str(error)
        if not isinstance(error, _EXPLAINED) or not text:
            text = f"{type(error).__name__}: {text}".removesuffix(": ")
            text += "" if args.debug else "; --debug shows where"
        print(f"unlearnable: {text}", file=sys.stderr)
        return 1
