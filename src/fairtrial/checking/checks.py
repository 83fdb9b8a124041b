"""What attempts at a study's trials say of its training loop: each function looks at one part."""

import re
from collections.abc import Iterator, Sequence
from math import isfinite

from fairtrial.checking.attempts import Attempt
from fairtrial.checking.findings import Finding
from fairtrial.doctor import CheckStatus
from fairtrial.executors.limits import format_bytes
from fairtrial.reads import unread_keys
from fairtrial.report.words import count
from fairtrial.spec import Study
from fairtrial.trial import Outcome

GOOD, NOTE, BAD = CheckStatus

#: Keys that may act only after the epochs of a check.
_LATER = re.compile(r"schedule\.|training\.(epochs|evaluations_last_epoch|checkpoint_seconds)$")
#: Bytes of output of one attempt from which a note is made.
MUCH_OUTPUT = 100_000

CONTRACT = "Draw the initial weights from trial.weights_seed alone and the order of batches from trial.order_seed alone"


def names(arms: Sequence[str]) -> str:
    """Name a few arms, and count the others."""
    return ", ".join(arms) if len(arms) <= 4 else f"{', '.join(arms[:3])} and {len(arms) - 3} others"


def first_line(attempt: Attempt) -> str:
    """What happened to an attempt that did not end well, in a line."""
    return attempt.result.detail.partition("\n")[0]


def check_records(study: Study, attempts: Sequence[Attempt], epochs: int) -> Iterator[Finding]:
    """Say whether each arm's records are what the study needs."""
    failed: dict[tuple[str, str], list[str]] = {}
    for attempt in attempts:
        if not attempt.finished:
            failed.setdefault(_cause(attempt, epochs), []).append(attempt.trial.arm)
    for (cause, advice), arms in failed.items():
        yield Finding("records", BAD, f"{names(arms)}: {cause}", advice)
    for attempt in attempts:
        if attempt.result.outcome is Outcome.DIVERGED:
            yield Finding("records", NOTE, f"{attempt.trial.arm}: diverged: {attempt.result.detail}")
    lost = {
        (metric, record.epoch): attempt.trial.arm
        for attempt in attempts
        for record in attempt.result.epochs
        for metric, value in record.metrics.items()
        if not isfinite(value)
    }
    for (metric, epoch), arm in [*lost.items()][:1]:
        yield Finding("records", NOTE, f"{arm}: {metric} is not finite in epoch {epoch}")
    if len(failed) == 0 and attempts:
        metrics = dict.fromkeys(name for one in attempts for each in one.result.epochs for name in each.metrics)
        listed = ", ".join(metrics) if len(metrics) <= 8 else f"{', '.join([*metrics][:7])} and {len(metrics) - 7} more"
        yield Finding("records", GOOD, f"every epoch of {count(len(study.arms), 'arm')} yields {listed}")


def _cause(attempt: Attempt, epochs: int) -> tuple[str, str]:
    """Say why an attempt failed, and what to do."""
    first, *rest = attempt.result.detail.splitlines() or [""]
    done = len(attempt.result.epochs)
    if attempt.refused:
        return first, ""
    if first.startswith("time limit of"):
        if not done:
            return (
                f"yields nothing: {first}",
                "If its epochs take longer, raise --time-limit; else look for a loop without end",
            )
        return (
            f"{first} of {epochs}",
            "Use --epochs 1, or raise --time-limit; a loop must end after trial.epochs epochs",
        )
    if "yielded nothing" in first:
        return first, "Yield a dict of metrics after each of trial.epochs epochs"
    if "yielded more than" in first:
        return first, "Train for epoch in range(trial.epochs), and no more"
    places = re.findall(r'File "([^"]+)", line (\d+)', "\n".join(rest))
    where = f" ({places[-1][0]}, line {places[-1][1]})" if places else ""
    told = "`fairtrial run` records the whole traceback, and `fairtrial failures` prints it" if places else ""
    return f"{first}{where}", told


def difference(one: Attempt, other: Attempt, most: int | None = None) -> str:
    """Say where two attempts at a trial first differ, but for times; empty if they are the same to the bit."""
    ours, theirs = one.epochs(most), other.epochs(most)
    for epoch, (own, its) in enumerate(zip(ours, theirs, strict=False), start=1):
        differ = [name for name in {**own, **its} if own.get(name) != its.get(name)]
        differ = [name for name in differ if name != "weights" or (own["weights"] and its["weights"])]
        if differ == ["weights"]:
            return f"the model's weights after epoch {epoch} differ"
        if differ:
            name = next(name for name in differ if name != "weights")
            return f"{name} of epoch {epoch} is {' and '.join(_numbers(own.get(name), its.get(name)))}"
    if len(ours) != len(theirs):
        return f"there are {len(ours)} and {len(theirs)} records"
    outcomes = one.result.outcome, other.result.outcome
    return "" if most is not None or outcomes[0] is outcomes[1] else f"one {outcomes[0]}, the other {outcomes[1]}"


