"""What all trials of a study shared: settings that the training loop really read, and what fingerprints prove."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fairtrial.reads import PARAMS
from fairtrial.report.settings import write
from fairtrial.spec import BUILT_IN, Study, content, flatten
from fairtrial.spec.settings import REGISTRIES
from fairtrial.trial import Outcome, TrialResult

#: What fairtrial's own loop reports of each trial, and in words.
SHARED = {"initial_weights": "initial weights", "batch_order": "order of batches"}


@dataclass(frozen=True)
class HeldFixed:
    """Settings that are the same in all arms, and why others are not listed."""

    rows: tuple[tuple[str, str], ...]  # by full name, such as ``training.batch_size``
    notes: tuple[str, ...] = ()


def held_fixed(study: Study, results: Sequence[TrialResult]) -> HeldFixed:
    """List the settings that no arm changes and that the trials' loop read.

    fairtrial's own loop reads all of them. Of a loop of the user's own only those are listed that `TrialResult.reads`
    names, and the number of epochs where the records have as many.
    """
    if study.imported is not None:
        source = study.imported.source
        return HeldFixed((), (f"The runs were made elsewhere ({source}): what they shared, their records do not say.",))
    tables = [dict(flatten(content(arm.settings))) for arm in study.arms]
    same = {key: value for key, value in tables[0].items() if all(key in one and one[key] == value for one in tables)}
    if all(arm.settings.training.loop == BUILT_IN for arm in study.arms):
        shown = {key: value for key, value in same.items() if value is not None and value != {}}
        return HeldFixed(_rows(shown))
    return _read(results, same)


def _read(results: Sequence[TrialResult], same: Mapping[str, Any]) -> HeldFixed:
    known = [set(result.reads) for result in results if result.reads is not None]
    reads = set[str]().union(*known)
    finished = [result for result in results if result.outcome is Outcome.FINISHED]
    shown = {key: value for key, value in same.items() if _is_read(key, reads)}
    shown |= {key: same[key] for key in ("training.loop",) if key in same}
    epochs = same.get("training.epochs")
    if finished and all(len(result.epochs) == epochs for result in finished):
        shown["training.epochs"] = epochs
    notes = ["The training loop is the study's own: listed are only settings that it read, as far as fairtrial saw."]
    if not known:
        notes = ["The training loop is the study's own, and what it reads of its settings is not known."]
    left = [key for key in same if key.startswith(PARAMS) and key not in shown]
    if known and left:
        notes.append(f"Set and never read: {', '.join(left)}.")
    return HeldFixed(_rows(shown), tuple(notes))


def _is_read(key: str, reads: set[str]) -> bool:
    section = key.partition(".")[0]
    return key in reads if key.startswith(PARAMS) else section in REGISTRIES and section in reads


def _rows(settings: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((key, write(value)) for key, value in settings.items() if value is not None)


def proved(study: Study, results: Sequence[TrialResult]) -> tuple[str, ...]:
    """Name what fingerprints prove that all arms shared at each seed: the initial weights, the order of batches.

    Every trial that has ended with records must have reported it, at least one seed must have two arms, and no two arms
    of a seed may differ.

    Example:
        >>> proved(study, results)
        ('initial weights', 'order of batches')
        >>> proved(study, [])
        ()
    """
    ran = [result for result in results if result.outcome in {Outcome.FINISHED, Outcome.DIVERGED}]
    seeds: dict[int, list[TrialResult]] = {}
    for result in ran:
        seeds.setdefault(result.seed, []).append(result)
    pairs = [group for group in seeds.values() if len(group) > 1]
    if len(study.arms) < 2 or not pairs:
        return ()
    return tuple(
        text
        for name, text in SHARED.items()
        if all(result.fingerprints.get(name) for result in ran)
        and all(len({result.fingerprints[name] for result in group}) == 1 for group in pairs)
    )
