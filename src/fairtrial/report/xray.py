"""What the x-ray of a study says: statistics of each arm's optimizer over its steps, as means over seeds, and in words.

The words follow from these numbers by fixed thresholds, which the sentences name.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fairtrial.errors import ReportError
from fairtrial.registry import did_you_mean
from fairtrial.report.words import count, number_text, percent
from fairtrial.spec import Study
from fairtrial.stats.joined import join
from fairtrial.trial import Snapshot, TrialResult

Statistics = Mapping[str, float]

_RMS = "update_rms_over_lr"

#: Epsilon hardly slows a model down where it exceeds 10% of sqrt(vhat) in at most this share of coordinates at the end
#: of every epoch: a step is then shorter by more than 9% in no more of them.
HARDLY = 0.05

#: It rules the step where it exceeds all of sqrt(vhat) in at least this share of coordinates.
RULES = 0.25

#: Steps of two arms that differ by less than this part are called alike.
ALIKE = 0.1

#: A mean cosine nearer to 0 than this is called small: the fresh gradient is mostly noise beside the averaged one. One
#: below its negative means that the fresh gradient points back where the average came from: the steps overshoot. By the
#: sign of this product adaptive restart tells that momentum carries too far (O'Donoghue & Candes 2015, Foundations of
#: Computational Mathematics 15, 715-732, section 3.2: the gradient scheme).
SMALL_COSINE = 0.1


@dataclass(frozen=True)
class Moment:
    """Statistics of one arm at one step, as means over the seeds that have them.

    Attributes:
        epoch: of the step, from 1.
        step: from 1.
        at: how many epochs had passed, such as 0.064.
        ends_epoch: whether it is the last step of its epoch.
        seeds: how many there are.
        overall: statistics of all coordinates; see `fairtrial.training.statistics`.
        kinds: statistics of each kind of layer.
    """

    epoch: int
    step: int
    at: float
    ends_epoch: bool
    seeds: int
    overall: Statistics
    kinds: Mapping[str, Statistics]

    @property
    def label(self) -> str:
        """The moment in words: ``epoch 3``, or ``step 50``."""
        return f"epoch {self.epoch}" if self.ends_epoch else f"step {self.step:,}"


@dataclass(frozen=True)
class ArmXray:
    """One arm's x-ray: its moments, by rising step, and what could not be computed."""

    arm: str
    moments: tuple[Moment, ...]
    notes: tuple[str, ...] = ()

    @property
    def epochs(self) -> tuple[Moment, ...]:
        """The moments at the ends of epochs; all, if there are none."""
        return tuple(one for one in self.moments if one.ends_epoch) or self.moments

    @property
    def last(self) -> Moment:
        """The last moment."""
        return self.moments[-1]


@dataclass(frozen=True)
class StudyXray:
    """The x-rays of a study's arms, in the study's order; only those that have one.

    Attributes:
        study: the study's name.
        hash: its content hash.
        reference: the arm that the others are compared with.
        batch_size: images in a batch, where the arms share it; 0 otherwise.
        arms: those with snapshots.
        without: names of the arms that have none.
        one: whether the user asked for one arm, which is then shown at all its moments.
    """

    study: str
    hash: str
    reference: str
    batch_size: int
    arms: tuple[ArmXray, ...]
    without: tuple[str, ...] = ()
    one: bool = False

    def arm(self, name: str) -> ArmXray | None:
        """Find an arm."""
        return next((each for each in self.arms if each.arm == name), None)


def place_of(study: Study, arm: str) -> int:
    """The place of an arm, by its name or label; a ReportError if there is none."""
    for place, one in enumerate(study.arms):
        if arm in {one.name, one.label}:
            return place
    raise ReportError(f'arm "{arm}": {did_you_mean(arm, [one.name for one in study.arms])}')


