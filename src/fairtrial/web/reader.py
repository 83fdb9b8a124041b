"""The one reader of a store for all pages: opens it, looks for changes, and opens it again when it was away."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from markupsafe import Markup

from fairtrial.errors import FairtrialError
from fairtrial.store.url import redact_url
from fairtrial.store.watching import ListedStudy, WatchedStore
from fairtrial.web.feed import StudyFeed
from fairtrial.web.templates import render

#: The page of all studies, among the keys of studies.
ALL = ""

#: The list of studies shows so many; which of them are being run is looked up again
#: after so many looks without a change.
STUDIES, LOOKS = 200, 5

#: What is known of so many studies that nobody looks at any more is kept, for those who come back.
KEPT = 4


class Reader:
    """Reads a store for the pages that are open. One thread calls `look`; another may call `opened`.

    Args:
        store: a file's path or a database URL.
    """

    def __init__(self, store: str) -> None:
        self._url = store
        self._store: WatchedStore | None = None
        self._version: tuple[Any, ...] | None = None
        self._seen: dict[str, tuple[Any, ...]] = {}  # by key, the store's version at the last look
        self._looks = 0
        self.feeds: dict[str, StudyFeed] = {}

    @property
    def name(self) -> str:
        """The store's path or URL, without its password."""
        return redact_url(self._url)

    def opened(self) -> WatchedStore:
        """The store, which is opened if it is not yet.

        Raises:
            StoreError: it can't be.
        """
        if self._store is None:
            self._store = WatchedStore(self._url)
        return self._store

    def look(self, keys: Iterable[str]) -> Mapping[str, Mapping[str, Markup]]:
        """Look at the store, and return by key the parts of pages that may be new, by their names.

        Args:
            keys: the beginning of a study's hash for each page that is open, `ALL` for the page of all studies.

        Raises:
            FairtrialError: the store can't be read now; the next look tries again.
        """
        try:
            return self._look(list(keys))
        except FairtrialError:
            self.close()
            raise

    def _look(self, keys: list[str]) -> Mapping[str, Mapping[str, Markup]]:
        version = self.opened().version()
        if self._version is not None and version[:2] != self._version[:2] and self.opened().file is not None:
            self.close()  # another file of the same name
            version = self.opened().version()
        self._version = version
        self._looks += 1
        self._forget(keys)
        found: dict[str, Mapping[str, Markup]] = {}
        for key in keys:
            changed = self._seen.get(key) != version
            if key != ALL:
                found[key] = self.feeds.setdefault(key, StudyFeed(key)).look(self.opened(), changed=changed)
            elif changed or self._looks % LOOKS == 0:
                found[key] = {"studies": studies_part(self.opened().listed())}
            self._seen[key] = version
        return found

    def _forget(self, keys: list[str]) -> None:
        unused = [key for key in self.feeds if key not in keys]
        for key in unused[: max(0, len(unused) - KEPT)]:
            del self.feeds[key]
            self._seen.pop(key, None)

    def close(self) -> None:
        """Close the store; the next look opens it again, and reads all that pages show anew."""
        store, self._store, self._version = self._store, None, None
        self._seen.clear()
        if store is not None:
            with suppress(FairtrialError):
                store.__exit__()


def studies_part(studies: list[ListedStudy]) -> Markup:
    """Write the list of studies."""
    rows = [(one, sum(one.outcomes.values()), _state(one)) for one in studies[:STUDIES]]
    return render("studies.html", studies=rows, more=len(studies) - STUDIES)


def _state(study: ListedStudy) -> str:
    if study.running:
        return "running"
    ended = sum(study.outcomes.values())
    if ended == study.trials:
        return "complete"
    return "interrupted" if study.started else ("not running" if ended else "planned")
