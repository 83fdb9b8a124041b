"""Says why two attempts at one trial differ, and how a loop saves and resumes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from fairtrial.checking.attempts import Attempt
from fairtrial.checking.checks import difference, first_line, names
from fairtrial.checking.findings import Finding
from fairtrial.doctor import CheckStatus

GOOD, NOTE, BAD = CheckStatus


class Repeats(NamedTuple):
    """Further attempts at a trial, without a break: first in two processes, and after another trial in the first."""

    first: Attempt
    second: Attempt
    other: Attempt  # the other trial
    again: Attempt


def explain(base: Attempt, resumed: Attempt, repeats: Repeats, differ: str, more: str) -> Iterator[Finding]:
    """Say why a trial gave other records when it was stopped and resumed; the first finding is about the same bits.

    Args:
        base: the attempt without a break, after other trials.
        resumed: the one that was stopped after each epoch, if the loop saves its state.
        repeats: what was tried to find out.
        differ: where the two differ.
        more: what to add about other arms.
    """
    arm, first, again = base.trial.arm, repeats.first, repeats.again
    if text := difference(first, repeats.second):
        told = f"{arm} gives other bits in a second run{more}: {text}"
        yield Finding("same bits", BAD, told, _unseeded(first, repeats.second))
    elif text := difference(first, again) or difference(first, base):
        told = f"{arm} depends on what its process has trained before{more}: {text}"
        yield Finding("same bits", BAD, told, _kept(repeats))
    elif resumed.finished and not resumed.seen.get("saved"):
        told = f"{arm} gives other bits now and then{more}: {differ}"
        yield Finding("same bits", BAD, told, _unseeded(first, resumed))
    else:
        yield Finding("same bits", GOOD, "arms give the same bits twice without a break")
        yield _broken(arm, resumed, differ, more)


def _broken(arm: str, resumed: Attempt, differ: str, more: str) -> Finding:
    if not resumed.finished:
        told = f"{arm} fails when it is saved or resumed: {first_line(resumed)}"
        advice = (
            "A state holds numbers, texts, lists, dictionaries, arrays and tensors; load gives back what save took."
        )
        return Finding("resuming", BAD, told, advice)
    told = f"{arm} gives other records when it is stopped after an epoch and goes on{more}: {differ}"
    advice = (
        "Save all that later epochs depend on: model, optimizer, learning-rate schedule, every random generator, "
        "the number of epochs done; after the yield, so that the record is saved with it."
    )
    return Finding("resuming", BAD, told, advice)


def check_resuming(bases: Sequence[Attempt], resumed: Mapping[str, Attempt], epochs: int) -> Iterator[Finding]:
    """Say how loops save their state whose records are the same with and without breaks."""
    seen = {base.trial.arm: resumed[base.trial.arm].seen for base in bases}
    swallowing = [arm for arm, what in seen.items() if what.get("swallowed")]
    saving = [arm for arm, what in seen.items() if what.get("saved")]
    if swallowing:
        told = f"{names(swallowing)}: goes on where trial.save asks it to stop"
        yield Finding("resuming", BAD, told, "Catch Exception, not BaseException, around trial.save: Ctrl-C needs it.")
    elif not saving:
        told = "no state is saved: a trial that is interrupted starts again, to the same records"
        yield Finding("resuming", NOTE, told, "Where trials take long, call trial.load() and trial.save(state).")
    elif not all(seen[arm].get("loaded") for arm in saving):
        told = "a state is saved, and never loaded: a trial that is interrupted starts again"
        advice = "Call trial.load() before the first record, and go on from what it returns."
        yield Finding("resuming", BAD, told, advice)
    elif epochs == 1 or all(base.trial.epochs == 1 for base in bases):
        yield Finding("resuming", NOTE, "one epoch was trained: nothing was resumed", "Raise --epochs.")
    else:
        told = "stopped after each epoch and resumed in a new process, arms give the same records"
        yield Finding("resuming", GOOD, told)


def _unseeded(first: Attempt, second: Attempt) -> str:
    """Say what to do where two runs in new processes differ."""
    if first.digest("initial weights") != second.digest("initial weights"):
        return "The initial weights differ already: draw them from trial.weights_seed."
    if first.digest("first batch") != second.digest("first batch"):
        return "The first batch differs already: draw the order of batches from trial.order_seed."
    return (
        "Seed every random generator; if all are, find the operation that is not deterministic: "
        "torch.use_deterministic_algorithms(True) names those of torch; sets of texts, threads and times are others. "
        "A metric that is a time must be named seconds or ..._seconds."
    )


def _kept(repeats: Repeats) -> str:
    """Say what to do where a trial depends on the one before it in its process."""
    first, again = repeats.first, repeats.again
    now, states = again.digest("initial weights"), repeats.other.weights
    if now and states and now == states[max(states)]:
        return "It goes on with the model of the trial before: build the model in the loop, not outside."
    if first.digest("initial weights") != now:
        return "The initial weights differ: draw them from trial.weights_seed, and build the model in the loop."
    if first.digest("first batch") != again.digest("first batch"):
        return (
            "The first batch differs: draw the order of batches from trial.order_seed, and keep the data as they were."
        )
    return "Something is kept from trial to trial, outside the loop or in a class: build it in the loop."
