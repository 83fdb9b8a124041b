"""Error rates, coverage and cost of the verdicts, by simulation; prints Markdown tables.

python benchmarks/stats.py                        # 20,000 studies a row, a few minutes
python benchmarks/stats.py --studies 50000        # the tables in docs/evidence.md
python benchmarks/stats.py --only adastop --permutations 1000    # needs the package adastop

A study has four arms and a reference, looks after every seed from 3 to 12 and alpha = 5%, unless a row says otherwise.
Effects and margins are in standard deviations of a paired difference.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from fairtrial.stats.boundary import boundary
from fairtrial.stats.looks import LookPlan
from fairtrial.stats.sequential import EQUIVALENT, HIGHER, LOWER, UNDECIDED, Judged, judge_many
from fairtrial.stats.variance import Pooling

Array = npt.NDArray[np.float64]

ARMS, LOOKS, ALPHA = 4, tuple(range(3, 13)), 0.05
EFFECTS = (0.0, 0.5, 1.0, 2.0, 4.0)
CHUNK = 10_000

#: Noise of unit variance and zero mean.
NOISE: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Array]] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "t, 3 df": lambda rng, shape: rng.standard_t(3, shape) / np.sqrt(3),
    "exponential": lambda rng, shape: rng.exponential(size=shape) - 1.0,
    "lognormal": lambda rng, shape: (rng.lognormal(size=shape) - np.exp(0.5)) / np.sqrt(np.e * (np.e - 1.0)),
}


@dataclass(frozen=True)
class World:
    """The distribution of the paired differences of a simulated study.

    Attributes:
        noise: a key of `NOISE`.
        spread: standard deviation of the reference's noise, then of each arm's; 1 for the arms not listed.
        direct: draw the differences themselves, independently for each arm, so that skewness does not cancel.
        arms: number of arms.
        scaled: the spreads multiply whole differences of equally noisy cells, instead of the cells.
    """

    noise: str = "normal"
    spread: tuple[float, ...] = ()
    direct: bool = False
    arms: int = ARMS
    scaled: bool = False

    @property
    def label(self) -> str:
        """Its name in tables."""
        parts = [self.noise + (", differences themselves" if self.direct else "")]
        if self.spread:
            parts.append(
                ("scaled " if self.scaled else "spread ") + " : ".join(f"{value:.2g}" for value in self._spread)
            )
        if self.arms != ARMS:
            parts.append(f"{self.arms} arm" + "s" * (self.arms > 1))
        return ", ".join(parts)

    @property
    def _spread(self) -> tuple[float, ...]:
        return (*self.spread, *[1.0] * (self.arms + 1 - len(self.spread)))

    def draw(self, rng: np.random.Generator, studies: int) -> Array:
        """Differences without true differences, (studies, seeds, arms), of unit variance where all spreads are 1."""
        if self.direct:
            return NOISE[self.noise](rng, (studies, LOOKS[-1], self.arms))
        cells = NOISE[self.noise](rng, (studies, LOOKS[-1], self.arms + 1))
        spread = np.array(self._spread)
        if self.scaled:
            return (cells[..., 1:] - cells[..., :1]) * spread[1:] / np.sqrt(2.0)
        return (cells[..., 1:] * spread[1:] - cells[..., :1] * spread[0]) / np.sqrt(2.0)


PLAIN = [World(name) for name in NOISE]
UNEQUAL = [
    World(spread=(1, 3)),
    World(spread=(1, 3, 3)),
    World(spread=(1, 3, 3, 3, 3)),
    World(spread=(3,)),
    World(spread=(1, 1 / 3)),
    World(spread=(1, 9)),
    World(spread=(10,)),
    World(spread=(1, 3, 3), scaled=True),
    World(spread=(1, 10, 10), scaled=True),
    World(spread=(5,), arms=2),
    World(spread=(1, 10), arms=2),
    World(spread=(3,), arms=10),
    World(spread=(1, 10, 10), arms=10),
    World(spread=(1, 3, 3, 3, 3, 3), arms=10, scaled=True),
    World("t, 3 df", spread=(1, 3)),
    World("exponential", spread=(1, 3)),
    World("lognormal", spread=(1, 3)),
]
DIRECT = [World(name, direct=True) for name in NOISE]
SIZES = [World(name, arms=arms) for arms in (1, 2, 10) for name in ("normal", "lognormal")]


def draws(world: World, studies: int, seed: int) -> Iterator[Array]:
    """Chunks of studies of a world."""
    rng = np.random.default_rng(seed)
    for start in range(0, studies, CHUNK):
        yield world.draw(rng, min(CHUNK, studies - start))


def judged(
    world: World, options: argparse.Namespace, effects: float | Sequence[float] = 0.0, **how: object
) -> Iterator[tuple[Judged, Array]]:
    """Judged chunks of a world's studies, and the true differences."""
    pooling: Pooling = how.pop("pooling", "guarded")  # type: ignore[assignment]
    looks = how.pop("looks", LOOKS)
    plan = LookPlan.of(world.arms, looks, pooling)  # type: ignore[arg-type]
    truth = np.broadcast_to(np.asarray(effects, dtype=np.float64), (world.arms,))
    for chunk in draws(world, options.studies, options.seed):
        yield judge_many(chunk + truth, plan, ALPHA, **how), truth  # type: ignore[arg-type]


