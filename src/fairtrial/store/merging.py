"""Joins two stores: adds the studies and trials of one to another, within one transaction of the other.

Trials are joined by their hash. What only the source has is copied as it is. Of a trial that both have, the result that
is final stays, or is taken over; of two equal ones, the one that ended first. Where two final ones differ by a bit, the
stores contradict each other.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

from sqlalchemy import Connection, Row, delete, insert, select, update

from fairtrial.digests import reproducible
from fairtrial.errors import StoreConflictError, StoreError
from fairtrial.failpoints import failpoint
from fairtrial.spec import digest
from fairtrial.store import queries, schema, snapshots, timeline
from fairtrial.store.stages import stored_stages
from fairtrial.store.writer import storable, update_trials
from fairtrial.trial import CHOSEN, FINAL, EpochRecord, Machine, Outcome, TrialResult

A = TypeVar("A")
T = TypeVar("T")

#: Which of two contradicting results to keep: the target's or the source's.
Keep: TypeAlias = Literal["ours", "theirs"]


class Read(Protocol):
    """Reads one state of the source; its errors name the source."""

    def __call__(self, work: Callable[[Connection], T]) -> T:
        """Call a function with a connection."""


@dataclass(frozen=True)
class Merged:
    """What a merge did with the trials of one source, those that have begun.

    Attributes:
        source: the source's name.
        studies: how many studies are new, or got trials.
        added: how many trials are new.
        known: how many were there already.
        taken: how many of those were unfinished or failed, and the source's final result was taken.
        left: how many are unfinished or failed in the source alone, and were left.
        chosen: how many contradicted, and one result was chosen.
    """

    source: str
    studies: int = 0
    added: int = 0
    known: int = 0
    taken: int = 0
    left: int = 0
    chosen: int = 0


def merge(connection: Connection, read: Read, source: str, keep: Keep | None = None) -> Merged:
    """Add a source's studies, trials and stages.

    Args:
        connection: a transaction of the target that writes.
        read: reads the source.
        source: what messages call it.
        keep: which result to keep of trials that contradict.

    Raises:
        StoreConflictError: trials contradict, and ``keep`` does not say which to keep.
    """
    studies = read(queries.study_rows)
    plans = {study.hash: read(_reader(queries.planned, study.hash)) for study in studies}
    before = queries.ended(connection, _planned_here(connection))
    trials = _Trials(connection, read, source, keep)
    trials.merge(sorted({trial for plan in plans.values() for trial in plan}))
    if trials.conflicts and keep is None:
        first, *others = trials.conflicts
        more = f" (and {len(others)} more)" if others else ""
        raise StoreConflictError(
            f"{source} contradicts the store, so nothing was merged: {first}{more}; --keep ours keeps the store's "
            "results, --keep theirs takes the others, and verdicts say so",
            trials.conflicts,
        )
    failpoint("merge.trials")
    new = _merge_studies(connection, studies, plans, source)
    after = {trial: at for hashes in plans.values() for trial, at in read(_reader(queries.ended, hashes)).items()}
    timeline.merge(connection, read(stored_stages), before, after)
    failpoint("merge.written")
    changed = [study for study, plan in plans.items() if study in new or not trials.copied.isdisjoint(plan)]
    return Merged(source, len(changed), **trials.counts)


def _planned_here(connection: Connection) -> Sequence[str]:
    return connection.scalars(select(schema.study_trials.c.trial).distinct()).all()


def _reader(query: Callable[[Connection, A], T], which: A) -> Callable[[Connection], T]:
    return lambda connection: query(connection, which)


@dataclass
class _Trials:
    """Merges trials, some hundred at a time."""

    connection: Connection
    read: Read
    source: str
    keep: Keep | None
    conflicts: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    copied: set[str] = field(default_factory=set)

    def merge(self, hashes: Sequence[str]) -> None:
        """Merge trials of the source, by hash in rising order, so that two merges do not deadlock."""
        for chunk in queries.chunks(hashes):
            theirs = self.read(_reader(queries.trial_rows, chunk))
            ours = queries.trial_rows(self.connection, chunk)
            contradicting = self._contradicting(ours, theirs)
            new = [row._asdict() for trial, row in theirs.items() if trial not in ours]
            changed, taken = [], set()
            for trial, known in ours.items():
                row = theirs[trial]
                better = self.keep == "theirs" if trial in contradicting else _is_better(row, known)
                merged = self._join(*((row, known) if better else (known, row)), chosen=trial in contradicting)
                if better or merged != known._asdict():
                    changed.append(merged)
                    taken |= {trial} if better else set()
            self._write(new, changed, taken)
            for trial, row in theirs.items():
                self._count(ours.get(trial), row, chosen=trial in contradicting)

    def _contradicting(self, ours: Mapping[str, Row[Any]], theirs: Mapping[str, Row[Any]]) -> set[str]:
        """Find the trials that have final results in both stores, which differ, and describe each."""
        both = [one for one, row in theirs.items() if one in ours and _rank(row) == _rank(ours[one]) == _FINAL]
        here = {one.trial: one for one in queries.results(self.connection, both)}
        there = {one.trial: one for one in self.read(_reader(queries.results, both))}
        found = {trial: said for trial in both if (said := difference(here[trial], there[trial], self.source))}
        self.conflicts += found.values()
        return {*found}

    def _join(self, kept: Row[Any], other: Row[Any], *, chosen: bool) -> dict[str, Any]:
        """Join two rows of a trial, one of which has the result to keep; a note says if it was chosen."""
        row = kept._asdict()
        if row["ended_at"] is None:  # whoever looked at the trial when it had ended there has seen it
            row["ended_at"] = other.ended_at
        if chosen:
            row["forced"] = _noted(row["forced"], f"{CHOSEN} (--keep {self.keep}, merged from {self.source})")
        elif CHOSEN in other.forced and CHOSEN not in row["forced"] and _rank(kept) == _rank(other):
            row["forced"] = _noted(row["forced"], other.forced[other.forced.index(CHOSEN) :])
        return row

    def _count(self, ours: Row[Any] | None, theirs: Row[Any], *, chosen: bool) -> None:
        if theirs.attempt is None:
            return
        if ours is None or ours.attempt is None:
            kind = "added"
            self.copied.add(theirs.hash)
        else:
            self.counts["known"] += 1
            better = _rank(theirs) - _rank(ours)
            kind = "chosen" if chosen else "taken" if better > 0 else "left" if better else ""
        if kind:
            self.counts[kind] += 1

    def _write(self, new: Sequence[dict[str, Any]], changed: Sequence[dict[str, Any]], taken: set[str]) -> None:
        """Write rows of trials, with the source's epoch records of those that are new or taken from there."""
        hashes = [*(row["hash"] for row in new), *sorted(taken)]
        rows = self.read(_reader(queries.trial_rows, hashes))
        records = self.read(_reader(queries.epoch_rows, hashes))
        self.read(lambda _: [queries.check_records(row, records.get(one, ())) for one, row in rows.items()])
        settings = self.read(
            lambda other: dict(queries.settings(other, {row["hash"]: rows[row["hash"]] for row in new}))
        )
        if new:
            texts = {one: schema.to_json(table) for one, table in settings.items()}
            self.connection.execute(insert(schema.trials), [row | {"settings": texts[row["hash"]]} for row in new])
        update_trials(self.connection, changed)
        if taken:
            old = schema.epoch_records.c.trial.in_(taken)
            self.connection.execute(delete(schema.epoch_records).where(old))
        epochs = [
            {"trial": trial, "epoch": epoch, "attempt": attempt, "metrics": metrics}
            for trial, each in records.items()
            for epoch, attempt, metrics in each
        ]
        if epochs:
            self.connection.execute(insert(schema.epoch_records), epochs)
        snapshots.copy(self.connection, self.read(_reader(snapshots.stored, hashes)), taken)


