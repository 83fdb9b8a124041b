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


def check_seeds(study: Study, base: Attempt, probes: Mapping[str, Attempt]) -> Iterator[Finding]:
    """Say what each of the seeds decides.

    Args:
        study: whose loop.
        base: an attempt at a trial.
        probes: one epoch of it with another seed of the weights, of the order, and one that differs from that in the
            loop's own seed too.
    """
    for probe in probes.values():
        if not probe.finished:
            told = f"{base.trial.arm} fails at another seed: {first_line(probe)}"
            yield Finding("seeds", BAD, told, "A loop must train at any seed.")
            return
    earlier = {"weights": base, "order": base, "seed": probes["order"]}
    records = {name: bool(difference(earlier[name], probe, 1)) for name, probe in probes.items()}
    weights, order = (_moved(earlier, probes, what) for what in (WEIGHTS, BATCH))
    if not any(does for each in (records, weights or {}, order or {}) for does in each.values()):
        told = "every seed gives the same records: nothing is drawn from it, and more seeds tell nothing more"
        yield Finding("seeds", BAD, told, f"{CONTRACT}.")
        return
    found = [*_wrong(weights or {}, order or {}), *_of_own_seed(study, records, weights or {}, order or {})]
    yield from found or _still(weights or records, order or records)


def _wrong(weights: Mapping[str, bool], order: Mapping[str, bool]) -> Iterator[Finding]:
    """Say which of the two seeds decides what the other should."""
    if order.get("weights"):
        told = "" if order["order"] else ", and trial.order_seed does not"
        yield Finding("seeds", BAD, f"trial.weights_seed decides the order of batches{told}", f"{CONTRACT}.")
    if weights.get("order"):
        told = "" if weights["weights"] else ", and trial.weights_seed does not"
        yield Finding("seeds", BAD, f"trial.order_seed decides the initial weights{told}", f"{CONTRACT}.")


def _of_own_seed(study: Study, *moved: Mapping[str, bool]) -> Iterator[Finding]:
    """Say that trial.seed decides something: it is another seed only where a study varies weights and order apart."""
    if not any(each.get("seed") for each in moved):
        return
    parts = zip(("the initial weights", "the order of batches"), moved[1:], strict=True)
    what = " and ".join(what for what, each in parts if each.get("seed")) or "the records"
    if study.noise.initial_weights or study.noise.batch_orders:
        told = f"trial.seed decides {what}, and [noise] varies the seeds of weights and order apart"
        yield Finding("seeds", BAD, told, f"{CONTRACT}.")
    else:
        advice = (
            f"Right in this study. For one in which [noise] varies them apart: {CONTRACT[0].lower()}{CONTRACT[1:]}."
        )
        yield Finding("seeds", NOTE, f"trial.seed decides {what}", advice)


def _still(weights: Mapping[str, bool], order: Mapping[str, bool]) -> Iterator[Finding]:
    """Say which seeds change nothing, or that each decides what it should."""
    if not weights["weights"]:
        advice = "Right for initial weights that are not random, such as those of a file."
        yield Finding("seeds", NOTE, "trial.weights_seed changes nothing", advice)
    if not order["order"]:
        yield Finding("seeds", NOTE, "trial.order_seed changes nothing", "Right for a loop that does not shuffle.")
    if weights["weights"] and order["order"]:
        yield Finding("seeds", GOOD, "initial weights follow trial.weights_seed, the order of batches trial.order_seed")


def _moved(earlier: Mapping[str, Attempt], probes: Mapping[str, Attempt], what: str) -> dict[str, bool] | None:
    """Whether a digest changes with each of the seeds; None if it is not known."""
    if not all(one.digest(what) for one in (*earlier.values(), *probes.values())):
        return None
    return {name: probe.digest(what) != earlier[name].digest(what) for name, probe in probes.items()}
