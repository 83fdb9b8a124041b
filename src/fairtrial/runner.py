"""The conductor: plan, execute, record, ask for more. The only writer to the store."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import TypeAlias

from fairtrial import signals
from fairtrial.callbacks import Callback
from fairtrial.checkpoints import CheckpointManager
from fairtrial.errors import FairtrialError, ProvenanceError, StudyError
from fairtrial.executors.base import Ended, Epoch, Executor, Fingerprinted, Message, Started, Warned
from fairtrial.executors.limits import Limits
from fairtrial.executors.slots import Slots, check_counts, choose_slots
from fairtrial.failpoints import failpoint
from fairtrial.provenance import RunConditions, abandoned_study, changed_keys
from fairtrial.scheduler import Decision, Scheduler, StoppingRule, plan
from fairtrial.spec import BUILT_IN, Origin, Study
from fairtrial.store.base import Store
from fairtrial.trial import Outcome, Trial, TrialResult

#: Outcomes after which a trial is never run again, and its state is of no more use.
_FINAL = (Outcome.FINISHED, Outcome.DIVERGED)


#: Makes the executor of a study: of the study, the trials ahead, the workers and threads that the user asked for, who
#: is told of downloads, and the place of checkpoints. Returns the room for trials too if they run on this machine.
Staff: TypeAlias = Callable[..., tuple[Executor, Slots | None]]


@dataclass(frozen=True)
class StudyRun:
    """What one call of `run` did.

    Attributes:
        study: the study.
        trained: how many trials this call trained.
        results: all that the store now knows of the study's trials, in the order of the plan.
    """

    study: Study
    trained: int
    results: tuple[TrialResult, ...]

    def count(self, outcome: Outcome) -> int:
        """Count the study's trials that ended in one way."""
        return sum(result.outcome is outcome for result in self.results)


def run(
    study: Study,
    *,
    store: Store,
    executor: Executor | None = None,
    workers: int | None = None,
    threads: int | None = None,
    watcher: Callback | None = None,
    retry_failed: bool = False,
    git_commit: str | None = None,
    settled: StoppingRule | None = None,
    checkpoints: str | None = None,
    time_limit: float | None = None,
    memory_limit: int | None = None,
    force: bool = False,
    staff: Staff | None = None,
    source: str | None = None,
    assignments: Sequence[str] = (),
) -> StudyRun:
    """Run what is missing of a study.

    A sequential study is asked after each finished seed which arms are settled; see `course.Course`.

    Args:
        study: what to run.
        store: where the records go, and where it stands what is there already.
        executor: where trials run; by default in worker processes on this machine, after data, weights and training
            loops were checked. Workers do not import the script that calls this, so it needs no
            ``if __name__ == "__main__"``, and a training loop must stand in a module of its own.
        workers: worker processes of the default executor; by default one a GPU, or as many as the cores have room for.
        threads: threads of each worker, by default one. Another number can change the last bits of the records.
        watcher: told what happens.
        retry_failed: run failed trials again. Diverged ones are results, and stay.
        git_commit: noted in each trial's provenance.
        settled: decides which arms of a sequential study need no further seeds, see `course.Settled`; by default the
            verdicts that its own [evidence] asks for.
        checkpoints: where the default executor's trials keep their state while they run: a folder, or a URL that fsspec
            understands; by default a folder beside the store.
        time_limit: seconds that an attempt at a trial may take in the default executor; one that takes longer has
            failed. By default no limit.
        memory_limit: bytes that each worker of the default executor may ask for; a trial that asks for more, on the
            second attempt too, has failed. By default no limit.
        force: go on although versions of torch or fairtrial, threads or data are others than in the study's trials so
            far, or although the study's file was changed while it was unfinished; the trials' provenance says so.
        staff: makes another default executor, such as ``staff.on_ray("auto")``; workers, threads, checkpoints and
            limits are then that one's.
        source: the file that the study was read from, or the name under which it ships; so that a file that was changed
            while its study was unfinished is noticed.
        assignments: the overrides that it was read with.

    Returns:
        What was done, and the results of the whole study.

    Raises:
        FairtrialError: something that every trial needs is missing or damaged; nothing was trained.
        StoreHeldError: another run of this study in this store goes on.
        CheckpointError: a trial's state can't be saved, on a full disk for example; every finished epoch is in the
            store, and the next run goes on from the checkpoints before.
        ProvenanceError: the study would go on under other conditions than it began; what has ended is in the store.
        KeyboardInterrupt: passes through, once trials that can have saved their state; every finished epoch is in the
            store, and the next run goes on.

    Example:
        >>> study = fairtrial.load("quick")                                           # doctest: +SKIP
        >>> with fairtrial.SQLStore("fairtrial.db") as store:                         # doctest: +SKIP
        ...     done = fairtrial.run(study, store=store)
    """
    watcher = watcher or Callback()
    own = (workers, threads, checkpoints, time_limit, memory_limit)
    if executor is not None and any(option is not None for option in own):
        raise FairtrialError(
            "workers, threads, checkpoints and limits are the default executor's; leave them out where one is given"
        )
    limits = Limits(time_limit, memory_limit)
    check_counts(workers=workers, threads=threads)
    with store.hold(study):
        remark = _changed(study, store, source, assignments, settled, force=force)
        course = _course(study, settled)
        outcomes = store.outcomes(plan(study))
        ended = _ended(outcomes, retry_failed=retry_failed)
        before, step = len(ended), course.advance(ended, partial(store.results, study))
        missing = [trial for trial in course.possible if trial.hash not in ended] if step.trials else []
        keep = executor.checkpoints if executor else CheckpointManager(checkpoints or f"{store.beside}.checkpoints")
        if keep:
            keep.remove_leftovers(trial for trial in plan(study) if outcomes.get(trial.hash) in _FINAL)
        slots = None
        if missing and executor is None and keep:
            make = staff or _local
            executor, slots = make(study, missing, (workers, threads), watcher, checkpoints=keep, limits=limits)
        store.add_study(study, plan(study), datetime.now(UTC), source=source, assignments=assignments)
        watcher.planned(study, course.possible, missing)
        if slots is not None:
            watcher.staffed(slots)
        failpoint("conductor.planned")
        conductor = _Conductor(course, ended, store, watcher, git_commit, force=force, remark=remark)
        conductor.tell_stopped(step)
        if executor is not None:
            conductor.execute(step, executor)
        return StudyRun(study, len(ended) - before, tuple(store.results(study)))


