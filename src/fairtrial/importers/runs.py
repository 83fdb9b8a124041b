"""Groups the records of a source into runs, in bounded memory: an arm, a seed, and values of one measure."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from fairtrial.errors import RunsError
from fairtrial.importers.cells import NO_LABEL, Floats, Integers, Labels, Mask, TooManyError, numbers_of
from fairtrial.importers.question import ARM, EACH_ROW, ROW, SEED, Question
from fairtrial.importers.records import ConflictError, Records, Rows
from fairtrial.importers.settings import Settings, names_runs, numbers_seeds
from fairtrial.spec.messages import brief, show

if TYPE_CHECKING:
    import pyarrow as pa

#: Arms and runs that are compared at most.
MOST_ARMS, MOST_RUNS = 10_000, 100_000
#: Of contradictions and the like, so many are shown.
_SHOWN = 3

Ended: TypeAlias = Literal["finished", "failed", "running"]


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        arm: the arm's label.
        seed: the seed's label; the row or the run's name where seeds are not known.
        epochs: epochs at which it has a value, ascending; one epoch where a run has one value.
        values: the values; NaN and infinities included.
        ended: how it ended; a run without any value has failed.
    """

    arm: str
    seed: str
    epochs: tuple[float, ...]
    values: tuple[float, ...]
    ended: Ended


@dataclass(frozen=True)
class Runs:
    """All runs of a source that a question is about.

    Attributes:
        question: what was asked.
        arms: their labels, in the order in which they appear.
        runs: the runs, by arm and seed.
        rows: how many rows were read.
        repeated: how many of them were exactly like another row of their run.
        unnamed: how many have no arm.
        thinned: whether epochs were dropped that the measure does not need.
        differing: columns in which arms differ beside the one under test, with the values of each arm.
        unread: how many columns were not looked at for that.
        again: how many runs failed without a value, and another run of the same seed did not.
    """

    question: Question
    arms: tuple[str, ...]
    runs: tuple[Run, ...]
    rows: int
    repeated: int
    unnamed: int
    thinned: bool
    differing: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    unread: int = 0
    again: int = 0

    @property
    def digest(self) -> str:
        """SHA-256 of the runs, in hexadecimal: what was read, not the file."""
        parts = [repr((run.arm, run.seed, run.ended, run.epochs, [x.hex() for x in run.values])) for run in self.runs]
        return hashlib.sha256("\n".join(sorted(parts)).encode(errors="surrogatepass")).hexdigest()


def collect(question: Question) -> Runs:
    """Read the runs that a question is about.

    Raises:
        RunsError: rows contradict each other, or are no independent runs; or the source can't be read.
    """
    return _Reader(question).runs()


