"""Metrics that training loops record per epoch: names, units, and which direction is better."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

from fairtrial.spec.limits import LONGEST_NAME

#: What precedes the names of metrics that are measured with recomputed statistics of batch norm, or averaged weights.
RECALIBRATED, EMA = "recalibrated_", "ema_"

#: Larger numbers count as infinite: squares of their differences might overflow a float.
LARGEST = 1e99
#: Which way is better.
Direction: TypeAlias = Literal["higher", "lower"]


@dataclass(frozen=True)
class Unit:
    """A unit: how a metric is recorded, and how reports write it."""

    name: str  # "%", "s"; empty for a plain number
    difference: str  # its name for differences between two values: "points" for percent
    factor: float = 1.0  # multiplies a recorded number
    decimals: int | None = None  # how many are shown; None for three significant digits
    limits: tuple[float, float] = (-math.inf, math.inf)  # of what a training loop may record

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


#: Recorded as a fraction, shown in percent.
PERCENT = Unit("%", "points", 100.0, 2, (0.0, 1.0))
#: Recorded and shown in percent.
RECORDED_PERCENT = Unit("%", "points", 1.0, 2, (0.0, 100.0))
SECONDS = Unit("s", "s", decimals=1)
EPOCHS = Unit("epochs", "epochs", decimals=1)
LOSS = Unit("", "", decimals=4)
PLAIN = Unit("", "")

#: For differences that are fractions of another value.
RELATIVE = Unit("%", "%", 100.0, 1)

#: Units that a study can declare for a metric of a user's own training loop.
UNITS: Mapping[str, Unit] = {"fraction": PERCENT, "percent": RECORDED_PERCENT, "seconds": SECONDS, "plain": PLAIN}

#: The metrics of fairtrial's own loop, in the order of exports, which have these units in a user's loop too.
_OWN: dict[str, Unit] = {
    "train_loss": LOSS,
    "train_acc": PERCENT,
    "test_loss": LOSS,
    "test_acc": PERCENT,
    "val_loss": LOSS,
    "val_acc": PERCENT,
    "train_seconds": SECONDS,
    "eval_seconds": SECONDS,
}
METRICS = tuple(_OWN)
#: What the own loop records of predicted numbers, in place of accuracies: mean absolute error and R2.
_OF_NUMBERS = ("mae", "r2")
_VARIANT = re.compile(rf"(eval[1-9][0-9]*_|{RECALIBRATED}|{EMA})")

#: What the last word of any metric's name implies: the better direction, and how many decimals people expect. Whether
#: it is a fraction or in percent it can't imply.
_BY_LAST_WORD: dict[str, tuple[Unit, Direction]] = {
    "acc": (PLAIN, "higher"),
    "accuracy": (PLAIN, "higher"),
    "loss": (LOSS, "lower"),
    "seconds": (SECONDS, "lower"),
    "error": (PLAIN, "lower"),
    "mae": (PLAIN, "lower"),
    "r2": (PLAIN, "higher"),
}

#: Words in the names of metrics that people record as fractions or in percent.
_SHARE = re.compile(r"acc\d*|accuracy|top\d+|precision|recall|f1|auc|auroc|iou", re.IGNORECASE)
#: Last words of names that say something else: a unit, or what is counted.
_NO_SHARE = re.compile(
    r"loss|nll|steps?|epochs?|batch(es)?|size|counts?|num(ber)?|n|seconds|s|ms|minutes|hours|time|lr|norm|rank",
    re.IGNORECASE,
)

_WORDS = {"acc": "accuracy", "val": "validation", "train": "training"}


@dataclass(frozen=True)
class Metric:
    """One number of an epoch record: its name, such as ``"test_acc"``, its better direction if known, and its unit."""

    name: str
    direction: Direction | None = None
    unit: Unit = PLAIN

    @classmethod
    def named(cls, name: str, direction: Direction | None = None, unit: Unit | None = None) -> "Metric":
        """Use what the name implies, or else what the study says.

        Only fairtrial's own metrics are fractions by their names; others are if the study declares that.

        Example:
            >>> Metric.named("test_acc").direction, Metric.named("grad_norm").direction
            ('higher', None)
            >>> Metric.named("test_acc").unit.name, Metric.named("test_accuracy").unit.name
            ('%', '')
        """
        usual, implied = _BY_LAST_WORD.get(name.rpartition("_")[2], (PLAIN, None))
        return cls(name, implied or direction, own_unit(name) or unit or usual)

    @property
    def label(self) -> str:
        """Its name in words: ``training loss``."""
        return " ".join(_WORDS.get(word, word) for word in self.name.split("_"))


def recorded_metrics(
    *, validation: bool, evaluations: int = 1, recalibrated: bool = False, ema: bool = False, regression: bool = False
) -> tuple[str, ...]:
    """List the metrics that fairtrial's own loop records.

    Args:
        validation: whether images are held out of the training set.
        evaluations: how often the last epoch is evaluated; all but the last evaluation have a prefix.
        recalibrated: whether there are evaluations with recomputed statistics of batch norm.
        ema: whether there are evaluations with averaged weights.
        regression: whether numbers are predicted, which have an absolute error and R2 in place of an accuracy.

    Example:
        >>> recorded_metrics(validation=False, ema=True)[-2:]
        ('ema_test_loss', 'ema_test_acc')
    """
    plain = tuple(name for name in METRICS if validation or not name.startswith("val_"))
    held_out = [name for name in plain if name.startswith(("test_", "val_"))]
    variants = {f"eval{number}_": held_out for number in range(1, evaluations)}
    variants |= {RECALIBRATED: [*plain[:2], *held_out]} if recalibrated else {}
    variants |= {EMA: held_out} if ema else {}
    names = (*plain, *(f"{prefix}{name}" for prefix, of_it in variants.items() for name in of_it))
    if not regression:
        return names
    kinds = ((name, _OF_NUMBERS if name.endswith("_acc") else (name.rpartition("_")[2],)) for name in names)
    return tuple(f"{name.rpartition('_')[0]}_{kind}" for name, of_it in kinds for kind in of_it)


def settings_needed(metric: str) -> list[str]:
    """Name the settings with which fairtrial's own loop records a metric; none if it always or never does.

    Example:
        >>> settings_needed("ema_val_acc"), settings_needed("test_acc")
        (['training.ema', 'data.validation'], [])
    """
    number = re.match(r"eval([1-9][0-9]{0,2})_", metric)  # see limits.MOST_EVALUATIONS
    evaluations = int(number[1]) + 1 if number else 1
    every = partial(recorded_metrics, validation=True, evaluations=evaluations, recalibrated=True, ema=True)
    if metric not in {*every(), *every(regression=True)}:
        return []
    prefixes = {RECALIBRATED: "training.recalibrate_batch_norm", EMA: "training.ema"}
    needed = ["training.evaluations_last_epoch"] if number else []
    needed += [key for prefix, key in prefixes.items() if metric.startswith(prefix)]
    return [*needed, "data.validation"] if re.search(r"(^|_)val_", metric) else needed


def own_unit(name: str) -> Unit | None:
    """Look up the unit of a metric that fairtrial's own loop may record; None for any other."""
    return _OWN.get(_VARIANT.sub("", name, count=1) if _VARIANT.match(name) else name)


def may_be_percent(name: str) -> bool:
    """Tell whether a metric's name reads like one that people record as a fraction or in percent.

    Example:
        >>> may_be_percent("test_accuracy"), may_be_percent("valAcc"), may_be_percent("iou_loss")
        (True, True, False)
    """
    words = [word for word in re.findall(r"[A-Z]*[a-z]*\d*", name) if word]
    return any(map(_SHARE.fullmatch, words)) and not _NO_SHARE.fullmatch(words[-1])


def finite(value: float | None) -> float | None:
    """Convert to a plain float; None unless finite and of a size that can be compared, see `LARGEST`."""
    return float(value) if value is not None and abs(value) <= LARGEST else None


def may_be_metric(name: str) -> bool:
    """Tell whether a user's training loop could record a metric of this name."""
    return len(name) <= LONGEST_NAME and name.isascii() and name.isidentifier()