#: What a trial's result is worth, rising: not begun, unfinished, failed (it may be run again), final.
_FINAL = 3
_RANKS = {None: 1, Outcome.FAILED: 2} | dict.fromkeys(FINAL, _FINAL)


def _rank(row: Row[Any]) -> int:
    return 0 if row.attempt is None else _RANKS[Outcome(row.outcome) if row.outcome else None]


def _is_better(one: Row[Any], other: Row[Any]) -> bool:
    """Whether a result replaces another; of two equal ones, the one that ended first, so that no order matters."""
    rank = _rank(one)
    return rank > _rank(other) or (rank == _rank(other) == _FINAL and one.ended_at < other.ended_at)


def _noted(forced: str, note: str) -> str:
    before = forced.partition(CHOSEN)[0].removesuffix("; ")
    return storable(f"{before}; {note}" if before else note)


def _merge_studies(
    connection: Connection, studies: Sequence[Row[Any]], plans: Mapping[str, Sequence[str]], source: str
) -> set[str]:
    """Add the rows of studies whose trials have been added, and return the hashes of those that are new."""
    known = {row.hash: row for row in queries.study_rows(connection)}
    new = [row for row in studies if row.hash not in known]
    if new:
        connection.execute(insert(schema.studies), [row._asdict() for row in new])
        links = [
            {"study": row.hash, "trial": trial, "position": position}
            for row in new
            for position, trial in enumerate(plans[row.hash])
        ]
        connection.execute(insert(schema.study_trials), links)
        connection.execute(update(schema.schema_version).values(studies=schema.schema_version.c.studies + len(new)))
    for row in studies:
        if row.hash in known:
            _join_study(connection, known[row.hash], row, source)
    return {row.hash for row in new}


