"""How measures are called and in which unit people read them: accuracies in points, times in seconds."""

import re
from dataclasses import dataclass

_WORDS = {
    "acc": "accuracy",
    "val": "validation",
    "train": "training",
}

_NAMES = {
    "test_acc_at_best_val": "test accuracy at the best validation epoch",
    "generalisation_gap": "generalisation gap",
    "epochs_to_target": "epochs to the target",
    "seconds_to_target": "seconds to the target",
    "seconds": "time",
}


@dataclass(frozen=True)
class DisplayUnit:
    """A unit that people read.

    Attributes:
        name: ``"points"``, ``"s"``, ``"epochs"``, ``"%"``; empty for a plain number.
        factor: what a measure's own number is multiplied by.
        decimals: how many are shown; None for three significant digits.
    """

    name: str
    factor: float = 1.0
    decimals: int | None = None

    def number(self, value: float) -> str:
        """Write a number in this unit, without its name; never ``-0.00``.

        Example:
            >>> unit("best_test_acc").number(-0.0131)
            '-1.31'
        """
        scaled = value * self.factor
        text = f"{scaled:.3g}" if self.decimals is None else f"{scaled:.{self.decimals}f}"
        return text.removeprefix("-") if float(text) == 0.0 else text

    def amount(self, value: float) -> str:
        """Write a number with the unit's name: ``1.31 points``, ``0.4 s``, ``2.1%``."""
        return f"{self.number(value)}{'' if self.name == '%' else ' '}{self.name}".rstrip()

    def between(self, low: float, high: float) -> str:
        """Write a range: ``-0.40 to 2.19``."""
        return f"{self.number(low)} to {self.number(high)}"


def unit(measure: str, *, relative: bool = False) -> DisplayUnit:
    """Choose the unit of a measure's differences."""
    if relative:
        return DisplayUnit("%", 100.0, 1)
    if re.fullmatch(r"(.*_)?acc(uracy)?|test_acc_at_best_val|generalisation_gap", measure):
        return DisplayUnit("points", 100.0, 2)
    if re.fullmatch(r"(.*_)?seconds|seconds_to_target", measure):
        return DisplayUnit("s", decimals=1)
    if re.fullmatch(r"(.*_)?loss", measure):
        return DisplayUnit("", decimals=4)
    if measure == "epochs_to_target":
        return DisplayUnit("epochs", decimals=1)
    return DisplayUnit("")


def measure_words(measure: str) -> str:
    """Write a measure's name in words: ``best test accuracy``.

    Example:
        >>> measure_words("final_train_loss")
        'final training loss'
    """
    if measure in _NAMES:
        return _NAMES[measure]
    return " ".join(_WORDS.get(word, word) for word in measure.split("_"))
