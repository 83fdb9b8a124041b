"""Tells all open pages what has changed: one look at the store for all of them, and only while there are any."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from markupsafe import Markup

from fairtrial.errors import FairtrialError
from fairtrial.report.page import arm_controls
from fairtrial.spec.labels import under_labels
from fairtrial.text import one_line
from fairtrial.web.errors import Errors
from fairtrial.web.feed import StudyFeed
from fairtrial.web.reader import ALL, KEPT, Reader
from fairtrial.web.security import BUG
from fairtrial.web.templates import render
from fairtrial.web.threads import Worker

#: Seconds between two looks at the store, and the least between two drawings of a study.
LOOK, DRAW = 1.0, 2.0
#: Looks and drawings take at most this share of the time.
LOOK_SHARE, DRAW_SHARE = 0.1, 0.2
#: Seconds after which a silent stream gets a sign of life, so that a client that has gone is noticed.
SIGN_OF_LIFE = 15.0
#: Pages that may be open at once.
MOST_CLIENTS = 100
#: An arm's switch is of use while they can be told apart.
SWITCHES = 60


class TooManyError(Exception):
    """More pages are open than the server follows."""


class Client:
    """A page that is open: which events it has not got yet."""

    def __init__(self) -> None:
        self.pending: dict[str, None] = {}
        self.news = asyncio.Event()


class Topic:
    """What the pages of one study show, or those of all studies: the last event of each kind, and who follows them."""

    def __init__(self) -> None:
        self.events: dict[str, str] = {}
        self.clients: set[Client] = set()
        self.drawing: asyncio.Task[None] | None = None
        self.draw_after = 0.0

    @property
    def idle(self) -> bool:
        """Whether it is not being drawn."""
        return self.drawing is None or self.drawing.done()

    def put(self, event: str, name: str, content: Mapping[str, Any]) -> None:
        """Keep an event, and tell the clients if it is new."""
        key, text = f"{event} {name}", f"event: {event}\ndata: {json.dumps(content)}\n\n"
        if self.events.get(key) == text:
            return
        self.events[key] = text
        for client in self.clients:
            client.pending[key] = None
            client.news.set()

    def parts(self, parts: Mapping[str, Markup]) -> None:
        """Put parts of a page."""
        for name, html in parts.items():
            self.put("part", name, {"name": name, "html": str(html)})


class Hub:
    """Follows a store for all open pages.

    Args:
        reader: reads the store.
        errors: says those that are bugs.
    """

    def __init__(self, reader: Reader, errors: Errors) -> None:
        self.reader = reader
        self.drawer = Worker("draws charts")
        self._looker = Worker("reads the store")
        self._errors = errors
        self._topics: dict[str, Topic] = {}
        self._watching: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()
        self._closed = False

    def close(self) -> None:
        """End all streams; no more are begun."""
        self._closed = True
        for topic in self._topics.values():
            if topic.drawing is not None:
                topic.drawing.cancel()
            for client in topic.clients:
                client.news.set()
        if self._watching is not None:
            self._watching.cancel()
        # Once neither thread uses the store any more: a connection that is in use when its store closes stays open.
        self.drawer.later(lambda: self._looker.later(self.reader.close))

    async def follow(self, key: str) -> AsyncIterator[str]:
        """Follow a page's events, as text of ``text/event-stream``: first all that are known, then what is new.

        Raises:
            TooManyError: too many pages are open.
        """
        if sum(len(topic.clients) for topic in self._topics.values()) >= MOST_CLIENTS:
            raise TooManyError
        self._forget()
        topic = self._topics.setdefault(key, Topic())
        client = Client()
        client.pending = dict.fromkeys(topic.events)
        topic.clients.add(client)
        self._watch()
        try:
            yield f"retry: 2000\nevent: hello\ndata: {json.dumps({'now': round(1000 * time.time())})}\n\n"
            while not self._closed:
                client.news.clear()
                while client.pending:
                    name = next(iter(client.pending))
                    del client.pending[name]
                    yield topic.events[name]
                try:
                    await asyncio.wait_for(client.news.wait(), SIGN_OF_LIFE)
                except TimeoutError:
                    yield ": still here\n\n"
        finally:
            topic.clients.discard(client)

    def _forget(self) -> None:
        """Drop the oldest topics that nobody follows and that are not being drawn, but for a few."""
        unused = [key for key, topic in self._topics.items() if not topic.clients and topic.idle]
        for key in unused[: max(0, len(unused) - KEPT)]:
            del self._topics[key]

    def _watch(self) -> None:
        self._wanted.set()
        if self._watching is None or self._watching.done():
            self._watching = asyncio.get_running_loop().create_task(self._look_on())

    async def _look_on(self) -> None:
        """Look at the store again and again, as long as a page is open."""
        while open_topics := {key: topic for key, topic in self._topics.items() if topic.clients}:
            self._wanted.clear()
            began = time.monotonic()
            problem = ""
            try:
                found = await self._looker.call(partial(self.reader.look, open_topics))
                for key, parts in found.items():
                    open_topics[key].parts(parts)
            except FairtrialError as error:
                problem = one_line(str(error))
            except Exception as error:  # noqa: BLE001  (pages must go on; the server's terminal has it)
                self._errors.tell(error)
                problem = BUG
            for topic in open_topics.values():
                topic.put("problem", "", {"text": problem})
            if not problem:
                self._draw_what_is_due(open_topics)
            took = time.monotonic() - began
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), max(LOOK, took / LOOK_SHARE - took))

    def _draw_what_is_due(self, topics: Mapping[str, Topic]) -> None:
        for key, topic in topics.items():
            feed = self.reader.feeds.get(key) if key != ALL else None
            if feed is not None and feed.stale and topic.idle and time.monotonic() >= topic.draw_after:
                topic.drawing = asyncio.get_running_loop().create_task(self._draw(feed, topic))

    async def _draw(self, feed: StudyFeed, topic: Topic) -> None:
        """Compute the slower parts of a study's page, and put each as it is ready."""
        began = time.monotonic()
        try:
            store = self.reader.opened()
            parts = feed.draw(store)
            told = 0
            while (part := await self.drawer.call(partial(next, parts, None))) is not None:
                topic.parts(dict([part]))
                if feed.snapshot is not None and told != feed.snapshot.number:
                    told = feed.snapshot.number
                    await self._put_charts(feed, topic)
        except FairtrialError:
            feed.stale = True  # the next look says what is wrong with the store
        except Exception as error:  # noqa: BLE001
            self._errors.tell(error)
            topic.parts({"verdicts": render("reason.html", reason=BUG)})
        took = time.monotonic() - began
        topic.draw_after = time.monotonic() + max(DRAW, took / DRAW_SHARE - took)

    async def _put_charts(self, feed: StudyFeed, topic: Topic) -> None:
        snapshot = feed.snapshot
        if snapshot is None or not snapshot.runs.results:
            return
        study = under_labels(snapshot.runs.study)
        if 1 < len(study.arms) <= SWITCHES:
            topic.parts({"arms": await self.drawer.call(partial(arm_controls, study))})
        topic.put("charts", "", {"number": snapshot.number, "names": feed.charts()})
