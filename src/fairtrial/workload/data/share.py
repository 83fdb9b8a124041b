"""Data sets for machines that can't fetch them: decoded arrays, handed on by one that has them."""

from collections.abc import Callable, Iterable
from typing import cast

from fairtrial.errors import DataError
from fairtrial.workload import data
from fairtrial.workload.data import cache
from fairtrial.workload.data.layout import Arrays
from fairtrial.workload.data.progress import silent

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
    for name in sorted(set(names) & set(data.RECIPES)):
        arrays = cache.read(data.RECIPES[name].layout, verify=True)
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
    for name in sorted(set(names) & set(data.RECIPES)):
        try:
            data.fetch(name)
        except DataError:
            _unpack(name, cast("Parcel", get()))


def _unpack(name: str, parcel: Parcel) -> None:
    """Write a data set into the cache unless another process just has."""
    layout = data.RECIPES[name].layout
    with cache.fetching(name, silent) as workspace:
        if cache.read(layout, verify=True) is None:
            layout.check(parcel[name], "the data that came with the study")
            cache.write(layout, parcel[name], "the machine that runs the study", workspace)
