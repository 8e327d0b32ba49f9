"""Starts the page on this machine alone, and clears away behind it."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
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


@contextlib.contextmanager
def serving(port: int | None = None) -> Iterator[tuple[str, Path]]:
    """Serves the page; gives its address and the folder that holds all its files.

    Args:
        port: Port on 127.0.0.1; None takes the first free one from 7860 on.

    Raises:
        ImportError: Gradio is not installed.
        OSError: The port is in use.
        ValueError: The port is not from 1 to 65535.
    """
    if port is not None and not 0 < port < 1 << 16:
        raise ValueError(f"expected a port from 1 to 65535, got {port}")
    with _own_folder() as folder, _set(_settings(folder)):
        try:
            from starlette.middleware import Middleware

            from .page import CSS, JS, make_page, make_theme
            from .visit import stop_all
        except ImportError as error:
            if (error.name or "").split(".")[0] not in ("gradio", "starlette"):
                raise
            raise ImportError(
                "expected Gradio to be installed; install it with: pip install 'unlearnable[app]'"
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
        except OSError as error:
            page.close(verbose=False)
            which = "from 7860 to 7959" if port is None else f"{port}"
            raise OSError(
                f"expected a free port, got {which}, in use by other programs; choose another "
                f"with --port"
            ) from error
        try:
            yield url, folder
        finally:
            stop_all()
            page.close(verbose=False)


def _settings(folder: Path) -> dict[str, str]:
    """Environment variables that Gradio reads: nothing goes out, and all files into the folder."""
    here = {
        name: ",".join([*filter(None, [os.environ.get(name)]), HOST, "localhost"])
        for name in ("NO_PROXY", "no_proxy")
    }
    return {**_SETTINGS, **here, "GRADIO_TEMP_DIR": str(folder)}


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
