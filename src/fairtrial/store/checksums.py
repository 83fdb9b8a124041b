"""Checksums of what a store holds: written with each record, and compared whenever it is read.

They are CRC-32s: they find what a disk, a memory or another program has changed, and cost little. They do not keep out
somebody who wants to change results, and can compute them too.
"""

import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from fairtrial.trial import Trial

#: The checksum of nothing.
EMPTY = "00000000"

MISMATCH, MISSING = "does not match its checksum", "is missing"


class DamageError(Exception):
    """Something in a database is not what was written.

    Args:
        what: what it is.
        problem: what is wrong with it.
        trial: the hash of the trial whose record it is, if it is one; see `named`.
    """

    def __init__(self, what: str, problem: str, trial: str = "") -> None:
        super().__init__(f"{what} {problem}")
        self.problem = problem
        self.trial = trial


def of_values(*values: object) -> str:
    """The checksum of the values of a row: texts, numbers, times with a zone and None.

    Example:
        >>> of_values("baseline", 3, None)
        '41d19e30'
    """
    return extend(EMPTY, _encode(values))


def extend(checksum: str, text: str) -> str:
    """The checksum of a text, given that of its beginning and the rest.

    Example:
        >>> extend(extend(EMPTY, "one, "), "two") == extend(EMPTY, "one, two")
        True
    """
    return f"{zlib.crc32(text.encode(), int(checksum, 16)):08x}"


@contextmanager
def named(trials: Callable[[], Iterable[Trial]], study: str = "") -> Iterator[None]:
    """Name the damaged trial by its arm, its seed and the study's label, if it is among these."""
    try:
        yield
    except DamageError as damage:
        found = next((one for one in trials() if one.hash == damage.trial), None) if damage.trial else None
        if found is None:
            raise
        raise DamageError(record_of(found.arm, found.seed, study), damage.problem) from None


def record_of(arm: object, seed: object, study: str = "") -> str:
    """Name the record of a trial: ``the record of trial low_beta2, seed 3 of paper@1a2b3c4d``."""
    return f"the record of trial {arm}, seed {seed}" + (f" of {study}" if study else "")


def _plain(value: object) -> str:
    return str(value.astimezone(UTC)) if isinstance(value, datetime) else repr(value)


_encode = json.JSONEncoder(default=_plain, separators=(",", ":")).encode
