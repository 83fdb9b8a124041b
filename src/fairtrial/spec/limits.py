"""Limits of what a study may contain: far above what people write, far below what would hang or fill the memory.

docs/studies.md lists them for users.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from fairtrial.errors import StudyError

#: Bytes of a study file, and of a file of weights.
LARGEST_FILE, LARGEST_WEIGHTS = 2**20, 2**30
#: Bytes of the files of a data set that a study names, and how many files there may be.
LARGEST_DATA, MOST_DATA_FILES = 2**31, 1_000_000
#: Characters of a name or key, of an arm's label, and of any other text.
LONGEST_NAME, LONGEST_LABEL, LONGEST_TEXT = 128, 256, 2**16
#: Tables and lists within each other, entries of one list, and values in all.
DEEPEST, MOST_ENTRIES, MOST_VALUES = 32, 10_000, 200_000
#: Trials of a study: its arms times its seeds.
MOST_TRIALS = 1_000_000
MOST_TASKS = 100
#: Arms that a grid makes, and values of one of its settings.
MOST_GRID_ARMS = 1_000
MOST_EPOCHS = 1_000_000
MOST_EVALUATIONS = 1_000
#: The largest seed that every part of a study, and every program that reads JSON, has to the digit.
LARGEST_SEED = 2**53
#: Metrics of one record.
MOST_METRICS = 10_000


def check_table(table: object) -> None:
    """Check the size of everything in a nested table; what its keys mean is checked later.

    The walk needs no recursion, so that neither deep nor cyclic tables break it.

    Raises:
        StudyError: naming the key and the limit.

    Example:
        >>> check_table({"training": {"epochs": 2**64}})
        Traceback (most recent call last):
        fairtrial.errors.StudyError: training.epochs: an integer of 65 bits; integers must fit in 64 bits
    """
    found: list[tuple[str, int, object]] = [("", 0, table)]
    for where, depth, value in found:  # grows while it is walked
        if problem := _problem(value, depth):
            raise StudyError(f"{where}: {problem}" if where else problem)
        if isinstance(value, BaseModel):
            found.append((where, depth, value.model_dump(mode="json", exclude_unset=True)))
        elif isinstance(value, Mapping):
            inner = f"{where}." if where else ""
            for key, item in value.items():
                if problem := name_problem(key):
                    raise StudyError(f"{where}: {problem}" if where else problem)
                found.append((f"{inner}{key}", depth + 1, item))
        elif isinstance(value, list | tuple):
            found.extend((f"{where}[{index}]", depth + 1, item) for index, item in enumerate(value))
        if len(found) > MOST_VALUES:
            raise StudyError(f"has more than {MOST_VALUES:,} values")


def name_problem(name: Any) -> str:
    """Say what makes text unusable as a name or key; empty if nothing does.

    Example:
        >>> name_problem("lr"), name_problem("a" * 200)
        ('', 'a key of 200 characters; at most 128 are allowed')
    """
    if not isinstance(name, str):
        return f"keys must be text, not {type(name).__name__}"
    if len(name) > LONGEST_NAME:
        return f"a key of {len(name):,} characters; at most {LONGEST_NAME} are allowed"
    return "" if name.isprintable() else f"the key {name!a} has control characters"


def _problem(value: object, depth: int) -> str:
    """Say what is wrong with a value, which is within so many tables; empty if nothing is."""
    if depth > DEEPEST:
        return f"tables and lists may be nested at most {DEEPEST} deep"
    if isinstance(value, list | tuple) and len(value) > MOST_ENTRIES:
        return f"a list of {len(value):,} entries; at most {MOST_ENTRIES:,} are allowed"
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return f"an integer of {value.bit_length():,} bits; integers must fit in 64 bits"
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        return f"text of {len(value):,} characters; at most {LONGEST_TEXT:,} are allowed"
    if isinstance(value, str) and not _is_storable(value):
        return "text can't contain NUL characters or halves of surrogate pairs"
    return ""


def _is_storable(text: str) -> bool:
    """Whether UTF-8 and every database can hold it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text
