"""Data sets for machines that can't fetch them: decoded arrays, handed on by one that has them."""

from collections.abc import Callable, Iterable
from typing import cast

from fairtrial.errors import DataError
from fairtrial.training import datasets
from fairtrial.training.datasets import cache
from fairtrial.training.datasets.layout import Arrays
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
    for name in sorted(set(names) & set(datasets.RECIPES)):
        arrays = cache.read(datasets.RECIPES[name].layout, verify=True)
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
    for name in sorted(set(names) & set(datasets.RECIPES)):
        try:
            datasets.fetch(name)
        except DataError:
            _unpack(name, cast("Parcel", get()))


def _unpack(name: str, parcel: Parcel) -> None:
    """Write a data set into the cache unless another process just has."""
    layout = datasets.RECIPES[name].layout
    with cache.fetching(name, silent) as workspace:
        if cache.read(layout, verify=True) is None:
            layout.check(parcel[name], "the data that came with the study")
            cache.write(layout, parcel[name], "the machine that runs the study", workspace)
