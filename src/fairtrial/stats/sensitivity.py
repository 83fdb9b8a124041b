"""How a measure depends on a setting: from arms that differ from the reference in that setting alone.

The intervals of a study's verdicts hold for all arms at once, so they hold for everything that is computed from them,
and what is said here costs no further part of alpha. With probability 1 - alpha all true differences d_a of the arms
from the reference lie within their intervals [l_a, h_a]. Then any weighted sum of them lies between

    sum_a (w_a > 0 ? w_a l_a : w_a h_a)  and  sum_a (w_a > 0 ? w_a h_a : w_a l_a),

whatever the weights, and even if they were chosen by the results (Richmond 1982, J. Am. Stat. Assoc. 77, 455-460, of
linear functions of means with simultaneous intervals). A curve that is linear in the measured differences is such a sum
at each value of the setting. So its band holds for all values at once, as do all that judges allow for: looks after
each seed, unequal spreads, earlier studies of the same trials.

The curve is a natural cubic smoothing spline (Reinsch 1967, Numer. Math. 10, 177-183; Green & Silverman 1994,
Nonparametric Regression and Generalized Linear Models, section 2.3) through the mean differences, on the setting's own
scale. It smooths by as much as minimizes Mallows' C_p (1973, Technometrics 15, 661-675), with the noise that the seeds
show. Its band is around what the same smoothing makes of the true differences. Between the values of the study that is
the curve's shape, and no measurement.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from fairtrial.spec import Study, content, flatten, same
from fairtrial.stats.comparison import StudyVerdict
from fairtrial.stats.variance import FloatArray
from fairtrial.stats.verdicts import Comparison

#: On what scale values of a setting are spread evenly: as they are, by their ratios, or by their distance from 1.
Scale: TypeAlias = Literal["linear", "log", "log below one"]

#: What a level is called that is no verdict: it is the reference, its trials are not paired, or it has no result.
Word: TypeAlias = Literal["better", "worse", "equivalent", "non-inferior", "undecided", "reference", "refused"]

#: A setting that takes fewer values than this has no curve.
FEWEST = 3

#: Values within a factor of this are on a linear scale.
WIDE = 8

#: Values of the setting at which a curve is computed.
POSITIONS = 161

#: How much smoothing is tried, from a curve through all points to a straight line; 1 halves what bends least.
_SMOOTHING = np.concatenate([[0.0], np.geomspace(1e-6, 1e6, 121), [np.inf]])


@dataclass(frozen=True)
class Level:
    """One value of a setting, and what was found for it: the arm minus the reference, in the measure's unit.

    Attributes:
        arm: the arm that has it; others are as the reference in everything else.
        value: of the setting.
        difference: mean of the arm minus the reference; 0 of the reference, None without a result.
        interval: that holds for all arms at once; None if the spread can't be estimated.
        verdict: in a word.
        lost: how many of its trials have no result, by what happened; then it is no part of curves and ranges.
    """

    arm: str
    value: float
    difference: float | None
    interval: tuple[float, float] | None
    verdict: Word
    lost: Mapping[str, int]

    @property
    def whole(self) -> bool:
        """Whether it has a difference with an interval, and lost no trial."""
        return self.interval is not None and self.difference is not None and not self.lost


@dataclass(frozen=True)
class Curve:
    """A smooth curve of the differences, and its band, which holds for all values at once."""

    values: tuple[float, ...]  # of the setting, ascending
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class Sensitivity:
    """How the measure depends on one setting.

    Attributes:
        key: the setting, such as ``"optimizer.eps"``; the betas are ``optimizer.beta1`` and ``optimizer.beta2``.
        scale: on which its values are spread most evenly.
        levels: its values, ascending, the reference's among them.
        curve: None with fewer than three levels that are whole, or if two arms have one number; see `twice`.
        spread: within this the highest of the true means at these values minus the lowest lies; None without a curve.
        best: the arms that may be the best of these: of all others one is better; empty without a curve.
    """

    key: str
    scale: Scale
    levels: tuple[Level, ...]
    curve: Curve | None
    spread: tuple[float, float] | None
    best: tuple[str, ...]

    @property
    def name(self) -> str:
        """The setting's name without its section."""
        return self.key.rpartition(".")[2]

    @property
    def twice(self) -> float | None:
        """A number that two arms have, one as an integer and one as a fraction, which a loop may tell apart."""
        pairs = pairwise(level.value for level in self.levels)
        return next((value for value, following in pairs if value == following), None)

    @property
    def candidates(self) -> tuple[Level, ...]:
        """The levels that may be the best."""
        return tuple(level for level in self.levels if level.arm in self.best)

    @property
    def at_the_edge(self) -> bool:
        """Whether one of them is the first or the last, so that the best value may be beyond."""
        return bool(self.best) and not {self.levels[0].arm, self.levels[-1].arm}.isdisjoint(self.best)


