"""Runs studies: trains the missing trials of one, and records the results. The only writer to the store."""

import secrets
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial

from fairtrial import signals
from fairtrial.callbacks import Callback
from fairtrial.checkpoints import CheckpointManager
from fairtrial.errors import ProvenanceError, StudyError, TrialRestartedError
from fairtrial.executors.auto import AutoExecutor
from fairtrial.executors.base import (
    Ended,
    Executor,
    Message,
    NodeData,
    Progressed,
    Session,
    Started,
    Warned,
    Workload,
    device_elsewhere,
)
from fairtrial.executors.records import RecordRules
from fairtrial.failpoints import failpoint
from fairtrial.provenance import abandoned_study, changed_code, changed_keys, conditions_by_code, git_commit
from fairtrial.reads import unread_keys
from fairtrial.recording import Received, report, write
from fairtrial.scheduler import Decision, Scheduler
from fairtrial.spec import BUILT_IN, Study
from fairtrial.spec.imported import refusal
from fairtrial.store.base import Store
from fairtrial.trial import FINAL, Machine, Outcome, Trial, TrialResult

#: Between two looks at trials that the run of another study trains.
_SECONDS_A_LOOK = 1.0


def run_study(
    study: Study,
    *,
    store: Store,
    executor: Executor | None = None,
    callbacks: Sequence[Callback] = (),
    retry_failed: bool = False,
    force: bool = False,
    xray: bool = True,
) -> int:
    """Train the missing trials of a study, and return their number.

    Trials that it shares with a study whose run began earlier are left to that run, and waited for; if that ends
    without them, they are trained here. Where a restarted server let another run take trials over, it keeps them.

    Args:
        study: what to run. In a sequential study, arms stop after a seed at which their verdicts are settled; see
            `scheduler.Scheduler`.
        store: contains earlier results, and gets the new ones.
        executor: runs the trials; by default this machine, its GPUs if there are any. Workers do not import the script
            that calls this: it needs no ``if __name__ == "__main__"``, a training loop must be in a module.
        callbacks: called as the study runs.
        retry_failed: run failed trials again. Diverged ones are results, and stay.
        force: continue although versions of torch or fairtrial, threads, processor, layers, data or the user's own code
            differ from those of the study's trials so far, or although the study's file was changed while it was
            unfinished; the trials' provenance says so.
        xray: take snapshots of the optimizers' state, which change no result.

    Raises:
        FairtrialError: something that every trial needs is missing or damaged; nothing was trained.
        StoreLockedError: another process is running this study in this store.
        RecordError: a training loop's first record is not what the study needs.
        CheckpointError: a trial's state can't be saved, on a full disk for example; every finished epoch is in the
            store, and the next run resumes from the checkpoints before.
        StudyError: trials of imported runs are missing, which can't be trained.
        ProvenanceError: the study would continue under other conditions than it began; ended trials are in the store.
        KeyboardInterrupt: passes through, once trials that can have saved their state; every finished epoch is in the
            store, and the next run resumes.

    Example:
        >>> with SQLStore("fairtrial.db") as store:                                   # doctest: +SKIP
        ...     run_study(fairtrial.load("quick"), store=store)
    """
    if study.untuned:
        raise StudyError(f"{study.label}: its arms have yet to be tuned: run it with fairtrial.run, or fairtrial run")
    executor = AutoExecutor() if executor is None else executor
    stays = FINAL if retry_failed else tuple(Outcome)
    trained, lost = set[str](), set[str]()
    with store.lock(study):
        while True:
            try:
                _train_missing(
                    study, store, executor, callbacks=callbacks, stays=stays, trained=trained, force=force, xray=xray
                )
                return len(trained)
            except TrialRestartedError as error:  # a server was restarted, and another run took this one for dead
                if str(error) in lost:
                    raise
                lost.add(str(error))
                for callback in callbacks:
                    callback.on_warning(None, "another run took over a trial of this one, which is left to it")