class _Reader:
    """Reads a source once, batch after batch."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self._arms = [Labels(MOST_ARMS) for _ in question.arm]
        self._seeds = Labels(MOST_RUNS)
        self._groups = Labels(10**6)
        self._numbers: dict[tuple[tuple[int, ...], int], int] = {}  # of runs, by arm and seed
        self._failed: set[int] = set()
        self._empty: set[int] = set()  # of which a row without a value says that it failed
        self._running: set[int] = set()
        self._statuses = Labels(1_000)
        self._records = Records(question.last, question.lowest, question.group is not None)
        self._settings = Settings(question.others)
        self._named = Settings(_names_of_runs(question))
        self._rows = self._unnamed = 0

    def runs(self) -> Runs:
        columns = tuple(dict.fromkeys((*self._question.columns, *self._settings.columns, *self._named.columns)))
        try:
            for batch in self._question.source.read(columns):
                self._add(batch)
            rows = self._records.all()
        except ConflictError as error:
            self._check_named()
            raise self._contradiction(error.pairs) from None
        if not self._numbers:
            raise RunsError(f"{self._name}: has no row with {' and '.join(map(show, self._question.arm))}")
        arms, of_run = self._arms_of_runs()
        self._check_independent(arms, of_run)
        return Runs(
            self._question,
            arms,
            tuple(self._runs(arms, of_run, rows)),
            self._rows,
            self._records.repeated,
            self._unnamed,
            self._records.thinned,
            self._differing(arms, of_run),
            self._settings.unread,
            len((self._empty - self._failed).intersection(rows.run.tolist())),
        )

    @property
    def _name(self) -> str:
        return show(self._question.source.name)[1:-1]

    def _add(self, batch: "pa.RecordBatch") -> None:
        question, number = self._question, batch.num_rows
        rows = np.arange(self._rows, self._rows + number) + question.source.first_row
        self._rows += number
        if ROW in question.columns:
            rows = batch.column(ROW).to_numpy()
        arms = np.stack([self._labels(batch, *one) for one in zip(question.arm, self._arms, strict=True)], axis=1)
        named = (arms != NO_LABEL).all(axis=1)
        self._unnamed += int((~named).sum())
        runs = np.full(number, -1)
        runs[named] = self._number(arms[named], self._seed_of(batch, rows, named)[named])
        if len(self._numbers) > MOST_RUNS:
            raise RunsError(f"{self._name}: has more than {MOST_RUNS:,} runs; are its rows epochs, or episodes?")
        self._settings.add(batch, runs, len(self._numbers))
        found = numbers_of(batch.column(question.column), question.column, rows)
        kept = found.known & named
        self._add_statuses(batch, runs, kept)
        self._named.add(batch, np.where(kept, runs, -1), len(self._numbers))
        epochs = self._epochs(batch, rows, kept)
        groups = self._groups_of(batch, rows, kept)
        ones = np.ones(number, dtype=np.int64)
        self._records.add(Rows(runs, epochs, groups, found.values, rows, ones).take(kept))

    def _labels(self, batch: "pa.RecordBatch", column: str, labels: Labels) -> Integers:
        try:
            return labels.of(batch.column(column))
        except TooManyError:
            raise RunsError(
                f"{self._name}: {show(column)} has too many different values for one of arms, seeds or repeated "
                "measurements; is it a number that is measured?"
            ) from None

    def _seed_of(self, batch: "pa.RecordBatch", rows: Integers, named: Mask) -> Integers:
        """Tell runs of an arm apart: by seed, by what the format calls a run, or each row is one."""
        question = self._question
        column = question.seed or question.run
        if column is None:
            return np.zeros(len(rows), np.int64) if question.epoch else rows
        seeds = self._labels(batch, column, self._seeds)
        if (lacking := np.flatnonzero((seeds == NO_LABEL) & named)).size:
            raise RunsError(f"{self._name}: row {rows[lacking[0]]:,} has no {_called(column)}")
        return seeds

    def _number(self, arms: Integers, seeds: Integers) -> Integers:
        """Number runs in the order in which they appear."""
        whole = seeds
        for column in arms.T:
            whole = whole * (int(column.max(initial=0)) + 1) + column
        _, first, where = np.unique(whole, return_index=True, return_inverse=True)
        numbers = np.empty(len(first), np.int64)
        for index in np.argsort(first):
            key = (tuple(arms[first[index]].tolist()), int(seeds[first[index]]))
            numbers[index] = self._numbers.setdefault(key, len(self._numbers))
        return numbers[where]

    def _add_statuses(self, batch: "pa.RecordBatch", runs: Integers, kept: Mask) -> None:
        """Note how runs ended; one that failed without a value may have been run again."""
        if (column := self._question.source.status) is None:
            return
        statuses = self._labels(batch, column, self._statuses)
        every = runs >= 0
        for text, rows, found in (
            ("failed", kept, self._failed),
            ("failed", every & ~kept, self._empty),
            ("running", every, self._running),
        ):
            if (number := self._statuses.known.get(text)) is not None:
                found.update(np.unique(runs[(statuses == number) & rows]).tolist())

    def _epochs(self, batch: "pa.RecordBatch", rows: Integers, kept: Mask) -> Floats:
        column = self._question.epoch
        if column is None:
            return np.ones(len(rows))
        epochs = numbers_of(batch.column(column), column, rows)
        wrong = np.flatnonzero(kept & ~(epochs.known & np.isfinite(epochs.values)))
        if wrong.size:
            raise RunsError(f"{self._name}: row {rows[wrong[0]]:,} has a value and no finite number in {show(column)}")
        return epochs.values

    def _groups_of(self, batch: "pa.RecordBatch", rows: Integers, kept: Mask) -> Integers:
        column = self._question.group
        if column is None:
            return np.full(len(rows), NO_LABEL)
        if column == EACH_ROW and column not in self._question.source.columns:
            return rows
        groups = self._labels(batch, column, self._groups)
        if (lacking := np.flatnonzero((groups == NO_LABEL) & kept)).size:
            raise RunsError(f"{self._name}: row {rows[lacking[0]]:,} has no {_called(column)}")
        return groups

    def _arms_of_runs(self) -> tuple[tuple[str, ...], Integers]:
        """The labels of the arms, and the arm of each run."""
        combinations: dict[tuple[int, ...], int] = {}
        of_run = [combinations.setdefault(arm, len(combinations)) for arm, _ in self._numbers]
        if len(combinations) > MOST_ARMS:
            raise RunsError(f"{self._name}: has {len(combinations):,} arms; at most {MOST_ARMS:,} are compared")
        texts = [labels.texts for labels in self._arms]
        names = (", ".join(text[code] for text, code in zip(texts, arm, strict=True)) for arm in combinations)
        return tuple(names), np.array(of_run)

    def _runs(self, arms: Sequence[str], of_run: Integers, rows: Rows) -> "list[Run]":
        ends = np.searchsorted(rows.run, np.arange(len(of_run) + 1))
        found = []
        for number, ((_, seed), arm) in enumerate(zip(self._numbers, of_run.tolist(), strict=True)):
            own = slice(ends[number], ends[number + 1])
            values = tuple(rows.value[own].tolist())
            ended: Ended = "finished" if values and number not in self._failed else "failed"
            ended = "running" if number in self._running else ended
            text = self._seeds.texts[seed] if self._question.seed or self._question.run else str(seed)
            found.append(Run(arms[arm], text, tuple(rows.epoch[own].tolist()), values, ended))
        order = {arm: place for place, arm in enumerate(arms)}
        return sorted(found, key=lambda run: (order[run.arm], *seed_order(run.seed)))

    def _check_independent(self, arms: Sequence[str], of_run: Integers) -> None:
        """Refuse rows that are no independent runs, or several runs that would pass for one."""
        self._check_named()
        named = self._question.seed
        if self._question.epoch is not None:
            return
        for column, arm, rows, different in self._settings.numbering(of_run):
            if named is not None and not numbers_seeds(column):
                continue
            raise RunsError(
                f"{self._name}: {brief(arms[arm])} has {rows:,} rows and only {different:,} different values of "
                f"{show(column)}: rows of one are no independent runs; write --seed {brief(column)}, and "
                f"{self._question.usual('--group')} if they are repeated measurements"
            )

    def _check_named(self) -> None:
        """Refuse epochs of several runs that have the same arm and seed."""
        for column, (run, one, other) in self._named.varied.items():
            codes, seed = [*self._numbers][run]
            arm = ", ".join(labels.texts[code] for labels, code in zip(self._arms, codes, strict=True))
            raise RunsError(
                f"{self._name}: {brief(arm)}, {_called(self._question.seed)} {brief(self._seeds.texts[seed])} has "
                f"several runs ({_called(column)} {brief(one)} and {brief(other)}); leave out all but one, or write "
                f"--group {brief(column)} if their mean counts"
            )

    def _differing(self, arms: Sequence[str], of_run: Integers) -> dict[str, dict[str, tuple[str, ...]]]:
        found = self._settings.differing(of_run)
        return {column: {arms[arm]: own for arm, own in values.items()} for column, values in found}

    def _contradiction(self, pairs: Rows) -> RunsError:
        """Show rows that contradict each other, and say what to write."""
        question, shown = self._question, []
        keys = [*self._numbers]
        texts = [labels.texts for labels in self._arms]
        for index in range(0, min(len(pairs), 2 * _SHOWN), 2):
            arm, seed = keys[pairs.run[index]]
            name = ", ".join(text[code] for text, code in zip(texts, arm, strict=True))
            where = (
                f"{brief(name)}, {_called(question.seed)} {brief(self._seeds.texts[seed])}" if question.seed else name
            )
            where += f", {_called(question.epoch)} {pairs.epoch[index]:g}" if question.epoch else ""
            values = [f"{pairs.value[at]:g} in row {pairs.row[at]:,}" for at in (index, index + 1)]
            shown.append(f"{where}: {' and '.join(values)}")
        more = f", and {len(pairs) // 2 - _SHOWN:,} more" if len(pairs) > 2 * _SHOWN else ""
        return RunsError(f"{self._name}: several values of one run ({'; '.join(shown)}{more}); {self._what_to_write()}")

    def _what_to_write(self) -> str:
        question = self._question
        if question.group is not None:
            return f"they differ in nothing that was named, not even in {show(question.group)}"
        options = [f"{question.usual('--group')} if rows are repeated measurements, such as episodes or folds"]
        if question.epoch is None:
            options.insert(0, f"{question.usual('--epoch')} if they are epochs or steps")
        elif question.seed is None:
            options.insert(0, f"{question.usual('--seed')} if they are runs")
        return f"write {', or '.join(options)}"


def _names_of_runs(question: Question) -> tuple[str, ...]:
    """The columns that name runs, where epochs of several runs of one seed could pass for those of one run."""
    if question.seed is None or question.epoch is None or question.group is not None:
        return ()
    known = question.source.run
    return (known,) if known else tuple(column for column in question.others if names_runs(column))[:1]


def _called(column: str | None) -> str:
    """What a column is called in messages: of a wide table, what its columns and rows stand for."""
    return {ARM: "arm", SEED: "seed"}.get(column or "", show(column or "")[1:-1])


def seed_order(seed: str) -> tuple[int, int, str]:
    """Sort whole numbers as such, and before all other text."""
    return (0, int(seed), "") if seed.lstrip("-").isdecimal() and len(seed) < 300 else (1, 0, seed)
