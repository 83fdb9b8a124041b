"""Settings in which runs differ beside the one under test: columns that are constant within each run."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fairtrial.importers.cells import NO_LABEL, Integers, Labels, TooManyError

if TYPE_CHECKING:
    import pyarrow as pa

#: Columns that are looked at, and different values of one that are kept.
MOST_COLUMNS, MOST_VALUES = 200, 1_000

#: Names of columns that tell runs apart: their rows are no independent runs if there are fewer of them than rows.
RUN_NAMES = frozenset(
    {"seed", "seeds", "run", "runs", "run_id", "runid", "random_state", "random_seed", "rng_seed", "trial", "trial_id"}
    | {"fold", "replicate", "rep", "repetition"}
)

#: Those of them that name a run, and those that number seeds.
_OF_RUNS = frozenset({"run", "runs", "run_id", "runid", "trial", "trial_id"})
_OF_SEEDS = frozenset({"seed", "seeds", "random_state"})

_UNSET = -2


def tells_runs_apart(column: str) -> bool:
    """Tell whether a column's name says that it numbers runs or seeds.

    Example:
        >>> tells_runs_apart("config.seed"), tells_runs_apart("episode")
        (True, False)
    """
    return _last_word(column) in RUN_NAMES or _last_word(column).endswith("_seed")


def names_runs(column: str) -> bool:
    """Tell whether a column's name says that it has names or numbers of runs."""
    return _last_word(column) in _OF_RUNS


def numbers_seeds(column: str) -> bool:
    """Tell whether a column's name says that it has seeds."""
    return _last_word(column) in _OF_SEEDS or _last_word(column).endswith("_seed")


def _last_word(column: str) -> str:
    return column.lower().replace("-", "_").replace(" ", "_").replace("/", ".").rpartition(".")[2]


class Settings:
    """Collects the value of each column in each run, batch after batch, and drops columns that vary within a run."""

    def __init__(self, columns: Sequence[str]) -> None:
        own = [column for column in columns if tells_runs_apart(column)]
        others = [column for column in columns if column not in own]
        self.unread = max(0, len(others) - MOST_COLUMNS)  # columns that are not looked at
        others = others[:MOST_COLUMNS]
        self.varied: dict[str, tuple[int, str, str]] = {}  # where a dropped column varies: the run, and two values
        self._labels = {column: Labels(10**6) for column in own} | {column: Labels(MOST_VALUES) for column in others}
        self._first: dict[str, Integers] = {column: np.empty(0, np.int64) for column in self._labels}

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read; also those dropped since."""
        return tuple(self._labels)

    def add(self, batch: "pa.RecordBatch", runs: Integers, number: int) -> None:
        """Add a batch, with the run of each row, and the number of runs so far; rows of no run have -1."""
        of_runs = runs >= 0
        for column in tuple(self._first):
            try:
                labels = self._labels[column].of(batch.column(column))[of_runs]
            except TooManyError:
                del self._first[column]
                continue
            first = self._grown(column, number)
            new = np.flatnonzero(first[runs[of_runs]] == _UNSET)[::-1]
            first[runs[of_runs][new]] = labels[new]  # reversed, so that the first row of a run is the last to be set
            other = np.flatnonzero(first[runs[of_runs]] != labels)
            if other.size:
                run = int(runs[of_runs][other[0]])
                texts = (*self._labels[column].texts, "(none)")  # NO_LABEL is the last
                self.varied[column] = (run, texts[first[run]], texts[labels[other[0]]])
                del self._first[column]

    def _grown(self, column: str, number: int) -> Integers:
        first = self._first[column]
        if len(first) < number:
            first = np.concatenate([first, np.full(max(number, 2 * len(first)) - len(first), _UNSET)])
            self._first[column] = first
        return first

    def numbering(self, arms: Integers) -> Iterator[tuple[str, int, int, int]]:
        """Give the columns that tell runs apart and have the same value in several runs of an arm.

        Yields:
            The column, an arm, its number of runs, and how many different values they have.
        """
        for column, first in self._first.items():
            if tells_runs_apart(column):
                values = first[: len(arms)]
                for arm in np.unique(arms):
                    own = values[(arms == arm) & (values != NO_LABEL)]
                    if len(np.unique(own)) < len(own):
                        yield column, int(arm), len(own), len(np.unique(own))
                        break

    def differing(self, arms: Integers) -> Iterator[tuple[str, Mapping[int, tuple[str, ...]]]]:
        """Give the columns whose values differ between arms, with the values of each arm.

        Columns with another value in almost every run are results, or names of runs.
        """
        for column, first in self._first.items():
            values = first[: len(arms)]
            if tells_runs_apart(column) or 2 * len(np.unique(values)) > len(arms):
                continue
            texts = self._labels[column].texts
            pairs = np.unique(np.stack([arms, values]), axis=1)
            found: dict[int, tuple[str, ...]] = {}
            for arm, value in pairs.T.tolist():
                found[arm] = (*found.get(arm, ()), "(none)" if value == NO_LABEL else texts[value])
            if len({frozenset(own) for own in found.values()}) > 1:
                yield column, found