def xray_of(study: Study, results: Sequence[TrialResult], place: int | None = None) -> StudyXray:
    """Collect the x-rays of a study's arms, or of the one at a place.

    Raises:
        ReportError: no trial has a snapshot.
        ValueError: a result is not of this study, or one trial is there twice.
    """
    wanted = [arm.name for number, arm in enumerate(study.arms) if place in {None, number}]
    trials = [trial for trial in join(study, results).values() if trial.snapshots]
    every = _ends(trials)
    found = [_arm(name, [trial for trial in trials if trial.arm == name], every) for name in wanted]
    if not any(one.moments for one in found):
        whose = "its trials have" if place is None else f"arm {wanted[0]} has"
        raise ReportError(
            f"{study.label}: {whose} no x-ray: it was run without one (--no-xray), by an earlier version, or its "
            "training loop does not call trial.xray(optimizer)"
        )
    sizes = {arm.settings.training.batch_size for arm in study.arms if arm.name in wanted}
    own = all(":" not in arm.settings.training.loop for arm in study.arms)
    return StudyXray(
        study.name,
        study.hash,
        study.reference,
        sizes.pop() if own and len(sizes) == 1 else 0,
        tuple(one for one in found if one.moments),
        tuple(one.arm for one in found if not one.moments),
        one=place is not None,
    )


def _ends(trials: Sequence[TrialResult]) -> dict[int, int]:
    """The last step of each epoch that has ended in one of these trials with a snapshot at its end.

    That is the last snapshot of an epoch that has a record. In the first epoch of a loop that did not say how many
    steps an epoch has, it may be one of the steps 1, 2, 5, 10, ... instead: later epochs show that it was longer.
    """
    found: dict[int, int] = {}
    for trial in trials:
        recorded = {record.epoch for record in trial.epochs}
        last = {one.epoch: one.step for one in trial.snapshots if one.epoch in recorded}
        if 1 in last and str(last[1]).rstrip("0") in {"1", "2", "5"}:
            longest = max(step / epoch for epoch, step in last.items())
            if last[1] < longest * (1 - 1e-9):
                del last[1]
        for epoch, step in last.items():
            found[epoch] = max(step, found.get(epoch, 0))
    return found


def _arm(name: str, trials: Sequence[TrialResult], every: Mapping[int, int]) -> ArmXray:
    """Collect an arm's x-ray; where none of its epochs has ended, those of other trials tell how long an epoch is."""
    by_step: dict[int, list[Snapshot]] = {}
    for trial in trials:
        for snapshot in trial.snapshots:
            by_step.setdefault(snapshot.step, []).append(snapshot)
    own = _ends(trials)
    ends = own or every
    known = [step / epoch for epoch, step in ends.items()]
    length = max(known or [each.step / each.epoch for trial in trials for each in trial.snapshots], default=1.0)
    moments = tuple(
        _moment(by_step[step], _passed(by_step[step][0], ends, length), own.get(by_step[step][0].epoch) == step)
        for step in sorted(by_step)
    )
    noted: dict[str, set[int]] = {}
    for trial in trials:
        for each in trial.snapshots:
            for note in each.notes:
                noted.setdefault(note, set()).add(each.step)
    labels = {one.step: one.label for one in moments}
    notes = (f"{note}{_where(sorted(steps), labels)}" for note, steps in noted.items())
    return ArmXray(name, moments, tuple(notes))


def _where(steps: Sequence[int], labels: Mapping[int, str]) -> str:
    """Say at which moments something could not be computed; nothing where that is true of all."""
    if len(steps) == len(labels):
        return ""
    return f" (at {labels[steps[0]]})" if len(steps) == 1 else f" (at {len(steps)} of {len(labels)} moments)"


def _passed(one: Snapshot, ends: Mapping[int, int], length: float) -> float:
    """How many epochs had passed at a snapshot: by where its epoch began and ended, or by an epoch's length."""
    begin = ends.get(one.epoch - 1) if one.epoch > 1 else 0
    end = ends.get(one.epoch)
    if end == one.step:
        return float(one.epoch)
    if begin is None or end is None or not begin < one.step < end:
        return one.step / length
    return one.epoch - 1 + (one.step - begin) / (end - begin)


