"""Starts the page on this machine alone, and clears away behind it."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
import webbrowser
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from .local import HOST, OnlyThisPage

_FOLDER = "unlearnable-app-"
_LOCK = "lock"
# Gradio asks the network for its newest release and reports its use, unless it is told not to.
_SETTINGS = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_SHARE": "False",
    "GRADIO_MCP_SERVER": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
}


def start(*, port: int | None = None, browser: bool = True) -> None:
    """Serves the page until Ctrl-C.

    Args:
        port: Of 127.0.0.1; None takes a free one from 7860 on.
        browser: Open it in the browser.

    Raises:
        ImportError: Gradio is not installed.
        OSError: The port is taken.
    """
    with serving(port) as (url, folder):
        print(f"The page is at {url}, for this computer only. Ctrl-C ends it.")
        print(f"Photos lie in {folder} meanwhile; they are deleted at the end.", flush=True)
        if browser:
            webbrowser.open(url)
        threading.Event().wait()


@contextlib.contextmanager
def serving(port: int | None = None) -> Iterator[tuple[str, Path]]:
    """The page's address, and the folder that all its files lie in, while they are there."""
    with _own_folder() as folder, _set(_SETTINGS | {"GRADIO_TEMP_DIR": str(folder)}):
        try:
            from starlette.middleware import Middleware

            from .page import CSS, JS, make_page, make_theme
        except ImportError as error:
            if (error.name or "").split(".")[0] not in ("gradio", "starlette"):
                raise
            raise ImportError(
                "expected Gradio to be installed: pip install 'unlearnable[app]'"
            ) from error
        page = make_page(folder)
        try:
            _, url, _ = page.launch(
                server_name=HOST,
                server_port=port,
                share=False,
                inbrowser=False,
                inline=False,
                prevent_thread_lock=True,
                quiet=True,
                app_kwargs={"middleware": [Middleware(OnlyThisPage)]},
                allowed_paths=[],
                footer_links=[],
                run_history=False,
                enable_monitoring=False,
                ssr_mode=False,
                mcp_server=False,
                pwa=False,
                theme=make_theme(),
                css=CSS,
                head=f"<script>{JS}</script>",
            )
            yield url, folder
        finally:
            page.close(verbose=False)


@contextlib.contextmanager
def _own_folder() -> Iterator[Path]:
    """A folder for this run alone; those that killed runs have left are deleted first."""
    _clear_left()
    folder = Path(tempfile.mkdtemp(prefix=_FOLDER))
    try:
        with FileLock(folder / _LOCK):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _clear_left() -> None:
    for left in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*"):
        with contextlib.suppress(OSError, Timeout), FileLock(left / _LOCK, timeout=0):
            shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def _set(values: dict[str, str]) -> Iterator[None]:
    """Environment variables, for the time being."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