def _numbers(*texts: str | None) -> list[str]:
    """Write two numbers that differ with as few digits as show it."""
    values = [None if text is None else float.fromhex(text) for text in texts]
    short = ["missing" if value is None else f"{value:.4g}" for value in values]
    return short if short[0] != short[1] else ["missing" if value is None else f"{value:.17g}" for value in values]


def check_arms(
    study: Study, groups: Sequence[Sequence[Attempt]], reads: set[str] | None, *, whole: bool
) -> Iterator[Finding]:
    """Say which arms do the same, and which of the settings in which arms differ were not read.

    Args:
        study: whose arms.
        groups: attempts of arms that are the same to the bit; the others are like the first of each.
        reads: what the loops have read; None if that is not known.
        whole: whether whole trials were trained.
    """
    unread = set[str]() if reads is None else set(unread_keys(study, reads))
    found = []
    for first, *others in groups:
        for other in others:
            arms = other.trial.arm, first.trial.arm
            if not study.compares_code(*arms):
                keys = study.differing_keys(*arms)
                found.append(_same(arms, keys, unread.intersection(keys), whole=whole))
                unread -= set(keys)
    if unread:
        told = f"the loop never reads {listed(sorted(unread))}, in which arms differ"
        found.append(
            Finding("settings", BAD if whole else NOTE, told, "Use it in the loop, or take it out of the arms.")
        )
    if not found and len(study.arms) > 1:
        found.append(Finding("settings", GOOD, f"each of {count(len(study.arms), 'arm')} gives other records"))
    yield from found


def _same(arms: tuple[str, str], keys: Sequence[str], unread: set[str], *, whole: bool) -> Finding:
    """Say what it means that an arm is the same as another one, from which it differs in some keys."""
    said = f"{arms[0]} gives the records of {arms[1]} to the bit"
    if not keys:
        return Finding("settings", BAD, f"{said}, though its seeds of noise differ", f"{CONTRACT}.")
    if all(map(_LATER.match, keys)) and not whole:
        return Finding(
            "settings", NOTE, f"{said} so far: {listed(keys)} may act later", "Raise --epochs to see it act."
        )
    never = f"; the loop never reads {listed(sorted(unread))}" if unread else ""
    ignored = "differs: it is ignored" if len(keys) == 1 else "differ: they are ignored"
    use = f"Use {' and '.join(f'trial.settings.{key}' for key in keys[:3])} in the loop."
    advice = use if whole else f"{use} If that acts only later, raise --epochs."
    return Finding("settings", BAD, f"{said}, though {listed(keys)} {ignored}{never}", advice)


def listed(keys: Sequence[str]) -> str:
    """Name a few keys, and count the others."""
    return " and ".join(keys) if len(keys) <= 3 else f"{', '.join(keys[:3])} and {len(keys) - 3} more keys"


def check_habits(attempts: Sequence[Attempt]) -> Iterator[Finding]:
    """Say what else loops do that others may not expect."""
    for name, state, tell, advice in _HABITS:
        arms = [one.trial.arm for one in attempts if one.seen.get(name) and tell(one.seen[name])]
        if arms:
            told = next(tell(one.seen[name]) for one in attempts if one.seen.get(name) and tell(one.seen[name]))
            yield Finding("habits", state, f"{names([*dict.fromkeys(arms)])}: {told}", advice)


def _of_output(size: str) -> str:
    return f"prints {format_bytes(int(size))} in one attempt" if int(size) >= MUCH_OUTPUT else ""


_HABITS = (
    ("output", NOTE, _of_output, "`fairtrial run` passes it on: a study prints as much for every trial and epoch."),
    (
        "children",
        NOTE,
        lambda number: f"leaves {count(int(number), 'process')} behind".replace("processs", "processes"),
        "End them in the loop, such as a DataLoader's persistent workers: they add up from trial to trial.",
    ),
    (
        "threads",
        NOTE,
        lambda number: f"sets torch's threads to {number}, whatever --threads says",
        "Leave them alone and use --threads: what a trial records as its number of threads is wrong.",
    ),
)