def _moment(snapshots: Sequence[Snapshot], at: float, ends_epoch: bool) -> Moment:
    first = snapshots[0]
    kinds = dict.fromkeys(kind for one in snapshots for kind in one.kinds)
    return Moment(
        first.epoch,
        first.step,
        at,
        ends_epoch,
        len(snapshots),
        _mean([one.overall for one in snapshots]),
        {kind: _mean([one.kinds[kind] for one in snapshots if kind in one.kinds]) for kind in kinds},
    )


def _mean(tables: Sequence[Statistics]) -> Statistics:
    """Average each statistic over the tables that have it and where it is finite."""
    found: dict[str, float] = {}
    for name in dict.fromkeys(name for table in tables for name in table):
        values = [table[name] for table in tables if name in table and math.isfinite(table[name])]
        if values:
            found[name] = math.fsum(values) / len(values)
    return found


def sentences(data: StudyXray) -> tuple[str, ...]:
    """Say in words what the numbers of each arm mean: its name, then a line for each fact."""
    reference = data.arm(data.reference)
    facts = {one.arm: ";\n".join(_facts(one, reference, data.batch_size)) for one in data.arms}
    return tuple(f"{arm}:\n{said or 'nothing to say'}." for arm, said in facts.items())


def _facts(own: ArmXray, reference: ArmXray | None, batch_size: int) -> Iterator[str]:
    last = own.last.overall
    if epsilon := epsilon_in_words(own):
        yield epsilon
    if steps := steps_in_words(own, reference):
        yield steps
    if memory := memory_in_words(own):
        yield memory
    if silent := last.get("no_gradient"):
        yield f"{percent(silent)} of its weights never had a gradient{_most_silent(own)}"
    scales = [one.overall["noise_scale"] for one in own.moments if "noise_scale" in one.overall]
    if scales:
        low, high = (number(pick(scales)) for pick in (min, max))
        images = f" of {batch_size} examples" if batch_size else ""
        between = low if low == high else f"{low} to {high}"
        yield f"gradient noise scale, estimated at {count(len(scales), 'moment')}: {between} batches{images}"


def epsilon_in_words(own: ArmXray) -> str:
    """Say how much epsilon matters, or nothing where there is none.

    Example:
        >>> share = {"eps": 1e-6, "eps_over_10pct": 0.031, "eps_over_100pct": 0.0}
        >>> first = Moment(1, 782, 1.0, True, 1, share, {})
        >>> last = Moment(10, 7820, 10.0, True, 1, share | {"eps_over_10pct": 0.002}, {})
        >>> print(epsilon_in_words(ArmXray("large_eps", (first, last))))
        epsilon 1e-6 exceeds 10% of sqrt(vhat) in 3.1% of coordinates after epoch 1, 0.2% after epoch 10: it can hardly
        slow this model down (at most 5% of coordinates at every epoch's end)
    """
    moments = [one for one in own.epochs if "eps_over_10pct" in one.overall]
    if not moments:
        return ""
    first, last = moments[0], moments[-1]
    eps = f"epsilon {number_text(last.overall['eps'])}" if "eps" in last.overall else "epsilon"
    shares = [f"{percent(first.overall['eps_over_10pct'])} of coordinates after {first.label}"]
    if last is not first:
        shares.append(f"{percent(last.overall['eps_over_10pct'])} after {last.label}")
    most = max(one.overall["eps_over_10pct"] for one in moments)
    rules = max(one.overall.get("eps_over_100pct", 0.0) for one in moments)
    if most <= HARDLY:
        when = "every epoch's end" if last.ends_epoch else "every moment"
        meaning = f"it can hardly slow this model down (at most {percent(HARDLY)} of coordinates at {when})"
    elif rules >= RULES:
        meaning = f"it at least halves the step of {percent(rules)} of them at worst: it rules this optimizer"
    else:
        meaning = f"it shortens the step by more than 9% there, and by half or more in {percent(rules)} at worst"
    return f"{eps} exceeds 10% of sqrt(vhat) in {', '.join(shares)}: {meaning}"


def _most_silent(own: ArmXray) -> str:
    shares = {kind: each.get("no_gradient", 0.0) for kind, each in own.last.kinds.items()}
    kind = max(shares, key=lambda one: shares[one], default=None)
    if kind is None or len(shares) < 2 or shares[kind] <= own.last.overall["no_gradient"]:
        return ""
    return f" ({kind}: {percent(shares[kind])})"


