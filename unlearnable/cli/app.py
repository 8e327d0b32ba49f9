"""The command ``app``: a page for people who do not type."""

from __future__ import annotations

import argparse
import threading
import webbrowser

from .terminal import put_out, show


def app(args: argparse.Namespace) -> None:
    """Protect photos on a page in the browser, on this computer alone."""
    from ..photos.app.start import serving

    with serving(args.port) as (url, folder):
        if args.json:
            show(args, {"url": url, "folder": str(folder)})
        else:
            put_out(
                f"The page is at {url}, for this computer alone; Ctrl-C ends it.\n"
                f"Photos lie in {folder} meanwhile, and are deleted at the end."
            )
        if args.browser:
            webbrowser.open(url)
        threading.Event().wait()
