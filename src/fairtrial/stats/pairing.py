"""Do the trials of one seed differ in the settings under test, and in nothing else?

Differences between arms are taken within a seed because a seed gives all arms the same initial weights and the same
order of batches. Fingerprints prove that it did. Whatever else the trials of a seed were not alike in stands beside a
verdict.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations

from fairtrial.errors import PairingError
from fairtrial.spec import BUILT_IN, Settings, Study, content
from fairtrial.trial import Machine, Outcome, TrialResult

#: The fingerprints that every trial should have.
EXPECTED = ("initial_weights", "batch_order")

#: Fingerprints whose names begin so are of what came out of a trial, in which arms may well differ.
RESULT = "final_"

#: Settings that decide these two in fairtrial's own training loop. Where arms differ in one of them, the fingerprints
#: must differ, and the arms can still be compared: their pairs only share less of the noise.
_DECIDED_BY: Mapping[str, Callable[[Settings], object]] = {
    "initial_weights": lambda settings: (content(settings)["model"] | {"dropout": None}, settings.data.name),
    "batch_order": lambda settings: (
        settings.data.name,
        settings.data.train_images,
        settings.training.epochs,
    ),
}

_WORDS = {"initial_weights": "model or data", "batch_order": "training images or epochs"}


def check_pairing(study: Study, results: Sequence[TrialResult]) -> None:
    """Refuse a comparison of trials that do not share what a seed promises.

    Only finished trials are looked at, as only they enter a comparison. A fingerprint that a trial does not have proves
    nothing either way; `pairing_caveats` says so. Where two arms of fairtrial's own loop have different models, or
    different numbers of training images or epochs, their initial weights, or orders of batches, differ for that reason,
    which is no ground for a refusal. What a user's own loop has reported is taken at its word. Fingerprints named
    ``final_...`` are results, and are not looked at.

    Args:
        study: whose trials.
        results: in any order; those of other arms than the study's are not looked at.

    Raises:
        PairingError: two finished trials of one seed have a fingerprint of one name, and the two differ.
    """
    for one, other in combinations([arm.name for arm in study.arms], 2):
        for seed, (ours, theirs) in _pairs(results, one, other).items():
            for name in _contradictions(ours, theirs):
                if not _explained(study, name, one, other):
                    raise PairingError(
                        f"{study.label}: arms {one} and {other} can't be compared: at seed {seed} their {name} differ "
                        f"({ours.fingerprints[name][:12]} and {theirs.fingerprints[name][:12]}), which trials of one "
                        "seed must share"
                    )


def pairing_caveats(
    study: Study, arm: str, results: Sequence[TrialResult], *, other: str | None = None
) -> tuple[str, ...]:
    """Tell in what an arm's trials differ from those they are compared with, beside the settings under test.

    Args:
        study: whose trials.
        arm: the arm.
        results: in any order; only finished trials count, and only seeds that both arms have.
        other: what it is compared with; the study's reference by default.

    Returns:
        A sentence for each thing: package versions, threads, processor, device, layers and commit that differ within a
        seed, and fingerprints that are unknown, or that differ as the arms' settings make them. Empty if all is well.

    Example:
        >>> pairing_caveats(study, "low_beta2", results)
        ()
    """
    reference = study.reference if other is None else other
    found: dict[str, list[int]] = {}
    for seed, (ours, theirs) in _pairs(results, arm, reference).items():
        lines = [*_unlike(ours.machine, theirs.machine, reference), *_unproved(ours, theirs, reference)]
        lines += [
            f"{name}: not those of {reference}, as the arms differ in {_WORDS[name]}"
            for name in _contradictions(ours, theirs)
            if _explained(study, name, arm, reference)
        ]
        for line in lines:
            found.setdefault(line, []).append(seed)
    return tuple(f"{line} ({_seeds(seeds)})." for line, seeds in found.items())


def _pairs(results: Sequence[TrialResult], one: str, other: str) -> dict[int, tuple[TrialResult, TrialResult]]:
    """Join the finished trials of two arms by seed, ascending."""
    finished = {(r.arm, r.seed): r for r in results if r.outcome is Outcome.FINISHED}
    seeds = sorted(seed for arm, seed in finished if arm == one and (other, seed) in finished)
    return {seed: (finished[one, seed], finished[other, seed]) for seed in seeds}


def _contradictions(ours: TrialResult, theirs: TrialResult) -> list[str]:
    """Name the fingerprints that both trials have and that differ, but for results."""
    both = {name for name in ours.fingerprints.keys() & theirs.fingerprints.keys() if not name.startswith(RESULT)}
    return sorted(name for name in both if ours.fingerprints[name] != theirs.fingerprints[name])


def _explained(study: Study, name: str, one: str, other: str) -> bool:
    """Tell whether the settings under test themselves make a fingerprint differ."""
    ours, theirs = study.arm(one).settings, study.arm(other).settings
    if name not in _DECIDED_BY or not ours.training.loop == theirs.training.loop == BUILT_IN:
        return False
    return _DECIDED_BY[name](ours) != _DECIDED_BY[name](theirs)


def _unlike(ours: Machine, theirs: Machine, other: str) -> Iterator[str]:
    """Tell where two trials did not run alike."""
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
            yield f"{name.replace('_', ' ')}: {own or 'none'}, but {reference or 'none'} in {other}"


def _unproved(ours: TrialResult, theirs: TrialResult, other: str) -> Iterator[str]:
    """Tell which of the expected fingerprints are not known of both trials."""
    for name in EXPECTED:
        if not (name in ours.fingerprints and name in theirs.fingerprints):
            yield f"{name}: not proved to be those of {other}, as no fingerprint was reported"


def _seeds(seeds: Sequence[int]) -> str:
    return ("seed " if len(seeds) == 1 else "seeds ") + ", ".join(map(str, seeds))
