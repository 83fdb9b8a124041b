"""URLs of stores, and messages without their passwords."""

import re
import sys
import traceback

import pytest
from sqlalchemy import make_url

from fairtrial.errors import StoreError
from fairtrial.store.sql import SQLStore
from fairtrial.store.url import DatabaseURL, redact_url, redact_words

HIDDEN = {
    "postgresql://ada:s3cret@host/runs": "postgresql://ada:***@host/runs",
    "postgresql+psycopg://ada:s3cret@host:5432/runs?sslmode=require": "postgresql+psycopg://ada:***@host:5432/runs"
    "?sslmode=require",
    "postgresql://:s3cret@host/runs": "postgresql://:***@host/runs",
    "postgresql://ada:@host/runs": "postgresql://ada:***@host/runs",
    "postgresql://ada:s3cret/x@host/runs": "postgresql://ada:***@host/runs",
    "postgresql://ada:s3cret?x=1@host/runs": "postgresql://ada:***@host/runs",
    "postgresql://ada:s3%40cret@host/runs": "postgresql://ada:***@host/runs",
    "postgresql://ada:a@s3cret@host/runs": "postgresql://ada:***@host/runs",
    "postgresql://ada:a/b@s3cret@host/runs": "postgresql://ada:***@host/runs",
    "postgresql://ada:s3cret@[::1]:5432/runs": "postgresql://ada:***@[::1]:5432/runs",
    "postgresql://ada@host/runs?password=s3cret": "postgresql://ada@host/runs?password=***",
    "postgresql://ada@host/runs?sslpassword=s3cret&a=b": "postgresql://ada@host/runs?sslpassword=***&a=b",
    "postgresql:///runs?user=ada&PASSWORD=s3cret": "postgresql:///runs?user=ada&PASSWORD=***",
    "postgresql://ada@host/runs?password=s3cret&password=s3cret2": "postgresql://ada@host/runs?password=***&password=***",
    "postgresql://ada:s3cret@host:port/runs?password=s3cret": "postgresql://ada:***@host:port/runs?password=***",
    "postgresql://ada@host/runs?p%61ssword=s3cret": "postgresql://ada@host/runs?p%61ssword=***",
    "?://ada:s3cret@host": "?://ada:***@host",
    "host=h password=s3cret": "***",
    # Mistyped, or in the wrong place: nobody can say what the user meant, so more is hidden.
    "postgresql:/ada:s3cret@host/runs": "postgresql:***",
    "postgresql//ada:s3cret@host/runs": "postgresql:***",
    "postgres//ada:s3cret@host/runs": "postgres:***",
    "postgres;//ada:s3cret@host/runs": "postgres:***",
    "postgresql:\\\\ada:s3cret@host": "postgresql:***",
    "PostgreSQL: //ada:s3cret@host/runs": "PostgreSQL:***",
    "postgresql+psycopg:ada:s3cret@host": "postgresql+psycopg:***",
    "postgresql:ada:s3cret": "postgresql:***",
    "POSTGRESQL://ada:s3cret@host/runs": "POSTGRESQL://ada:***@host/runs",
    "postgresql:///ada:s3cret@host/runs": "postgresql:///ada:***@host/runs",
    "postgresql://ada@host:s3cret@host/runs": "postgresql://ada@host:***@host/runs",
    "postgresql://ada:s3cret/runs": "postgresql://ada:***",
    "postgesql:/ada:s3cret@host/runs": "postgesql:***@host/runs",
    "postgesql//ada:s3cret@host/runs": "postgesql//ada:***@host/runs",
    "ada:s3cret@host/runs": "ada:***@host/runs",
    "postgresql%3A%2F%2Fada%3As3cret%40host%2Fruns": "***",
    "postgresql:%2F%2Fada:s3cret%40host": "postgresql:***",
    "postgresql://ada@host/runs?user=ada;password=s3cret": "postgresql://ada@host/runs?user=ada;password=***",
    "postgresql://ada@host/runs password=s3cret": "postgresql://ada@host/runs password=***",
}
#: Those that no reading can save, and that must not become the name of a file.
REFUSED = [
    place
    for place in HIDDEN
    if "://" not in place
    or place[0] in "?P"
    or ":///ada" in place
    or ":s3cret/runs" in place
    or re.search("[; ]", place)
]


