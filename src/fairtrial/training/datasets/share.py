"""Send decoded data sets to machines that can't download them."""

from collections.abc import Callable, Iterable
from typing import cast

from fairtrial.errors import DataError
from fairtrial.registry import DATASETS
from fairtrial.training.datasets import cache
from fairtrial.training.datasets.download import silent
from fairtrial.training.datasets.fetching import FetchedData, fetch
from fairtrial.training.datasets.layout import Arrays, Layout


def gather(names: Iterable[str]) -> dict[str, Arrays]:
    """Read data sets from the cache, by name; those that are not downloaded are left out.

    Raises:
        DataError: one is damaged or missing.
    """
    gathered: dict[str, Arrays] = {}
    for name, layout in _downloaded(names).items():
        arrays = cache.read(layout, verify=True)
        if arrays is None:
            raise DataError(f"{name}: not in the cache; run `fairtrial data {name}`")
        gathered[name] = arrays
    return gathered


def install(names: Iterable[str], get: Callable[[], object]) -> None:
    """Make sure that data sets are in this machine's cache: from their own sources, or else from another machine.

    Args:
        names: of the data sets.
        get: gets what `gather` returned on the other machine; called only if it is needed.

    Raises:
        DataError: what came is not the data set to the bit, or it can't be written.
    """
    for name, layout in _downloaded(names).items():
        try:
            fetch(name)
        except DataError:
            arrays = cast("dict[str, Arrays]", get())[name]
            with cache.fetching(name, silent):
                if cache.read(layout, verify=True) is None:  # another process may just have written it
                    layout.check(arrays, "the data that came with the study")
                    cache.write(layout, arrays, "the machine that runs the study")


def _downloaded(names: Iterable[str]) -> dict[str, Layout]:
    kinds = {name: DATASETS.get(name) for name in sorted(set(names))}
    return {name: kind.layout for name, kind in kinds.items() if issubclass(kind, FetchedData)}
