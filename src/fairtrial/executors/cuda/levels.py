"""Finds how many trials side by side pay off on a GPU, by the turns that all of them together take in a second."""

from collections.abc import Callable, Mapping
from statistics import median
from time import perf_counter

#: Trials side by side on a GPU at most, unless a user gives a number. On an H200, 16 were as fast together as 32.
MOST = 32

#: Twice as many trials pay off if they take so many times as many turns a second, all together.
PAYS = 1.05

#: A measurement is the median of so many parts, so that an evaluation or a recorded graph within one doesn't matter.
#: A part has at least so many seconds, and turns a trial, which come in bursts of eight (see `training.graphed`).
PARTS, SECONDS_A_PART, TURNS_A_PART = 8, 0.25, 16

#: Turns after which a trial has settled: its first steps are behind it, and it has most of the memory that it needs.
TURNS_TO_SETTLE = 20


class Levels:
    """How many trials a process may run side by side: one at first, and twice as many as long as that pays off.

    What is measured is the work of all trials together, whatever it is: where trials are so short that starting them is
    most of the work, that counts.

    Attributes:
        limit: trials that may run now.
    """

    def __init__(self) -> None:
        self.limit = 1
        self._before = (1, 0.0)  # the limit before, and its turns a second
        self._unsettled: set[str] | None = None  # trials that the measurement waits for; None until as many run
        self._rates: list[float] = []
        self._final = False
        self._begin_part()

    def after_round(self, turns: Mapping[str, int], worked: int, fit: Callable[[], int]) -> int | None:
        """Take note of a round; return the limit if it has changed.

        Args:
            turns: turns so far of each trial that runs.
            worked: trials that did something in this round.
            fit: says how many more trials have memory.
        """
        if self._final or (self._unsettled is None and len(turns) < self.limit):
            return None
        if self._unsettled is None or self._unsettled:
            waited = turns.keys() if self._unsettled is None else self._unsettled & turns.keys()
            self._unsettled = {one for one in waited if turns[one] < TURNS_TO_SETTLE}
            self._begin_part()
            return None
        self._turns += worked
        seconds = perf_counter() - self._since
        if seconds < SECONDS_A_PART or self._turns < TURNS_A_PART * self.limit or len(turns) < self.limit:
            return None
        self._rates.append(self._turns / seconds)
        self._begin_part()
        return self._decide(fit()) if len(self._rates) == PARTS else None

    def _begin_part(self) -> None:
        self._turns, self._since = 0, perf_counter()

    def _decide(self, fit: int) -> int | None:
        rate, now = median(self._rates), self.limit
        before, rate_before = self._before
        self.limit = min(2 * now, now + fit, MOST) if rate >= PAYS * rate_before else before
        self._final = self.limit <= now
        self._before, self._unsettled, self._rates = (now, rate), None, []
        return None if self.limit == now else self.limit