def percent(hits: Array | npt.NDArray[np.bool_]) -> str:
    """A rate with its standard error."""
    rate = float(np.mean(hits))
    return f"{100 * rate:.2f} ± {100 * np.sqrt(rate * (1 - rate) / len(hits)):.2f}"


def false_verdicts(world: World, options: argparse.Namespace, **how: object) -> npt.NDArray[np.bool_]:
    """Which studies without true differences call some arm better or worse."""
    return np.concatenate([(found.finding != UNDECIDED).any(axis=1) for found, _ in judged(world, options, **how)])


def coverage(world: World, options: argparse.Namespace, effects: Sequence[float]) -> npt.NDArray[np.bool_]:
    """Which studies have every arm's reported interval around its true difference."""
    return np.concatenate(
        [
            ~(np.abs(found.mean - truth) > found.half_width).any(axis=1)
            for found, truth in judged(world, options, effects, margin=1.0)
        ]
    )


def false_equivalence(world: World, options: argparse.Namespace, margin: float) -> npt.NDArray[np.bool_]:
    """Which studies call some arm equivalent where all differ by the margin."""
    return np.concatenate(
        [(found.finding == EQUIVALENT).any(axis=1) for found, _ in judged(world, options, margin, margin=margin)]
    )


def errors(options: argparse.Namespace) -> None:
    """Error rates and coverage of `judge` as it is."""
    print("| noise | any false better or worse, % | all intervals cover, % | any false equivalent at margin 1 | at 2 |")
    print("| -- | -- | -- | -- | -- |")
    for world in [*PLAIN, *SIZES, *UNEQUAL, *DIRECT]:
        mixed = np.resize([0.0, 0.5, 1.0, 2.0], world.arms)
        cells = [
            percent(false_verdicts(world, options)),
            percent(coverage(world, options, mixed)),
            *(percent(false_equivalence(world, options, margin)) for margin in (1.0, 2.0)),
        ]
        print("|", world.label, "|", " | ".join(cells), "|", flush=True)


def pooling(options: argparse.Namespace) -> None:
    """What pooling gains and risks."""
    kinds: tuple[Pooling, ...] = ("own", "pooled", "guarded")
    print("| noise |", " | ".join(f"false better or worse, {kind}" for kind in kinds), "|\n|", "-- | " * 4)
    for world in [*PLAIN, *UNEQUAL, *DIRECT, *SIZES[-2:]]:
        cells = [f"{100 * false_verdicts(world, options, pooling=kind).mean():.1f}" for kind in kinds]
        print("|", world.label, "|", " | ".join(cells), "|", flush=True)
    print("\nSeeds until the last arm, of spread 1, has its verdict, and how often it gets one:\n")
    print("| spread | effect |", " | ".join(kinds), "|\n|", "-- | " * 5)
    for world in [World(), World(spread=(1, 3)), World(spread=(1, 9)), World(spread=(3,)), World(arms=10)]:
        for effect in EFFECTS[2:]:
            cells = []
            for kind in kinds:
                found = [result for result, _ in judged(world, options, effect, pooling=kind)]
                seeds = np.concatenate([np.array(LOOKS)[result.look[:, -1]] for result in found])
                right = np.concatenate([result.finding[:, -1] == HIGHER for result in found])
                cells.append(f"{seeds.mean():.1f} seeds, {100 * right.mean():.0f}%")
            print("|", world.label, "|", f"{effect:g}", "|", " | ".join(cells), "|", flush=True)


