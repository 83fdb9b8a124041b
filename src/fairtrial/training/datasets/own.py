"""Data by path: a user's function that gives arrays, tensors or torch data sets, or a class of these."""

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairtrial.errors import DataError
from fairtrial.registry import NotFoundError
from fairtrial.spec.arguments import FromSignature, settings_of
from fairtrial.spec.sections import DataSettings
from fairtrial.training.datasets.raw import Part, RawData, named_parts


def adapt(name: str, thing: Any) -> type[DataSettings]:
    """Make settings of a function that gives data, or of a class of torch data sets; their keys are its arguments.

    Raises:
        NotFoundError: it is neither.
    """
    if not callable(thing):
        raise NotFoundError(
            "must be a function that gives arrays or torch data sets, a class of these, or a DataSettings"
        )
    return settings_of(OwnData, name, thing)


class OwnData(FromSignature, RawData):
    """Data of anybody's: a function gives them, each time the same.

    It gives (x_train, y_train, x_test, y_test), ((x_train, y_train), (x_test, y_test)), a mapping with these names, or
    two torch data sets; or one (x, y) or one torch data set, which is split.
    """

    def parts(self) -> tuple[Part, Part | None]:
        """See `RawData.parts`."""
        given = self.thing(**self.arguments)
        if isinstance(given, Mapping):
            return named_parts({str(key): _array(value) for key, value in given.items()}, self.name)
        if _is_dataset(given):
            return _part(given, self.name), None
        if isinstance(given, list | tuple) and len(given) == 4:
            x_train, y_train, x_test, y_test = map(_array, given)
            return Part(x_train, y_train), Part(x_test, y_test)
        if isinstance(given, list | tuple) and len(given) == 2:
            if any(_is_dataset(one) or isinstance(one, list | tuple) for one in given):
                return _part(given[0], self.name), _part(given[1], self.name)
            return _part(given, self.name), None
        kind = f"{len(given)} things" if isinstance(given, list | tuple) else type(given).__name__
        raise DataError(
            f"{self.name}: gave {kind}; it must give (x_train, y_train, x_test, y_test), two torch data sets, or one "
            "(x, y) or data set to split"
        )


def _part(given: Any, name: str) -> Part:
    if isinstance(given, list | tuple) and len(given) == 2:
        return Part(*map(_array, given))
    if not _is_dataset(given):
        raise DataError(f"{name}: gave {type(given).__name__} where a pair (x, y) or a torch data set must be")
    tensors = getattr(given, "tensors", None)
    if isinstance(tensors, tuple) and len(tensors) == 2:  # a TensorDataset
        return Part(*map(_array, tensors))
    return _collect(given, name)


def _collect(dataset: Any, name: str) -> Part:
    """Read all items of a torch data set."""
    try:
        number = len(dataset)
    except (TypeError, NotImplementedError) as error:
        raise DataError(f"{name}: gave {type(dataset).__name__} without a length; it must fit in memory") from error
    inputs, labels = list[NDArray[Any]](), list[NDArray[Any]]()
    for index in range(number):
        item = dataset[index]
        if not isinstance(item, list | tuple) or len(item) != 2:
            raise DataError(f"{name}: item {index} of {type(dataset).__name__} is no pair of an input and a label")
        inputs.append(_array(item[0]))
        labels.append(_array(item[1]))
        for values in (inputs, labels):
            if values[-1].shape != values[0].shape:
                shapes = f"{values[-1].shape}, that of item 0 {values[0].shape}"
                raise DataError(f"{name}: item {index} has another shape than the others: {shapes}")
    if not number:
        raise DataError(f"{name}: gave {type(dataset).__name__} without items")
    if not np.array_equal(_array(dataset[0][0]), inputs[0], equal_nan=inputs[0].dtype.kind == "f"):
        advice = "leave random transforms out, and set data.augment"
        raise DataError(f"{name}: item 0 of {type(dataset).__name__} is another one each time; {advice}")
    return Part(np.stack(inputs), np.stack(labels))


def _is_dataset(value: Any) -> bool:
    torch = sys.modules.get("torch")  # whoever has a torch data set has imported it
    return torch is not None and isinstance(value, torch.utils.data.Dataset)


def _array(value: Any) -> NDArray[Any]:
    """Read an array, a tensor, a data frame's column or a picture; images of bytes get their channels last."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        array: NDArray[Any] = value.detach().cpu().numpy()
        if array.dtype == np.uint8 and array.ndim in {3, 4} and array.shape[-2] == array.shape[-1] != array.shape[-3]:
            return np.moveaxis(array, -3, -1) if array.ndim == 4 or array.shape[0] in {1, 3} else array
        return array
    return np.asarray(value)
