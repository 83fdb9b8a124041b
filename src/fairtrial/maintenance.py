"""Keeps stores: merges them, removes studies, and removes what nobody needs any more."""

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from fairtrial.checkpoints import CheckpointManager
from fairtrial.errors import CheckpointError, FairtrialError, StoreDamagedError, StoreError
from fairtrial.failpoints import failpoint
from fairtrial.store import locks
from fairtrial.store.base import StoredStudy
from fairtrial.store.merging import Keep, Merged
from fairtrial.store.opening import opened_store
from fairtrial.store.removal import Removal, Wanted
from fairtrial.store.sql import SQLStore

#: A store, or its file or URL.
AnyStore: TypeAlias = str | Path | SQLStore

#: A file is made smaller if at least this part of it is unused.
_WORTHWHILE = 0.1

_HASH = 64  # digits of a trial's hash, which is the name of its folder of checkpoints


def merge_stores(*sources: AnyStore, store: AnyStore = "fairtrial.db", keep: Keep | None = None) -> tuple[Merged, ...]:
    """Add to a store what others hold: all of it, or nothing if there is an error. The others stay as they are.

    Trials are joined by their hash. One that both stores have is kept once; if one of them has no final result
    (finished or diverged), the other's is kept. What studies asked is joined, too, in the order of its times, so that
    no look at shared trials is lost. Checkpoints are not copied.

    Args:
        *sources: files, database URLs or stores.
        store: the store to which they are added; it is made if there is none.
        keep: which result to keep where two final ones differ: ``"ours"``, the store's, or ``"theirs"``. Verdicts on
            such a trial say so. By default, that is an error.

    Returns:
        What was added of each source.

    Raises:
        StoreConflictError: trials have different results, and ``keep`` does not say which to keep.
        StoreDamagedError: a source is damaged.
        StoreLockedError: a study of one of these stores is being run.
        StoreError: a source can't be read, or is the store itself.

    Example:
        >>> merge_stores("colleague.db", store="fairtrial.db")  # doctest: +SKIP
        (Merged(source='colleague.db', studies=2, added=12, known=30, taken=0, left=0, chosen=0),)
    """
    if keep not in {None, "ours", "theirs"}:
        raise FairtrialError(f"keep = {keep!r}: must be 'ours', 'theirs' or None")
    with ExitStack() as stack:
        others = [stack.enter_context(opened_store(source, create=False)) for source in sources]
        for other in others:
            if damage := other.check():
                raise StoreDamagedError(damage)
        opened = stack.enter_context(opened_store(store))
        for other in others:
            if other.identity() == opened.identity():
                raise StoreError(f"{other.name} is the store itself: name another one to merge into it")
        return opened.merge(others, keep)


@dataclass(frozen=True)
class Removed:
    """A study that was removed, or would be.

    Attributes:
        study: the study.
        removal: what goes with it.
        checkpoints: how many of its trials have checkpoints, which go too.
        bytes: of these.
    """

    study: StoredStudy
    removal: Removal
    checkpoints: int
    bytes: int


def remove_study(
    study: StoredStudy, store: AnyStore, *, checkpoints: str | None = None, dry_run: bool = False
) -> Removed:
    """Remove a study from a store, with the results and checkpoints of trials that no other study shares.

    What it asked stays, and when its trials had ended: who looks at the same arms and seeds later has looked before.

    Args:
        study: one of `fairtrial.list_studies`.
        store: a file, a database URL or a store.
        checkpoints: the folder or URL of its checkpoints; by default beside the store.
        dry_run: only find what would go.

    Raises:
        StoreLockedError: the study is being run.
        StoreError: it is not in the store.
        CheckpointError: checkpoints can't be removed; the study has gone.
    """
    with opened_store(store, create=False, writes=not dry_run) as opened:
        if dry_run:
            return _removed(study, opened.would_remove(study.hash), _checkpoints(opened, checkpoints))[0]
        with opened.lock(study):
            found, with_files = _removed(study, opened.would_remove(study.hash), _checkpoints(opened, checkpoints))
            opened.remove(study.hash)
            failpoint("removal.committed")
            for trial in with_files:
                _checkpoints(opened, checkpoints).discard(trial)
            failpoint("removal.cleared")
            return found