def steps_in_words(own: ArmXray, reference: ArmXray | None) -> str:
    """Say how long steps are, and beside the reference's after the last epoch that both have.

    Steps are compared with their learning rates, so only where these are known.
    """
    moments = [one for one in own.epochs if _RMS in one.overall]
    if not moments:
        return ""
    first, last = moments[0], moments[-1]
    text = f"a step changes a weight by {number(first.overall[_RMS])} learning rates after {first.label}"
    text += "" if last is first else f", {number(last.overall[_RMS])} after {last.label}"
    text += " (root mean square)"
    if reference is None or reference.arm == own.arm:
        return text
    others = {one.label: one.overall for one in reference.moments if one.overall.get(_RMS) and "lr" in one.overall}
    shared = [one for one in moments if one.label in others and "lr" in one.overall]
    if not shared:
        return text
    at = shared[-1]
    own_lr, lr = at.overall["lr"], others[at.label]["lr"]
    ratio = at.overall[_RMS] / others[at.label][_RMS]
    if own_lr != lr:
        ratio *= own_lr / lr
        text += f"; at its learning rate of {number_text(own_lr)} that is"
    else:
        text += ","
    alike = f"within {percent(ALIKE)} of {reference.arm}'s"
    compared = alike if abs(ratio - 1) < ALIKE else f"{number(ratio)} times {reference.arm}'s"
    return f"{text} {compared} after {at.label}"


def memory_in_words(own: ArmXray) -> str:
    """Say how far beta1 and beta2 reach back, and how much the averaged gradient has of the fresh one."""
    last, said = own.last.overall, []
    for name, what in (("beta1", "the gradient"), ("beta2", "its square")):
        if 0 < last.get(name, 0.0) < 1:
            steps = f"{1 / (1 - last[name]):,.0f} steps"
            said.append(f"{name} = {number_text(last[name])} averages {what} over about {steps}")
    cosines = [one.overall["cosine"] for one in own.epochs if "cosine" in one.overall]
    if said and cosines:
        mean = math.fsum(cosines) / len(cosines)
        said.append(f"a fresh gradient {_direction(mean)}")
    return "; ".join(said)


def _direction(cosine: float) -> str:
    """Say how fresh gradients lie beside averaged ones."""
    mean, least = f"mean cosine {number(cosine)}", f"{SMALL_COSINE:g}"
    if cosine <= -SMALL_COSINE:
        return f"points against that average ({mean}: -{least} or less): steps overshoot and come back, an oscillation"
    if cosine < SMALL_COSINE:
        return f"is mostly noise beside that average ({mean}: within {least} of 0)"
    return f"is partly in the same direction as that average ({mean}: {least} or more)"


def number(value: float) -> str:
    """Write a number with two significant digits.

    Example:
        >>> number(0.0123), number(118.3), number(7571), number(1.04)
        ('0.012', '120', '7,600', '1')
    """
    if value and math.isfinite(value):
        digits = 1 - math.floor(math.log10(abs(value)))
        value = round(value, digits)
        if abs(value) < 1e-3:
            return number_text(value)
    return f"{value:,.6g}" if abs(value) < 1e6 else f"{value:.2g}"


def missing(data: StudyXray) -> Iterator[str]:
    """Say which arms have no x-ray, and what could not be computed of the others."""
    if data.without:
        yield f"Without an x-ray: {', '.join(data.without)}."
    notes: dict[str, list[str]] = {}
    for one in data.arms:
        for note in one.notes:
            notes.setdefault(note, []).append(one.arm)
    for note, arms in notes.items():
        whose = "" if len(arms) == len(data.arms) else f"{', '.join(arms)}: "
        yield f"{whose}{note}."
    several = sorted({moment.seeds for one in data.arms for moment in one.moments})
    if several[-1] > 1:
        yield (
            f"Means over {several[0]} to {count(several[-1], 'seed')}."
            if len(several) > 1
            else (f"Means over {count(several[0], 'seed')}.")
        )
