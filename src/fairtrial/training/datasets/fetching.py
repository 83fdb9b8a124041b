"""Fetch data sets: download or receive once, decode into the cache, and map into memory from there."""

from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, cast

from fairtrial.errors import DataError
from fairtrial.registry import DATASETS, UnknownNameError
from fairtrial.spec.sections import DataSettings
from fairtrial.training.datasets import cache
from fairtrial.training.datasets.checking import checked
from fairtrial.training.datasets.download import DownloadProgress, Source, UnreachableError, obtain, silent
from fairtrial.training.datasets.layout import Arrays, Layout
from fairtrial.training.datasets.raw import RawData


@dataclass(frozen=True)
class FetchedDataset:
    """Where a data set is and where it came from."""

    name: str
    path: Path
    origin: str  # address, package, folder or archive that it was decoded from
    digest: str  # SHA-256 of the decoded arrays
    bytes: int  # size of the decoded arrays
    cached: bool  # it was on this machine, and intact, before the call


class FetchedData(DataSettings):
    """Base of data sets that are downloaded, from the first available of ``sources``, and decode to ``layout``."""

    layout: ClassVar[Layout]
    sources: ClassVar[tuple[Source, ...]]

    @classmethod
    @abstractmethod
    def decode(cls, source: Path) -> Arrays:
        """Decode a folder or archive."""

    @classmethod
    @abstractmethod
    def check(cls, source: Path) -> None:
        """Raise `DataError` if a folder or archive can't be this data set, without decoding it."""

    def arrays(self) -> Arrays:
        """Map the cached arrays, and fetch them first if needed; see `DataSettings.arrays`."""
        return self.fetched(verify=False)

    def fetched(self, *, verify: bool, progress: DownloadProgress | None = None) -> Arrays:
        """As `arrays`; with ``verify``, hash them, and read `path` even if they are cached, to notice a wrong one."""
        try:
            source = Path(self.path).expanduser() if self.path else None
        except RuntimeError as error:
            raise DataError(f"{self.path}: no such home folder; name a folder or archive") from error
        if source and verify:
            fetch(self.name, source=source, progress=progress)
        arrays = cache.read_sound(self.layout, verify=verify, progress=progress or silent)
        if arrays is None:
            fetch(self.name, source=source, progress=progress)
            arrays = cache.read(self.layout, verify=False)
        if arrays is None:
            raise DataError(f"{cache.folder(self.name)}: the arrays were removed while they were being loaded")
        return arrays


def fetch(name: str, *, source: Path | None = None, progress: DownloadProgress | None = None) -> FetchedDataset:
    """Make sure that a data set is on this machine, whole and unchanged.

    A source, a folder or archive to decode, is read and checked even if the data set is cached already. Without one,
    the data set's own sources are tried if nothing is cached, or what is cached is damaged.

    Raises:
        DataError: the name is unknown; the source is not this data set; or no source is available (the message says
            what was tried, why each failed, and what to do).
    """
    try:
        kind = DATASETS.get(name)
    except UnknownNameError as error:
        raise DataError(f"{name}: no such data set; {error.hint}") from error
    if issubclass(kind, RawData):
        raise DataError(f"{name}: reads what a study names as data.path; there is nothing to fetch")
    if not issubclass(kind, FetchedData):
        return _describe_uncached(kind(path=None if source is None else str(source)))
    report = progress or silent
    if source is not None:
        kind.check(source)
    elif cache.read_sound(kind.layout, verify=True, progress=report) is not None:
        return _describe(kind.layout, cached=True)
    with cache.fetching(name, report) as workspace:
        cached = cache.read_sound(kind.layout, verify=True, progress=report) is not None
        if source is not None or not cached:  # another process may just have fetched it
            path, origin = (source, str(source.resolve())) if source else _download(kind, workspace, report)
            report(0, None, f"decoding {path.name}")
            arrays = kind.decode(path)
            kind.layout.check(arrays, origin)
            if not cached:
                cache.write(kind.layout, arrays, origin)
    return _describe(kind.layout, cached=cached)


def cached(name: str) -> FetchedDataset | None:
    """Describe a data set if it is on this machine, without fetching or changing it; `DataError` if it is damaged."""
    kind = DATASETS.get(name)
    if not issubclass(kind, FetchedData):
        return _describe_uncached(kind())
    return None if cache.read(kind.layout, verify=True) is None else _describe(kind.layout, cached=True)


def _describe_uncached(settings: DataSettings) -> FetchedDataset:
    arrays, digest = checked(settings, verify=True)
    size = sum(array.nbytes for array in arrays)
    return FetchedDataset(settings.name, *settings.origin(), digest, size, cached=True)


def _describe(layout: Layout, *, cached: bool) -> FetchedDataset:
    name = layout.name
    digest = cache.digests(layout)[0]
    return FetchedDataset(name, cache.folder(name), cache.origin(name), digest, cache.size(layout), cached)


def _download(kind: type[FetchedData], workspace: Path, progress: DownloadProgress) -> tuple[Path, str]:
    """Download from the first available source; return the archive and the source's label."""
    name, failures = kind.layout.name, []
    for number, source in enumerate(kind.sources):
        folder = workspace / str(number)
        folder.mkdir()
        try:
            return obtain(source, folder, workspace.parent, progress), source.label
        except UnreachableError as reason:
            failures.append(f"{source.label} ({reason})")
    raise DataError(
        f"{name} can't be fetched from {', nor from '.join(failures)}; download it by other means and run "
        f"`fairtrial data {name} --from FOLDER` with the folder or archive"
    )


def gather(names: Iterable[str]) -> dict[str, Arrays]:
    """Read data sets from the cache, to send them to machines that can't download them; leave out the others."""
    gathered = {}
    for name, layout in _downloaded(names).items():
        arrays = cache.read_sound(layout, verify=True, progress=silent)
        if arrays is None:
            raise DataError(f"{name}: not in the cache; run `fairtrial data {name}`")
        gathered[name] = arrays
    return gathered


def install(names: Iterable[str], get: Callable[[], object]) -> None:
    """Make sure that data sets are in this machine's cache: from their own sources, or else from another machine.

    ``get`` gets what `gather` returned on the other machine; it is called only if it is needed. What came must be the
    data set to the bit, else it raises `DataError`.
    """
    for name, layout in _downloaded(names).items():
        try:
            fetch(name)
        except DataError:
            arrays = cast("dict[str, Arrays]", get())[name]
            with cache.fetching(name, silent):
                found = cache.read_sound(layout, verify=True, progress=silent)
                if found is None:  # another process may just have written it
                    layout.check(arrays, "the data that came with the study")
                    cache.write(layout, arrays, "the machine that runs the study")


def _downloaded(names: Iterable[str]) -> dict[str, Layout]:
    kinds = {name: DATASETS.get(name) for name in sorted(set(names))}
    return {name: kind.layout for name, kind in kinds.items() if issubclass(kind, FetchedData)}
