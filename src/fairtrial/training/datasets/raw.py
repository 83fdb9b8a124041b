"""Base of data sets whose size and classes are known only once they were read: files, and functions of a user's."""

import hashlib
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from fairtrial.errors import DataError
from fairtrial.files import read_bounded
from fairtrial.spec.limits import LARGEST_DATA
from fairtrial.spec.numbers import Count, Decay
from fairtrial.spec.sections import DataSettings
from fairtrial.training.datasets import subsets
from fairtrial.training.datasets.checking import finite
from fairtrial.training.datasets.layout import Arrays

# The random stream of the split; those of `subsets` are 1 to 3.
_STREAM = 4

Labels = NDArray[Any]


class Part(NamedTuple):
    """Inputs with their labels, as many of each."""

    inputs: NDArray[Any]
    labels: Labels


#: The names of the arrays of the two parts, and of one that is to be split, in files and in what functions return.
NAMES = (
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("X_train", "y_train", "X_test", "y_test"),
    ("x", "y"),
    ("X", "y"),
    ("data", "target"),
    ("images", "labels"),
)


class RawData(DataSettings):
    """Base of such data sets.

    Attributes:
        task: ``"classification"``, or ``"regression"`` if the labels are numbers to predict.
        classes: how many classes there are, if not as many as the training labels have.
        test_share: where the source has no test set of its own, the share of its rows that are one: stratified by
            class, drawn by ``subset_seed``.
        path_sha256: digest of the file or folder at ``path``. Filled in when the study is read; set it to pin the file.
    """

    #: Whether there is nothing to read without ``path``.
    needs_path: ClassVar[bool] = False

    task: Literal["classification", "regression"] = "classification"
    classes: Count | None = None
    test_share: Decay = 0.2
    path_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None

    @abstractmethod
    def parts(self) -> tuple[Part, Part | None]:
        """Read the training set and the test set; the second is None if the first one is to be split."""

    @property
    def label(self) -> str:
        """See `DataSettings.label`."""
        return f"{self.name} {Path(self.path).name}" if self.path else self.name

    @property
    def is_regression(self) -> bool:
        """See `DataSettings.is_regression`."""
        return self.task == "regression"

    @property
    def class_count(self) -> int | None:
        """See `DataSettings.class_count`."""
        return self.classes

    def arrays(self) -> Arrays:
        """See `DataSettings.arrays`."""
        train, test = self.parts()
        if test is None:
            train, test = self.split(train)
        labels = [train.labels, test.labels]
        if labels[0].dtype.kind in "US" and not self.is_regression:
            labels = self._numbered(*labels)
        return Arrays(train.inputs, labels[0], test.inputs, labels[1])

    def split(self, whole: Part) -> tuple[Part, Part]:
        """Split a set into a training and a test set."""
        if len(whole.inputs) != len(whole.labels):
            raise DataError(f"{self.name}: {len(whole.inputs):,} inputs, but {len(whole.labels):,} labels")
        if whole.inputs.dtype.kind == "f":  # here, because the parts have other row numbers
            finite(whole.inputs, f"{self.name}: inputs")
        is_test = test_rows(whole.labels, self.test_share, self.subset_seed, stratified=not self.is_regression)
        if is_test.all() or not is_test.any():
            raise DataError(f"{self.name}: {len(is_test)} rows can't be split into a training and a test set")
        return Part(whole.inputs[~is_test], whole.labels[~is_test]), Part(whole.inputs[is_test], whole.labels[is_test])

    def _numbered(self, train: Labels, test: Labels) -> list[Labels]:
        """Number the classes of labels that are texts, in the order of these."""
        known, numbers = np.unique(train, return_inverse=True)
        unknown = np.setdiff1d(test, known)
        if unknown.size:
            raise DataError(f"{self.name}: no training label is {str(unknown[0])!a}, as a test label is")
        return [numbers.reshape(train.shape), np.searchsorted(known, test)]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.needs_path and self.path is None:
            raise PydanticCustomError("path", 'path is missing: name = "{name}" reads a file or folder of yours', {
                "name": self.name
            })  # fmt: skip
        if self.is_regression and self.classes:
            raise PydanticCustomError("classes", 'classes and task = "regression": there are no classes to count')
        return self


def test_rows(labels: Labels, share: float, seed: int, *, stratified: bool) -> NDArray[np.bool_]:
    """Choose the rows of a test set: from each class the same share, as nearly as whole rows allow.

    Example:
        >>> test_rows(np.array([0] * 50 + [1] * 10), 0.2, seed=0, stratified=True).nonzero()[0].size
        12
    """
    keys = subsets.random_keys(len(labels), _STREAM, seed)
    groups = labels.reshape(len(labels), -1)[:, 0] if stratified else np.zeros(len(labels), int)
    _, groups = np.unique(groups, return_inverse=True)
    counts = np.bincount(groups)
    order = np.lexsort((keys, groups))
    rank = np.empty(len(labels))
    rank[order] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    position = (rank + 0.5) / counts[groups]  # in (0, 1), evenly spaced within each class
    chosen = np.zeros(len(labels), bool)
    chosen[np.lexsort((keys, position))[: round(share * len(labels))]] = True
    return chosen


def named_parts(arrays: Mapping[str, Any], name: str) -> tuple[Part, Part | None]:
    """Find the two parts, or the one to split, among arrays by their names; see `NAMES`."""
    for names in NAMES:
        if set(names) <= set(arrays):
            found = [np.asarray(arrays[one]) for one in names]
            return Part(*found[:2]), Part(*found[2:]) if len(names) > 2 else None
    expected = " or ".join(", ".join(names) for names in (NAMES[0], NAMES[3]))
    found_names = ", ".join(sorted(map(repr, arrays))[:10])
    raise DataError(f"{name}: has the arrays {found_names or 'none'}; it must have {expected}")


def read_pinned(path: Path, sha256: str | None) -> bytes:
    """Read a file, which must be the one that the study has pinned."""
    try:
        content = read_bounded(path, LARGEST_DATA)
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror})") from error
    if sha256 is not None and (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise changed(path, found, sha256)
    return content


def changed(path: Path, found: str, wanted: str) -> DataError:
    """The error of a file or folder that is not the one that the study has pinned."""
    return DataError(f"{path}: its SHA-256 is {found}, not {wanted}, as data.path_sha256 states")