def _removed(study: StoredStudy, removal: Removal, checkpoints: CheckpointManager) -> tuple[Removed, Sequence[str]]:
    saved = checkpoints.saved()
    with_files = [trial for trial in removal.trials if trial in saved]
    return Removed(study, removal, len(with_files), sum(map(checkpoints.size, with_files))), with_files


def _checkpoints(store: SQLStore, location: str | None = None) -> CheckpointManager:
    return CheckpointManager(location or f"{store.beside}.checkpoints")


@dataclass(frozen=True)
class Garbage:
    """What was removed from a store, or would be.

    Attributes:
        trials: how many trials no study planned.
        trial_bytes: of these.
        checkpoints: how many trials had checkpoints that are of no use any more.
        checkpoint_bytes: of these.
        locks: how many lock files runs had left that died.
        unused: bytes by which the file was made smaller; in a dry run, those that are unused now.
        left: what could not be removed, and why, a line each.
    """

    trials: int = 0
    trial_bytes: int = 0
    checkpoints: int = 0
    checkpoint_bytes: int = 0
    locks: int = 0
    unused: int = 0
    left: tuple[str, ...] = ()


def collect_garbage(store: AnyStore, *, checkpoints: str | None = None, dry_run: bool = False) -> Garbage:
    """Remove what nobody needs from a store and beside it; no study and no result.

    That is: trials that belong to no study; checkpoints of trials that have finished or diverged, or whose study was
    removed; lock files of runs that died; and unused space of a SQLite file, if that is a tenth of it or more. In the
    folder of checkpoints that belongs to a SQLite file, those of trials that the store does not know go, too. Elsewhere
    they may be another store's, and stay.

    Args:
        store: a file, a database URL or a store.
        checkpoints: the folder or URL of its checkpoints; by default beside the store.
        dry_run: only find what would be removed.

    Raises:
        StoreLockedError: a study is being run.
    """
    with opened_store(store, create=False, writes=not dry_run) as opened:
        manager = _checkpoints(opened, checkpoints)
        folders = [name for name in manager.saved() if len(name) == _HASH]  # first: what is new later is not in it
        own = checkpoints is None and opened.file is not None
        trials, trial_bytes = opened.orphans()

        def clear(wanted: Wanted) -> tuple[int, int, tuple[str, ...]]:
            useless = [one for one in folders if one not in wanted.unfinished and (own or one in wanted.known)]
            return _clear(manager, sorted(useless), dry_run=dry_run)

        number, size, left = clear(opened.wanted()) if dry_run else opened.without_runs(clear)
        dead = [] if opened.file is None else locks.left_behind(opened.file.parent, opened.file.name)
        for path in () if dry_run else dead:
            with suppress(StoreError), locks.lock_file(path, path.name):
                pass  # which removes it, unless a run has taken it meanwhile
        return Garbage(len(trials), trial_bytes, number, size, len(dead), _shrink(opened, dry_run=dry_run), left)


def _clear(manager: CheckpointManager, trials: Sequence[str], *, dry_run: bool) -> tuple[int, int, tuple[str, ...]]:
    """Remove the checkpoints of trials: their number, their size, and why some are left."""
    number, size, left = 0, 0, []
    for trial in trials:
        try:
            found = manager.size(trial)
            if not dry_run:
                manager.discard(trial)
        except CheckpointError as error:
            left.append(str(error))
        else:
            number, size = number + bool(found), size + found
    return number, size, tuple(left)


def _shrink(store: SQLStore, *, dry_run: bool) -> int:
    """Give the unused space of a file back if that is worthwhile, and return how much."""
    unused, size = store.unused()
    if unused < _WORTHWHILE * size or not unused:
        return 0
    if dry_run:
        return unused
    store.shrink()
    return size - store.unused()[1]