def sensitivities(study: Study, found: StudyVerdict) -> tuple[Sensitivity, ...]:
    """Say how a study's measure depends on each setting that takes three values or more, one at a time.

    Args:
        study: the study.
        found: its verdicts, on any measure.

    Example:
        >>> from fairtrial.stats.comparison import compare
        >>> from fairtrial.testing import simulated_results
        >>> grid = {"params": {"mean": {"linear": [0.7, 0.8], "points": 5}}}
        >>> study = fairtrial.Study(name="means", reference="default", seeds=5, arms={"default": {}}, grid=grid,
        ...     params={"mean": 0.8}, training={"loop": "fairtrial.testing:simulate", "epochs": 1})
        >>> (mean,) = sensitivities(study, compare(study, simulated_results(study)))
        >>> mean.key, [level.value for level in mean.candidates]
        ('params.mean', [0.8])
    """
    changed, own = changes(study)
    axes: dict[str, list[tuple[float, str]]] = {}
    for arm, keys in changed.items():
        if len(keys) == 1:
            ((key, value),) = keys.items()
            if is_number(value) and is_number(own.get(key)):
                axes.setdefault(key, [(float(own[key]), study.reference)]).append((float(value), arm))
    rows = {row.arm: row for row in found.comparisons}
    return tuple(
        _sensitivity(key, [level_of(arm, value, rows.get(arm), found) for value, arm in sorted(levels)], found)
        for key, levels in axes.items()
        if len({value for value, _ in levels}) >= FEWEST
    )


def changes(study: Study) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """List the settings in which each arm differs from the reference, with the arm's values, and the reference's own.

    A/A arms are left out. A setting that one of the two has not, or that is a list, has the value None.
    """
    settings = {arm.name: _flat(content(arm.settings)) for arm in study.arms if arm.name not in study.twins}
    own = settings.pop(study.reference)
    differ = {
        arm: {key: table.get(key) for key in {**own, **table} if not same(table.get(key), own.get(key))}
        for arm, table in settings.items()
    }
    return differ, own


def _flat(table: Mapping[str, Any]) -> dict[str, Any]:
    """Write settings by dotted keys, the betas one by one."""
    flat = dict(flatten(table))
    if isinstance(betas := flat.get("optimizer.betas"), list | tuple):
        del flat["optimizer.betas"]
        flat |= {f"optimizer.beta{place}": beta for place, beta in enumerate(betas, start=1)}
    return flat


