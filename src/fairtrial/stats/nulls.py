"""Simulated studies without true differences, from which levels are solved."""

from collections.abc import Iterator, Sequence

import numpy as np
from scipy import special

from fairtrial.stats.variance import FloatArray, Pooling, complete

CHUNK = 1_000
SEED = 20_240_601


def noise(seeds: int, cells: int, studies: int) -> Iterator[FloatArray]:
    """Yield standard normal noise, (studies, seeds, cells), in chunks that fit the cache.

    Fewer seeds or cells are a part of more, so that nested plans are solved on the same numbers.
    """
    for chunk in range(studies // CHUNK):
        rngs = (np.random.default_rng([SEED, chunk, seed]) for seed in range(seeds))
        yield np.stack([rng.standard_normal((cells, CHUNK)).T for rng in rngs], axis=1)


def significances(values: FloatArray, looks: Sequence[int], pooling: Pooling, apart: Sequence[int] = ()) -> FloatArray:
    """Smallest two-sided p-value of any arm at each look, (studies, looks), of (studies, seeds, reference and arms).

    Arms ``apart``, numbered from 1, are tested by their own spread.
    """
    differences = values[..., 1:] - values[..., :1]
    alone = [arm - 1 for arm in apart]
    together = [arm for arm in range(differences.shape[2]) if arm not in alone]
    groups: list[tuple[list[int], Pooling]] = [(together, pooling), (alone, "own")]
    seeds = np.array(looks)
    found = np.ones((len(values), len(seeds)))
    for arms, kind in groups:
        if arms:
            mean, scale = complete(differences[..., arms], looks, kind)
            t = np.abs(mean / scale).max(axis=2) * np.sqrt(seeds)
            df = (seeds - 1) * (1 if kind == "own" else len(arms))
            found = np.minimum(found, 2.0 * special.stdtr(df, -t))
    return found
