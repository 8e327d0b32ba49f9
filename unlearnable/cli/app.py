"""The command ``app``: a page for people who do not type."""

from __future__ import annotations

import argparse

from .arguments import chosen


def app(args: argparse.Namespace) -> None:
    """Protect photos on a page in the browser, on this computer alone."""
    from ..app.start import start

    start(**chosen(args, start))
