"""Stores in every state, and servers of their live pages on free ports."""

import json
import threading
import time
import urllib.request
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from fairtrial.runner import run_study
from fairtrial.scheduler import plan
from fairtrial.store.sql import SQLStore
from fairtrial.testing import MACHINE, executor, simulated_results, simulated_study
from fairtrial.trial import Outcome
from fairtrial.web.ports import address, listen
from fairtrial.web.server import Server
from store_calls import Calls


@contextmanager
def served(store, *names, said=None):
    """Serve a store's page from a thread; give its address without the slash."""
    with listen(port=0) as listening:
        server = Server.of(str(store), *names, say=(said if said is not None else []).append)
        thread = threading.Thread(target=server.serve_on, args=(listening,), daemon=True)
        thread.start()
        url = address(listening).rstrip("/")
        try:
            yield url
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


@pytest.fixture
def serve():
    return served


class Stream:
    """The events of a page, as they come; what does not come within ``patience`` seconds fails the test."""

    patience = 40

    def __init__(self, url):
        self._answer = urllib.request.urlopen(url, timeout=60)
        self.headers = self._answer.headers
        self.last = {}

    def __iter__(self):
        event = ""
        end = time.monotonic() + self.patience
        for line in self._answer:
            assert time.monotonic() < end, self.last
            text = line.decode().rstrip("\n")
            if text.startswith("event: "):
                event = text.removeprefix("event: ")
            elif text.startswith("data: "):
                content = json.loads(text.removeprefix("data: "))
                self.last[event, content.get("name")] = content
                yield event, content

    def until(self, wanted):
        """Read events until one is wanted, and return its content."""
        return next(content for event, content in self if wanted(event, content))

    def part(self, name, holds=lambda html: True):
        """Wait until a part of the page is as wanted, and return its markup."""
        known = self.last.get(("part", name))
        if known is not None and holds(known["html"]):
            return known["html"]
        return self.until(lambda event, got: event == "part" and got["name"] == name and holds(got["html"]))["html"]

    def charts(self):
        """The names of the charts, once there are any."""
        known = self.last.get(("charts", None))
        return (known or self.until(lambda event, _: event == "charts"))["names"]

    def close(self):
        self._answer.close()


@pytest.fixture
def stream():
    """Follow the events of a URL."""
    opened = []

    def follow(url):
        opened.append(Stream(url))
        return opened[-1]

    yield follow
    for each in opened:
        each.close()


ARMS = {"baseline": {}, "better": {"mean": 0.85}, "wild": {"mean": 0.7, "fail_seeds": (1,), "diverge_seeds": (2,)}}


@pytest.fixture
def simulated():
    """A small study with claims and a failed and a diverged trial."""
    return simulated_study(
        ARMS,
        seeds=3,
        evidence={"margin": 0.01},
        claims=[{"id": "1", "text": "better wins.", "arm": "better", "against": "baseline", "direction": "higher"}],
    )


@pytest.fixture
def ran(simulated):
    """Run the study to its end in a store; give the study."""
    with SQLStore("fairtrial.db") as store:
        run_study(simulated, store=store, executor=executor())
    return simulated


class Run:
    """Writes a study's results to a store bit by bit, as a run does."""

    def __init__(self, study, path="fairtrial.db"):
        self.study = study
        self.store = SQLStore(path)
        self.store.add_study(study, datetime.now(UTC))
        self.trials = {(trial.arm, trial.seed): trial for trial in plan(study)}
        self.results = {(result.arm, result.seed): result for result in simulated_results(study)}
        self.calls = Calls(self.store)

    def begin(self, *keys):
        for key in keys:
            self.calls.begin(self.trials[key], "1", MACHINE, datetime.now(UTC))

    def epoch(self, key, number):
        self.calls.add_epoch(self.trials[key], "1", self.results[key].epochs[number - 1])

    def end(self, key):
        result = self.results[key]
        self.calls.end(self.trials[key], "1", result.outcome or Outcome.FINISHED, result.detail, datetime.now(UTC))

    def whole(self, *keys):
        for key in keys:
            self.begin(key)
            for number in range(1, len(self.results[key].epochs) + 1):
                self.epoch(key, number)
            self.end(key)


@pytest.fixture
def writing():
    """Begin to write a study's results."""
    runs = []

    def begin(study, path="fairtrial.db"):
        runs.append(Run(study, path))
        return runs[-1]

    yield begin
    for run in runs:
        run.store.__exit__()


def eventually(holds, seconds=60):
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture(name="eventually")
def _eventually():
    return eventually
