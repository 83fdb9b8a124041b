"""Check the arrays of a data set that is not in the cache: they must be what its settings say and fit a network."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairtrial.errors import DataError
from fairtrial.spec.sections import DataSettings
from fairtrial.training.datasets.layout import Arrays, digest, mismatch


def checked(settings: DataSettings, *, verify: bool) -> tuple[Arrays, str]:
    """Read a data set that is not in the cache, check its arrays, and hash them.

    Without ``verify``, a declared digest is returned unchecked.

    Raises:
        DataError: naming the array and what is wrong with it: type, shape, NaN, labels out of range.
    """
    read = [np.asarray(array) for array in settings.arrays()]
    named = dict(zip(Arrays._fields, read, strict=True))
    for part in ("train", "test"):
        _check_counts(settings, part, named[f"{part}_images"], named[f"{part}_labels"])
    inputs = [_inputs(named[name], f"{settings.name}: {name}") for name in ("train_images", "test_images")]
    if inputs[0].shape[1:] != inputs[1].shape[1:] or inputs[0].dtype != inputs[1].dtype:
        train, test = (f"{one.dtype} {one.shape[1:]}" for one in inputs)
        raise DataError(f"{settings.name}: training images are {train}, test images {test}")
    as_labels = _numbers if settings.is_regression else _classes
    labels: list[NDArray[Any]] = [
        as_labels(named[name], f"{settings.name}: {name}", settings) for name in ("train_labels", "test_labels")
    ]
    if settings.is_regression:
        _check_targets(labels[0], labels[1], settings)
    else:
        labels = _check_classes(labels[0], labels[1], settings)
    parts = (inputs[0], labels[0], inputs[1], labels[1])
    arrays = Arrays(*(np.require(array, requirements=("C", "W")) for array in parts))  # as torch wants them
    if settings.sha256 and not verify:
        return arrays, settings.sha256
    found = digest(*arrays)
    if settings.sha256 not in {"", found}:
        raise mismatch(settings.origin()[1], settings.name, found, settings.sha256)
    return arrays, found


def class_count(settings: DataSettings, train_labels: NDArray[Any]) -> int:
    """The number of classes: the declared one, or else the training labels tell."""
    return settings.class_count or int(train_labels.max()) + 1


def _check_counts(settings: DataSettings, part: str, images: NDArray[Any], labels: NDArray[Any]) -> None:
    if settings.size:
        count = settings.size.train if part == "train" else settings.size.test
        for name, array in ((f"{part}_images", images), (f"{part}_labels", labels)):
            if len(array) != count:
                raise DataError(f"{settings.name}: {name} has {len(array):,} entries; its size says {count:,}")
    if images.ndim == 0 or labels.ndim == 0 or len(images) != len(labels):
        found = " and ".join(f"{part}_{name} {array.shape}" for name, array in (("images", images), ("labels", labels)))
        raise DataError(f"{settings.name}: must have a label for each image; there are {found}")
    if not len(images):
        raise DataError(f"{settings.name}: {part}_images is empty")


def _inputs(array: NDArray[Any], where: str) -> NDArray[Any]:
    """Bring inputs to their canonical form: see `Arrays`."""
    kind, shape = array.dtype.kind, array.shape
    if array.dtype == np.uint8 and array.ndim > 2:
        if array.ndim > 4 or shape[1] != shape[2]:
            wanted = "uint8 of shape (images, size, size) or (images, size, size, channels)"
            raise DataError(f"{where} are {array.dtype} {shape}; they must be {wanted}")
        return array if array.ndim == 4 else array[..., np.newaxis]
    if kind not in "fiub" or array.ndim < 2:
        wanted = "uint8 images, floats or integers, (rows, ...)"
        raise DataError(f"{where} are {array.dtype} {shape}; they must be {wanted}")
    if kind in "fiu" and array.ndim == 4 and shape[1] == shape[2] != shape[3]:
        advice = "give floats as (images, channels, size, size), or bytes from 0 to 255 as uint8"
        raise DataError(f"{where} are {array.dtype} {shape}, with the channels last; {advice}")
    if kind in "iu" and array.dtype != np.uint8:
        if array.dtype == np.uint64 and array.max(initial=0) >= 2**63:
            raise DataError(f"{where} have integers of more than 63 bits")
        return array.astype(np.int64)
    return finite(array, where)


def finite(array: NDArray[Any], where: str) -> NDArray[np.float32]:
    """Read numbers as float32; a `DataError` names the first row that has one which is not finite."""
    with np.errstate(over="ignore"):
        floats = array.astype(np.float32)
    bad = np.asarray(~np.isfinite(floats).reshape(len(floats), -1).all(axis=1))
    if bad.any():
        what = "NaN" if np.isnan(floats).any() else "an infinity, or a number too large for float32,"
        raise DataError(f"{where} have {what} in {bad.sum():,} of {len(bad):,} rows, first in row {bad.argmax()}")
    return floats


def _numbers(labels: NDArray[Any], where: str, _: DataSettings) -> NDArray[np.float32]:
    """Targets of regression, (rows, targets)."""
    if labels.dtype.kind not in "fiub" or labels.ndim > 2:
        raise DataError(f"{where} are {labels.dtype} {labels.shape}; they must be numbers, (rows,) or (rows, targets)")
    return finite(labels.reshape(len(labels), -1), where)


def _check_targets(train: NDArray[Any], test: NDArray[Any], settings: DataSettings) -> None:
    if train.shape[1] != test.shape[1] or not train.shape[1]:
        raise DataError(f"{settings.name}: train_labels have {train.shape[1]} targets, test_labels {test.shape[1]}")
    for name, labels in (("train_labels", train), ("test_labels", test)):
        if (constant := np.ptp(labels, axis=0) == 0).any():
            value = labels[0, constant.argmax()]
            raise DataError(f"{settings.name}: {name} are all {value:g}; there is nothing to predict")


def _classes(labels: NDArray[Any], where: str, settings: DataSettings) -> NDArray[Any]:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iub":
        or_numbers = (
            '; for numbers to predict, set task = "regression"' if "task" in type(settings).model_fields else ""
        )
        raise DataError(f"{where} are {labels.dtype} {labels.shape}; they must be integers (images,){or_numbers}")
    labels = labels.astype(np.int64) if labels.dtype.kind == "b" else labels
    low, high, known = int(labels.min()), int(labels.max()), settings.class_count
    if known and not 0 <= low <= high < known:
        raise DataError(f"{where} run from {low} to {high}; with {known} classes they must be 0 to {known - 1}")
    if low < 0:
        raise DataError(f"{where} run from {low} to {high}; they must begin with 0")
    return labels


def _check_classes(train: NDArray[Any], test: NDArray[Any], settings: DataSettings) -> list[NDArray[Any]]:
    """Check that classes whose number nobody declared all occur in training, and give labels their type."""
    if not settings.class_count:
        found = np.unique(train)
        if len(found) < 2:
            raise DataError(f"{settings.name}: train_labels are all {found[0]}; there is nothing to tell apart")
        if found[-1] != len(found) - 1:
            missing = int((found != np.arange(len(found))).argmax())
            advice = "number them from 0 without a gap, or set data.classes"
            raise DataError(f"{settings.name}: train_labels run to {found[-1]}, and none is {missing}; {advice}")
        if test.max() > found[-1]:
            raise DataError(f"{settings.name}: test_labels run to {test.max()}, train_labels to {found[-1]}")
    label_type = np.uint8 if class_count(settings, train) <= 256 else np.int64
    return [train.astype(label_type), test.astype(label_type)]
