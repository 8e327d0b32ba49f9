"""Only the browser on this machine, and only the page itself, may drive the app."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

HOST = "127.0.0.1"
_OWN = re.compile(rf"({re.escape(HOST)}|localhost)(:\d{{1,5}})?", re.IGNORECASE)
# A browser that obeys it loads nothing from elsewhere, sends nothing there, and shows the page in
# no frame of another. Gradio's page has scripts and styles in it, and makes functions from text.
_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "frame-ancestors 'none'; form-action 'self'; base-uri 'self'; object-src 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",  # photos would stay in the browser's cache
    "x-content-type-options": "nosniff",
}

# Paths at which Gradio would load something from elsewhere and pass it on.
_FETCHES = re.compile(r"(file|proxy)=\w+:/", re.IGNORECASE)

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[MutableMapping[str, Any], _Receive, _Send], Awaitable[None]]


class OnlyThisPage:
    """ASGI middleware that refuses requests from other pages and under foreign host names.

    Another page in the same browser can reach 127.0.0.1, too: by its address, which ``Origin`` and
    ``Sec-Fetch-Site`` reveal, or under its own host name pointed here (DNS rebinding), which
    ``Host`` reveals. Gradio's own check answers all of these requests and merely omits a header for
    some.
    """

    def __init__(self, app: _App) -> None:
        self._app = app

    async def __call__(
        self, scope: MutableMapping[str, Any], receive: _Receive, send: _Send
    ) -> None:
        if scope["type"] != "http":  # the start and the end of the server; there are no web sockets
            await self._app(scope, receive, send)
            return
        headers = {
            name.decode("latin-1"): text.decode("latin-1") for name, text in scope["headers"]
        }
        if not _is_ours(headers, scope["method"], scope["path"]):
            await _refuse(send)
            return

        async def guarded(message: _Message) -> None:
            if message["type"] == "http.response.start":
                kept = [
                    (name, text)
                    for name, text in message.get("headers", [])
                    if name.decode("latin-1").lower() not in _HEADERS
                ]
                added = [(name.encode(), text.encode()) for name, text in _HEADERS.items()]
                message = {**message, "headers": kept + added}
            await send(message)

        await self._app(scope, receive, guarded)


def _is_ours(headers: dict[str, str], method: str, path: str) -> bool:
    if _FETCHES.search(path):
        return False
    host = headers.get("host", "")
    if not _OWN.fullmatch(host):
        return False
    if headers.get("origin", f"http://{host}") != f"http://{host}":
        return False
    # "none" is a person who typed the address or opened it from a program.
    if headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
        return True
    # A link on another page may lead to the start page, where nothing happens by itself.
    return method == "GET" and path == "/" and headers.get("sec-fetch-mode") == "navigate"


async def _refuse(send: _Send) -> None:
    body = (
        f"This page answers only at http://{HOST} and ignores requests from other pages.".encode()
    )
    kind = (b"content-type", b"text/plain; charset=utf-8")
    await send({"type": "http.response.start", "status": 403, "headers": [kind]})
    await send({"type": "http.response.body", "body": body})
