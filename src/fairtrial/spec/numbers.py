"""Number types with a range, so that every error can say what is allowed."""

import math
from typing import Annotated

from pydantic import AfterValidator, Strict
from pydantic_core import PydanticCustomError


class Interval:
    """A validator for an interval such as ``"[0, 1)"`` or ``"(0, inf)"``; no interval contains NaN or an infinity."""

    def __init__(self, text: str) -> None:
        low, high = text[1:-1].split(",")
        self.text = text
        self.low, self.low_included = float(low), text[0] == "["
        self.high, self.high_included = float(high), text[-1] == "]"

    def __contains__(self, value: float) -> bool:
        above = value > self.low or (self.low_included and value == self.low)
        below = value < self.high or (self.high_included and value == self.high)
        return math.isfinite(value) and above and below

    def __call__(self, value: float) -> float:
        """Return a value in the interval; reject any other."""
        if value not in self:
            raise PydanticCustomError("interval", "must be in {interval}", {"interval": self.text})
        return value


def _at_least(low: int) -> AfterValidator:
    def check(value: int) -> int:
        if value < low:
            raise PydanticCustomError("at_least", "must be an integer of at least {low}", {"low": low})
        return value

    return AfterValidator(check)


def at_most(high: int) -> AfterValidator:
    """Validate that an integer does not exceed a limit."""

    def check(value: int) -> int:
        if value > high:
            raise PydanticCustomError("at_most", "must be an integer of at most {high}", {"high": f"{high:,}"})
        return value

    return AfterValidator(check)


Positive = Annotated[float, Strict(), AfterValidator(Interval("(0, inf)"))]
NonNegative = Annotated[float, Strict(), AfterValidator(Interval("[0, inf)"))]
Fraction = Annotated[float, Strict(), AfterValidator(Interval("[0, 1]"))]
Decay = Annotated[float, Strict(), AfterValidator(Interval("(0, 1)"))]
BelowOne = Annotated[float, Strict(), AfterValidator(Interval("[0, 1)"))]
Count = Annotated[int, Strict(), _at_least(1)]
CountOrZero = Annotated[int, Strict(), _at_least(0)]