def _train_missing(
    study: Study,
    store: Store,
    executor: Executor,
    *,
    callbacks: Sequence[Callback],
    stays: Collection[Outcome],
    trained: set[str],
    force: bool,
    xray: bool,
) -> None:
    """Train the missing trials of a locked study, and add their hashes to those that were trained."""
    scheduler = _schedule(study, store)
    outcomes = store.outcomes(scheduler.planned)
    changes = _check_file(scheduler, store, force=force)
    checkpoints = CheckpointManager(executor.checkpoints or f"{store.beside}.checkpoints")
    checkpoints.remove_leftovers(trial for trial in scheduler.planned if outcomes.get(trial.hash) in FINAL)
    ended = _ended(outcomes, stays)
    decision = scheduler.advance(ended, partial(store.results, study))
    recorder = _Recorder(scheduler, store, callbacks, checkpoints, ended, trained, stays, changes, force)
    missing = [trial for trial in scheduler.possible if trial.hash not in ended] if decision.trials else []
    if missing and study.imported is not None:
        raise StudyError(refusal(study.label))
    if not missing:
        recorder.begin(decision, missing)
        recorder.warn_of_changed_code()
        return
    elsewhere = device_elsewhere(executor)
    workload = compose_workload(
        study, missing, checkpoints, recorder.on_download, recorder.on_progress, elsewhere=elsewhere
    )
    with executor.open(replace(workload, xray=xray)) as session:
        recorder.begin(decision, missing, session)
        recorder.warn(*workload.notes)
        recorder.execute(session)


def compose_workload(
    study: Study,
    trials: Sequence[Trial],
    checkpoints: CheckpointManager,
    on_download: Callable[[int, int | None, str], None],
    on_progress: Callable[[Progressed], None],
    *,
    elsewhere: str | None = None,
) -> Workload:
    """Check that all that the trials need exists, and collect it for the executor; only this imports torch.

    The kind of device is that of other machines, if the trials run there; None for this machine's.
    """
    from fairtrial.training import datasets, devices, machine, prepare  # noqa: PLC0415

    prepare.prepare(study, progress=on_download, elsewhere=elsewhere is not None)
    notes = prepare.compile_layers(trials, elsewhere)
    data = {trial.settings.data.name for trial in trials if trial.settings.training.loop == BUILT_IN}
    return Workload(
        prepare.run,
        machine.describe_machine,
        tuple(trials),
        checkpoints,
        set_up=machine.set_up_worker,
        gpus=devices.gpus() if elsewhere is None else 0,
        environment=devices.show_one_gpu,
        device_memory=devices.memory,
        use_cores=machine.sharing_cores(study),
        data=NodeData(partial(datasets.gather, data), partial(datasets.install, data)) if data else None,
        rules=RecordRules.of(study),
        notes=notes,
        on_progress=on_progress,
    )


