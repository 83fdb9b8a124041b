"""Where a study's noise comes from: the runs of each arm on the grid that ``[noise]`` lays out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fairtrial.spec import Noise, Study
from fairtrial.stats.comparison import question
from fairtrial.stats.components import NoiseComponents, noise_components
from fairtrial.stats.paired import PairedData
from fairtrial.trial import TrialResult


@dataclass(frozen=True)
class ArmNoise:
    """The variance between the runs of one arm.

    Attributes:
        arm: the arm's name.
        components: its parts; None if too few runs have a result.
        runs: runs with a result that the parts rest on.
        left_out: runs with a result that they do not, because others of the same row or column have none.
    """

    arm: str
    components: NoiseComponents | None
    runs: int
    left_out: int


def split_noise(study: Study, results: Sequence[TrialResult], *, metric: str | None = None) -> tuple[ArmNoise, ...]:
    """Split the variance between runs into what initial weights and batch order add, for each arm.

    A run without a result leaves a hole in the grid; its set of weights or its order of batches is left out then,
    whichever costs fewer runs.

    Args:
        study: the study.
        results: what the store knows of its trials, in any order.
        metric: a measure; the study's own by default.

    Returns:
        One an arm, in the study's order; empty for a study without ``[noise]``, where nothing can be told apart.
    """
    if study.noise == Noise():
        return ()
    asked = question(study, metric)
    cells = PairedData.of(study, results, asked.metric, asked.target)
    return tuple(_arm(study, arm.name, cells) for arm in study.arms)


def _arm(study: Study, arm: str, cells: PairedData) -> ArmNoise:
    values = {study.noise.of(seed): value for (name, seed), value in cells.values.items() if name == arm}
    weights, orders = (
        max((study.noise.of(seed)[which] for seed in range(study.seeds)), default=0) + 1 for which in (0, 1)
    )
    grid = np.full((weights, orders), np.nan)
    for place, value in values.items():
        grid[place] = value
    whole = _without_holes(grid)
    enough = whole.size >= 2
    components = noise_components(whole) if enough else None
    runs = int(whole.size) if enough else 0
    return ArmNoise(arm, components, runs, len(values) - runs)


def _without_holes(
    grid: np.ndarray[tuple[int, int], np.dtype[np.float64]],
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Leave out rows and columns until no run is missing."""
    while np.isnan(grid).any():
        holes = np.isnan(grid)
        rows, columns = holes.mean(axis=1), holes.mean(axis=0)
        if rows.max() >= columns.max():
            grid = np.delete(grid, rows.argmax(), axis=0)
        else:
            grid = np.delete(grid, columns.argmax(), axis=1)
    return grid
