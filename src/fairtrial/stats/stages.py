"""Where a study's looks stand among earlier looks at the same trials, and the error rate that is left for them.

A look at trials that were looked at before is no new test: looks after 3, 5, 8 and 12 seeds at 5% each err in 14% of
studies. So looks are counted. The first spends 0.7 of alpha. Whoever adds seeds later goes on with a plan of looks
after every number of seeds up to a horizon (12 after a first look at 3), which together spend 0.7 of the rest; then
with another such plan. These plans follow from the first number of seeds alone. So it does not matter at which seeds
someone looks, nor whether that depends on what they saw.

A planned range of seeds and ``final = true`` spend all that is left; a study after that has no error rate of its own,
and is exploratory.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from fairtrial.history import History, Registered
from fairtrial.question import arm_digests, measure_key, planned_looks
from fairtrial.spec import Study, Target
from fairtrial.stats.looks import REMAINDER, Stage


@dataclass(frozen=True)
class Standing:
    """How a study's looks at one measure stand among earlier ones; `judge` takes ``earlier`` and ``share``."""

    number: int  # 1 for the first study that looks at these trials
    looks: tuple[int, ...]  # the plan that these looks are a part of
    share: float  # of alpha, that these looks and the earlier ones may spend together
    earlier: tuple[Stage, ...] = ()
    spent: Mapping[str, str] = field(default_factory=dict)  # by arm: why no error rate is left for it
    whole: bool = False  # whether that is so for every arm

    @property
    def part(self) -> float:
        """The part of alpha that these looks add to what the earlier ones have spent."""
        return self.share - (self.earlier[-1].share if self.earlier else 0.0)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why verdicts are exploratory; for which arms, where others have some error rate left."""
        arms: dict[str, list[str]] = {}
        for arm, reason in self.spent.items():
            arms.setdefault(reason, []).append(arm)
        return tuple(reason if self.whole else f"{reason} (for {', '.join(names)})" for reason, names in arms.items())


#: Why a look at fewer seeds than were looked at before shows nothing new.
_FEWER = "these trials were looked at with more seeds before"

#: Why a look at the same seeds, at some of the arms that were looked at before, is no test of its own.
_LEFT_OUT = "an arm was left out after these trials were looked at"


def standing(
    study: Study,
    history: History | None,
    metric: str,
    target: Target | None,
    *,
    base: str | None = None,
    seeds: int | None = None,
) -> Standing:
    """Find how a study's looks stand.

    Args:
        study: the study.
        history: what was asked of its trials before; None for nothing.
        metric: the measure in question.
        target: what the measure needs, if it needs it.
        base: the arm that the others are compared with by claims; without it, they are compared with the reference by
            verdicts, and earlier studies are taken to have compared theirs with their own.
        seeds: a fixed number of seeds to look at, instead of the study's own.

    Returns:
        The standing. Where no error rate is left for any arm, it is that of a first and only look.
    """
    digests = arm_digests(study)
    family = digests[base] if base else None
    base = base or study.reference
    others = [arm.name for arm in study.arms if arm.name != base] or [base]  # one arm is compared with a constant
    before = () if history is None else history.looked_at(measure_key(metric, target))
    spending = [stage for stage in before if stage.question.spends_all]
    spent = {arm: said for arm in others if (said := _spent(spending, digests[base], digests[arm]))}
    spent = ({} if family else _turned(before, digests, others)) | spent
    number = len(before) + 1
    looks = planned_looks(study.min_seeds, study.seeds) if seeds is None else planned_looks(seeds, seeds)
    if len(spent) == len(others):
        return Standing(number, looks, 1.0, (), spent, whole=True)
    cells = {digests[name]: cell for cell, name in enumerate(dict.fromkeys([base, *others]))}
    counted = [stage for stage in before if not stage.question.spends_all]
    spends_all = (study.sequential and seeds is None) or bool(study.evidence.final) or study.evidence.unpaired
    if not counted or not looks:
        return Standing(number, looks, 1.0 if spends_all else _share(1), (), spent)
    reached, last = max(stage.question.looks[-1] for stage in counted), looks[-1]
    if spends_all and last < reached:
        return Standing(number, looks, 1.0, (), dict.fromkeys(others, _FEWER) | spent, whole=True)
    if any({*stage.question.arms} != {*digests.values()} for stage in counted):  # arms were added: by the looks taken
        spent = _seen_with_more(counted, digests, base, others, last) | spent
        if len(spent) == len(others):
            return Standing(number, looks, 1.0, (), spent, whole=True)
        earlier = tuple(_stage(stage, index, cells, family) for index, stage in enumerate(counted, start=1))
        return Standing(number, looks, 1.0 if spends_all else _share(len(counted) + 1), earlier, spent)
    first = _stage(counted[0], 1, cells, family)
    earlier = ()
    for index, planned in enumerate(_plans(first.looks[0]), start=1):
        fewer = {} if last >= planned[0] else dict.fromkeys(others, _FEWER)
        if spends_all and (reached < planned[0] or (last <= planned[-1] and (index > 1 or looks == planned))):
            whole_plan = tuple(range(planned[0], max(planned[-1], last) + 1))
            return Standing(number, whole_plan, 1.0, earlier, {**spent, **fewer}, whole=bool(fewer))
        if not spends_all and last <= planned[-1]:
            return Standing(number, planned, _share(index), earlier, {**spent, **fewer}, whole=bool(fewer))
        earlier = (*earlier, Stage(planned, _share(index), first.cells, first.pooling))
    raise AssertionError("plans have no end")


def _plans(first: int) -> Iterator[tuple[int, ...]]:
    """The plans of looks that follow from the first look at so many seeds, without end."""
    yield (first,)
    while True:
        horizon = first + max(9, 2 * first)
        yield tuple(range(first + 1, horizon + 1))
        first = horizon


def without(earlier: Sequence[Stage], arms: int, left_out: Collection[int]) -> tuple[Stage, ...]:
    """Number the arms of earlier stages anew for a plan that leaves some of its arms (from 1) out.

    Example:
        >>> without([Stage((3,), 0.7, cells=(0, 1, 2, 3))], 3, {1})[0].cells
        (0, 3, 1, 2)
    """
    order = [0, *(arm for arm in range(1, arms + 1) if arm not in left_out), *sorted(left_out)]
    numbers = {cell: number for number, cell in enumerate(order)}
    return tuple(replace(stage, cells=tuple(numbers.get(cell, cell) for cell in stage.cells)) for stage in earlier)


def _share(number: int) -> float:
    return float(1.0 - REMAINDER**number)


def _spent(stages: Sequence[Registered], base: str, arm: str) -> str:
    """Say which earlier stage left no error rate for a pair of arms; empty if none did."""
    found = next((stage.question for stage in stages if _has(stage, base, arm)), None)
    if found is None:
        return ""
    least, most = found.seeds
    plan = f"a plan of {least} to {most} seeds" if least < most else f"a final look at {most} seeds"
    return f"{plan} spent the error rate of these trials"


def _turned(before: Sequence[Registered], digests: Mapping[str, str], others: Sequence[str]) -> dict[str, str]:
    """The arms that were first compared with another reference: each reference has an error rate of its own."""
    reference, names = next(iter(digests.values())), {digest: name for name, digest in digests.items()}
    found = {}
    for arm in others:
        first = next((one.question.arms[0] for one in before if _has(one, reference, digests[arm])), reference)
        if first != reference:
            found[arm] = f"the reference was {names.get(first, 'another arm')} before"
    return found


def _seen_with_more(
    counted: Sequence[Registered], digests: Mapping[str, str], base: str, others: Sequence[str], last: int
) -> dict[str, str]:
    """The arms that were looked at with more seeds, or with as many and with arms that are now left out."""
    found = {}
    for arm in others:
        stages = [stage for stage in counted if _has(stage, digests[base], digests[arm])]
        if any(last < stage.question.looks[-1] for stage in stages):
            found[arm] = _FEWER
        elif any(
            last == stage.question.looks[-1] and not {*stage.question.arms} <= {*digests.values()} for stage in stages
        ):
            found[arm] = _LEFT_OUT
    return found


def _has(stage: Registered, *arms: str) -> bool:
    return {*arms} <= {*stage.question.arms}


def _stage(stage: Registered, number: int, cells: dict[str, int], base: str | None) -> Stage:
    """An earlier stage, its arms numbered as the plan's and then further."""
    arms = stage.question.arms
    if base in arms:
        arms = (base, *(arm for arm in arms if arm != base))
    numbers = tuple(cells.setdefault(arm, len(cells)) for arm in arms)
    pooling = stage.question.evidence.get("pooling") or "guarded"
    return Stage(stage.question.looks, _share(number), numbers, pooling)  # type: ignore[arg-type]  # was checked
