"""What can make a verdict false although its statistics are right: said before all verdicts, and in JSON."""

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

from fairtrial.measures import compares_times
from fairtrial.reads import unread_keys
from fairtrial.spec import Study
from fairtrial.spec.imported import IMPORTED_FROM
from fairtrial.spec.metrics import Unit
from fairtrial.stats.identical import identical_arms
from fairtrial.stats.joined import by_arm
from fairtrial.stats.paired import PairedData, seed_list
from fairtrial.stats.tuned import tuning_alerts
from fairtrial.stats.verdicts import Comparison, Verdict
from fairtrial.trial import CHOSEN, Outcome, TrialResult, kind_of_condition

#: Of more arms than these, only the number is said.
_NAMED = 3


def alerts(study: Study, results: Sequence[TrialResult]) -> tuple[str, ...]:
    """List what a reader must know before any verdict or claim of a study, a sentence each.

    Example:
        >>> alerts(study, results)
        ()
    """
    names = {arm.name for arm in study.arms}
    own = [one for one in results if one.arm in names]
    finished = [one for one in own if one.outcome is Outcome.FINISHED]
    return (
        *_imported(study, len(own)),
        *(() if study.imported else _partly_imported(own)),
        *_chosen(own),
        *_mixed_code(study, finished),
        *_mixed_conditions(finished),
        *_forced(own),
        *(() if study.imported else _ended_early(study, finished)),
        *identical_arms(study, results),
        *_helped(study, own),
        *_unread(study, own),
        *tuning_alerts(study),
    )


def _imported(study: Study, runs: int) -> Iterator[str]:
    """Say where imported runs come from, what their error rate means, and what is unknown of them."""
    if study.imported is not None:
        yield (
            f"{runs} run{'' if runs == 1 else 's'} of {study.imported.source}, made elsewhere: how often they were "
            f"looked at is unknown, so the error rate of {100 * study.question_alpha:.3g}% is that of one look at a "
            "number of runs that was fixed beforehand."
        )
        yield from study.imported.notes


def _partly_imported(results: Sequence[TrialResult]) -> Iterator[str]:
    """Say how many trials of a study of the user's own were imported, and from where."""
    systems = Counter(one.machine.system for one in results if one.machine.system.startswith(IMPORTED_FROM))
    for system, number in sorted(systems.items()):
        yield (
            f"{number} of {len(results)} trials were {system}, not trained here: their code, machine and pairing are "
            "unknown, and so is how often they were looked at before."
        )


def _ended_early(study: Study, finished: Sequence[TrialResult]) -> Iterator[str]:
    """Name the trials that recorded fewer epochs than their settings say, unless all trials recorded equally many."""
    if len({len(one.epochs) for one in finished}) < 2:
        return
    early, trials = [], by_arm(finished)
    for arm in study.arms:
        planned = arm.settings.training.epochs
        lengths = {one.seed: length for one in trials.get(arm.name, []) if (length := len(one.epochs)) < planned}
        if lengths:
            low, high = min(lengths.values()), max(lengths.values())
            after = f"{low}" if low == high else f"{low} to {high}"
            early.append(f"{arm.name} after {after} of {planned} epochs at {seed_list(sorted(lengths))}")
    if early:
        yield f"Trials ended early: {', '.join(early)}. Final values and times compare trainings of different lengths."


def _helped(study: Study, results: Sequence[TrialResult]) -> Iterator[str]:
    """Say in a study that compares times which trials idle cores have helped: for another study, or an earlier one."""
    trials = [one for one in results if any("helped_seconds" in record.metrics for record in one.epochs)]
    if trials and compares_times(study):
        named = ", ".join(f"{one.arm} seed {one.seed}" for one in trials[:_NAMED])
        more = ", ..." if len(trials) > _NAMED else ""
        yield f"Idle cores helped to train {named}{more}: times that they took do not compare with the others'."


def of_aa_arms(study: Study, rows: Sequence[Comparison]) -> tuple[str, ...]:
    """Say of which A/A arms there is a difference: by chance, or by a fault of the training loop or of its seeds."""
    return tuple(
        f"{row.arm} has the settings of {study.reference} (A/A) and yet is {row.verdict.value}: unless that is the "
        f"chance of {100 * study.question_alpha:.2g}%, a fault in the training loop makes differences where there are "
        "none."
        for row in rows
        if study.twins.get(row.arm) == study.reference and row.verdict in {Verdict.BETTER, Verdict.WORSE}
    )


