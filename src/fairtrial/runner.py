"""Runs studies: plans one, has its missing trials trained, and records the results. The only writer to the store."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

from fairtrial import signals
from fairtrial.callbacks import Callback
from fairtrial.checkpoints import CheckpointManager
from fairtrial.errors import ProvenanceError
from fairtrial.executors.base import (
    Ended,
    EpochFinished,
    Executor,
    Fingerprinted,
    Message,
    NodeData,
    Progressed,
    Session,
    Started,
    Warned,
    Workload,
)
from fairtrial.executors.local.executor import LocalExecutor
from fairtrial.failpoints import failpoint
from fairtrial.provenance import RunConditions, abandoned_study, changed_keys, git_commit
from fairtrial.scheduler import Decision, Scheduler
from fairtrial.spec import BUILT_IN, Study
from fairtrial.store.base import Store, Writer
from fairtrial.trial import Machine, Outcome, Trial, TrialResult

#: Outcomes after which a trial is never run again, and its state is of no more use.
_FINAL = (Outcome.FINISHED, Outcome.DIVERGED)


def run_study(
    study: Study,
    *,
    store: Store,
    executor: Executor | None = None,
    callbacks: Sequence[Callback] = (),
    retry_failed: bool = False,
    force: bool = False,
) -> int:
    """Train the missing trials of a study.

    Args:
        study: what to run. A sequential study is asked after each finished seed which arms are settled by the verdicts
            of its [evidence]; see `scheduler.Scheduler`.
        store: where the records go, and which holds earlier results.
        executor: where trials run; by default worker processes on this machine. Workers do not import the script that
            calls this: it needs no ``if __name__ == "__main__"``, and a training loop must be in a module of its own.
        callbacks: told what happens.
        retry_failed: run failed trials again. Diverged ones are results, and stay.
        force: continue although versions of torch or fairtrial, threads or data differ from those of the study's trials
            so far, or although the study's file was changed while it was unfinished; the trials' provenance says so.

    Returns:
        The number of trials that were trained.

    Raises:
        FairtrialError: something that every trial needs is missing or damaged; nothing was trained.
        StoreLockedError: another run of this study in this store is active.
        CheckpointError: a trial's state can't be saved, on a full disk for example; every finished epoch is in the
            store, and the next run continues from the checkpoints before.
        ProvenanceError: the study would continue under other conditions than it began; what has ended is in the store.
        KeyboardInterrupt: passes through, once trials that can have saved their state; every finished epoch is in the
            store, and the next run continues.

    Example:
        >>> with SQLStore("fairtrial.db") as store:                                   # doctest: +SKIP
        ...     run_study(fairtrial.load("quick"), store=store)
    """
    executor = LocalExecutor() if executor is None else executor
    with store.lock(study):
        scheduler, reasons = _scheduler(study)
        outcomes = store.outcomes(scheduler.planned)
        remark = _changed_file(scheduler, store, force=force)
        checkpoints = CheckpointManager(executor.checkpoints or f"{store.beside}.checkpoints")
        checkpoints.remove_leftovers(trial for trial in scheduler.planned if outcomes.get(trial.hash) in _FINAL)
        ended = _ended(outcomes, retry_failed=retry_failed)
        before, recorder = (
            len(ended),
            _Recorder(scheduler, ended, store, callbacks, checkpoints, reasons, remark, force),
        )
        step = recorder.advance()
        missing = [trial for trial in scheduler.possible if trial.hash not in ended] if step.trials else []
        if not missing:
            recorder.begin(step, missing)
            return 0
        workload = compose_workload(study, missing, checkpoints, recorder.on_download, recorder.on_progress)
        with executor.open(workload) as session:
            recorder.begin(step, missing, session)
            recorder.execute(step, session)
        return len(ended) - before


def compose_workload(
    study: Study,
    trials: Sequence[Trial],
    checkpoints: CheckpointManager,
    on_download: Callable[[int, int | None, str], None],
    on_progress: Callable[[Progressed], None],
) -> Workload:
    """Collect what executors need to know of training, and see that all that the trials need is there.

    torch is loaded here and not before.
    """
    from fairtrial.training import machine, prepare  # noqa: PLC0415
    from fairtrial.training.datasets import share  # noqa: PLC0415

    prepare.prepare(study, progress=on_download)
    data = {trial.settings.data.name for trial in trials if trial.settings.training.loop == BUILT_IN}
    return Workload(
        prepare.run,
        machine.describe_machine,
        tuple(trials),
        checkpoints,
        set_up=partial(machine.set_up_worker, compiles=prepare.compile_layers(trials)),
        gpus=machine.gpus(),
        environment=machine.show_one_gpu,
        data=NodeData(partial(share.gather, data), partial(share.place, data)) if data else None,
        on_progress=on_progress,
    )


class _Received(NamedTuple):
    """A message that is not in the store yet."""

    message: Message
    trial: Trial
    attempt: str
    forced: str


class _Recorder:
    """Records what comes of trials, tells callbacks, and submits the trials that follow from it.

    Consecutive messages are written in one transaction: syncing one to the disk takes longer than many a message. What
    callbacks are told is in the store already.

    Args:
        scheduler: decides what follows.
        ended: hashes of the trials that have ended; those that end are added.
        store: where records go.
        callbacks: told what happens.
        checkpoints: where trials save their state; removed when they have ended.
        reasons: why arms stop, by arm.
        remark: noted in each trial's provenance as something that the user forced.
        force: continue under other conditions.
    """

    def __init__(  # noqa: PLR0917
        self,
        scheduler: Scheduler,
        ended: set[str],
        store: Store,
        callbacks: Sequence[Callback],
        checkpoints: CheckpointManager,
        reasons: Mapping[str, str],
        remark: str,
        force: bool,
    ) -> None:
        self._scheduler, self._ended, self._store, self._callbacks = scheduler, ended, store, callbacks
        self._checkpoints, self._reasons, self._remark, self._force = checkpoints, reasons, remark, force
        self._study = scheduler.study
        self._trials = {trial.hash: trial for trial in scheduler.planned}
        self._git_commit = git_commit(self._study.origin.folder) if self._study.origin.folder else None
        self._conditions = RunConditions(store.results(self._study))
        self._attempts: dict[str, str] = {}
        self._uncommitted: list[_Received] = []

    def advance(self) -> Decision:
        """Ask the scheduler what follows from the trials that have ended by now."""
        return self._scheduler.advance(self._ended, self._results)

    def begin(self, step: Decision, missing: Sequence[Trial], session: Session | None = None) -> None:
        """Record that the study runs, and tell what it will do."""
        origin, planned = self._study.origin, self._scheduler.planned
        now = datetime.now(UTC)
        self._store.add_study(self._study, planned, now, source=origin.source, assignments=origin.overrides)
        for callback in self._callbacks:
            callback.on_plan(self._study, self._scheduler.possible, missing)
            if session is not None and session.slots is not None:
                callback.on_workers(session.slots)
        failpoint("runner.planned")
        self._tell_stopped(step)

    def execute(self, step: Decision, session: Session) -> None:
        """Run the trials of a step and of those that follow."""
        self._submit(step, session)
        try:
            for message in session.messages():
                if message is None:
                    self._commit()
                    continue
                self._uncommitted.append(self._receive(message))
                if isinstance(message, Ended):
                    self._ended.add(message.trial_id)
                    step = self.advance()
                    self._tell_stopped(step)
                    self._submit(step, session)
        finally:
            self._commit()

    def on_download(self, done: int, total: int | None, what: str) -> None:
        """Tell callbacks of a download."""
        for callback in self._callbacks:
            callback.on_download(done, total, what)

    def on_progress(self, now: Progressed) -> None:
        """Tell callbacks how far a trial is within its epoch."""
        for callback in self._callbacks:
            callback.on_progress(self._trials[now.trial_id], now.batch, now.batches, now.metrics)

    def _submit(self, step: Decision, session: Session) -> None:
        for trial in step.trials:
            session.submit(trial)

    def _tell_stopped(self, step: Decision) -> None:
        for arm, seeds in step.stopped.items():
            for callback in self._callbacks:
                reason = self._reasons.get(arm, "no arm is left to compare with")
                callback.on_arm_stopped(self._study, arm, seeds, reason)

    def _receive(self, message: Message) -> _Received:
        """Assign a message to its attempt; `Started` begins one."""
        trial, forced = self._trials[message.trial_id], ""
        if isinstance(message, Started):
            message = replace(message, machine=replace(message.machine, git_commit=self._git_commit))
            forced = self._check_conditions(trial, message.machine)
            self._attempts[trial.hash] = secrets.token_hex(8)
        return _Received(message, trial, self._attempts[trial.hash], forced)

    def _check_conditions(self, trial: Trial, machine: Machine) -> str:
        """Compare the conditions of a trial that begins with those before it; returns what the user has forced.

        Raises:
            ProvenanceError: it does not run under the same conditions, and the user has not forced it.
        """
        if (found := self._conditions.differences(trial, machine)) and not self._force:
            raise ProvenanceError(
                f"{self._study.label} began with {'; '.join(found)}: mixing them can change its numbers; go back, "
                "begin again in another store, or use --force, which is noted with every trial from now on"
            )
        self._conditions.add(trial.arm, machine)
        return "; ".join([self._remark, *found] if self._remark else found)

    def _results(self) -> Sequence[TrialResult]:
        self._commit()
        return self._store.results(self._study)

    def _commit(self) -> None:
        """Write what has come in, then tell of it; Ctrl-C waits until it is written."""
        if self._uncommitted:
            with signals.delayed():
                self._commit_all()

    def _commit_all(self) -> None:
        received, self._uncommitted = self._uncommitted, []
        failpoint("runner.uncommitted")
        self._store.write(partial(_write, received))
        failpoint("runner.committed")
        for message, trial, *_ in received:
            if isinstance(message, Ended) and message.outcome in _FINAL:
                self._checkpoints.remove(trial)  # a failed trial that is retried later can continue from them
            for callback in self._callbacks:
                _tell(callback, message, trial)
        failpoint("runner.cleared")


def _write(received: Sequence[_Received], writer: Writer) -> None:
    """Write messages in one transaction, which may be run again if its connection is lost."""
    for message, trial, attempt, forced in received:
        match message:
            case Started(_, machine, at):
                writer.begin(trial, attempt, machine, at, forced)
            case Fingerprinted(_, fingerprints):
                writer.add_fingerprints(trial, attempt, fingerprints)
            case EpochFinished(_, record):
                writer.add_epoch(trial, attempt, record)
            case Ended(_, outcome, detail, at):
                writer.end(trial, attempt, outcome, detail, at)
    failpoint("runner.written")


def _tell(callback: Callback, message: Message, trial: Trial) -> None:
    match message:
        case Started(_, machine, _):
            callback.on_trial_start(trial, machine)
        case EpochFinished(_, record):
            callback.on_epoch(trial, record)
        case Ended(_, outcome, detail, _):
            callback.on_trial_end(trial, outcome, detail)
        case Warned(_, text):
            callback.on_warning(trial, text)


def _scheduler(study: Study) -> tuple[Scheduler, Mapping[str, str]]:
    """Schedule a study; a sequential one by its verdicts. Gives the reasons why arms stop, too, as they are found."""
    reasons: dict[str, str] = {}

    def settled(study: Study, results: Sequence[TrialResult]) -> Mapping[str, str]:
        from fairtrial.stats import comparison  # noqa: PLC0415  (loads SciPy)

        found = comparison.stops(study, results)
        reasons.update(found)
        return found

    return Scheduler(study, settled if study.sequential else None), reasons


def _ended(outcomes: Mapping[str, Outcome | None], *, retry_failed: bool) -> set[str]:
    again = {None, Outcome.FAILED} if retry_failed else {None}
    return {trial for trial, outcome in outcomes.items() if outcome not in again}


def _changed_file(scheduler: Scheduler, store: Store, *, force: bool) -> str:
    """See whether the study's file has changed while what it meant before is unfinished; returns what to note.

    Raises:
        ProvenanceError: it has, and the user has not forced it.
    """
    study = scheduler.study
    before = abandoned_study(study, scheduler.planned, store.studies())
    if before is None:
        return ""
    earlier, _ = _scheduler(before)
    ended = _ended(store.outcomes(earlier.planned), retry_failed=False)
    if not earlier.advance(ended, partial(store.results, before)).trials:
        return ""
    changes = "; ".join(changed_keys(before, study))
    found = f"{study.origin.source} has changed since {before.label} was interrupted: {changes}"
    if force:
        return found
    raise ProvenanceError(
        f"{found}. To go on with that study: fairtrial run {before.label}; to leave it for this one: --force"
    )
