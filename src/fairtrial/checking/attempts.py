"""Attempts at trials, in worker processes that the check begins and ends as it needs."""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from multiprocessing.connection import wait
from time import monotonic
from typing import Self

from fairtrial import signals
from fairtrial.checking.probe import SEEN, Probe
from fairtrial.digests import reproducible
from fairtrial.executors.base import Ended, EpochFinished, Fingerprinted, Started, Workload
from fairtrial.executors.limits import Limits
from fairtrial.executors.local.executor import THREAD_VARIABLES
from fairtrial.executors.local.process import WorkerProcess
from fairtrial.executors.local.worker import WorkerJob
from fairtrial.executors.session import CantContinue, Report, WorkerDied
from fairtrial.trial import Machine, Outcome, Trial, TrialResult

#: Starts a worker; tests have a quicker one.
start_worker = WorkerProcess

#: Seconds between two looks at a worker that says nothing.
SECONDS_A_LOOK = 1.0


@dataclass
class Attempt:
    """What one attempt at a trial did.

    Attributes:
        trial: what was trained.
        result: as a store would have it.
        seen: what was seen of the loop, by name; see `probe`.
        times: seconds from the start to each record.
        refused: whether the first record was not what the study needs.
        died: whether its process did.
    """

    trial: Trial
    result: TrialResult
    seen: dict[str, str] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)
    refused: bool = False
    died: bool = False

    @property
    def finished(self) -> bool:
        """Whether it did all that was asked of it."""
        return self.result.outcome in {Outcome.FINISHED, Outcome.DIVERGED}

    @property
    def weights(self) -> dict[int, str]:
        """Digests of the model's state after epochs, as far as they were seen."""
        return {int(name.split()[1]): text for name, text in self.seen.items() if name.startswith("weights ")}

    def epochs(self, most: int | None = None) -> list[dict[str, str]]:
        """Write the records but for times, and the model's state after each, to the bit."""
        records = [reproducible(record) for record in self.result.epochs[:most]]
        states = self.weights
        return [record | {"weights": states.get(number, "")} for number, record in enumerate(records, start=1)]

    def digest(self, name: str) -> str:
        """What was seen of the initial weights, or of the first batch; else the loop's own fingerprint; else empty."""
        reported = {"initial weights": "initial_weights", "first batch": "batch_order"}[name]
        return self.seen.get(name) or self.result.fingerprints.get(reported, "")


class Process:
    """A worker process for attempts one after another; where it dies, the next attempt gets a new one.

    Args:
        workload: of the study, whose loop the `Probe` runs.
        probe: in place of the loop.
        threads: of the worker.
        limits: of an attempt.
    """

    def __init__(self, workload: Workload, probe: Probe, threads: int, limits: Limits) -> None:
        changed = replace(workload, loop=probe, checkpoints=probe.checkpoints)
        self._job = pickle.dumps(WorkerJob.of(changed, threads, limits.memory))
        self._variables = dict.fromkeys(THREAD_VARIABLES, str(threads))
        self._variables |= workload.environment(0) if workload.environment else {}
        self._limits = limits
        self._worker: WorkerProcess | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._worker is not None and self._worker.alive:
            self._worker.close()
        self._worker = None

    def run(self, trial: Trial) -> Attempt:
        """Train a trial and wait for its end."""
        if self._worker is None or not self._worker.alive:
            with signals.delayed():  # a signal now would leave a worker that nobody knows
                self._worker = start_worker(self._job, self._variables, self._limits)
        worker, heard = self._worker, _Heard(trial)
        worker.give(trial)
        while heard.outcome is None:
            left = min(SECONDS_A_LOOK, max(0.0, worker.seconds_left()))
            ready = bool(wait([worker.connection], left))
            if ready:
                heard.take_in(worker.read())
            if worker.alive and heard.outcome is None:
                heard.take_in(worker.check(0.0 if ready else left))
        return heard.attempt()


@dataclass
class _Heard:
    """What a worker has reported of one attempt."""

    trial: Trial
    outcome: Outcome | None = None
    detail: str = ""
    refused: bool = False
    died: bool = False
    began: float = field(default_factory=monotonic)
    records: list[EpochFinished] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    reads: tuple[str, ...] | None = None
    started: Started | None = None

    def take_in(self, report: Report | None) -> None:
        match report:
            case Started():
                self.started, self.began = report, monotonic()
            case Fingerprinted(_, fingerprints):
                self.fingerprints = fingerprints
            case EpochFinished():
                self.records.append(report)
                self.times.append(monotonic() - self.began)
            case Ended(_, outcome, detail, _, reads):
                self.outcome, self.detail, self.reads = outcome, detail, reads
            case CantContinue(error):
                before, told, after = str(error).partition(f", arm {self.trial.arm}, seed {self.trial.seed}: ")
                self.outcome, self.detail, self.refused = Outcome.FAILED, after if told else before, True
            case WorkerDied(cause):
                self.outcome, self.detail, self.died = Outcome.FAILED, cause, True

    def attempt(self) -> Attempt:
        trial = self.trial
        seen = {name.removeprefix(SEEN): text for name, text in self.fingerprints.items() if name.startswith(SEEN)}
        own = {name: text for name, text in self.fingerprints.items() if not name.startswith(SEEN)}
        machine = self.started.machine if self.started else Machine({}, "", "", 0, "")
        at = self.started.at if self.started else datetime.now(UTC)
        epochs = tuple(one.record for one in self.records)
        result = TrialResult(
            arm=trial.arm,
            seed=trial.seed,
            trial=trial.hash,
            outcome=self.outcome,
            detail=self.detail,
            started=at,
            ended=None,
            machine=machine,
            epochs=epochs,
            fingerprints=own,
            reads=self.reads,
        )
        return Attempt(trial, result, seen, self.times, self.refused, self.died)