def is_number(value: object) -> bool:
    """Tell whether a setting is a number, which true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def level_of(arm: str, value: float, row: Comparison | None, found: StudyVerdict) -> Level:
    """Say what was found for one arm; without a comparison it is the reference."""
    lost = found.lost.get(arm, {})
    if row is None:
        return Level(arm, value, 0.0, (0.0, 0.0), "reference", lost)
    word: Word = "refused" if arm in found.refused else row.verdict.value
    return Level(arm, value, row.mean_difference, row.interval, word, lost)


def _sensitivity(key: str, levels: Sequence[Level], found: StudyVerdict) -> Sensitivity:
    scale = scale_of(sorted({level.value for level in levels}))
    whole = [level for level in levels if level.whole]
    if len(whole) < FEWEST:
        return Sensitivity(key, scale, tuple(levels), None, None, ())
    ends = [level.interval for level in whole if level.interval]
    low, high = np.array(ends).T
    spread = (max(0.0, float(low.max() - high.min())), float(high.max() - low.min()))
    better = low.max() if found.larger_is_better else high.min()
    best = high >= better if found.larger_is_better else low <= better
    chosen = tuple(level.arm for level, may in zip(whole, best, strict=True) if may)
    twice = len({level.value for level in levels}) < len(levels)
    curve = None if twice else _curve(whole, scale, found)
    return Sensitivity(key, scale, tuple(levels), curve, spread, chosen)


def scale_of(values: Sequence[float]) -> Scale:
    """Find the scale on which ascending values are spread most evenly; linear if they are within a factor of 8.

    Example:
        >>> scale_of([1e-8, 1e-7, 1e-6]), scale_of([0.9, 0.99, 0.999]), scale_of([16, 32, 48])
        ('log', 'log below one', 'linear')
    """
    first, last, scales = values[0], values[-1], list[Scale](["linear"])
    scales += ["log"] if 0 < WIDE * first <= last else []
    scales += ["log below one"] if first > 0 and last < 1 and WIDE * (1 - last) <= 1 - first else []

    def unevenness(scale: Scale) -> float:
        steps = np.diff(on_scale(values, scale))
        return float(steps.max() / steps.min())

    return min(scales, key=lambda scale: round(unevenness(scale), 6))


def on_scale(values: Sequence[float], scale: Scale) -> FloatArray:
    """Place values where they are evenly spread; ascending, as they are."""
    array = np.array(values, dtype=np.float64)
    if scale == "linear":
        return array
    return np.log10(array) if scale == "log" else -np.log10(1.0 - array)


def _off_scale(places: FloatArray, scale: Scale) -> FloatArray:
    if scale == "linear":
        return places
    found: FloatArray = 10.0**places if scale == "log" else 1.0 - 10.0**-places
    return found


def _curve(levels: Sequence[Level], scale: Scale, found: StudyVerdict) -> Curve:
    places = on_scale([level.value for level in levels], scale)
    fine = np.unique(np.concatenate([np.linspace(places[0], places[-1], POSITIONS), places]))
    means = np.array([level.difference for level in levels], dtype=np.float64)
    weights = spline_weights(places, fine, smoothing(places, means, _noise(levels, found)))
    band = project(weights, np.array([level.interval for level in levels], dtype=np.float64))
    values = _off_scale(fine, scale)
    return Curve(*(tuple(map(float, line)) for line in (values, weights @ means, *band)))


def _noise(levels: Sequence[Level], found: StudyVerdict) -> float:
    """Variance of an arm's own mean, without the reference's, over these arms."""
    arms = {level.arm for level in levels}
    rows = [row for row in found.comparisons if row.arm in arms and row.sd is not None]
    variances = [row.sd**2 / row.seeds for row in rows if row.sd is not None]
    # A paired difference has the noise of two runs.
    return float(np.mean(variances)) / (2 if found.paired else 1) if variances else 0.0


def spline_weights(places: FloatArray, at: FloatArray, amount: float) -> FloatArray:
    """Weights of a natural cubic smoothing spline, (at, places): its curve at ``at`` is weights @ values.

    The spline minimizes the sum of squared residuals plus the amount times the integral of its squared second
    derivative.

    Args:
        places: ascending, three or more.
        at: where the curve is wanted, within the places.
        amount: 0 for a curve through all values, infinite for a straight line.
    """
    from scipy.interpolate import CubicSpline  # noqa: PLC0415  (slow to load, and only grids need it)

    basis = CubicSpline(places, np.eye(len(places)), bc_type="natural")
    roughness, axes = _roughness(places)
    found: FloatArray = basis(at) @ (axes * _kept(roughness, amount)) @ axes.T
    return found


def smoothing(places: FloatArray, values: FloatArray, noise: float) -> float:
    """Choose the amount of smoothing with the smallest C_p = residual sum of squares / noise + 2 trace - values.

    Args:
        places: ascending, three or more.
        values: at these, with independent noise of one variance beside what they all share.
        noise: that variance; without any nothing is smoothed.
    """
    roughness, axes = _roughness(places)
    along = axes.T @ values

    def risk(amount: float) -> float:
        kept = _kept(roughness, amount)
        return float((((1.0 - kept) * along) ** 2).sum() + 2.0 * noise * kept.sum())

    amounts = _SMOOTHING / roughness[2]  # the smallest but for those of straight lines, which are 0
    return float(min(amounts, key=risk)) if noise > 0.0 else 0.0


def _roughness(places: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Eigenvalues, ascending, and eigenvectors of the integral of a natural spline's squared second derivative."""
    from scipy.interpolate import CubicSpline  # noqa: PLC0415  (slow to load, and only grids need it)

    steps = np.diff(places)
    bends = CubicSpline(places, np.eye(len(places)), bc_type="natural")(places, 2)  # linear between the places
    squares = np.zeros((len(places), len(places)))  # integrals of products of such lines
    for index, step in enumerate(steps):
        squares[index : index + 2, index : index + 2] += step / 6.0 * np.array([[2.0, 1.0], [1.0, 2.0]])
    roughness, axes = np.linalg.eigh(bends.T @ squares @ bends)
    roughness[:2] = 0.0  # a straight line has none
    return roughness, axes


def _kept(roughness: FloatArray, amount: float) -> FloatArray:
    """What smoothing leaves of the values along each eigenvector."""
    return (roughness == 0.0).astype(np.float64) if np.isinf(amount) else 1.0 / (1.0 + amount * roughness)


class Band(NamedTuple):
    """The two ends of a band, each of the shape of its curve."""

    low: FloatArray
    high: FloatArray


def project(weights: FloatArray, intervals: FloatArray) -> Band:
    """Bound weighted sums of numbers that lie within intervals, (..., numbers, 2)."""
    up, down = np.maximum(weights, 0.0), np.minimum(weights, 0.0)
    low, high = intervals[..., 0], intervals[..., 1]
    return Band(
        np.einsum("pn,...n->...p", up, low) + np.einsum("pn,...n->...p", down, high),
        np.einsum("pn,...n->...p", up, high) + np.einsum("pn,...n->...p", down, low),
    )
