"""Guards the live page: who may ask, what may be asked, and what a browser may do with the answer.

A page on loopback is in reach of every site that a browser on this machine has open. So the name by which a browser
asks is checked: a site that lets its own name point here (DNS rebinding) is refused, as is another site's script.
Nothing can be changed by a request, and no script or style of any other origin runs in a page.
"""

import re
import sys
from collections.abc import Iterable
from ipaddress import ip_address

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fairtrial.web.errors import Errors

#: Scripts and styles are files of this server; pictures may also be in the page itself.
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)

#: Sent with every answer.
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

#: What a client gets to know of an error that is a bug.
BUG = "This can't be shown because of an error in fairtrial; the terminal in which fairtrial runs says which."

#: Methods that are answered.
METHODS = ("GET", "HEAD")

#: A host and a port, if any, as the Host header has them.
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::\d{1,5})?", re.IGNORECASE)


class Guard:
    """ASGI middleware: refuses what it must, sends `HEADERS`, and lets no error through to a client.

    Args:
        app: what answers requests that are let in.
        names: the host names to answer to, besides ``localhost`` and any IP address. An address can't be made to point
            elsewhere as a name can.
        errors: says those that are bugs.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str], errors: Errors) -> None:
        self._app = app
        self._names = {"localhost", *(name.lower().rstrip(".") for name in names)}
        self._errors = errors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        if scope["type"] != "http":  # there are no web sockets here
            return
        started = complete = False

        async def send_guarded(message: Message) -> None:
            nonlocal started, complete
            complete = message["type"] == "http.response.body" and not message.get("more_body", False)
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            await (self._refusal(scope) or self._app)(scope, receive, send_guarded)
        except Exception as error:
            self._errors.tell(error, scope["path"])
            if not started:
                await _answer(500, BUG)(scope, receive, send_guarded)
            elif not complete:
                raise ConnectionAbortedError("the answer had begun") from error

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        """What answers a request that is refused; None for one that is let in."""
        headers = Headers(scope=scope)
        if scope["method"] not in METHODS:
            return _answer(405, "This page can only be read: GET and HEAD.", Allow=", ".join(METHODS))
        hosts = headers.getlist("host")
        if len(hosts) != 1 or (found := _HOST.fullmatch(hosts[0])) is None:
            return _answer(400, "The request has no valid Host header.")
        if not self._knows(found[1]):
            return _answer(
                421,
                "The live page does not answer to this host name, which another site could have made up. Open it as "
                "http://localhost:PORT/, or start fairtrial serve with --allow-host NAME.",
            )
        if headers.get("sec-fetch-site", "none") == "cross-site" and headers.get("sec-fetch-mode") != "navigate":
            return _answer(403, "Another site asked for this; the live page answers only to its own pages.")
        return None

    def _knows(self, host: str) -> bool:
        name = host.lower().rstrip(".")
        try:
            ip_address(name.strip("[]"))
        except ValueError:
            return name in self._names
        return True


def _answer(status: int, text: str, **headers: str) -> PlainTextResponse:
    return PlainTextResponse(f"{text}\n", status, headers=headers)


def say_on_stderr(line: str) -> None:
    """Print a line about an error; the default of the server that nobody gave another."""
    print(line, file=sys.stderr)  # noqa: T201
