"""Runs a check: which attempts at which trials, in which processes, and what follows.

Every arm is trained twice: once without a break, in one process, and once stopped after every epoch and resumed in a
new process, in another order. So a sound loop needs few attempts, and only where the two differ are more made, to find
out why.
"""

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fairtrial import loading, progress
from fairtrial.checking import checks
from fairtrial.checking.attempts import Attempt, Process
from fairtrial.checking.cost import check_cost
from fairtrial.checking.findings import Finding, StudyCheck
from fairtrial.checking.pairing import check_pairing, check_seeds
from fairtrial.checking.probe import Probe, StoppingManager
from fairtrial.checking.repeats import Repeats, check_resuming, explain
from fairtrial.checkpoints import CheckpointManager
from fairtrial.doctor import CheckStatus
from fairtrial.errors import StudyError
from fairtrial.executors.base import Workload, check_importable
from fairtrial.executors.limits import Limits
from fairtrial.executors.records import RecordRules
from fairtrial.executors.slots import check_counts
from fairtrial.runner import compose_workload
from fairtrial.scheduler import plan
from fairtrial.spec import BUILT_IN, Study
from fairtrial.spec.imported import refusal
from fairtrial.trial import Trial

GOOD = CheckStatus.GOOD

#: Epochs of each arm, unless another number is asked for, and seconds that an attempt may take.
EPOCHS, TIME_LIMIT = 3, 600.0

#: Batches of an epoch of fairtrial's own loop, and images that it is tested on: as few as show anything.
BATCHES, TEST_IMAGES = 4, 64

#: By how much the probes' seeds are above the trial's own.
APART = 7_919


def check(
    study: Study,
    *,
    epochs: int = EPOCHS,
    time_limit: float = TIME_LIMIT,
    memory_limit: int | None = None,
    threads: int | None = None,
) -> StudyCheck:
    """Check that a study's training loop can be trusted, by training a few epochs of each arm.

    It is found out whether the records are what the study needs, are the same to the bit twice, stay the same when the
    loop is stopped after each epoch and resumed in another process, differ between arms, follow from the seeds as they
    should, and what the study will cost. fairtrial's own loop takes a few batches an epoch. Nothing is recorded.

    Args:
        study: whose loop to check.
        epochs: of each arm, at most.
        time_limit: seconds that one attempt at a trial may take.
        memory_limit: bytes of each worker process; None for no limit.
        threads: of each worker; 1 by default, as in `run`.

    Returns:
        What was found; ``sound`` if nothing is wrong.

    Raises:
        FairtrialError: something that every trial needs is missing, or a number that is not allowed.

    Example:
        >>> ft.check(ft.load("mine.toml")).sound                                            # doctest: +SKIP
        True
    """
    if not isinstance(study, Study):
        raise StudyError(f"check({study!r}): needs a study, such as fairtrial.load({study!r})")
    if study.imported is not None:
        raise StudyError(refusal(study.label))
    check_counts(epochs=epochs, threads=threads)
    limits = Limits(time_limit, memory_limit)
    trials = plan(study)[: len(study.arms)]
    _check_importable(trials)
    with loading.importable(study), tempfile.TemporaryDirectory(prefix="fairtrial-check-") as folder:
        workload = _workload(study, trials)
        trials = tuple(map(_shortened, trials))
        return _Check(study, trials, workload, epochs, limits, threads or 1, Path(folder)).run()


def _workload(study: Study, trials: Sequence[Trial]) -> Workload:
    """Prepare a study as for a run; what no epoch must have, a few epochs may lack."""
    rules = RecordRules.of(study)
    needed = {metric: key for metric, key in rules.needed.items() if metric not in rules.sparse}
    workload = compose_workload(study, trials, CheckpointManager(""), _ignore, _ignore)
    return replace(workload, rules=replace(rules, needed=needed), on_progress=_ignore)


def _ignore(*_told: object) -> None:
    """Show nothing."""