def _course(study: Study, settled: StoppingRule | None) -> Scheduler:
    return Scheduler(study, settled or (_by_verdict() if study.sequential else None))


def _changed(
    study: Study,
    store: Store,
    source: str | None,
    assignments: Sequence[str],
    settled: StoppingRule | None,
    *,
    force: bool,
) -> str:
    """See whether the study's file has changed while what it meant before is unfinished; returns what to note.

    Raises:
        ProvenanceError: it has, and nobody wanted that.
    """
    before = abandoned_study(study.with_origin(Origin(source, tuple(assignments))), plan(study), store.studies())
    if before is None:
        return ""
    ended = _ended(store.outcomes(plan(before)), retry_failed=False)
    if not _course(before, settled).advance(ended, partial(store.results, before)).trials:
        return ""
    found = f"{source} has changed since {before.label} was interrupted: {'; '.join(changed_keys(before, study))}"
    if force:
        return found
    raise ProvenanceError(
        f"{found}. To go on with that study: fairtrial run {before.label}; to leave it for this one: --force"
    )


def _by_verdict() -> StoppingRule:
    """Let the verdicts decide; SciPy is loaded here and not before."""
    from fairtrial.stats.comparison import settled  # noqa: PLC0415

    return settled


def _ended(outcomes: Mapping[str, Outcome | None], *, retry_failed: bool) -> set[str]:
    again = {None, Outcome.FAILED} if retry_failed else {None}
    return {trial for trial, outcome in outcomes.items() if outcome not in again}


