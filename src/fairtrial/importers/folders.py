"""Folders of runs: which files are in them, and what their names say of a run."""

import os
import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from fairtrial.errors import RunsError
from fairtrial.importers.base import Given, path_of
from fairtrial.spec.messages import brief

#: Files of one folder of runs, and how many are looked at to see what a folder is.
MOST_FILES, _FIRST_FILES = 1_000_000, 20_000


def files_in(folder: Path, wanted: Callable[[str], bool]) -> Iterator[Path]:
    """Find files by name, in a folder and those below it; links to folders are not followed.

    Raises:
        RunsError: there are too many files.
    """
    for count, path in enumerate(_walk(folder)):
        if count >= MOST_FILES:
            raise RunsError(
                f"{brief(str(folder), 200)}: has more than {MOST_FILES:,} files; name a folder nearer to the runs"
            )
        if wanted(path.name):
            yield path


def has_files(given: Given, wanted: Callable[[Path], bool]) -> bool:
    """Tell whether a folder is given that has such files, among the first ones of it."""
    path = path_of(given)
    try:
        return path is not None and any(map(wanted, islice(_walk(path), _FIRST_FILES)))
    except OSError:
        return False


def labels_of(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Read the settings and labels from the path of a run: ``key=value`` are settings, other folders are labels.

    Example:
        >>> labels_of(Path("adam/lr=0.1,seed=3"))
        ({'lr': '0.1', 'seed': '3'}, {'folder1': 'adam'})
    """
    settings: dict[str, str] = {}
    labels: dict[str, str] = {}
    for depth, part in enumerate(path.parts, 1):
        pairs = [pair.partition("=") for pair in part.split(",")]
        if all(separator and key for key, separator, _ in pairs):
            settings |= {key.strip(): value.strip() for key, _, value in pairs}
        else:
            labels[f"folder{depth}"] = part
    return settings, labels


def naturally(path: Path) -> list[tuple[int, int | str]]:
    """A key that sorts ``version_2`` before ``version_10``."""
    parts = re.split(r"(\d{1,18})", str(path))
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts]


def _walk(folder: Path) -> Iterator[Path]:
    for where, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(where, name) for name in sorted(names))
