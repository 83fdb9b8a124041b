"""What a study expects of the records that its training loops yield, and the check of each record."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from fairtrial.errors import Diverged
from fairtrial.spec import BUILT_IN, Study
from fairtrial.spec.limits import LONGEST_NAME, MOST_METRICS
from fairtrial.spec.messages import brief
from fairtrial.spec.metrics import PLAIN, Unit, may_be_percent, own_unit, settings_needed

#: Types of NumPy's and torch's truth values, which convert to a number but are none.
_TRUTH = {"bool", "torch.bool"}


class UnitError(ValueError):
    """A number that the metric's unit does not allow: the loop yields another unit in every trial."""


@dataclass(frozen=True)
class RecordRules:
    """What a study expects of records.

    Attributes:
        units: of the metrics that the study declares, by name.
        needed: the metrics that it compares arms on, each with the key that asks for it.
        sparse: metrics that an epoch may lack.
    """

    units: Mapping[str, Unit] = field(default_factory=dict)
    needed: Mapping[str, str] = field(default_factory=dict)
    sparse: frozenset[str] = frozenset()

    @classmethod
    def of(cls, study: Study) -> Self:
        """Collect what a study expects; of fairtrial's own loop it was checked when the study was read."""
        evidence, own = study.evidence, [arm.settings.training.loop == BUILT_IN for arm in study.arms]
        if all(own):
            return cls()
        asked = {f'evidence.metric = "{evidence.metric}"': (evidence.metric, evidence.target)}
        asked |= {
            f'evidence.also[{index}] = "{also.metric}"': (also.metric, evidence.target)
            for index, also in enumerate(evidence.also or ())
        }
        asked |= {
            f'claims[{index}].metric = "{claim.metric}"': (claim.metric, claim.target or evidence.target)
            for index, claim in enumerate(study.claims)
        }
        needed: dict[str, str] = {}
        for key, (name, target) in asked.items():
            measure = study.measure(name)
            for metric in (*measure.metrics, *([target.metric] if measure.needs_target and target else [])):
                if "training.evaluations_last_epoch" not in settings_needed(metric):  # in the last epoch alone
                    needed.setdefault(metric, key)
        if evidence.lost_below == "chance" and not any(own):
            needed["chance"] = 'evidence.lost_below = "chance"'
        units = {name: study.metric(name).unit for name in study.metrics}
        return cls(units, needed, frozenset(name for name, metric in study.metrics.items() if metric.sparse))

    def checked(self, metrics: object, epoch: int) -> dict[str, float]:
        """Check the metrics of one epoch, counted from 1, and convert them to plain numbers.

        Raises:
            Diverged: a loss is not finite.
            UnitError: a number is not in its metric's unit.
            TypeError, ValueError: anything else is wrong; the message names it and says what to yield instead.
        """
        if not isinstance(metrics, Mapping):
            raise TypeError(f"a training loop must yield a dict of metrics, not {type(metrics).__name__}")
        if not metrics:
            raise ValueError(f"the training loop yielded an empty record in epoch {epoch}")
        _check_names(metrics, epoch)
        lacking = {name for name in self.sparse if metrics.get(name, 0) is None}
        numbers = {str(name): _number(name, value, epoch) for name, value in metrics.items() if name not in lacking}
        for name, value in numbers.items():
            if (name == "loss" or name.endswith("_loss")) and not math.isfinite(value):
                raise Diverged(f"{name} is {value} after epoch {epoch}")
        for name, value in numbers.items():
            self._check_unit(name, value, epoch)
        if epoch == 1:
            self._check_needed(set(numbers) | self.sparse, numbers)
        return numbers

    def missing(self, recorded: Iterable[str]) -> str:
        """Say which metric a whole trial has never recorded though the study needs it; empty if there is none."""
        lacking = [name for name in self.needed if name not in set(recorded)]
        return f"the training loop never yielded {lacking[0]}; {self.needed[lacking[0]]} needs it" if lacking else ""

    def _check_unit(self, name: str, value: float, epoch: int) -> None:
        """Refuse a number that the metric's unit does not allow; NaN and infinities are lost runs instead.

        What no unit is declared for is judged by its name, if the study compares arms on it.
        """
        if not math.isfinite(value):
            return
        declared = self.units.get(name) or own_unit(name)
        if declared is None and value > 1 and name in self.needed and may_be_percent(name):
            raise UnitError(
                f"{name} = {value:g} in epoch {epoch}: looks like percent; yield a fraction ({value / 100:g}), or "
                f'declare [metrics.{name}] unit = "percent" (or "plain")'
            )
        low, high = (declared or PLAIN).limits
        if low <= value <= high:
            return
        instead = f"; yield {value / 100:g}" if high == 1 and 1 < value <= 100 else ""
        what = "a fraction, " if high == 1 else ""
        raise UnitError(f"{name} = {value:g} in epoch {epoch}: must be {what}from {low:g} to {high:g}{instead}")

    def _check_needed(self, present: set[str], numbers: Mapping[str, float]) -> None:
        for name, key in self.needed.items():
            if name not in present:
                has = brief(", ".join(numbers), 300)
                raise ValueError(
                    f"{name} is missing in epoch 1: {key} needs it, and the record has {has}; yield {name} too, or, if "
                    f"some epochs do not measure it, set metrics.{name}.sparse = true"
                )


#: Expects nothing in particular.
NO_RULES = RecordRules()


def _check_names(metrics: Mapping[object, object], epoch: int) -> None:
    """Refuse records and names that no table could show, and no database might hold."""
    if len(metrics) > MOST_METRICS:
        raise ValueError(f"{len(metrics):,} metrics in epoch {epoch}: at most {MOST_METRICS:,} are allowed")
    for name in metrics:
        if isinstance(name, str) and not (len(name) <= LONGEST_NAME and name.isprintable()):
            raise ValueError(
                f"a metric named {brief(ascii(name[:LONGEST_NAME]))} in epoch {epoch}: names must be printable, and "
                f"have at most {LONGEST_NAME} characters"
            )


def _number(name: object, value: Any, epoch: int) -> float:
    """Convert a number of any library; refuse text, truth values, None and arrays by the metric's name."""
    try:
        where = f"{name} = {value!r:.60} in epoch {epoch}"
    except ValueError:  # Python does not write integers of thousands of digits
        where = f"{name} in epoch {epoch}"
    if value is None:
        raise TypeError(f"{where}: must be a number; leave {name} out, or yield float('nan') if this run is lost")
    if isinstance(value, bool) or str(getattr(value, "dtype", "")) in _TRUTH:
        raise TypeError(f"{where}: must be a number, not a truth value; yield float({name}) if you mean 0 or 1")
    if isinstance(value, str | bytes):
        raise TypeError(f"{where}: must be a number, not text; yield float({name})")
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError(f"{where}: must be a number that a float can hold") from error
    except (TypeError, ValueError) as error:
        kind = type(value).__name__
        raise TypeError(f"{where}: must be one number, not {kind}; yield a float, such as {name}.mean()") from error
