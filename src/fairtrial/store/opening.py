"""Opens a store that is given by its file, its URL, or as an object."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from fairtrial.errors import StoreMissingError
from fairtrial.snapshots import Snapshot
from fairtrial.store.base import Store
from fairtrial.store.sql import SQLStore

S = TypeVar("S", bound=Store)


@contextmanager
def opened_store(store: str | Path | S, *, create: bool = True, writes: bool | None = None) -> Iterator[S | SQLStore]:
    """Open a store within a context; one that is given as an object stays open.

    Args:
        store: a file, a database URL or a store.
        create: make it if there is none.
        writes: whether it may be written to; by default if it may be made.

    Raises:
        StoreError: it can't be opened; a StoreMissingError if there is none and ``create`` is false.

    Example:
        >>> with opened_store("fairtrial.db") as opened:
        ...     opened.studies()
        []
    """
    if isinstance(store, str | Path):
        with SQLStore(str(store), create=create, writes=writes) as opened:
            yield opened
    else:
        yield store


def read_snapshots(
    store: str | Path | Store, trials: Sequence[str], *, tensors: bool = True
) -> dict[str, tuple[Snapshot, ...]]:
    """Read the snapshots of trials, by hash, as `Store.snapshots`; none if the store is not there any more."""
    try:
        with opened_store(store, create=False) as opened:
            return opened.snapshots(trials, tensors=tensors)
    except StoreMissingError:
        return {}