class _Conductor:
    """Runs trials, records what comes of them, and goes on with those that follow from it.

    What comes in a row is written in one transaction: seeing one to the disk takes longer than many a message. What the
    watcher is told is in the store already.

    Args:
        course: decides what follows.
        ended: hashes of the trials that have ended; those that end are added.
        store: where records go.
        watcher: who is told.
        git_commit: noted in each trial's provenance.
        force: go on under other conditions, too.
        remark: noted in each trial's provenance as one of them.
    """

    def __init__(
        self,
        course: Scheduler,
        ended: set[str],
        store: Store,
        watcher: Callback,
        git_commit: str | None,
        *,
        force: bool,
        remark: str = "",
    ) -> None:
        self._course = course
        self._ended = ended
        self._store = store
        self._watcher = watcher
        self._git_commit = git_commit
        self._force = force
        self._remark = remark
        self._conditions = RunConditions(store.results(course.study))
        self._checkpoints: CheckpointManager | None = None
        self._attempts: dict[str, int] = {}
        self._uncommitted: list[Message] = []

    def execute(self, step: Decision, executor: Executor) -> None:
        """Run the trials of a step and of those that follow."""
        self._checkpoints = executor.checkpoints
        with executor:
            self._submit(step, executor)
            try:
                for message in executor.messages():
                    if message is None:
                        self._commit()
                        continue
                    self._uncommitted.append(self._checked(message))
                    if isinstance(message, Ended):
                        self._ended.add(message.trial.hash)
                        step = self._course.advance(self._ended, self._results)
                        self.tell_stopped(step)
                        self._submit(step, executor)
            finally:
                self._commit()

    def tell_stopped(self, step: Decision) -> None:
        """Tell the watcher which arms a step has stopped."""
        for arm, seeds in step.stopped.items():
            self._watcher.stopped(self._course.study, arm, seeds)

    def _submit(self, step: Decision, executor: Executor) -> None:
        for trial in step.trials:
            executor.submit(replace(trial, listener=self._watcher.progressed))

    def _checked(self, message: Message) -> Message:
        """Hold a trial that begins against those before it.

        Raises:
            ProvenanceError: it does not run under the same conditions, and nobody wanted that.
        """
        if not isinstance(message, Started):
            return message
        machine = replace(message.machine, git_commit=self._git_commit)
        if (found := self._conditions.differences(message.trial, machine)) and not self._force:
            raise ProvenanceError(
                f"{self._course.study.label} began with {'; '.join(found)}: mixing them can change its numbers; go "
                "back, begin again in another store, or use --force, which is noted with every trial from now on"
            )
        self._conditions.add(message.trial.arm, machine)
        forced = "; ".join([self._remark, *found] if self._remark else found)
        return replace(message, machine=replace(machine, forced=forced))

    def _results(self) -> Sequence[TrialResult]:
        self._commit()
        return self._store.results(self._course.study)

    def _commit(self) -> None:
        """Write what has come in, then tell of it; Ctrl-C waits until it is written."""
        if self._uncommitted:
            with signals.held():
                self._commit_all()

    def _commit_all(self) -> None:
        messages, self._uncommitted = self._uncommitted, []
        failpoint("conductor.uncommitted")
        with self._store.together():
            for message in messages:
                self._record(message)
            failpoint("conductor.written")
        failpoint("conductor.committed")
        for message in messages:
            if isinstance(message, Ended) and message.outcome in _FINAL and self._checkpoints:
                self._checkpoints.remove(message.trial)  # a failed trial that is tried again can go on from them
            self._tell(message)
        failpoint("conductor.cleared")

    def _record(self, message: Message) -> None:
        store, attempts = self._store, self._attempts
        match message:
            case Started(trial, machine, at):
                attempts[trial.hash] = store.begin(trial, machine, at)
            case Fingerprinted(trial, fingerprints):
                store.add_fingerprints(trial, attempts[trial.hash], fingerprints)
            case Epoch(trial, record):
                store.add_epoch(trial, attempts[trial.hash], record)
            case Ended(trial, outcome, detail, at):
                store.end(trial, attempts[trial.hash], outcome, detail, at)

    def _tell(self, message: Message) -> None:
        match message:
            case Started(trial, machine, _):
                self._watcher.started(trial, machine)
            case Epoch(trial, record):
                self._watcher.epoch(trial, record)
            case Ended(trial, outcome, detail, _):
                self._watcher.ended(trial, outcome, detail)
            case Warned(trial, text):
                self._watcher.warned(trial, text)


def loop_names(study: Study) -> set[str]:
    """Name the training loops of a study that is to run in other processes.

    Raises:
        StudyError: one stands in the script that runs, which they do not import.
    """
    named = {arm.settings.training.loop for arm in study.arms}
    for name in named:
        if name.startswith("__main__:"):
            raise StudyError(
                f'training.loop = "{name}": workers don\'t import the script that starts them; name a module'
            )
    return named


def _local(
    study: Study,
    trials: Sequence[Trial],
    asked_for: tuple[int | None, int | None],
    watcher: Callback,
    *,
    checkpoints: CheckpointManager,
    limits: Limits,
) -> tuple[Executor, Slots]:
    """Make the default executor with so many workers and threads, and see that it can train; torch is loaded here."""
    from fairtrial.executors.local.executor import LocalExecutor  # noqa: PLC0415
    from fairtrial.training import machine, prepare  # noqa: PLC0415

    named = loop_names(study)
    prepare.prepare(study, progress=watcher.fetching)
    slots = choose_slots(len(trials), *asked_for, gpus=machine.gpus())
    executor = LocalExecutor(
        prepare.run,
        machine.describe_machine if BUILT_IN in named else machine.describe_process,
        workers=slots.workers,
        threads=slots.threads,
        set_up=partial(machine.set_up_worker, slots.threads, compiles=prepare.compile_layers(trials)),
        environment=machine.show_one_gpu,
        checkpoints=checkpoints,
        limits=limits,
    )
    return executor, slots
