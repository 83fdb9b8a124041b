"""The textbook answers for a study that is looked at once, arm by arm.

`judge` gives the same where it should: one arm, one look. What it does beyond that is told in docs/evidence.md.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from fairtrial.stats.variance import FloatArray


@dataclass(frozen=True)
class PairedTest:
    """A paired t test.

    Attributes:
        seeds: number of pairs.
        mean_difference: mean of the differences.
        interval: confidence interval for this arm alone.
        p: two-sided p-value for this arm alone.
    """

    seeds: int
    mean_difference: float
    interval: tuple[float, float]
    p: float


def paired_test(differences: npt.ArrayLike, alpha: float = 0.05) -> PairedTest:
    """Student's paired t test of one arm, with no allowance for other arms or looks.

    Args:
        differences: (seeds,), finite.
        alpha: one minus the confidence of the interval.

    Raises:
        ValueError: fewer than two differences, one that is not finite, or all of them equal.

    Example:
        >>> round(paired_test([1.0, 2.0, 4.0]).p, 3)
        0.118
    """
    mean, error, df = _mean_and_error(differences)
    half = -float(special.stdtrit(df, alpha / 2)) * error
    return PairedTest(df + 1, mean, (mean - half, mean + half), 2.0 * float(special.stdtr(df, -abs(mean) / error)))


def equivalence_p(differences: npt.ArrayLike, margin: float) -> float:
    """Two one-sided paired t tests (Schuirmann 1987, J. Pharmacokinet. Biopharm. 15, 657-680): the larger p-value.

    It is at most alpha / 2 exactly where the interval of `paired_test` lies within the margin.

    Args:
        differences: (seeds,), finite.
        margin: differences within plus or minus this do not matter; positive.

    Raises:
        ValueError: as for `paired_test`, or a margin that is not positive.

    Example:
        >>> round(equivalence_p([0.1, -0.2, 0.05], margin=1.0), 4)
        0.0044
    """
    if not margin > 0:
        raise ValueError(f"margin = {margin}: must be positive")
    mean, error, df = _mean_and_error(differences)
    return float(special.stdtr(df, -(margin - abs(mean)) / error))


def holm(p: npt.ArrayLike) -> FloatArray:
    """Holm's step-down adjustment (Holm 1979, Scand. J. Stat. 6, 65-70) of p-values from whatever tests.

    It needs no knowledge of how the tests depend on each other. `judge` does without it, since its own adjustment
    knows that, and gives intervals too; use it over metrics or claims, which have no common distribution.

    Args:
        p: (tests,), each in 0 to 1.

    Raises:
        ValueError: not one-dimensional, or outside 0 to 1.

    Example:
        >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
        [0.03, 0.06, 0.06]
    """
    values = np.asarray(p, dtype=np.float64)
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():
        raise ValueError("p-values must be a list of numbers from 0 to 1")
    order = np.argsort(values, kind="stable")
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)), 1.0)
    return adjusted


def _mean_and_error(differences: npt.ArrayLike) -> tuple[float, float, int]:
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise ValueError("a paired test needs a list of at least two finite differences")
    if (values == values[0]).all():
        raise ValueError("all differences are equal: without spread there is no test")
    return float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values)), len(values) - 1
