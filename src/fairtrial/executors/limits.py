"""Limits on a trial's time and memory, and how people write them."""

import math
import re
from dataclasses import dataclass

from pydantic import ByteSize, TypeAdapter, ValidationError

from fairtrial.errors import FairtrialError

_SECONDS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_BYTES = TypeAdapter(ByteSize)


@dataclass(frozen=True)
class Limits:
    """What ends a trial's attempt from outside; records do not depend on it. A FairtrialError refuses other values."""

    time: float | None = None  # seconds that an attempt may take; a trial that takes longer has failed
    memory: int | None = None  # bytes of data (heap, stacks, private mappings) that a worker's process may ask for
    silence: float = 120.0  # seconds after which a silent worker is given up; one that is well reports once a second

    def __post_init__(self) -> None:
        for name, value in (("time_limit", self.time), ("silence", self.silence)):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (number and math.isfinite(value) and value > 0):
                raise FairtrialError(f"{name} = {value!r}: must be a positive number of seconds")
        if self.memory is not None and (type(self.memory) is not int or self.memory < 1):
            raise FairtrialError(f"memory_limit = {self.memory!r}: must be an integer of at least 1")
        if self.memory is not None and self.memory >= 2**63:
            raise FairtrialError("memory_limit: must be below 8 EiB")


def parse_seconds(text: str) -> float:
    """Read a duration such as ``90``, ``90s``, ``30m`` or ``1.5h``; else a ValueError says what is allowed."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    if match is None or match[2] not in _SECONDS or not float(match[1]) > 0:
        raise ValueError(f"{text!r} is not a duration such as 90s, 30m or 2h")
    return float(match[1]) * _SECONDS[match[2]]


def parse_bytes(text: str) -> int:
    """Read a size such as ``2GiB`` or ``800MB``; else a ValueError says what is allowed."""
    try:
        size = int(_BYTES.validate_python(text))
    except ValidationError:
        size = 0
    if size < 1:
        raise ValueError(f"{text!r} is not a size such as 2GiB or 800MB")
    return size


def format_seconds(seconds: float) -> str:
    """Write a duration: ``60 s``, ``0.5 s``."""
    return f"{seconds:.10g} s"


def format_bytes(size: int) -> str:
    """Write a size: ``2.0 GiB``, or ``900.0 MB`` where it is a multiple of a thousand."""
    return ByteSize(size).human_readable(decimal=size % 1000 == 0, separator=" ")