def trials(seeds: npt.NDArray[np.int64]) -> Array:
    """Trials of each study: every arm until it settles, the reference until the last arm does."""
    return np.asarray(seeds.sum(axis=1) + seeds.max(axis=1), dtype=np.float64)


def by_judge(chunk: Array, how: Pooling, looks: Sequence[int], margin: float | None) -> tuple[Array, Array]:
    """Seeds that each arm takes and the finding about it, by `judge`."""
    found = judge_many(chunk, LookPlan.of(chunk.shape[2], looks, how), ALPHA, margin)
    return np.array(looks)[found.look], found.finding


def by_two_intervals(chunk: Array, margin: float | None) -> tuple[Array, Array]:
    """Like `judge`, but with wider alpha for equivalence: two one-sided tests of alpha each."""
    strict = judge_many(chunk, LookPlan.of(chunk.shape[2], LOOKS), ALPHA, margin)
    loose = judge_many(chunk, LookPlan.of(chunk.shape[2], LOOKS), 2 * ALPHA, margin)
    sooner = (loose.finding == EQUIVALENT) & ((strict.finding == UNDECIDED) | (loose.look < strict.look))
    return np.array(LOOKS)[np.where(sooner, loose.look, strict.look)], np.where(sooner, EQUIVALENT, strict.finding)


def by_statistic(chunk: Array, exceeds: Callable[[Array, int], Array]) -> tuple[Array, Array]:
    """The same by a rule on each arm's own t statistic at each look; no equivalence."""
    seeds, finding = np.full((len(chunk), chunk.shape[2]), LOOKS[-1]), np.zeros((len(chunk), chunk.shape[2]), int)
    for look in reversed(LOOKS):
        part = chunk[:, :look]
        t = part.mean(axis=1) / part.std(axis=1, ddof=1) * np.sqrt(look)
        hit = exceeds(t, look)
        seeds[hit], finding[hit] = look, np.where(t > 0, HIGHER, LOWER)[hit]
    return seeds, finding


def bonferroni(t: Array, look: int) -> Array:
    """Equal shares of alpha for every arm and look."""
    return np.abs(t) > -special.stdtrit(look - 1, ALPHA / (2 * t.shape[1] * len(LOOKS)))


def anytime(t: Array, look: int) -> Array:
    """A test martingale for the t statistic: effects mixed over a normal with the variance of the noise (Lai 1976)."""
    df, grown = look - 1, 1.0 + look
    log_ratio = np.log1p(t**2 / df) - np.log1p(t**2 / (df * grown))
    return -0.5 * np.log(grown) + 0.5 * look * log_ratio > np.log(t.shape[1] / ALPHA)


RULES: dict[str, Callable[[Array, float | None], tuple[Array, Array]]] = {
    "judge": lambda chunk, margin: by_judge(chunk, "guarded", LOOKS, margin),
    "judge, 90% for equivalence": by_two_intervals,
    "own spread": lambda chunk, margin: by_judge(chunk, "own", LOOKS, margin),
    "own, Bonferroni": lambda chunk, _: by_statistic(chunk, bonferroni),
    "own, anytime-valid": lambda chunk, _: by_statistic(chunk, anytime),
    "12 seeds, one look": lambda chunk, margin: by_judge(chunk, "guarded", LOOKS[-1:], margin),
    "12 seeds, own spread": lambda chunk, margin: by_judge(chunk, "own", LOOKS[-1:], margin),
}


WITHOUT_MARGIN = set(RULES) - {"judge, 90% for equivalence"}
WITH_MARGIN = {"judge", "judge, 90% for equivalence", "own spread", "12 seeds, one look"}


def savings(options: argparse.Namespace) -> None:
    """Trials used and verdicts found, all arms having the same effect."""
    for margin in (None, 1.0):
        rules = [name for name in RULES if name in (WITH_MARGIN if margin else WITHOUT_MARGIN)]
        print(f"\nMargin {margin or 'none'}: trials of a study, and arms with a verdict (and with a false one)\n")
        print("| effect |", " | ".join(rules), "|\n|", "-- | " * (len(rules) + 1))
        for effect in EFFECTS:
            cells = []
            for name in rules:
                results = [
                    RULES[name](chunk + effect, margin) for chunk in draws(World(), options.studies, options.seed)
                ]
                used = np.concatenate([trials(seeds) for seeds, _ in results])
                finding = np.concatenate([finding for _, finding in results])
                decided = finding != UNDECIDED
                false = decided & (finding != HIGHER if effect else finding != EQUIVALENT)
                if margin and effect < margin:
                    false &= finding != EQUIVALENT
                cells.append(f"{used.mean():.1f}, {100 * decided.mean():.1f}% ({100 * false.mean():.2f}%)")
            print("|", f"{effect:g}", "|", " | ".join(cells), "|", flush=True)


