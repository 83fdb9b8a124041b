"""Checks that the trials of one seed differ in the settings under test, and in nothing else.

Differences between arms are taken within a seed because a seed gives all arms the same initial weights and the same
batch order. Fingerprints prove that it did. Any other difference between the trials of a seed becomes a caveat.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from fairtrial.spec import BUILT_IN, Settings, Study, content
from fairtrial.stats.paired import seed_list
from fairtrial.trial import Machine, Outcome, TrialResult

#: The fingerprints that every trial should have.
EXPECTED = ("initial_weights", "batch_order")

#: Fingerprints whose names start like this describe results, in which arms may differ.
RESULT = "final_"

#: Settings that determine these two in fairtrial's own training loop. Where arms differ in one of them, the
#: fingerprints must differ. The arms can still be compared: their pairs only share less of the noise.
_DETERMINED_BY: Mapping[str, Callable[[Settings], object]] = {
    "initial_weights": lambda settings: (content(settings)["model"] | {"dropout": None}, _data(settings, None)),
    "batch_order": lambda settings: (_data(settings, settings.data.train_images), settings.training.epochs),
}

_WORDS = {"initial_weights": "model or data", "batch_order": "training images or epochs"}


def pairing_conflict(study: Study, arm: str, other: str, results: Sequence[TrialResult]) -> str | None:
    """Say why two arms can't be compared: at some seed a fingerprint of one name differs; None if they can.

    Nor can they if both ran the user's own code in two versions at some seed, unless the user forced that.

    Only finished trials are checked, as only they enter a comparison. A fingerprint that a trial lacks proves nothing
    either way; `pairing_caveats` says so. Where two arms of fairtrial's own loop have different models or data, or
    different numbers of training images or epochs, their initial weights, or batch orders, differ for that reason,
    which is no conflict. Fingerprints reported by a user's own loop are trusted. Fingerprints named ``final_...``
    are results, and are not checked.

    Where the code itself is under test, all of this may differ: pairs then share less of the noise.

    In a crossed design of noise no two arms can be compared: seeds that share weights or orders are not independent.

    Of a study whose runs are not paired, only the code is checked.
    """
    found = find_conflict(study, arm, other, results)
    return None if found is None else found[1]


def find_conflict(study: Study, arm: str, other: str, results: Sequence[TrialResult]) -> tuple[int, str] | None:
    """Find the first seed at which two arms conflict, 0 if all seeds do, and why; see `pairing_conflict`."""
    if min(study.noise.initial_weights or 1, study.noise.batch_orders or 1) > 1:
        return 0, (
            f"{study.label}: arms {arm} and {other} can't be compared by seeds that share initial weights and batch "
            "orders; run the study without [noise], which has the first of these seeds already"
        )
    if study.compares_code(arm, other):
        return None
    for seed, (ours, theirs) in _pairs(results, arm, other).items():
        if (changed := changed_code(ours, theirs)) and not (ours.continued or theirs.continued):
            return seed, (
                f"{study.label}: arms {arm} and {other} can't be compared: at seed {seed} they ran different code: "
                f"{', '.join(changed)}"
            )
        for name in () if study.evidence.unpaired else _differing(ours, theirs):
            if not _reason(study, name, arm, other):
                return seed, (
                    f"{study.label}: arms {arm} and {other} can't be compared: at seed {seed} their {name} differ "
                    f"({ours.fingerprints[name][:12]} and {theirs.fingerprints[name][:12]}), which trials of one seed "
                    "must share; to compare them unpaired, set evidence.paired = false"
                )
    return None


def changed_code(ours: TrialResult, theirs: TrialResult) -> tuple[str, ...]:
    """Name the user's own files, and packages, that two trials both ran, in different versions."""
    code, other = ours.machine.code, theirs.machine.code
    return tuple(sorted(name for name in code.keys() & other.keys() if code[name] != other[name]))


def pairing_caveats(study: Study, arm: str, results: Sequence[TrialResult], *, other: str) -> tuple[str, ...]:
    """Say in what the finished trials of two arms differ besides the settings under test, a sentence each.

    Within a seed that both have, these are package versions, threads, processor, device, layers, system and commit, and
    fingerprints that are unknown, or that differ because the arms' settings do. Fingerprints do not matter to runs that
    are not paired.

    Example:
        >>> pairing_caveats(study, "low_beta2", results, other="baseline")
        ()
    """
    found: dict[str, list[int]] = {}
    for seed, (ours, theirs) in _pairs(results, arm, other).items():
        lines = [*_unlike(ours.machine, theirs.machine, other)]
        if not study.evidence.unpaired:
            lines += [] if study.imported else _unproved(ours, theirs, other)  # else said once, of all arms
            lines += [
                f"{name}: not those of {other}, because {reason}"
                for name in _differing(ours, theirs)
                if (reason := _reason(study, name, arm, other))
            ]
        for line in lines:
            found.setdefault(line, []).append(seed)
    return tuple(f"{line} ({seed_list(seeds)})." for line, seeds in found.items())


def _pairs(results: Sequence[TrialResult], arm: str, other: str) -> dict[int, tuple[TrialResult, TrialResult]]:
    """Join the finished trials of two arms by seed, ascending."""
    finished = {(r.arm, r.seed): r for r in results if r.outcome is Outcome.FINISHED}
    seeds = sorted(seed for name, seed in finished if name == arm and (other, seed) in finished)
    return {seed: (finished[arm, seed], finished[other, seed]) for seed in seeds}


def _differing(ours: TrialResult, theirs: TrialResult) -> list[str]:
    """Name the fingerprints that both trials have and that differ, except results."""
    both = {name for name in ours.fingerprints.keys() & theirs.fingerprints.keys() if not name.startswith(RESULT)}
    return sorted(name for name in both if ours.fingerprints[name] != theirs.fingerprints[name])


def _data(settings: Settings, images: int | None) -> tuple[object, ...]:
    """The data as far as the fingerprints depend on them: all settings where these alone don't tell their size."""
    data = settings.data
    return (data.name, images) if data.size else (content(settings)["data"],)


def _reason(study: Study, name: str, arm: str, other: str) -> str:
    """Say why a fingerprint must differ: an A/A arm has its own noise, or the settings under test decide it."""
    if {arm, other} & study.twins.keys():
        return "an A/A arm has other seeds of noise"
    if study.compares_code(arm, other):
        return "the code is under test"
    ours, theirs = study.arm(arm).settings, study.arm(other).settings
    if name not in _DETERMINED_BY or not ours.training.loop == theirs.training.loop == BUILT_IN:
        return ""
    differ = _DETERMINED_BY[name](ours) != _DETERMINED_BY[name](theirs)
    return f"the arms differ in {_WORDS[name]}" if differ else ""


def _unlike(ours: Machine, theirs: Machine, other: str) -> Iterator[str]:
    parts = [
        (package, ours.versions.get(package), theirs.versions.get(package))
        for package in sorted({*ours.versions, *theirs.versions})
    ]
    parts += [
        (name, getattr(ours, name), getattr(theirs, name))
        for name in ("threads", "processor", "device", "layers", "system", "git_commit")
    ]
    for name, own, reference in parts:
        if own != reference:
            missing = "not fairtrial's" if name == "layers" else "none"
            yield f"{name.replace('_', ' ')}: {own or missing}, but {reference or missing} in {other}"


def _unproved(ours: TrialResult, theirs: TrialResult, other: str) -> Iterator[str]:
    for name in EXPECTED:
        if not (name in ours.fingerprints and name in theirs.fingerprints):
            yield f"{name}: not proved to be those of {other}, because no fingerprint was reported"
