"""URLs and paths of databases, and messages without their passwords."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus, unquote, urlsplit

from fairtrial.errors import StoreError

if TYPE_CHECKING:  # SQLAlchemy takes a tenth of a second to load, and passwords are hidden without it
    from sqlalchemy import URL

#: The store that is used unless another is named.
DEFAULT_STORE = "fairtrial.db"

HIDDEN = "***"

#: From the first colon after a URL's scheme, or of all, to the last @. That is more than SQLAlchemy takes for the
#: password, which ends at the first @; but who mistypes a URL must not see the password either.
_PASSWORD = re.compile(r"(?P<head>://[^:]*:|^(?!.*://)[^:]*:).*@", re.DOTALL)
#: Where the @ is missing: what follows a colon and is no port.
_NO_PORT = re.compile(r"(?P<head>://[^:/@\[]*:)(?!\d*(?:[/?,)]|$))[^@]*$", re.DOTALL)
#: A key with % may be "password", too.
_QUERY_PASSWORD = re.compile(r"(?P<head>[?&;\s](?!passfile=)[^=&;\s]*(?:pass|pwd|%)[^=&;\s]*=)[^&]*", re.IGNORECASE)
_CONNECTION_STRING = re.compile(r"\b(host|dbname|password)\s*=", re.IGNORECASE)

#: A server's scheme without the :// of a URL: nothing after it can be told from a password.
_MISTYPED = re.compile(r"(?P<scheme>(?:^|=)\s*(?:postgres|psycopg)[\w+.-]*)(?:[:;\\]|//).+", re.I | re.DOTALL)
#: ``user:password@`` or ``word//user:password@`` at the start: a URL that lacks its scheme, or a part of it.
_NO_SCHEME = re.compile(r"[^/]*:.*@|[^/]+//[^/]*:[^/]*@", re.DOTALL)
#: What may be a URL with a password within a sentence, without the colon or comma that follows it there.
_WORD = re.compile(r"""[^\s'"`]*(?:://|:[^\s'"`]*@|\bpostgres[\w+]*:)[^\s'"`]*(?<![:,])""")

#: What a URL may begin with, and the driver that it means.
_DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}


def redact_url(text: str) -> str:
    """Hide the passwords in a store's path or URL, valid or not.

    Example:
        >>> redact_url("postgresql://ada:secret@host/runs?sslpassword=more")
        'postgresql://ada:***@host/runs?sslpassword=***'
    """
    hidden = _redact(text)
    decoded = unquote(text)
    return HIDDEN if hidden == text and _redact(decoded) != decoded else hidden


def redact_words(sentence: str) -> str:
    """Hide the passwords in the URLs of a sentence.

    Example:
        >>> redact_words("postgresql://ada:secret@host/runs: no such study")
        'postgresql://ada:***@host/runs: no such study'
    """
    return _WORD.sub(lambda word: redact_url(word[0]), sentence)


def _redact(text: str) -> str:
    if "://" not in text:
        if _CONNECTION_STRING.search(text):
            return HIDDEN
        text = _MISTYPED.sub(rf"\g<scheme>:{HIDDEN}", text)
    text = _NO_PORT.sub(rf"\g<head>{HIDDEN}", text)
    return _QUERY_PASSWORD.sub(rf"\g<head>{HIDDEN}", _PASSWORD.sub(rf"\g<head>{HIDDEN}@", text))


@dataclass(frozen=True)
class DatabaseURL:
    """A database's URL, as the user wrote it and for SQLAlchemy; both may contain a password."""

    text: str
    url: "URL"

    @classmethod
    def of(cls, text: str) -> "DatabaseURL":
        """Parse a file's path or a URL; a `StoreError` if it is neither."""
        from sqlalchemy import URL, make_url  # noqa: PLC0415  (slow to load)
        from sqlalchemy.exc import ArgumentError  # noqa: PLC0415

        if "://" not in text:
            if _CONNECTION_STRING.search(text):
                raise StoreError("--store: looks like a connection string; write postgresql://USER@HOST/DATABASE")
            if any(mistyped.match(form) for mistyped in (_MISTYPED, _NO_SCHEME) for form in (text, unquote(text))):
                raise StoreError(
                    f"--store {redact_url(text)}: looks like a mistyped URL; write postgresql://USER@HOST/DATABASE, or "
                    "put ./ before a file's name"
                )
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
        if "@" in f"{url.host}" or (backend != "sqlite" and "@" in f"{url.database}"):
            raise StoreError(f"--store {redact_url(text)}: an @ in the user's name or password must be written as %40")
        if backend != "sqlite" and re.search(r"[;\s]", text.rpartition("@")[2]):
            raise StoreError(f"--store {redact_url(text)}: keys after ? are separated by &; write a blank as %20")
        return cls(text, url.set(drivername=_DRIVERS.get(url.drivername, url.drivername)))

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a SQLite database."""
        return self.url.get_backend_name() == "sqlite"

    @cached_property
    def name(self) -> str:
        """What messages call it: a SQLite file's path, or the URL without its password."""
        return redact_url((self.url.database or ":memory:") if self.is_sqlite else self.text)

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

    def redact(self, text: str) -> str:
        """Remove the password from a text, such as a driver's, and make it one line."""
        for password in self._passwords:
            text = text.replace(password, HIDDEN)
        return " ".join(redact_words(text).split())

    def has_password(self, text: str) -> bool:
        """Whether a text contains the password."""
        return self.redact(text) != " ".join(text.split())

    @cached_property
    def _passwords(self) -> Sequence[str]:
        """All passwords in the URL, each as it is and as URLs write it, the longest first."""
        passwords = {str(self.url.password or "")}
        for key, values in self.url.normalized_query.items():
            if _QUERY_PASSWORD.fullmatch(f"?{key}="):
                passwords.update(values)
        forms = ((one, quote(one, safe=""), quote(one), quote_plus(one)) for one in passwords - {""})
        return sorted(chain.from_iterable(forms), key=len, reverse=True)
