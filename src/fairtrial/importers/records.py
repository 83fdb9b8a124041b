"""Records of runs in bounded memory: repetitions are found, repeated measurements averaged, others thinned out."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from fairtrial.errors import RunsError
from fairtrial.importers.cells import Floats, Integers, Mask

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Records that are kept while a source is read, and afterwards.
MOST_READ, MOST_KEPT = 1_000_000, 200_000


@dataclass(frozen=True)
class Rows:
    """Records, a cell of each array: which run, epoch and repeated measurement, the value, and the row it was in.

    ``weight`` is the number of repeated measurements whose mean a value is.
    """

    run: Integers
    epoch: Floats
    group: Integers
    value: Floats
    row: Integers
    weight: Integers

    @classmethod
    def joined(cls, parts: "Sequence[Rows]") -> Self:
        """Join parts, in their order."""
        return cls(*(np.concatenate(arrays) for arrays in zip(*(_arrays(part) for part in parts), strict=True)))

    def take(self, which: Integers | Mask) -> "Rows":
        """Choose some of them."""
        return Rows(*(array[which] for array in _arrays(self)))

    def __len__(self) -> int:
        return len(self.run)


def _arrays(rows: Rows) -> tuple[Any, ...]:
    return tuple(getattr(rows, name) for name in Rows.__dataclass_fields__)


class ConflictError(Exception):
    """One run has several values where it should have one: two rows of each such run."""

    def __init__(self, pairs: Rows) -> None:
        super().__init__()
        self.pairs = pairs  # two rows each


@dataclass
class Records:
    """Collects records of one measure, batch after batch.

    Attributes:
        last: how many of the last epochs of a run the measure needs; 0 for the best one.
        lowest: whether the best is the lowest.
        grouped: whether a run has repeated measurements, of which the mean counts.
        repeated: how many rows were exactly like another one of their run.
        thinned: whether epochs were dropped that the measure does not need.
    """

    last: int
    lowest: bool
    grouped: bool
    repeated: int = 0
    thinned: bool = False
    _parts: list[Rows] = field(default_factory=list)
    _number: int = 0

    def add(self, rows: Rows) -> None:
        """Add the records of a batch.

        Raises:
            ConflictError: some contradict each other.
            RunsError: they are more than can be kept.
        """
        self._parts.append(rows)
        self._number += len(rows)
        if self._number > MOST_READ:
            kept = self._settled()
            if not self.grouped:  # else a further measurement of an epoch that was dropped may come
                kept, self.thinned = self._needed(kept), True
            if len(kept) > MOST_READ // 2:
                raise RunsError(f"more than {MOST_READ // 2:,} records count; import fewer runs, or fewer epochs")
            self._parts, self._number = [kept], len(kept)

    def all(self) -> Rows:
        """Give the records, by run and epoch; of repeated measurements the means."""
        rows = self._settled()
        if len(rows) > MOST_KEPT:
            rows, self.thinned = self._needed(rows), True
        return rows

    def _settled(self) -> Rows:
        """Sort all records, drop repetitions, and average repeated measurements."""
        rows = Rows.joined(self._parts) if self._parts else _nothing()
        rows = rows.take(np.lexsort((rows.row, rows.group, rows.epoch, rows.run)))
        same = (np.diff(rows.run) == 0) & (np.diff(rows.epoch) == 0) & (np.diff(rows.group) == 0)
        differ = same & (rows.value[1:] != rows.value[:-1]) & ~(np.isnan(rows.value[1:]) & np.isnan(rows.value[:-1]))
        if differ.any():
            first = np.flatnonzero(differ)
            first = first[np.unique(rows.run[first], return_index=True)[1]]  # one of each run
            raise ConflictError(rows.take(np.stack([first, first + 1], axis=1).ravel()))
        self.repeated += int(same.sum())
        rows = rows.take(np.concatenate([[True], ~same])) if len(rows) else rows
        return _averaged(rows) if self.grouped and len(rows) else rows

    def _needed(self, rows: Rows) -> Rows:
        """Choose the records that decide the measure, and the last one of each run."""
        ends = np.flatnonzero(np.append(np.diff(rows.run) != 0, True))
        lengths = np.diff(ends, prepend=-1)
        from_end = np.repeat(ends, lengths) - np.arange(len(rows))
        if self.last:
            return rows.take(from_end < self.last)
        score = np.where(np.isnan(rows.value), np.inf, -rows.value if self.lowest else rows.value)
        order = np.lexsort((score, rows.run))
        best = np.zeros(len(rows), dtype=np.bool_)
        best[order[ends]] = True
        return rows.take(best | (from_end == 0))


def _nothing() -> Rows:
    none, no_numbers = np.empty(0, np.int64), np.empty(0)
    return Rows(none, no_numbers, none, no_numbers, none, none)


def _averaged(rows: Rows) -> Rows:
    """Average the values of each run and epoch; they are sorted."""
    first = np.concatenate([[True], (np.diff(rows.run) != 0) | (np.diff(rows.epoch) != 0)])
    starts = np.flatnonzero(first)
    weight = np.add.reduceat(rows.weight, starts)
    with np.errstate(invalid="ignore", over="ignore"):  # of infinities, which make a run a lost one
        value = np.add.reduceat(rows.value * rows.weight, starts) / weight
    means = rows.take(starts)
    return Rows(means.run, means.epoch, np.full(len(starts), -1), value, means.row, weight)
