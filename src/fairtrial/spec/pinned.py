"""Pin the files that data and weights are read from by their digests, so that another file makes another study."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fairtrial.errors import StudyError
from fairtrial.files import open_regular, size_text
from fairtrial.registry import DATASETS, UnknownNameError
from fairtrial.spec.hashing import is_name
from fairtrial.spec.limits import LARGEST_DATA, LARGEST_WEIGHTS, MOST_DATA_FILES
from fairtrial.text import one_line

#: The key of data whose file or folder is pinned: its digest.
PIN = "path_sha256"
#: The key of a model whose file of weights is pinned: its digest.
WEIGHTS_PIN = "weights_sha256"


def pinned(study: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in the digest of each `data.path` and `model.weights` in a study's table, and in its arms', that has none.

    Raises:
        StudyError: a file or folder can't be read, or is too large.
    """
    data, model, arms = study.get("data"), study.get("model"), study.get("arms")
    shared = data if isinstance(data, Mapping) else {}
    result = dict(study)
    if isinstance(data, Mapping):
        result["data"] = _pinned(data, shared.get("name", DATASETS.default), "data.path")
    if isinstance(model, Mapping):
        result["model"] = _with_weights_pinned(model, "model.weights")
    if isinstance(arms, Mapping):
        result["arms"] = {name: _pinned_arm(arm, shared, f"arms.{name}.") for name, arm in arms.items()}
    return result


def _pinned_arm(arm: Any, shared: Mapping[str, Any], where: str) -> Any:
    if not isinstance(arm, Mapping):
        return arm
    result, data = dict(arm), arm.get("data")
    if isinstance(data, Mapping):
        name = shared.get("name", DATASETS.default)
        if data.get("name", name) != name and "path" in shared:  # other data at the same path, whose digest it lacks
            data = {"path": shared["path"], **data}
        result["data"] = _pinned(data, data.get("name", name), f"{where}data.path")
    if isinstance(arm.get("model"), Mapping):
        result["model"] = _with_weights_pinned(arm["model"], f"{where}model.weights")
    return result


def _pinned(data: Mapping[str, Any], name: object, where: str) -> Mapping[str, Any]:
    path = data.get("path")
    if not isinstance(path, str) or PIN in data or not _is_pinned_kind(name):
        return data
    return {**data, PIN: _digest(path, where, path_digest)}


def _with_weights_pinned(model: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    weights = model.get("weights")
    if not isinstance(weights, str) or is_name(weights) or WEIGHTS_PIN in model:
        return model
    return {**model, WEIGHTS_PIN: _digest(weights, where, weights_digest)}


def _is_pinned_kind(name: object) -> bool:
    try:
        return isinstance(name, str) and PIN in DATASETS.get(name).model_fields
    except UnknownNameError:  # said where the section is read
        return False


def _digest(path: str, where: str, digest: Callable[[Path], str]) -> str:
    try:
        return digest(Path(path).expanduser())
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise StudyError(f'{where} = "{one_line(path)}": {one_line(reason)}') from error


def weights_digest(path: Path) -> str:
    """SHA-256 of a file of weights.

    Raises:
        OSError: it can't be read, or is larger than allowed; ``strerror`` is the reason.
    """
    with open_regular(path, follow=True) as file:
        if (size := os.fstat(file.fileno()).st_size) > LARGEST_WEIGHTS:
            raise OSError(0, f"has {size:,} bytes, at most {size_text(LARGEST_WEIGHTS)}")
        return hashlib.file_digest(file, "sha256").hexdigest()


def path_digest(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of all files in a folder; hidden ones and links are left out.

    Raises:
        OSError: something can't be read, or is larger than allowed; ``strerror`` is the reason.

    Example:
        >>> _ = Path("data.csv").write_text("x,y")
        >>> path_digest(Path("data.csv"))[:8]
        '968e772c'
    """
    if not path.is_dir():
        with open_regular(path, follow=True) as file:
            _check_size(os.fstat(file.fileno()).st_size)
            return hashlib.file_digest(file, "sha256").hexdigest()
    total, size = hashlib.sha256(), 0
    for number, name in enumerate(sorted(_files(path))):
        if number >= MOST_DATA_FILES:
            raise OSError(0, f"has more than {MOST_DATA_FILES:,} files")
        with open_regular(path / name) as file:
            size += os.fstat(file.fileno()).st_size
            _check_size(size)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{len(os.fsencode(name))} ".encode() + os.fsencode(name) + digest.encode())
    return total.hexdigest()


def _files(folder: Path) -> Iterator[str]:
    """The relative paths of all files in a folder."""
    number = 0
    for parent, folders, files in os.walk(folder, followlinks=False):
        folders[:] = [name for name in folders if not name.startswith(".")]
        number += len(files) + len(folders)
        if number > 2 * MOST_DATA_FILES:
            raise OSError(0, f"has more than {MOST_DATA_FILES:,} files")
        for name in files:
            if not name.startswith(".") and not os.path.islink(os.path.join(parent, name)):  # noqa: PTH114, PTH118
                yield os.path.relpath(os.path.join(parent, name), folder)  # noqa: PTH118


def _check_size(size: int) -> None:
    if size > LARGEST_DATA:
        raise OSError(0, f"has more than {size_text(LARGEST_DATA)}, the most that is read")
