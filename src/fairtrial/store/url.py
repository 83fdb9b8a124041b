"""Where a store is: a file's path or a database URL, and how either is shown without its password."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import quote, quote_plus, unquote, urlsplit

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from fairtrial.errors import StoreError

HIDDEN = "***"

#: From a URL's user to its last @: more than SQLAlchemy takes for the password, which ends at the first one.
_PASSWORD = re.compile(r"(?P<head>://[^:/@]*):(?P<password>.*)@", re.DOTALL)
_QUERY_PASSWORD = re.compile(r"(?P<key>[?&](?!passfile=)[^=&]*(?:pass|pwd)[^=&]*=)(?P<password>[^&]*)", re.IGNORECASE)
_CONNECTION_STRING = re.compile(r"\b(host|dbname|password)\s*=", re.IGNORECASE)

#: What a URL may begin with, and the driver that it means.
_DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}


def redact_url(place: str) -> str:
    """Write a store's place so that it may be printed: without its password, wherever in the URL that stands.

    Args:
        place: a file's path or a URL, valid or not.

    Example:
        >>> redact_url("postgresql://ada:secret@host/runs?sslpassword=more")
        'postgresql://ada:***@host/runs?sslpassword=***'
    """
    if "://" not in place:
        return HIDDEN if _CONNECTION_STRING.search(place) else place
    try:
        url = make_url(place)
    except (ArgumentError, ValueError):
        url = None
    if url is None or "@" in f"{url.host}{url.database}":  # an @ that was not escaped: what follows may be the password
        hidden = _PASSWORD.sub(rf"\g<head>:{HIDDEN}@", place)
        return _QUERY_PASSWORD.sub(rf"\g<key>{HIDDEN}", hidden)
    query = {key: HIDDEN for key in url.query if _is_secret(key)}
    return url.update_query_dict(query).render_as_string().replace(quote_plus(HIDDEN), HIDDEN)


@dataclass(frozen=True)
class DatabaseURL:
    """A place that was understood.

    Attributes:
        text: as the user wrote it; it may hold a password.
        url: the same for SQLAlchemy; so may this.
    """

    text: str
    url: URL

    @classmethod
    def of(cls, text: str) -> "DatabaseURL":
        """Understand a file's path or a URL.

        Raises:
            StoreError: it is neither.
        """
        if "://" not in text:
            if _CONNECTION_STRING.search(text):
                raise StoreError("--store: looks like a connection string; write postgresql://USER@HOST/DATABASE")
            return cls(text, URL.create("sqlite", database=text))
        try:
            url = make_url(text)
            backend = url.get_backend_name()
        except (ArgumentError, ValueError):
            backend = ""
        if backend not in {"sqlite", *_DRIVERS}:
            raise StoreError(
                f"--store {redact_url(text)}: must be a file's path, or a URL such as sqlite:///fairtrial.db or "
                "postgresql://USER@HOST/DATABASE"
            ) from None  # the cause would show the URL
        return cls(text, url.set(drivername=_DRIVERS.get(url.drivername, url.drivername)))

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a SQLite database."""
        return self.url.get_backend_name() == "sqlite"

    @cached_property
    def name(self) -> str:
        """What messages call it: a SQLite file's path, or the URL without its password."""
        return (self.url.database or ":memory:") if self.is_sqlite else redact_url(self.text)

    @property
    def file(self) -> Path | None:
        """The file of a SQLite database; None for one in memory, or on a server."""
        database = self.url.database
        if not self.is_sqlite or not database or database == ":memory:":
            return None
        if not database.startswith("file:"):
            return Path(database)
        path = unquote(urlsplit(database).path)
        return None if path in {"", ":memory:"} or self.url.query.get("mode") == "memory" else Path(path)

    def clean(self, text: str) -> str:
        """Take the password out of a text, such as a driver's, and make it one line."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, HIDDEN)
        return " ".join(text.split())

    def tells(self, text: str) -> bool:
        """Tell whether a text holds the password."""
        return any(secret in text for secret in self._secrets)

    @cached_property
    def _secrets(self) -> frozenset[str]:
        return frozenset(form for secret in self._passwords() if secret for form in _forms(secret))

    def _passwords(self) -> Iterator[str]:
        if self.url.password:
            yield str(self.url.password)
        if "://" in self.text and (match := _PASSWORD.search(self.text)) and "@" in f"{self.url.host}":
            yield from match["password"].split("@")
        for key, value in self.url.query.items():
            if _is_secret(key):
                yield from [value] if isinstance(value, str) else value


def _is_secret(key: str) -> bool:
    return _QUERY_PASSWORD.fullmatch(f"?{key}=") is not None


def _forms(secret: str) -> set[str]:
    """List a password as it is and as URLs write it."""
    return {secret, quote(secret, safe=""), quote(secret), quote_plus(secret)}