@pytest.mark.parametrize(("place", "expected"), HIDDEN.items())
def test_no_form_of_a_place_shows_its_password(place, expected):
    assert "s3" not in redact_url(place)
    assert redact_url(place) == expected


@pytest.mark.parametrize(
    "place",
    [
        "fairtrial.db",
        "/a folder/b@c:d.db",
        "sqlite:///runs.db",
        "postgresql://ada@host/runs",
        "postgresql://host/runs?passfile=x",
    ],
)
def test_a_place_without_a_password_is_shown_as_it_is(place):
    assert redact_url(place) == place


@pytest.mark.parametrize(
    "text",
    [
        text
        for text in HIDDEN
        if text.startswith("postgresql:") and "port" not in text and text not in REFUSED and "@s3cret@" not in text
    ],
)
def test_a_drivers_message_loses_the_password(text):
    url, parts = DatabaseURL.of(text), make_url(text)
    message = f"could not connect\n to {text}: {parts.host} {parts.password or ''} {dict(parts.query)}"
    assert "s3" not in url.redact(message)
    assert "\n" not in url.redact(message)
    assert url.redact(message).startswith("could not connect to postgresql")
    assert url.has_password(message) or "s3" not in message


@pytest.mark.parametrize("password", ["a@s3cret", "a/b@s3cret"])
def test_an_at_sign_in_a_password_must_be_escaped(password):
    with pytest.raises(StoreError) as caught:
        DatabaseURL.of(f"postgresql://ada:{password}@host/runs")
    assert str(caught.value) == (
        "--store postgresql://ada:***@host/runs: an @ in the user's name or password must be written as %40"
    )


@pytest.mark.parametrize("place", HIDDEN)
def test_no_error_of_opening_shows_the_password(place):
    with pytest.raises(StoreError) as caught:  # no such host, no such server, or no such URL
        SQLStore(place.replace("@host", "@host.invalid"))
    assert "s3" not in str(caught.value)
    assert "s3" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("place", REFUSED)
def test_a_mistyped_url_is_refused_and_no_files_name(place, tmp_path):
    with pytest.raises(StoreError, match=r"--store.*(write|must be)") as caught:
        SQLStore(place)
    assert "s3" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_an_odd_name_can_still_be_named(tmp_path):
    for place in ("./ada:b@c.db", "postgres-runs.db", "sqlite:///ada:b@c.db"):
        with SQLStore(place) as store:
            assert store.studies() == []
    assert {path.name for path in tmp_path.iterdir()} == {"ada:b@c.db", "postgres-runs.db"}


@pytest.mark.parametrize("place", [place for place in HIDDEN if "@" in place and not re.search("[; ?]", place)])
def test_a_sentence_loses_the_passwords_of_its_urls(place):
    sentence = redact_words(f"fairtrial: {place}: no such study; 'quick@943dd38e' is there, at 12:30")
    assert "s3" not in sentence
    assert sentence.startswith("fairtrial: ")
    assert sentence.endswith("no such study; 'quick@943dd38e' is there, at 12:30")


def test_a_plain_url_chooses_the_driver_that_is_supported():
    for scheme in ("postgresql", "postgres", "postgresql+psycopg"):
        assert DatabaseURL.of(f"{scheme}://h/d").url.drivername == "postgresql+psycopg"


@pytest.mark.parametrize(
    ("place", "file"),
    [
        ("a b.db", "a b.db"),
        ("sqlite:///x/y.db", "x/y.db"),
        ("sqlite:////x/y.db", "/x/y.db"),
        ("sqlite:///file:x.db?uri=true", "x.db"),
        ("sqlite:///file:/x%20y.db?uri=true&mode=ro", "/x y.db"),
        ("sqlite:///file:x?mode=memory&cache=shared&uri=true", None),
        ("sqlite:///file::memory:?uri=true", None),
        ("sqlite://", None),
        (":memory:", None),
        ("postgresql://h/d", None),
    ],
)
def test_the_file_of_a_place(place, file):
    found = DatabaseURL.of(place).file
    assert (None if found is None else str(found)) == file


def test_a_missing_driver_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError) as caught:
        SQLStore("postgresql://ada:s3cret@host/runs")
    assert str(caught.value) == (
        '--store postgresql://ada:***@host/runs: its driver is not installed: pip install "fairtrial[postgres]"'
    )
