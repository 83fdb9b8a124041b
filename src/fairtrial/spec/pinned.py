"""Pin the files of data and of weights by their digests, so that another file makes another study."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fairtrial.errors import StudyError
from fairtrial.files import open_regular, size_text
from fairtrial.registry import DATASETS, MODELS, Registry, UnknownNameError
from fairtrial.spec.hashing import is_name
from fairtrial.spec.limits import LARGEST_DATA, LARGEST_WEIGHTS, MOST_DATA_FILES
from fairtrial.text import one_line

#: The key of data whose file or folder is pinned: its digest.
PIN = "path_sha256"
#: The key of a model whose weights file is pinned: its digest.
WEIGHTS_PIN = "weights_sha256"


def pinned(study: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in the digest of each `data.path` and `model.weights` of a study's table and its arms', if it has none yet.

    Raises:
        StudyError: a file or folder can't be read, or is too large.
    """
    result, arms = dict(study), study.get("arms")
    for section, pin in (("data", _pinned_data), ("model", _pinned_model)):
        shared = study.get(section, {})
        if isinstance(shared, Mapping):
            result |= {section: pin(shared, {}, section)} if section in study else {}
        if isinstance(arms, Mapping):
            arms = {arm: _pinned_arm(one, section, pin, shared, f"arms.{arm}") for arm, one in arms.items()}
            result["arms"] = arms
    return result


def _pinned_arm(arm: Any, section: str, pin: "_Pin", shared: Any, where: str) -> Any:
    own = arm.get(section) if isinstance(arm, Mapping) else None
    if not isinstance(own, Mapping):
        return arm
    return {**arm, section: pin(own, shared if isinstance(shared, Mapping) else {}, f"{where}.{section}")}


_Pin = Callable[[Mapping[str, Any], Mapping[str, Any], str], Mapping[str, Any]]


def _pinned_data(data: Mapping[str, Any], shared: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    name = shared.get("name", DATASETS.default)
    if data.get("name", name) != name and "path" in shared:  # other data at the same path, whose digest it lacks
        data = {"path": shared["path"], **data}
    path = data.get("path")
    if not isinstance(path, str) or PIN in data or not _has_key(DATASETS, data.get("name", name), PIN):
        return data
    return {**data, PIN: _digest(path, f"{where}.path", path_digest)}


def _pinned_model(model: Mapping[str, Any], shared: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    shared_name, path = shared.get("name", MODELS.default), model.get("weights")
    name = model.get("name", shared_name)
    if not isinstance(path, str) or is_name(path) or model.get(WEIGHTS_PIN) or not _has_key(MODELS, name, WEIGHTS_PIN):
        return model
    if name == shared_name and path == shared.get("weights"):  # whose digest it inherits
        return model
    return {**model, WEIGHTS_PIN: _digest(path, f"{where}.weights", _weights_digest)}


def _has_key(registry: Registry[Any], name: object, key: str) -> bool:
    try:
        return isinstance(name, str) and key in registry.get(name).model_fields
    except UnknownNameError:  # said where the section is read
        return False


def _digest(path: str, where: str, digest: Callable[[Path], str]) -> str:
    try:
        return digest(Path(path).expanduser())
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise StudyError(f'{where} = "{one_line(path)}": {one_line(reason)}') from error


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
        return _file_digest(path, LARGEST_DATA)
    total, size = hashlib.sha256(), 0
    for number, name in enumerate(sorted(_files(path))):
        if number >= MOST_DATA_FILES:
            raise OSError(0, f"has more than {MOST_DATA_FILES:,} files")
        with open_regular(path / name) as file:
            size += os.fstat(file.fileno()).st_size
            _check_size(size, LARGEST_DATA)
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


def _weights_digest(path: Path) -> str:
    return _file_digest(path, LARGEST_WEIGHTS)


def _file_digest(path: Path, most: int) -> str:
    with open_regular(path, follow=True) as file:
        _check_size(os.fstat(file.fileno()).st_size, most)
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_size(size: int, most: int) -> None:
    if size > most:
        raise OSError(0, f"has more than {size_text(most)}, the most that is read")
