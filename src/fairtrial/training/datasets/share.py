"""Data sets for machines that can't fetch them: decoded arrays, handed on by one that has them."""

from collections.abc import Callable, Iterable
from typing import cast

from fairtrial.errors import DataError
from fairtrial.registry import DATASETS
from fairtrial.training.datasets import cache
from fairtrial.training.datasets.fetching import FetchedData, fetch
from fairtrial.training.datasets.layout import Arrays, Layout
from fairtrial.training.datasets.progress import silent

#: Decoded data sets by name.
Parcel = dict[str, Arrays]


def gather(names: Iterable[str]) -> Parcel:
    """Take data sets from the cache.

    Args:
        names: of data sets that have been fetched; those that need no fetching are left out.

    Raises:
        DataError: one is damaged, or not there.
    """
    parcel: Parcel = {}
    for name, layout in _fetched(names).items():
        arrays = cache.read(layout, verify=True)
        if arrays is None:
            raise DataError(f"{name}: not in the cache; run `fairtrial data {name}`")
        parcel[name] = arrays
    return parcel


def place(names: Iterable[str], get: Callable[[], object]) -> None:
    """See to it that data sets are in this machine's cache: from its own sources, or else from another's cache.

    Args:
        names: of the data sets.
        get: gets what `gather` returned there; called only if it is needed.

    Raises:
        DataError: what came is not the data set to the bit, or it can't be written.
    """
    for name, layout in _fetched(names).items():
        try:
            fetch(name)
        except DataError:
            _unpack(layout, cast("Parcel", get())[name])


def _fetched(names: Iterable[str]) -> dict[str, Layout]:
    """Choose the data sets that have to be fetched."""
    kinds = {name: DATASETS.get(name) for name in sorted(set(names))}
    return {name: kind.recipe().layout for name, kind in kinds.items() if issubclass(kind, FetchedData)}


def _unpack(layout: Layout, arrays: Arrays) -> None:
    """Write a data set into the cache unless another process just has."""
    with cache.fetching(layout.name, silent):
        if cache.read(layout, verify=True) is None:
            layout.check(arrays, "the data that came with the study")
            cache.write(layout, arrays, "the machine that runs the study")
