"""Metrics that training loops record per epoch: names, units, and which direction is better."""

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

#: The metrics of fairtrial's own loop, in the order of exports; a user's loop may record anything.
METRICS = (
    "train_loss",
    "train_acc",
    "test_loss",
    "test_acc",
    "val_loss",
    "val_acc",
    "train_seconds",
    "eval_seconds",
)

#: Which way is better.
Direction: TypeAlias = Literal["higher", "lower"]


@dataclass(frozen=True)
class Unit:
    """A unit of reports."""

    name: str  # "%", "s"; empty for a plain number
    difference: str  # its name for differences between two values: "points" for percent
    factor: float = 1.0  # multiplies a recorded number
    decimals: int | None = None  # how many are shown; None for three significant digits

    def number(self, value: float) -> str:
        """Write a number in this unit, without its name; never ``-0.00``.

        Example:
            >>> PERCENT.number(-0.0131)
            '-1.31'
        """
        scaled = value * self.factor
        text = f"{scaled:.3g}" if self.decimals is None else f"{scaled:.{self.decimals}f}"
        return text.removeprefix("-") if float(text) == 0.0 else text

    def amount(self, value: float) -> str:
        """Write a difference with the unit's name: ``1.31 points``, ``0.4 s``, ``2.1%``."""
        return f"{self.number(value)}{'' if self.difference == '%' else ' '}{self.difference}".rstrip()

    def between(self, low: float, high: float) -> str:
        """Write a range: ``-0.40 to 2.19``."""
        return f"{self.number(low)} to {self.number(high)}"


PERCENT = Unit("%", "points", 100.0, 2)
SECONDS = Unit("s", "s", decimals=1)
EPOCHS = Unit("epochs", "epochs", decimals=1)
LOSS = Unit("", "", decimals=4)
PLAIN = Unit("", "")

#: For differences that are fractions of another value.
RELATIVE = Unit("%", "%", 100.0, 1)

#: Unit and better direction by the last word of a metric's name.
_BY_LAST_WORD: dict[str, tuple[Unit, Direction]] = {
    "acc": (PERCENT, "higher"),
    "accuracy": (PERCENT, "higher"),
    "loss": (LOSS, "lower"),
    "seconds": (SECONDS, "lower"),
    "error": (PLAIN, "lower"),
}

_WORDS = {"acc": "accuracy", "val": "validation", "train": "training"}


@dataclass(frozen=True)
class Metric:
    """One number of an epoch record: its name, such as ``"test_acc"``, and its better direction if known."""

    name: str
    direction: Direction | None = None

    @classmethod
    def named(cls, name: str, direction: Direction | None = None) -> "Metric":
        """Infer the better direction from the name, or else use the study's.

        Example:
            >>> Metric.named("test_acc").direction, Metric.named("grad_norm").direction
            ('higher', None)
        """
        known = _BY_LAST_WORD.get(name.rpartition("_")[2])
        return cls(name, known[1] if known else direction)

    @property
    def unit(self) -> Unit:
        """Its unit; a plain number unless the name ends in a known word."""
        return _BY_LAST_WORD.get(self.name.rpartition("_")[2], (PLAIN, None))[0]

    @property
    def label(self) -> str:
        """Its name in words: ``training loss``."""
        return " ".join(_WORDS.get(word, word) for word in self.name.split("_"))


def recorded_metrics(*, validation: bool) -> tuple[str, ...]:
    """List the metrics that fairtrial's own loop records, with or without a validation split."""
    return tuple(name for name in METRICS if validation or not name.startswith("val_"))


def finite(value: float | None) -> float | None:
    """Convert to a plain float; None unless finite."""
    return None if value is None or not math.isfinite(value) else float(value)


def may_be_metric(name: str) -> bool:
    """Tell whether a user's training loop could record a metric of this name."""
    return name.isascii() and name.isidentifier()
