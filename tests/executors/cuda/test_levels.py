"""How many trials side by side pay off: on a device and with a clock that are made up."""

import itertools

import pytest

from fairtrial.executors.cuda import levels, worker
from fairtrial.executors.cuda.levels import MOST, Levels
from fairtrial.executors.cuda.worker import Turns
from fairtrial.executors.session import Room
from fairtrial.scheduler import plan
from fairtrial.trial import Turn


class Device:
    """Gives trials their turns in a process whose parent always has more trials, and keeps the time.

    Args:
        rate: turns a second of so many trials together.
        trials: all there are.
        length: turns of a trial.
        pause: seconds that every 800th turn of a trial takes on top, as an evaluation does.
        gib: memory of the device; a trial takes one.
    """

    def __init__(self, monkeypatch, rate, trials, *, length=10**9, pause=0.0, gib=0):
        self.rate, self.length, self.pause, self.gib, self.now = rate, length, pause, gib, 0.0
        self.room, self.rooms, self.given = 1, [], iter(trials)
        monkeypatch.setattr(levels, "perf_counter", lambda: self.now)
        monkeypatch.setattr(worker, "sleep", self.spend)
        self.turns = Turns(self, self.work, self.memory, Levels())

    def spend(self, seconds):
        self.now += seconds

    def send(self, report):
        assert isinstance(report, Room)
        self.room = report.trials
        self.rooms.append(report.trials)

    @property
    def running(self):
        return len(self.turns._running)

    def memory(self):
        return (self.gib - self.running) << 30, (self.running << 30) if self.gib else 0

    def work(self, trial):
        for turn in range(self.length):
            self.spend(1 / self.rate(self.running))
            if turn % 800 == 799:
                self.spend(self.pause)
            yield Turn.OVER

    def go_on(self, seconds, until_decided=False):
        until = self.now + seconds
        while self.now < until and not (until_decided and self.turns._levels._final):
            for trial in itertools.islice(self.given, max(0, self.room - self.running - len(self.turns._waiting))):
                self.turns.add(trial)
            if self.turns.idle:
                return
            self.turns.round()


@pytest.fixture
def trials(make_study):
    return plan(make_study(seeds=200, arms={"a": {}}))


def saturating(at):
    """The rate of a device that so many trials fill."""
    return lambda running: 100.0 * min(running, at)


@pytest.mark.parametrize(
    ("rate", "rooms"),
    [
        (saturating(1), [2, 1]),
        (saturating(4), [2, 4, 8, 4]),
        (saturating(10), [2, 4, 8, 16, 32, 16]),
        (saturating(100), [2, 4, 8, 16, 32]),
        (lambda running: 100.0 / running, [2, 1]),
        (lambda running: {1: 204, 2: 380, 4: 559, 8: 700, 16: 795}.get(running, 795), [2, 4, 8, 16, 32, 16]),
    ],
)
@pytest.mark.parametrize("pause", [0.0, 0.1])
def test_more_run_as_long_as_that_pays(monkeypatch, trials, rate, rooms, pause):
    device = Device(monkeypatch, rate, trials, pause=pause)
    device.go_on(400, until_decided=True)
    assert device.rooms == rooms
    assert device.running == max(rooms)  # those that did not pay go on to their end
    assert device.turns._levels.limit == rooms[-1] <= MOST


def test_trials_that_end_are_followed_by_no_more_than_pay(monkeypatch, trials):
    device = Device(monkeypatch, saturating(2), trials, length=3000)
    device.go_on(60)
    assert device.rooms == [2, 4, 2]
    device.go_on(100)
    assert device.running == 2


def test_short_trials_are_measured_by_what_all_get_done(monkeypatch, trials):
    """A trial of ten turns never settles: it has ended before. As each round starts one, more than four don't wait."""
    device = Device(monkeypatch, saturating(2), trials * 100, length=10)
    device.go_on(60)
    assert device.rooms == [2, 4, 8, 4]


def test_a_moment_with_too_few_trials_decides_nothing(monkeypatch, trials):
    """As between two seeds of a sequential study."""
    device = Device(monkeypatch, saturating(100), trials[:3])
    device.go_on(30)
    assert (device.rooms, device.running) == ([2, 4], 3)
    device.given = iter(trials[3:])
    device.go_on(60, until_decided=True)
    assert device.rooms == [2, 4, 8, 16, 32]


def test_no_more_than_have_memory(monkeypatch, trials):
    device = Device(monkeypatch, saturating(100), trials, gib=11)
    device.go_on(60, until_decided=True)
    assert device.rooms == [2, 4, 7, 9, 10]  # each new one must find twice as much as a trial takes
    assert device.running == 10


def test_a_number_of_the_users_is_not_measured(monkeypatch, trials):
    device = Device(monkeypatch, saturating(1), trials)
    device.turns._levels, device.room = None, 5
    device.go_on(60)
    assert (device.rooms, device.running) == ([], 5)