def outlier_alerts(data: PairedData, unit: Unit) -> Iterator[str]:
    """Name the runs of each arm that are far from its others, with both means; see `stats.outliers`."""
    for found, where, so in (
        (data.outliers.behind, "behind", "they count as lost, and its numbers are those of the runs that work"),
        (data.outliers.ahead, "ahead of", "look at them"),
    ):
        for arm in dict.fromkeys(arm for arm, _ in found):
            far = {seed: value for (name, seed), value in sorted(found.items()) if name == arm}
            rest = [value for key, value in data.values.items() if key[0] == arm and key not in found]
            low, high = (f"{unit.number(math.fsum(each) / len(each))}{unit.name}" for each in (far.values(), rest))
            yield (
                f"{arm}: {len(far)} of {len(far) + len(rest)} runs far {where} its others ({seed_list(list(far))}: "
                f"{low} on average, the others {high}); {so}."
            )


def _mixed_code(study: Study, finished: Sequence[TrialResult]) -> Iterator[str]:
    """Name the user's own code that finished trials ran in several versions, unless these are under test."""
    seeds: dict[tuple[str, str], dict[str, set[int]]] = {}
    under_test = {arm.name: arm.settings.training.code or "" for arm in study.arms}
    for result in finished:
        for name, version in result.machine.code.items():
            seeds.setdefault((name, under_test[result.arm]), {}).setdefault(version, set()).add(result.seed)
    for (name, _), versions in sorted(seeds.items()):
        if len(versions) > 1:
            yield f"Not one experiment: {name} changed between trials ({_by_seed(versions)})."


def _mixed_conditions(finished: Sequence[TrialResult]) -> Iterator[str]:
    """Name the conditions in which finished trials differ and that nobody has forced: stores were merged."""
    found: dict[str, dict[str, set[tuple[str, int]]]] = {}
    for one in finished:
        if one.continued or one.machine.system.startswith(IMPORTED_FROM):
            continue  # said by `_forced`, with the difference; unknown of imported trials
        conditions = one.machine.conditions | (
            {f"data of {one.arm}": one.machine.data[:12]} if one.machine.data else {}
        )
        for name, value in conditions.items():
            found.setdefault(name, {}).setdefault(kind_of_condition(value), set()).add((one.arm, one.seed))
    differing = [
        f"{name} {', '.join(f'{value} ({_trials(where)})' for value, where in sorted(values.items()))}"
        for name, values in found.items()
        if len(values) > 1
    ]
    if differing:
        yield f"Not one set of conditions, which can change numbers: {'; '.join(differing)}."


def _trials(which: Collection[tuple[str, int]]) -> str:
    """Name trials by arm and seed; by seed alone where each arm has the same seeds."""
    seeds: dict[str, list[int]] = {}
    for arm, seed in sorted(which):
        seeds.setdefault(arm, []).append(seed)
    lists = [seed_list(each) for each in seeds.values()]
    if len({*lists}) == 1 and len(lists) > 1:
        return lists[0]
    named = [f"{arm} {each}" for arm, each in zip(seeds, lists, strict=True)]
    return ", ".join(named[:_NAMED]) + (f" and {len(named) - _NAMED} more arms" if len(named) > _NAMED else "")


def _chosen(results: Sequence[TrialResult]) -> Iterator[str]:
    """Name the trials of which two stores had different results, and one was chosen as they were merged."""
    chosen = {(one.arm, one.seed) for one in results if CHOSEN in one.forced}
    if chosen:
        trials = "1 trial" if len(chosen) == 1 else f"{len(chosen)} trials"
        yield f"Two stores had different results of {trials} ({_trials(chosen)}); merge --keep chose one."


def _forced(results: Sequence[TrialResult]) -> Iterator[str]:
    """Name conditions that the user let change while the study ran; see `trial.TrialResult.forced`."""
    forced = Counter(one.continued for one in results if one.outcome is not None and one.continued)
    for what, number in sorted(forced.items()):
        under = "with" if what.startswith("other code: ") else "under other conditions:"
        yield f"The study was continued {under} {what} ({number} trial{'' if number == 1 else 's'})."


def _unread(study: Study, results: Sequence[TrialResult]) -> Iterator[str]:
    """Name the settings in which arms differ and that no trial has read; none before a trial of each arm has ended."""
    if not {arm.name for arm in study.arms} <= {one.arm for one in results if one.outcome is not None}:
        return  # the first trial of an arm may read them yet
    finished = any(one.outcome is Outcome.FINISHED and one.reads is not None for one in results)
    known = [one.reads for one in results if one.reads is not None] if finished else []
    keys = unread_keys(study, {name for reads in known for name in reads}) if known else ()
    if keys:
        yield f"No trial has read {' and '.join(keys)}, in which arms differ: does the training loop use it?"


def _by_seed(versions: Mapping[str, set[int]]) -> str:
    return ", then ".join(seed_list(sorted(seeds)) for seeds in sorted(versions.values(), key=min))