def _check_importable(trials: Sequence[Trial]) -> None:
    try:
        check_importable(trials)
    except StudyError as error:
        raise StudyError(f"{str(error).partition('; move')[0]}; move it to the top of a module to check it") from None


def _shortened(trial: Trial) -> Trial:
    """Give a trial of fairtrial's own loop, whose data are prepared, a few images: it treats them as it does many."""
    settings, data = trial.settings, trial.settings.data
    if settings.training.loop != BUILT_IN:
        return trial
    train, test = data.train_images, data.test_images
    if train is None or test is None:  # known only once they are loaded
        from fairtrial.training import datasets  # noqa: PLC0415

        loaded = datasets.load(data, verify=False)
        train, test = len(loaded.train), len(loaded.test)
    few = {"train": min(train, BATCHES * settings.training.batch_size), "test": min(test, TEST_IMAGES)}
    return replace(trial, settings=settings.model_copy(update={"data": data.model_copy(update=few)}))


@dataclass
class _Check:
    study: Study
    trials: tuple[Trial, ...]
    workload: Workload
    epochs: int
    limits: Limits
    threads: int
    folder: Path
    attempts: int = 0
    findings: list[Finding] = field(default_factory=list)

    def run(self) -> StudyCheck:
        """Make the attempts, and draw the conclusions."""
        began = time.monotonic()
        bases = self._straight()
        sound = [base for base in bases if base.finished]
        self.findings += checks.check_records(self.study, bases, self.epochs)
        if sound:
            self._examine(sound)
            self.findings += check_cost(self.study, sound, self.threads)
        order = ["records", "same bits", "resuming", "settings", "pairing", "seeds", "habits", "cost"]
        findings = sorted(self.findings, key=lambda finding: order.index(finding.part))
        return StudyCheck(self.study.label, self.epochs, tuple(findings), self.attempts, time.monotonic() - began)

    def _examine(self, bases: Sequence[Attempt]) -> None:
        """Look at what arms did that yield what they should."""
        probes, resumed = self._resumed(bases)
        differ = {base.trial.arm: text for base in bases if (text := checks.difference(base, resumed[base.trial.arm]))}
        if differ:
            base = next(base for base in bases if base.trial.arm in differ)
            arm, text = base.trial.arm, differ.pop(base.trial.arm)
            found = [*self._explained(base, resumed[arm], text, [*differ])]
        else:
            told = "arms give the same bits twice, in other processes and another order"
            found = [Finding("same bits", GOOD, told), *check_resuming(bases, resumed, self.epochs)]
        self.findings += found
        if found[0].state is GOOD:  # else nothing tells a change from chance
            known = [base.result.reads for base in bases if base.result.reads is not None]
            reads = {key for each in known for key in each} if known else None
            whole = all(base.trial.epochs <= self.epochs for base in bases)
            self.findings += checks.check_arms(self.study, self._alike(bases), reads, whole=whole)
            self.findings += check_pairing(self.study, bases)
            self.findings += check_seeds(self.study, bases[0], probes)
        self.findings += checks.check_habits([*bases, *resumed.values()])

    def _process(self, probe: Probe) -> Process:
        return Process(self.workload, probe, self.threads, self.limits)

    def _attempt(self, process: Process, trial: Trial) -> Attempt:
        self.attempts += 1
        return process.run(trial)

    def _straight(self) -> list[Attempt]:
        """Train each arm without a break, all in one process."""
        with self._process(Probe(self.workload.loop, self.epochs)) as process:
            return [self._attempt(process, trial) for trial in progress.steps(self.trials, "arms")]

    def _resumed(self, bases: Sequence[Attempt]) -> tuple[dict[str, Attempt], dict[str, Attempt]]:
        """Train the first arm at other seeds, then all arms in reverse order, with a new process after each epoch.

        What is stopped is asked to, as by Ctrl-C; but after every other epoch the last arm is killed.
        A loop that saves nothing is not stopped: its second attempt ends in the first of these processes.
        """
        probes: dict[str, Attempt] = {}
        last: dict[str, Attempt] = {}
        waiting = [base.trial for base in reversed(bases)]
        links = min(self.epochs, max(trial.epochs for trial in waiting))
        for link in progress.steps(range(1, links + 1), "resumed epochs"):
            goes_on, killed = link == links, frozenset({waiting[-1].hash} if link % 2 else ())
            manager = StoppingManager(str(self.folder / "resumed"), goes_on=goes_on, killed=killed)
            others = _at_other_seeds(bases[0].trial) if link == 1 else {}
            short = frozenset(trial.hash for trial in others.values())
            with self._process(Probe(self.workload.loop, self.epochs, short, manager)) as process:
                probes |= {name: self._attempt(process, trial) for name, trial in others.items()}
                for trial in waiting:
                    now = self._attempt(process, trial)
                    if now.died and trial.hash in killed:
                        now.seen |= {"saved": "yes", "stopped": "yes"}
                    now.seen = now.seen | _carried(last[trial.arm]) if trial.arm in last else now.seen
                    last[trial.arm] = now
            waiting = [trial for trial in waiting if last[trial.arm].seen.get("stopped")]
            if not waiting:
                break
        return probes, last

    def _explained(self, base: Attempt, resumed: Attempt, differ: str, also: Sequence[str]) -> Iterator[Finding]:
        """Find out why the two attempts at a trial differ: train it again, twice first in a process and once later."""
        with self._process(Probe(self.workload.loop, self.epochs)) as process:
            first = self._attempt(process, base.trial)
            other = self._attempt(process, _at_other_seeds(base.trial)["weights"])
            again = self._attempt(process, base.trial)
        with self._process(Probe(self.workload.loop, self.epochs)) as process:
            second = self._attempt(process, base.trial)
        more = f"; so may {checks.names(also)}" if also else ""
        yield from explain(base, resumed, Repeats(first, second, other, again), differ, more)

    def _alike(self, bases: Sequence[Attempt]) -> list[list[Attempt]]:
        """Group arms that do the same to the bit, the reference first; what was not seen inside counts at two seeds."""
        ordered = sorted(bases, key=lambda base: base.trial.arm != self.study.reference)
        groups: list[list[Attempt]] = []
        for base in ordered:
            group = next((one for one in groups if not checks.difference(one[0], base)), None)
            if group is None:
                groups.append([base])
            else:
                group.append(base)
        sure = [group for group in groups if len(group) == 1 or group[0].weights]
        return sure + [again for group in groups if group not in sure for again in self._at_second_seed(group)]

    def _at_second_seed(self, group: list[Attempt]) -> list[list[Attempt]]:
        """Split a group of arms whose few numbers may be the same by chance."""
        with self._process(Probe(self.workload.loop, self.epochs)) as process:
            trials = [_at_seed(base.trial, APART, APART) for base in group]
            first, *others = [self._attempt(process, trial) for trial in trials]
        same = [base for base, other in zip(group[1:], others, strict=True) if not checks.difference(first, other)]
        return [[group[0], *same], *([base] for base in group[1:] if base not in same)]


def _carried(earlier: Attempt) -> dict[str, str]:
    """What was seen of an attempt that counts for those that resume it."""
    names = ("initial weights", "first batch", "saved", "loaded", "children", "output", "threads")
    return {name: earlier.seen[name] for name in names if name in earlier.seen}


def _at_seed(trial: Trial, weights: int, order: int) -> Trial:
    """Copy a trial, with other seeds of noise and the same seed for the loop."""
    return replace(trial, seed=trial.own_seed, noise=(trial.weights_seed + weights, trial.order_seed + order))


def _at_other_seeds(trial: Trial) -> dict[str, Trial]:
    """Copy a trial with other seeds: of the weights alone, of the order alone, and then of the loop's own too."""
    order = _at_seed(trial, 0, APART)
    return {"weights": _at_seed(trial, APART, 0), "order": order, "seed": replace(order, seed=order.seed + APART)}
