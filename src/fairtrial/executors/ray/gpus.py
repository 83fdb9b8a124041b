"""Studies on the GPUs of a Ray cluster: an actor for each GPU, with many trials side by side."""

import pickle
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from fairtrial.executors.base import Ended, Message, Workload
from fairtrial.executors.limits import Limits
from fairtrial.executors.local.executor import SECONDS_A_SAVE, SECONDS_TO_STOP
from fairtrial.executors.ray.actor import TrialsActor
from fairtrial.executors.ray.cluster import RayCluster
from fairtrial.executors.ray.session import GRACE, ClusterSession
from fairtrial.executors.session import CantContinue, SharingSession, WorkerDied
from fairtrial.trial import Trial


@dataclass
class _Remote:
    """An actor with the GPU that Ray gave it, seen from here."""

    actor: Any
    awaited: Any  # the reference to the answer that it owes; None if it owes none
    trials: dict[str, Trial] = field(default_factory=dict)  # that it has, by hash, in the order given
    given: list[Trial] = field(default_factory=list)  # of those, the ones to send with the next call


class RayGpuSession(SharingSession, ClusterSession):
    """A study whose trials take turns in one process a GPU, beside a Ray actor that has the GPU.

    Keeps the promises of `executors.base`, and these.

    * An actor gets its first trials once it has its GPU, and never more than its share: all GPUs get about as many. No
      trial waits for a GPU that others occupy.
    * Each call of an actor sends it the trials that it is to start, and answers with the reports that have come since
      the last call. There is one call at a time, so that reports come in order.
    * Where its process, the actor or their node dies all its trials are run again, on another GPU if need be; see
      `SharingSession`.
    * Where a trial exceeds its time limit its process is ended, and the others of that process are run again.
    * Leaving the context has all trials save their states, and then kills the actors.
    """

    def __init__(
        self, workload: Workload, cluster: RayCluster, side_by_side: int, threads: int, limits: Limits
    ) -> None:
        super().__init__(workload, cluster, threads, 1, limits)
        self._most = side_by_side
        self._room: dict[int, int] = {}
        self._remotes: dict[int, _Remote] = {}
        self._live: dict[Any, int] = {}  # numbers of the actors, by the answers that they owe

    def _prepare(self, resources: dict[str, float]) -> None:
        self._actor = self._cluster.ray.remote(max_restarts=0, **resources)(TrialsActor)

    def __exit__(self, *exc_info: object) -> None:
        try:
            self._stop([*self._remotes])
        finally:
            super().__exit__(*exc_info)

    def _running(self) -> int:
        return sum(len(remote.trials) for remote in self._remotes.values())

    def _assign(self) -> None:
        """Give waiting trials to the actors that have the fewest, starting as many actors as there is room for."""
        if self._waiting:
            self._start_actors()
        while self._waiting and self._remotes:
            # Actors get their GPUs one after the other: the first must not take what the others could train.
            share = -(-(self._running() + len(self._waiting)) // len(self._remotes))
            most = {number: min(self._room[number], share) for number in self._remotes}
            free = [n for n, one in self._remotes.items() if one.awaited is None and len(one.trials) < most[n]]
            if not free:
                break
            number = min(free, key=lambda one: (len(self._remotes[one].trials) / most[one], one))
            if trial := self._next(self._running()):
                self._remotes[number].trials[trial.hash] = trial
                self._remotes[number].given.append(trial)
        for number, remote in self._remotes.items():
            if remote.awaited is None and remote.trials:
                self._call(number)

    def _start_actors(self) -> None:
        wanted = min(self._fit, len(self._workload.trials))
        while len(self._remotes) < wanted:
            number = next(number for number in range(wanted) if number not in self._remotes)
            self._room.setdefault(number, self._most)
            self._remotes[number] = _Remote(self._actor.remote(self._spec, self._data), None)
            self._call(number)  # answers once it has its GPU

    def _call(self, number: int) -> None:
        remote = self._remotes[number]
        remote.awaited = remote.actor.exchange.remote([pickle.dumps(trial) for trial in remote.given])
        remote.given = []
        self._live[remote.awaited] = number

    def _take_in(self, reports: Any) -> Iterator[Message]:
        number = self._live.pop(reports)
        remote = self._remotes[number]
        remote.awaited = None
        answer = self._read(lambda: self._cluster.ray.get(reports))
        if isinstance(answer, WorkerDied):
            self._cluster.ray.kill(self._remotes.pop(number).actor)  # Ray may only have lost sight of it
            answer = [answer], ()
        new, has = answer
        for report in new:
            if isinstance(report, WorkerDied):
                self._check_after_death()
                lost, remote.trials = [*remote.trials.values()], {}
                if lost:
                    yield from self._lost(number, lost, report)
                else:
                    self._count_false_start(f"actor {number}", report.cause)
            elif isinstance(report, CantContinue):
                raise report.error
            elif trial := remote.trials.get(report.trial_id):
                if isinstance(report, Ended):
                    del remote.trials[report.trial_id]
                yield from self._handle(trial, report)
        # Those that were in a process with one that took too long are not to blame.
        self._put_back([remote.trials.pop(one) for one in [*remote.trials] if one not in has])

    def _cancel(self) -> None:
        self._stop([number for number, remote in self._remotes.items() if remote.trials])

    def _stop(self, numbers: list[int]) -> None:
        """Have the trials of actors save their states, and kill the actors."""
        leaving = [self._remotes.pop(number) for number in numbers]
        for remote in leaving:
            self._live.pop(remote.awaited, None)
        if self._cluster.lost or not leaving:
            return
        ray, seconds, stopping = self._cluster.ray, 0.0, []
        for remote in leaving:
            if remote.trials:
                saves = self._spec.saves and not self._started.isdisjoint(remote.trials)
                grace = SECONDS_TO_STOP + SECONDS_A_SAVE * (len(remote.trials) - 1) if saves else 0.0
                seconds = max(seconds, grace)
                stopping.append(remote.actor.stop.remote(grace))
        for grace in (seconds + GRACE, GRACE):
            if stopping:
                ray.wait(stopping, num_returns=len(stopping), timeout=grace)
            for remote in leaving:
                ray.kill(remote.actor)
