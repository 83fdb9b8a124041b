"""Checks that the arms of a seed share what they must, and that each seed decides what it should and nothing else."""

import re
from collections.abc import Iterator, Mapping, Sequence

from fairtrial.checking.attempts import Attempt
from fairtrial.checking.checks import CONTRACT, difference, first_line, listed
from fairtrial.checking.findings import Finding
from fairtrial.doctor import CheckStatus
from fairtrial.spec import Study
from fairtrial.stats.pairing import EXPECTED, pairing_conflict

GOOD, NOTE, BAD = CheckStatus

#: What is seen of a loop, each with how many of it there are.
WEIGHTS, BATCH = "initial weights", "first batch"
_ARE = {WEIGHTS: "are not those", BATCH: "is not that"}

#: Keys that leave initial weights and batches alone, and those that may change the batches.
_NEITHER = re.compile(r"(optimizer|schedule)\.")
_BATCHES = re.compile(r"data\.|training\.batch_size$")


def check_pairing(study: Study, attempts: Sequence[Attempt]) -> Iterator[Finding]:
    """Say whether the arms of a seed share initial weights and batches, as far as that is seen or reported."""
    if len(study.arms) < 2 or study.evidence.unpaired or not attempts:
        return
    reference = next((one for one in attempts if one.trial.arm == study.reference), attempts[0])
    found = [finding for other in attempts if other is not reference for finding in _pair(study, other, reference)]
    yield from (finding for finding in found if finding.state is not GOOD)
    if any(finding.state is BAD for finding in found):
        return
    unknown = [what for what in (WEIGHTS, BATCH) if not all(one.digest(what) for one in attempts)]
    if unknown:
        told = " and ".join(unknown).replace(BATCH, "order of batches")
        advice = "Report them with trial.fingerprint(initial_weights=..., batch_order=...)."
        yield Finding("pairing", NOTE, f"not known whether arms share their {told}", advice)
        return
    apart = [finding.detail for finding in found if finding.state is GOOD]
    told = "; ".join([*apart, "all else is shared"]) if apart else "arms share initial weights and first batch"
    proved = all(EXPECTED[0] in one.result.fingerprints for one in attempts)
    more = "" if proved else " (as seen here; trial.fingerprint would prove it in every trial)"
    yield Finding("pairing", GOOD, f"{told}{more}")


def _pair(study: Study, other: Attempt, reference: Attempt) -> Iterator[Finding]:
    """Compare what two arms have at one seed; what their settings explain is good."""
    arm, its = other.trial.arm, reference.trial.arm
    if {arm, its} & study.twins.keys() or study.compares_code(arm, its):
        return
    if conflict := pairing_conflict(study, arm, its, [other.result, reference.result]):
        yield Finding("pairing", BAD, conflict, f"{CONTRACT}.")
        return
    keys = study.differing_keys(arm, its)
    for what in (WEIGHTS, BATCH):
        ours, theirs = other.seen.get(what, ""), reference.seen.get(what, "")
        if not ours or not theirs or ours == theirs:
            continue
        told = f"the {what} of {arm} {_ARE[what]} of {its}"
        if all(map(_NEITHER.match, keys)):
            yield Finding("pairing", BAD, f"{told}, at the same seed", f"{CONTRACT}, before anything else draws.")
        elif what == WEIGHTS or any(map(_BATCHES.match, keys)):
            yield Finding("pairing", GOOD, f"{told} ({listed(keys)})")
        else:
            advice = f"Right if {listed(keys)} changes the data. Else: {CONTRACT[0].lower()}{CONTRACT[1:]}."
            yield Finding("pairing", NOTE, told, advice)


def check_seeds(base: Attempt, probes: Mapping[str, Attempt]) -> Iterator[Finding]:
    """Say what follows from each of the seeds; ``probes`` differ from the base in one of "seed", "weights", "order"."""
    for probe in probes.values():
        if not probe.finished:
            told = f"{base.trial.arm} fails at another seed: {first_line(probe)}"
            yield Finding("seeds", BAD, told, "A loop must train at any seed.")
            return
    records = {name: bool(difference(base, probe, 1)) for name, probe in probes.items()}
    weights, order = (_moved(base, probes, what) for what in (WEIGHTS, BATCH))
    moved = {name for each in (records, weights or {}, order or {}) for name, does in each.items() if does}
    if not moved:
        told = "every seed gives the same records: nothing is drawn from it, and more seeds tell nothing more"
        yield Finding("seeds", BAD, told, f"{CONTRACT}.")
        return
    wrong = [*_wrong(moved, weights or {}, order or {})]
    for told in wrong:
        yield Finding("seeds", BAD, told, f"{CONTRACT}.")
    if wrong:
        return
    still = {
        "weights_seed": (
            (weights or records)["weights"],
            "initial weights that are not random, such as those of a file",
        ),
        "order_seed": ((order or records)["order"], "a loop that does not shuffle"),
    }
    for name, (follows, otherwise) in still.items():
        if not follows:
            yield Finding("seeds", NOTE, f"trial.{name} changes nothing", f"Right for {otherwise}.")
    if all(follows for follows, _ in still.values()):
        yield Finding("seeds", GOOD, "initial weights follow trial.weights_seed, the order of batches trial.order_seed")


def _wrong(moved: set[str], weights: Mapping[str, bool], order: Mapping[str, bool]) -> Iterator[str]:
    """Say which seeds decide what they should not."""
    if "seed" in moved:
        parts = ("the initial weights", weights), ("the order of batches", order)
        what = " and ".join(what for what, each in parts if each.get("seed")) or "the records"
        yield f"trial.seed decides {what}, and stays the same in A/A arms, with [noise] and with --confirm"
    if order.get("weights"):
        yield "trial.weights_seed decides the order of batches" + (
            "" if order["order"] else ", and trial.order_seed does not"
        )
    if weights.get("order"):
        yield "trial.order_seed decides the initial weights" + (
            "" if weights["weights"] else ", and trial.weights_seed does not"
        )


def _moved(base: Attempt, probes: Mapping[str, Attempt], what: str) -> dict[str, bool] | None:
    """Whether a digest changes with each of the seeds; None if it is not known."""
    digests = {name: probe.digest(what) for name, probe in probes.items()}
    if not base.digest(what) or not all(digests.values()):
        return None
    return {name: text != base.digest(what) for name, text in digests.items()}