@dataclass
class _Recorder:
    """Records messages about trials, calls callbacks, and submits the trials that the scheduler wants next.

    Consecutive messages are written in one transaction: a sync to the disk takes longer than many messages. Callbacks
    are called after that.
    """

    scheduler: Scheduler
    store: Store
    callbacks: Sequence[Callback]
    checkpoints: CheckpointManager
    ended: set[str]  # hashes of the trials that have ended
    trained: set[str]  # of those, the ones that ended here
    stays: Collection[Outcome]  # outcomes after which a trial is not trained again
    changes: str  # of the study's file that the user forced, noted with every trial
    force: bool
    elsewhere: dict[str, Trial] = field(default_factory=dict)  # trials that the runs of other studies train, by hash
    told: set[str] = field(default_factory=set)  # labels of those studies

    def __post_init__(self) -> None:
        self.study = self.scheduler.study
        self.trials = {trial.hash: trial for trial in self.scheduler.planned}
        self.git_commit = git_commit(self.study.origin.folder) if self.study.origin.folder else None
        results = self.store.results(self.study)
        anew = self.trials.keys() - self.ended - self.checkpoints.saved()
        self.conditions = conditions_by_code(self.study, results, anew)
        self.reads_known = any(result.reads is not None for result in results)
        self.attempts: dict[str, str] = {}
        self.uncommitted: list[Received] = []

    def begin(self, decision: Decision, missing: Sequence[Trial], session: Session | None = None) -> None:
        """Record that the study runs, and submit its first trials."""
        self.store.add_study(self.study, datetime.now(UTC))
        for callback in self.callbacks:
            callback.on_plan(self.study, self.scheduler.possible, missing)
            if session is not None and session.slots is not None:
                callback.on_workers(session.slots)
        failpoint("runner.planned")
        self._follow(decision, session)

    def execute(self, session: Session) -> None:
        """Run trials until none is wanted."""
        try:
            while True:
                for message in session.messages():
                    if message is None:
                        self._commit()
                        continue
                    self.uncommitted.append(self._receive(message))
                    if isinstance(message, Ended):
                        self._check_reads(message)
                        self.ended.add(message.trial_id)
                        self._advance(session)
                if not self.elsewhere:
                    break
                time.sleep(_SECONDS_A_LOOK)
                self._submit([*self.elsewhere.values()], session)
        finally:
            self._commit()
        self.store.register(self.study, datetime.now(UTC))  # again, if another study was registered meanwhile

    def on_download(self, done: int, total: int | None, what: str) -> None:
        """Report a download's progress, or a warning about data, whose total is 0."""
        for callback in self.callbacks:
            callback.on_warning(None, what) if total == 0 else callback.on_download(done, total, what)

    def on_progress(self, now: Progressed) -> None:
        """Report a trial's progress within its epoch."""
        for callback in self.callbacks:
            callback.on_progress(self.trials[now.trial_id], now.batch, now.batches, now.metrics)

    def _advance(self, session: Session) -> None:
        self._follow(self.scheduler.advance(self.ended, self._results), session)

    def _follow(self, decision: Decision, session: Session | None) -> None:
        for stop in decision.stopped:
            for callback in self.callbacks:
                callback.on_arm_stopped(self.study, stop.arm, stop.seeds, stop.reason)
        if session is not None and decision.trials:
            self._submit(decision.trials, session)

    def _submit(self, trials: Sequence[Trial], session: Session) -> None:
        """Submit trials, but for those that the run of another study trains, or has trained since this one began."""
        elsewhere = self.store.trained_elsewhere(self.study)  # first: what has left it since has ended, or never will
        outcomes, trained = self.store.outcomes(trials), set[str]()
        for trial in trials:
            self.elsewhere.pop(trial.hash, None)
            if outcomes.get(trial.hash) in self.stays:
                trained.add(trial.hash)
            elif trial.hash in elsewhere:
                self.elsewhere[trial.hash] = trial
            else:
                session.submit(trial)
        self._tell({elsewhere[trial] for trial in self.elsewhere})
        if trained:
            self._adopt(trained)
            self._advance(session)

    def _tell(self, labels: set[str]) -> None:
        """Say once which runs are waited for."""
        if new := sorted(labels - self.told):
            self.told |= labels
            self.warn(f"some of these trials are left to the run of {' and '.join(new)}, which began earlier")

    def _adopt(self, trained: set[str]) -> None:
        """Count trials as ended that another run has trained, under conditions that must not differ either."""
        for result in self.store.results(self.study):
            if result.trial in trained and result.outcome is not None:
                trial = self.trials[result.trial]
                self._check_conditions(trial, result.machine)
                for callback in self.callbacks:
                    callback.on_trial_end(trial, result.outcome, result.detail)
        self.ended |= trained

    def _receive(self, message: Message) -> Received:
        """Assign a message to its attempt; `Started` begins one."""
        trial, forced = self.trials[message.trial_id], ""
        if isinstance(message, Started):
            message = replace(message, machine=replace(message.machine, git_commit=self.git_commit))
            forced = self._check_conditions(trial, message.machine)
            self.attempts[trial.hash] = secrets.token_hex(8)
        return message, trial, self.attempts[trial.hash], forced

    def _check_conditions(self, trial: Trial, machine: Machine) -> str:
        """Compare the conditions of a trial that starts with earlier ones; returns the differences that were forced."""
        conditions = self.conditions[trial.settings.training.code]
        if (found := conditions.differences(trial, machine)) and not self.force:
            raise ProvenanceError(
                f"{self.study.label} began with {'; '.join(found)}: mixing them can change its numbers; restore them, "
                "start again in another store, or use --force, which is recorded with every trial from now on"
            )
        conditions.add(trial.arm, trial.seed, machine)
        return "; ".join([self.changes, *found] if self.changes else found)

    def warn_of_changed_code(self) -> None:
        """Say of a study that needs no trial that its trials ran other code than there is now."""
        results = self.store.results(self.study)
        if results and (changed := changed_code(self.study, results)):
            self.warn(f"these trials ran other code ({changed}); to train all again, change a parameter with it")

    def warn(self, *texts: str) -> None:
        """Warn of what is about the study and not about a trial."""
        for text in texts:
            for callback in self.callbacks:
                callback.on_warning(None, text)

    def _check_reads(self, end: Ended) -> None:
        """Warn of settings in which arms differ, and that the first trial to end did not read."""
        if end.reads is None or end.outcome is Outcome.FAILED or self.reads_known:
            return
        self.reads_known = True
        if unread := " and ".join(unread_keys(self.study, end.reads)):
            text = f"has not read {unread}, in which arms differ: does the training loop use it?"
            self.uncommitted.append((Warned(end.trial_id, text), self.trials[end.trial_id], "", ""))

    def _results(self) -> Sequence[TrialResult]:
        self._commit()
        return self.store.results(self.study)

    def _commit(self) -> None:
        """Write the messages received, then report them; Ctrl-C waits for that."""
        if not self.uncommitted:
            return
        with signals.delayed():
            received, self.uncommitted = self.uncommitted, []
            failpoint("runner.uncommitted")
            self.store.write(partial(write, received))
            failpoint("runner.committed")
            self.trained.update(message.trial_id for message, *_ in received if isinstance(message, Ended))
            for message, trial, *_ in received:
                if isinstance(message, Ended) and message.outcome in FINAL:
                    self.checkpoints.remove(trial)  # a failed trial that is retried later can continue from them
                for callback in self.callbacks:
                    report(message, trial, callback)
            failpoint("runner.cleared")


def _schedule(study: Study, store: Store) -> Scheduler:
    if not study.sequential:
        return Scheduler(study)
    from fairtrial.stats import replay  # noqa: PLC0415  (loads SciPy)

    return Scheduler(study, replay.Stops(partial(store.history, study)))


def _ended(outcomes: Mapping[str, Outcome | None], stays: Collection[Outcome] = tuple(Outcome)) -> set[str]:
    return {trial for trial, outcome in outcomes.items() if outcome in stays}


def _check_file(scheduler: Scheduler, store: Store, *, force: bool) -> str:
    """Compare a study with an unfinished one that its file described before; returns the changes that were forced."""
    study = scheduler.study
    before = abandoned_study(study, scheduler.planned, store.studies())
    if before is None:
        return ""
    earlier = _schedule(before, store)
    if not earlier.advance(_ended(store.outcomes(earlier.planned)), partial(store.results, before)).trials:
        return ""
    changes = "; ".join(changed_keys(before, study))
    changed = f"{study.origin.source} has changed since {before.label} was interrupted: {changes}"
    if force:
        return changed
    raise ProvenanceError(
        f"{changed}. To resume that study: fairtrial run {before.label}; to run the new one instead: --force"
    )