def adastop_study(cells: Array, size: int, looks: int, permutations: int) -> tuple[int, list[str]]:
    """Trials and decisions of adastop on one study's (seeds, reference and arms) values."""
    from adastop import MultipleAgentsComparator  # noqa: PLC0415  (only this part needs it)

    names = [f"arm {index}" for index in range(cells.shape[1])]
    pairs = np.array([(0, index) for index in range(1, len(names))])
    judge = MultipleAgentsComparator(n=size, K=looks, B=permutations, comparisons=pairs, alpha=ALPHA, seed=0)
    values = {name: np.empty(0) for name in names}
    for look in range(looks):
        for index, name in enumerate(names):
            if look == 0 or index in np.ravel(judge.current_comparisons):
                values[name] = np.append(values[name], cells[look * size : (look + 1) * size, index])
        judge.partial_compare(values, verbose=False)
        if judge.is_finished:
            break
    return sum(map(len, values.values())), [judge.decisions[str(pair)] for pair in pairs]


def adastop(options: argparse.Namespace) -> None:
    """Compare the package adastop with `judge` on the same studies; it calls arms that it did not reject equal."""
    designs = ((3, 4), (6, 2))
    print(f"{3 * options.adastop} studies in the first row, {options.adastop} in the others.\n")
    heads = ["judge", "judge, margin 1", *(f"adastop, {looks} looks of {size} seeds" for size, looks in designs)]
    print("| shared seed noise | effect |", " | ".join(heads), "|\n|", "-- | " * (len(heads) + 2))
    for shared, effect in [*((0.0, effect) for effect in EFFECTS), (2.0, 1.0), (2.0, 2.0)]:
        rng = np.random.default_rng(options.seed)
        studies = options.adastop * (1 if effect else 3)  # an error rate needs more than a power
        cells = rng.standard_normal((studies, LOOKS[-1], ARMS + 1)) / np.sqrt(2.0)
        cells[..., 1:] += effect
        cells += shared * rng.standard_normal((studies, LOOKS[-1], 1))
        row = []
        for margin in (None, 1.0):
            seeds, finding = by_judge(cells[..., 1:] - cells[..., :1], "guarded", LOOKS, margin)
            row.append(_cell(trials(seeds), finding == HIGHER, finding == LOWER, finding == EQUIVALENT, effect))
        for size, looks in designs:
            results = [adastop_study(study, size, looks, options.permutations) for study in cells]
            used = np.array([count for count, _ in results])
            answers = np.array([decisions for _, decisions in results])
            # It compares the reference with the arm, so "smaller" means that the arm is better.
            row.append(_cell(used, answers == "smaller", answers == "larger", answers == "equal", effect))
        print("|", f"{shared:g}", "|", f"{effect:g}", "|", " | ".join(row), "|", flush=True)


def _cell(used: Array, better: Array, worse: Array, equal: Array, effect: float) -> str:
    error = f", any false {percent((better | worse).any(axis=1))}" if effect == 0 else ""
    return f"{used.mean():.1f} trials, better {100 * better.mean():.0f}%, equal {100 * equal.mean():.0f}%{error}"


def speed(options: argparse.Namespace) -> None:
    """Time the judging."""
    start = time.perf_counter()
    boundary(LookPlan.of(ARMS, LOOKS))
    simulated = time.perf_counter()
    false_verdicts(World(), options)
    print(f"Boundary of a plan: {simulated - start:.1f} s, once a process. {options.studies} studies judged, with")
    print(f"drawing them: {time.perf_counter() - simulated:.1f} s.")


PARTS = {"speed": speed, "errors": errors, "pooling": pooling, "savings": savings, "adastop": adastop}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=20_000, help="simulated studies a row")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=PARTS, action="append", help="print this part; may be repeated")
    parser.add_argument("--adastop", type=int, default=100, help="simulated studies a row for adastop, which is slow")
    parser.add_argument("--permutations", type=int, default=10_000, help="adastop's B; 10,000 is its own default")
    options = parser.parse_args()
    for name in options.only or [part for part in PARTS if part != "adastop"]:
        print(f"\n## {name}\n")
        PARTS[name](options)


if __name__ == "__main__":
    main()
