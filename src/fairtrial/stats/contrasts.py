"""Differences between any arms of a study, or of its arms from a constant, by the looks that the study planned.

A sequential study stops arms by its main question. Every other difference ends where one of its two arms does: its
interval is that of the last planned look within the seeds that both have. Intervals of all looks hold at once, so this
look may depend on the results.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from fairtrial.spec import Evidence, Study
from fairtrial.stats.alerts import outlier_alerts
from fairtrial.stats.comparison import StudyVerdict
from fairtrial.stats.identical import Sameness, without_difference
from fairtrial.stats.judge import judge, without_outlook
from fairtrial.stats.paired import LostSeeds, PairedData, seed_list
from fairtrial.stats.pairing import pairing_caveats, pairing_conflict
from fairtrial.stats.stopping import allowed
from fairtrial.stats.variance import FloatArray
from fairtrial.stats.verdicts import Comparison, Verdict
from fairtrial.trial import TrialResult


class Contrasts:
    """Compares arms of a study on one measure, whatever its main question is.

    Args:
        study: the study.
        results: of its trials.
        main: the verdict on its main question, which says how many seeds are complete.
        evidence: measure, margin, direction and target; alpha is given to each method.
    """

    def __init__(
        self, study: Study, results: Sequence[TrialResult], main: StudyVerdict, evidence: Evidence | None = None
    ) -> None:
        self.study, self.results, self.main = study, results, main
        self.evidence = evidence or study.evidence
        self.data = PairedData.of(study, results, self.evidence.metric, self.evidence.target).sifted(main.seeds)
        self._sameness = Sameness(results, self.data.values)

    def with_base(self, base: str, others: Sequence[str], alpha: float, *, margin: float | None = None) -> StudyVerdict:
        """Compare arms with any one of them; the intervals of all the others together hold with 1 - alpha."""
        refused = {arm: why for arm in others if (why := pairing_conflict(self.study, base, arm, self.results))}
        table = self.data.differences(base, others, self.main.seeds)
        same = {arm: self._sameness.seeds(base, arm) for arm in others}
        table[:, [bool(arm in refused or same[arm]) for arm in others]] = np.nan
        ended = [self.together({base, arm}) for arm in others]
        judged = self.judge_columns(table, ended, others, alpha, margin, apart=self.apart)
        judged = [without_difference(row, base, same[row.arm], margin) if same[row.arm] else row for row in judged]
        rows = [
            refuse(row, refused[row.arm])
            if row.arm in refused
            else self.with_losses(row, base, self.data.lost_seeds(row.arm, base))
            for row in judged
        ]
        return self._verdict(base, rows, alpha, margin, refused)

    def with_constant(self, value: float, name: str, alpha: float, *, one_sided: bool = False) -> StudyVerdict:
        """Compare every arm's mean with a constant, each by the spread of its own values alone.

        The arms share alpha equally. One-sided, each uses twice its part for a two-sided interval, of which only the
        side on which the arm is better counts.
        """
        arms = [arm.name for arm in self.study.arms]
        part = alpha / len(arms) * (2 if one_sided else 1)
        margin = None if one_sided else self.evidence.margin
        rows = []
        for arm in arms:
            ended = self.together({arm})
            values = [[self.data.values.get((arm, seed), np.nan) - value] for seed in range(ended)]
            table = np.array(values, dtype=np.float64).reshape(ended, 1)
            (row,) = self.judge_columns(table, [ended], [arm], part, margin)
            p = row.p_adjusted and min(row.p_adjusted * alpha / part, 1.0)
            if one_sided and not self._better(row):
                # It heads for the side that is not asked about: no evidence, and no seeds would settle it.
                row, p = _not_better(row), None if p is None else 1.0
            lost = LostSeeds(tuple(sorted(seed for which, seed in self.data.lost if which == arm)), ())
            rows.append(replace(self.with_losses(row, name, lost), p_adjusted=p))
        return self._verdict(name, rows, 2 * alpha if one_sided else alpha, margin, {})

    @property
    def arms(self) -> list[str]:
        """The arms of the study, without A/A arms, which are another arm under a second name."""
        return [arm.name for arm in self.study.arms if arm.name not in self.study.twins]

    @property
    def apart(self) -> frozenset[str]:
        """The arms whose spread tells nothing of others': A/A arms, and those with runs far ahead."""
        return frozenset({*self.study.twins, *(arm for arm, _ in self.data.outliers.ahead)})

    def together(self, arms: Collection[str]) -> int:
        """Count the complete seeds of the study for which these arms went on."""
        if not self.study.sequential:
            return self.main.seeds
        apart = (seed for seed in range(self.main.seeds) if not {(arm, seed) for arm in arms} <= self.data.ended)
        return next(apart, self.main.seeds)

    def judge_columns(
        self,
        table: FloatArray,
        ended: Sequence[int],
        names: Sequence[str],
        alpha: float,
        margin: float | None,
        *,
        apart: Collection[str] = (),
    ) -> list[Comparison]:
        """Judge each column at the last planned look within its seeds, some by their own spread alone."""
        planned = self.main.looks or (2,)
        cuts = [max((look for look in planned if look <= seeds), default=seeds) for seeds in ended]
        judged = {
            cut: judge(
                table[:cut],
                margin,
                alpha,
                planned,
                arms=names,
                larger_is_better=self.evidence.larger_is_better,
                pooling=self.study.evidence.pooling or "guarded",
                apart={*apart} & {*names},
                share=self.main.part,  # what earlier looks have spent is left to them, whatever they asked
            )
            for cut in set(cuts)
        }
        return [judged[cut][column] for column, cut in enumerate(cuts)]

    def with_losses(self, row: Comparison, base: str, lost: LostSeeds) -> Comparison:
        """Add caveats, and withdraw a verdict that lost seeds count against."""
        verdict = allowed(row.verdict, lost)
        own = [f"It lost {seed_list(lost.arm)}, which counts against it."] if lost.arm else []
        own += [f"{base} lost {seed_list(lost.other)}, which counts for it."] if lost.other else []
        if verdict is not row.verdict:
            own.append(f"Its other seeds say {row.verdict.value}, but the lost seeds leave it undecided.")
        arms = {arm.name for arm in self.study.arms}
        paired = pairing_caveats(self.study, row.arm, self.results, other=base) if base in arms else ()
        more = row.more_seeds if verdict is row.verdict else None
        judged = row.caveats if self.main.looks else ()  # with one seed there is no look to wait for
        return replace(row, verdict=verdict, more_seeds=more, caveats=(*own, *judged, *paired))

    def _better(self, row: Comparison) -> bool:
        return row.mean_difference is not None and (row.mean_difference > 0) == self.evidence.larger_is_better

    def _verdict(
        self, base: str, rows: Sequence[Comparison], alpha: float, margin: float | None, refused: dict[str, str]
    ) -> StudyVerdict:
        unit = self.study.measure(self.evidence.metric).unit
        return replace(
            self.main,
            reference=base,
            metric=self.evidence.metric,
            unit=unit,
            larger_is_better=self.evidence.larger_is_better,
            margin=margin,
            alpha=alpha,
            comparisons=tuple(rows),
            lost=self.data.losses,
            refused=refused,
            jitter=None,
            alerts=tuple(dict.fromkeys([*outlier_alerts(self.data, unit), *self.main.alerts])),
        )


def _not_better(row: Comparison) -> Comparison:
    """Leave a one-sided comparison undecided, without an outlook."""
    return replace(row, verdict=Verdict.UNDECIDED, more_seeds=None, caveats=without_outlook(row.caveats))


def refuse(row: Comparison, why: str) -> Comparison:
    """Replace a comparison of trials that are not paired."""
    refusal = (f"Refused: {why}.",)
    return Comparison(row.arm, 0, None, None, None, None, None, None, None, Verdict.UNDECIDED, None, refusal)
