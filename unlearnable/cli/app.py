"""The command ``app``: a page for people who do not type."""

from __future__ import annotations

import argparse
import threading
import webbrowser

from .stages import plain_words
from .terminal import put_out, show


def app(args: argparse.Namespace) -> None:
    """Protect photos on a page in your browser; they stay on this computer."""
    from ..photos.app.start import serving

    with plain_words(verbose=args.debug), serving(args.port) as (url, folder):
        if args.json:
            show(args, {"url": url, "folder": str(folder)})
        else:
            put_out(
                f"The page is at {url} and can be opened only on this computer; press Ctrl-C to "
                f"stop it.\n"
                f"Its files are in {folder} until then; they are deleted when the page stops."
            )
        if args.browser:
            webbrowser.open(url)
        threading.Event().wait()
