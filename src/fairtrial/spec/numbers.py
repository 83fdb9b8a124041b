"""Number types whose ranges are part of the type, so that every error can say what is allowed."""

import math
from typing import Annotated

from pydantic import AfterValidator, Strict
from pydantic_core import PydanticCustomError


class Interval:
    """A validator for one interval in the usual notation, such as ``"[0, 1)"`` or ``"(0, inf)"``.

    The text is both the rule and the words of the error message, so the two can't drift apart.
    NaN and the infinities lie in no interval.
    """

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
        """Return the value if it lies in the interval, else raise what pydantic expects."""
        if value not in self:
            raise PydanticCustomError("interval", "must be in {interval}", {"interval": self.text})
        return value


class AtLeast:
    """A validator for integers from a lowest value up."""

    def __init__(self, low: int) -> None:
        self.low = low

    def __call__(self, value: int) -> int:
        """Return the value if it is not too low, else raise what pydantic expects."""
        if value < self.low:
            raise PydanticCustomError("at_least", "must be an integer of at least {low}", {"low": self.low})
        return value


Positive = Annotated[float, Strict(), AfterValidator(Interval("(0, inf)"))]
NonNegative = Annotated[float, Strict(), AfterValidator(Interval("[0, inf)"))]
Fraction = Annotated[float, Strict(), AfterValidator(Interval("[0, 1]"))]
BelowOne = Annotated[float, Strict(), AfterValidator(Interval("[0, 1)"))]
Count = Annotated[int, Strict(), AfterValidator(AtLeast(1))]
CountOrZero = Annotated[int, Strict(), AfterValidator(AtLeast(0))]