def _join_study(connection: Connection, ours: Row[Any], theirs: Row[Any], source: str) -> None:
    """Join two rows of a study: what its last run wrote stays. One that was removed from one store comes back."""
    if ours.trials != theirs.trials:
        raise StoreError(f"study {ours.name}@{ours.hash[:8]} has other trials in {source}: nothing was merged")
    last, other = sorted((ours, theirs), key=lambda row: (bool(row.toml), row.last_run_at), reverse=True)
    row = last._asdict() | {
        "created_at": min(ours.created_at, theirs.created_at),
        "last_run_at": max(ours.last_run_at, theirs.last_run_at),
    }
    if row["source"] is None:
        row |= {"source": other.source, "assignments": other.assignments}
    if row != ours._asdict():
        values = schema.with_checksum(schema.studies, row)
        connection.execute(update(schema.studies).where(schema.studies.c.hash == ours.hash).values(values))


def difference(ours: TrialResult, theirs: TrialResult, source: str) -> str:
    """Say in what two final results of a trial first differ; empty if they are the same but for times and machines."""
    found = _differing_end(ours, theirs, source) if ours.outcome is not theirs.outcome else ""
    found = found or _differing_records(ours.epochs, theirs.epochs, source) or _differing_end(ours, theirs, source)
    if not found:
        return ""
    return f"{ours.arm}, seed {ours.seed}: {found} ({_machines(ours.machine, theirs.machine)})"


def _differing_end(ours: TrialResult, theirs: TrialResult, source: str) -> str:
    if ours.outcome is not theirs.outcome:
        return f"{ours.outcome} here, {theirs.outcome} in {source}"
    if ours.outcome is Outcome.DIVERGED and ours.detail != theirs.detail:
        return f"diverged otherwise here than in {source}"
    for name in sorted(ours.fingerprints.keys() & theirs.fingerprints.keys()):
        here, there = ours.fingerprints[name], theirs.fingerprints[name]
        if here != there:
            return f"its {name} are {here[:12]} here, {there[:12]} in {source}"
    return ""


def _differing_records(ours: Sequence[EpochRecord], theirs: Sequence[EpochRecord], source: str) -> str:
    for here, there in zip(ours, theirs, strict=False):
        mine, other = ({"epoch": str(one.epoch), **reproducible(one)} for one in (here, there))
        for name in {**mine, **other}:
            if mine.get(name) != other.get(name):
                shown = [repr(one.metrics[name]) if name in one.metrics else "not recorded" for one in (here, there)]
                return f"{name} after epoch {here.epoch} is {shown[0]} here, {shown[1]} in {source}"
    if len(ours) != len(theirs):
        return f"{len(ours)} epochs here, {len(theirs)} in {source}"
    return ""


def _machines(ours: Machine, theirs: Machine) -> str:
    """Say in which conditions two trials differ; if in none, what they share."""
    here, there = ours.conditions, theirs.conditions
    here, there = here | {"data": ours.data[:12]}, there | {"data": theirs.data[:12]}
    here, there = ({name: value for name, value in each.items() if value} for each in (here, there))
    if {**ours.code} != {**theirs.code}:
        here, there = here | {"code": digest(dict(ours.code))[:12]}, there | {"code": digest(dict(theirs.code))[:12]}
    differing = [
        f"{name} {here.get(name, 'unknown')} and {there.get(name, 'unknown')}"
        for name in {**here, **there}
        if here.get(name) != there.get(name)
    ]
    if differing:
        return ", ".join(differing)
    return "both with " + ", ".join(f"{name} {value}" for name, value in here.items())
