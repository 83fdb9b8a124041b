"""Real servers: what pages are told as a study runs, a store that comes and goes, and an end at any moment."""

import shutil
import socket
import sqlite3
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fairtrial.errors import FairtrialError
from fairtrial.spec import Study
from fairtrial.store.sql import SQLStore
from fairtrial.testing import simulated_study
from fairtrial.web import hub
from fairtrial.web.ports import address, is_open, listen


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Look and draw as often as a test can read."""
    monkeypatch.setattr(hub, "LOOK", 0.1)
    monkeypatch.setattr(hub, "DRAW", 0.1)
    monkeypatch.setattr(hub, "SIGN_OF_LIFE", 0.5)  # so that a test that waits in vain ends


def get(url):
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.read().decode()


def test_a_finished_study_is_shown_whole(serve, ran, stream):
    with serve("fairtrial.db") as url:
        assert ran.label in get(f"{url}/study/{ran.hash[:12]}")
        assert ran.label in stream(f"{url}/events").part("studies", lambda html: "complete" in html)
        events = stream(f"{url}/study/{ran.hash}/events")
        assert events.headers["content-type"].startswith("text/event-stream")
        assert "Complete" in events.part("status")
        assert "9</strong> of 9 trials" in events.part("progress")
        assert "No trial is being trained" in events.part("workers")
        assert '<span class="word green">better</span>' in events.part("verdicts")
        charts = events.until(lambda event, _: event == "charts")
        assert {"test_accuracy", "differences"} <= {*charts["names"]}
        assert "wild" in events.part("table")
        assert "supported" in events.part("claims")
        lost = events.part("failures")
        assert "simulated failure" in lost
        assert "Traceback" in lost
        chart = get(f"{url}/study/{ran.hash}/chart?name=test_accuracy")
        assert "Test accuracy" in chart
        assert chart.count("<figure") == 1
        assert '"html":""' in get(f"{url}/study/{ran.hash}/chart?name=running")
        with pytest.raises(urllib.error.HTTPError, match="404") as refused:
            get(f"{url}/study/{ran.hash}/chart?name=os:system")
        refused.value.close()


def test_a_page_is_told_what_happens_and_nothing_twice(serve, simulated, stream, writing):
    run = writing(simulated)
    with serve("fairtrial.db") as url, run.store.lock(simulated):
        events = stream(f"{url}/study/{simulated.hash}/events")
        assert "Running" in events.part("status")
        assert "next trial is about to begin" in events.part("workers")
        run.begin(("baseline", 0), ("better", 0))
        assert "0 of 3" in events.part("workers", lambda html: "better" in html)
        for number in (1, 2):
            run.epoch(("baseline", 0), number)
            assert events.part("workers", lambda html, number=number: f"{number} of 3" in html)
            first = events.until(lambda event, _: event == "charts")["number"]
        assert first >= 1
        run.epoch(("baseline", 0), 3)
        run.end(("baseline", 0))
        assert "left" in events.part("progress", lambda html: "1</strong> of 9" in html)
        before = time.monotonic()
        run.epoch(("better", 0), 1)
        events.part("workers", lambda html: "1 of 3" in html)
        assert time.monotonic() - before < 30


def test_verdicts_settle_as_seeds_end_and_the_page_says_so(serve, stream, writing):
    study = simulated_study(
        {"a": {"noise_sd": 0.001}, "b": {"mean": 0.9, "noise_sd": 0.001}},
        seeds={"min": 2, "max": 8},
        evidence={"margin": 0.01},
        epochs=2,
    )
    run = writing(study)
    run.whole(("a", 0), ("b", 0))
    with serve("fairtrial.db") as url:
        events = stream(f"{url}/study/{study.hash}/events")
        assert "undecided" in events.part("verdicts")
        run.whole(*((arm, seed) for seed in range(1, 6) for arm in "ab"))
        assert events.part("verdicts", lambda html: '<span class="word green">better</span>' in html)
        assert events.part("events", lambda html: "b: now better, was undecided" in html)
        assert "stopped: its verdict is settled" in events.part("progress", lambda html: "stopped" in html)
        assert events.part("status", lambda html: "Complete" in html)


def test_what_fails_while_the_page_is_open_is_listed(serve, simulated, stream, writing):
    run = writing(simulated)
    run.begin(("wild", 1))
    with serve("fairtrial.db") as url:
        events = stream(f"{url}/study/{simulated.hash}/events")
        events.part("workers")
        run.end(("wild", 1))
        assert events.part("events", lambda html: "wild, seed 1: failed" in html)
        assert events.part("failures", lambda html: "RuntimeError: simulated failure" in html)


def test_events_name_arms_by_their_labels(serve, simulated, stream, writing):
    table = simulated.to_dict()
    table["arms"]["wild"]["label"] = "Wild one"
    study = Study.from_dict(table)
    run = writing(study)
    run.begin(("wild", 1))
    with serve("fairtrial.db") as url:
        events = stream(f"{url}/study/{study.hash}/events")
        events.part("workers")
        run.end(("wild", 1))
        assert events.part("events", lambda html: "Wild one, seed 1: failed" in html)


def test_nobody_reads_the_store_while_no_page_is_open(serve, ran, stream, monkeypatch, eventually):
    from fairtrial.web.reader import Reader

    looks, look = [], Reader.look
    monkeypatch.setattr(Reader, "look", lambda self, keys: [looks.append(1), look(self, keys)][1])
    with serve("fairtrial.db") as url:
        get(f"{url}/")
        assert not looks
        pages = [stream(f"{url}/study/{ran.hash}/events") for _ in range(5)]
        for page in pages:
            page.part("table")
        first, began = len(looks), time.monotonic()
        time.sleep(1)
        assert 0 < len(looks) - first <= 2 + (time.monotonic() - began) / hub.LOOK  # one reader, whoever listens
        for page in pages:
            page.close()
        eventually(lambda: not stopped_growing(looks))


def stopped_growing(looks):
    before = len(looks)
    time.sleep(0.5)
    return len(looks) - before


def test_a_store_that_vanishes_is_said_and_comes_back(serve, ran, stream):
    with serve("fairtrial.db") as url:
        events = stream(f"{url}/study/{ran.hash}/events")
        events.part("table")
        Path("fairtrial.db").rename("away.db")
        told = events.until(lambda event, got: event == "problem" and got["text"])
        assert "fairtrial.db" in told["text"]
        assert ran.label not in get(f"{url}/study/{ran.hash}")  # what is not known is not claimed
        Path("away.db").rename("fairtrial.db")
        assert events.until(lambda event, _: event == "problem") == {"text": ""}
        assert ran.label in get(f"{url}/study/{ran.hash}")


def test_a_store_that_another_took_the_place_of_is_read_anew(serve, ran, stream):
    with serve("fairtrial.db") as url:
        events = stream(f"{url}/study/{ran.hash}/events")
        events.part("table")
        other = simulated_study({"a": {}, "b": {}}, name="other")
        with SQLStore("other.db") as store:
            store.add_study(other, datetime.now(UTC))
        Path("other.db").rename("fairtrial.db")
        assert "Removed" in events.part("status", lambda html: "Removed" in html)
        assert other.label in stream(f"{url}/events").part("studies", lambda html: "other" in html)


def test_a_store_that_is_locked_is_said_and_comes_back(serve, ran, stream, monkeypatch):
    monkeypatch.setattr("fairtrial.store.watching.WatchedStore.__init__.__kwdefaults__", {"patience": 0.1})
    with serve("fairtrial.db") as url:
        events = stream(f"{url}/study/{ran.hash}/events")
        events.part("table")
        blocker = sqlite3.connect("fairtrial.db", isolation_level=None)
        blocker.execute("BEGIN EXCLUSIVE")
        told = events.until(lambda event, got: event == "problem" and got["text"])
        assert "another process is using it" in told["text"]
        blocker.execute("ROLLBACK")
        blocker.close()
        assert events.until(lambda event, _: event == "problem") == {"text": ""}


def test_a_damaged_store_is_said(serve, ran, stream):
    with serve("fairtrial.db") as url:
        Path("fairtrial.db").write_bytes(b"no database" * 1000)
        events = stream(f"{url}/events")
        told = events.until(lambda event, got: event == "problem" and got["text"])
        assert "\n" not in told["text"]
        assert "not a database" in told["text"]


def test_a_store_that_is_not_there_yet_is_waited_for(serve, simulated, stream):
    with serve("fairtrial.db") as url:
        events = stream(f"{url}/study/{simulated.hash}/events")
        assert "no store at" in events.until(lambda event, _: event == "problem")["text"]
        with SQLStore("fairtrial.db") as store:
            store.add_study(simulated, datetime.now(UTC))
        assert events.until(lambda event, _: event == "problem") == {"text": ""}
        assert not Path("fairtrial.db-journal").exists()


def test_a_study_that_is_removed_is_said_and_comes_back(serve, ran, stream):
    with serve("fairtrial.db") as url, SQLStore("fairtrial.db") as store:
        events = stream(f"{url}/study/{ran.hash}/events")
        events.part("table")
        with store.lock(ran):
            store.remove(ran.hash)
        assert events.part("status", lambda html: "no longer in this store" in html)
        with pytest.raises(urllib.error.HTTPError) as missing:
            get(f"{url}/study/{ran.hash}")
        missing.value.close()
        assert missing.value.code == 404
        store.add_study(ran, datetime.now(UTC))
        assert events.part("status", lambda html: "Not begun" in html)


def test_a_server_of_postgresql(serve, stream, simulated, writing, postgresql):
    run = writing(simulated, postgresql)
    run.whole(("baseline", 0), ("better", 0))
    with serve(postgresql) as url, run.store.lock(simulated):
        events = stream(f"{url}/study/{simulated.hash}/events")
        assert "Running" in events.part("status")
        assert "2</strong> of 9" in events.part("progress")
        events.part("table")
        run.whole(("wild", 0))
        assert events.part("progress", lambda html: "3</strong> of 9" in html)


def test_a_study_of_another_release_is_said(serve, ran, stream):
    from sqlalchemy import create_engine, select, update

    from fairtrial.store import schema

    with create_engine("sqlite:///fairtrial.db").begin() as connection:
        row = connection.execute(select(*schema.covered(schema.studies))).one()._asdict()
        row["toml"] = row["toml"].replace("epochs = 3", "epochs = 4")
        connection.execute(update(schema.studies).values(schema.with_checksum(schema.studies, row)))
    with serve("fairtrial.db") as url:
        told = stream(f"{url}/study/{ran.hash}/events").part("status")
        assert "another training procedure" in told


def test_the_server_ends_with_pages_open_and_a_drawing_under_way(serve, ran, stream, monkeypatch):
    def draw(*_):
        time.sleep(3600)
        yield

    monkeypatch.setattr("fairtrial.web.feed.StudyFeed.draw", draw)
    with serve("fairtrial.db") as url:
        pages = [stream(f"{url}/study/{ran.hash}/events") for _ in range(3)]
        for page in pages:
            page.part("progress")
        began = time.monotonic()
    assert time.monotonic() - began < 20
    for page in pages:
        assert len(list(page)) < 10  # the stream has ended


def test_a_port_that_is_taken_is_one_line():
    with listen(port=0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(FairtrialError, match=f"--port {port}: another program listens there"):
            listen(port=port)
    with pytest.raises(FairtrialError, match=r"--host 192\.0\.2\.1: not an address of this machine"):
        listen("192.0.2.1", 0)
    with pytest.raises(FairtrialError, match="--host no such host"):
        listen("no such host", 0)


def test_the_address_is_what_a_browser_can_open():
    with listen(port=0) as here:
        assert address(here) == f"http://localhost:{here.getsockname()[1]}/"
        assert not is_open(here)
    with listen("0.0.0.0", 0) as anywhere:
        assert address(anywhere) == f"http://{socket.gethostname()}:{anywhere.getsockname()[1]}/"
        assert is_open(anywhere)


def test_a_read_only_store_in_a_read_only_folder(serve, ran, stream):
    folder = Path("archive")
    folder.mkdir()
    shutil.copy("fairtrial.db", folder)
    (folder / "fairtrial.db").chmod(0o444)
    folder.chmod(0o555)
    try:
        with serve(folder / "fairtrial.db") as url:
            assert "9</strong> of 9" in stream(f"{url}/study/{ran.hash}/events").part("progress")
        assert [path.name for path in folder.iterdir()] == ["fairtrial.db"]
    finally:
        folder.chmod(0o755)
