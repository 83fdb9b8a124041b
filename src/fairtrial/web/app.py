"""The routes of the live page. All that a browser may ask for is listed here, and nothing is a path of a file."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.resources import files

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from fairtrial.errors import FairtrialError
from fairtrial.report.page import page_script, style_sheet, vega_script
from fairtrial.web.errors import Errors
from fairtrial.web.hub import Hub, TooManyError
from fairtrial.web.pictures import Pictures
from fairtrial.web.reader import ALL, Reader
from fairtrial.web.security import BUG, Guard, say_on_stderr
from fairtrial.web.templates import render
from fairtrial.web.threads import Worker

#: A study's hash, or its beginning.
_KEY = frozenset("0123456789abcdef")
_SHORTEST, _LONGEST = 8, 64

_FOREVER = "private, max-age=31536000, immutable"  # the address of a file has its version


@dataclass(frozen=True)
class LivePage:
    """The application, and what follows the store for it."""

    app: ASGIApp
    hub: Hub


def live_page(store: str, names: Iterable[str] = (), say: Callable[[str], object] = say_on_stderr) -> LivePage:
    """Make the application.

    Args:
        store: a file's path or a database URL. It need not exist yet: pages say so until it does.
        names: host names to answer to besides localhost and IP addresses.
        say: called with a line about each kind of error that is a bug.
    """
    errors = Errors(say)
    hub = Hub(Reader(store), errors)
    pages = _Pages(hub)
    routes = [
        Route("/", pages.home),
        Route("/events", pages.events),
        Route("/study/{key:str}", pages.study),
        Route("/study/{key:str}/events", pages.study_events),
        Route("/study/{key:str}/chart", pages.chart),
        Route("/static/{name:str}", pages.static),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _refuse, Exception: _refuse})
    app.router.redirect_slashes = False
    return LivePage(Guard(app, names, errors), hub)


class _Pages:
    """Answers requests."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._pictures = Pictures(hub.drawer)
        self._quick, self._scripts = Worker("answers"), Worker("bundles scripts")

    async def home(self, _request: Request) -> Response:
        """The page of all studies."""
        page = render(
            "home.html", title="Studies", at_home=True, charts=False, store=self._hub.reader.name, versions=_versions()
        )
        return HTMLResponse(page)

    async def study(self, request: Request) -> Response:
        """The page of one study: its name alone; all else comes as events."""
        key = _key(request)
        try:
            stored = await self._quick.call(lambda: self._hub.reader.opened().study(key))
        except FairtrialError:  # which the page says, and recovers from
            title, status = key[:_SHORTEST], 200
        else:
            title, status = (stored.label, 200) if stored is not None else (key[:_SHORTEST], 404)
        page = render("study.html", title=title, key=key, at_home=False, charts=True, versions=_versions())
        return HTMLResponse(page, status)

    async def events(self, request: Request) -> Response:
        """The events of the page of all studies."""
        return await self._stream(request, ALL)

    async def study_events(self, request: Request) -> Response:
        """The events of one study's page."""
        return await self._stream(request, _key(request))

    async def _stream(self, request: Request, key: str) -> Response:
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        stream = self._hub.follow(key)
        try:
            first = await anext(stream)
        except TooManyError:
            return PlainTextResponse("Too many pages are open; close one.\n", 503, headers={"Retry-After": "30"})

        async def all_events() -> object:  # an asynchronous iterator
            yield first
            async for event in stream:
                yield event

        return StreamingResponse(all_events(), media_type="text/event-stream")  # type: ignore[arg-type]

    async def chart(self, request: Request) -> Response:
        """A chart of a study, as markup in JSON."""
        feed, name = self._hub.reader.feeds.get(_key(request)), request.query_params.get("name", "")
        known = feed is not None and name in feed.charts()
        found = await self._pictures.picture(feed, name) if feed is not None and known else None
        if found is None:
            raise HTTPException(404)
        return JSONResponse(found)

    async def static(self, request: Request) -> Response:
        """A script, a style sheet or the icon, by its name among a few."""
        name = request.path_params["name"]
        if name == "vega.js":
            content = await self._scripts.call(vega_script)
        elif name in _own():
            content = _own()[name]
        else:
            raise HTTPException(404)
        kinds = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
        return Response(content, media_type=kinds[name.rpartition(".")[2]], headers={"Cache-Control": _FOREVER})


def _key(request: Request) -> str:
    key: str = request.path_params["key"]
    if not _SHORTEST <= len(key) <= _LONGEST or not _KEY.issuperset(key):
        raise HTTPException(404)
    return key


async def _refuse(_request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    words = {404: "There is no such page.", 500: BUG}
    return PlainTextResponse(f"{words.get(status, 'This request is refused.')}\n", status)


@cache
def _own() -> dict[str, str]:
    """The files that are small, by name."""
    folder = files("fairtrial.web") / "assets"
    own = {name: folder.joinpath(name).read_text(encoding="utf-8") for name in ("live.css", "live.js", "icon.svg")}
    return own | {"page.css": style_sheet(), "page.js": page_script()}


@cache
def _versions() -> dict[str, str]:
    """A version of each file, which its address has, so that a browser may keep it."""
    digests = {name: hashlib.sha256(text.encode()).hexdigest()[:12] for name, text in _own().items()}
    return digests | {"vega.js": version("vl-convert-python")}
