"""The inside of a check: runs the first epochs of a training loop in a worker process, and tells what it does.

What is seen of a loop travels with its fingerprints, under names that begin with `SEEN`.
"""

import gc
import io
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fairtrial.checkpoints import CheckpointManager, TrialCheckpoints
from fairtrial.errors import Stopped
from fairtrial.executors.base import as_generator
from fairtrial.trial import TrainingLoop, Trial, TrialContext, Turn

#: Begins the names of what is seen, among fingerprints.
SEEN = "seen "


class WatchedCheckpoints(TrialCheckpoints):
    """Checkpoints of one attempt that know how the training loop has used them."""

    loaded = 0  # records that came with the state
    has_loaded = has_saved = has_stopped = False

    def load(self) -> Any:
        """Read the last state; see `TrialContext.load`."""
        self.has_loaded, state = True, super().load()
        self.loaded = len(self.records)
        return state

    def save(self, state: object) -> None:
        """Write the state if it is time; see `TrialContext.save`."""
        self.has_saved = True
        try:
            super().save(state)
        except Stopped:
            self.has_stopped = True
            if isinstance(self.checkpoints, StoppingManager) and self.trial.hash in self.checkpoints.killed:
                os.kill(os.getpid(), signal.SIGKILL)
            raise


@dataclass(frozen=True)
class StoppingManager(CheckpointManager):
    """Checkpoints of a trial that is asked to stop as soon as it has yielded a record, unless it shall go on.

    Trials whose hash is in ``killed`` are killed instead, as soon as their state is written.
    """

    goes_on: bool = False
    killed: frozenset[str] = frozenset()
    opened: list[WatchedCheckpoints] = field(default_factory=list, compare=False, repr=False)  # the last attempt's

    def open(self, trial: Trial, asked_to_stop: Callable[[], bool] = lambda: False) -> WatchedCheckpoints:
        """Begin an attempt; see `CheckpointManager.open`."""

        def is_asked() -> bool:
            return asked_to_stop() or (not self.goes_on and len(watched.records) > watched.loaded)

        watched = WatchedCheckpoints(self, trial, is_asked)
        self.opened[:] = [watched]
        return watched


@dataclass(frozen=True)
class Probe:
    """Runs a training loop for so many epochs, of some trials for one; in place of the loop itself.

    Its output is counted and thrown away. If the trial is to be stopped and resumed, it has the worker's checkpoints.
    """

    loop: TrainingLoop
    epochs: int
    short: frozenset[str] = frozenset()  # hashes of trials of which one epoch is enough
    checkpoints: StoppingManager | None = None

    def __call__(self, trial: TrialContext) -> Iterator[Mapping[str, float]]:
        """Train a trial; yields the loop's own records."""
        watched = self.checkpoints.opened[0] if self.checkpoints is not None else None
        try:
            with _output_counted() as output:
                yield from self._epochs(trial, watched)
        finally:
            gc.collect()  # a generator may leave cycles, with a data loader in them
            if watched is not None:
                _tell(trial, {"saved": _yes(watched.has_saved), "loaded": _yes(watched.has_loaded)})
            seen = {"output": output.size, "children": _children(), "memory": _peak_bytes()}
            _tell(trial, {name: str(number) for name, number in seen.items() if number})

    def _epochs(self, trial: TrialContext, watched: WatchedCheckpoints | None) -> Iterator[Mapping[str, float]]:
        wanted = 1 if trial.trial.hash in self.short else self.epochs
        threads, stopped = _threads(), False
        with _observing() as seen:
            try:
                with closing(as_generator(self.loop(trial))) as records:
                    for new, record in enumerate(records, start=1):
                        done = new + (watched.loaded if watched is not None else 0)
                        _tell(trial, {f"weights {done}": seen.weights, "threads": _changed(threads, _threads())})
                        if isinstance(record, Turn):  # of trials beside others alone, which are not tried
                            continue
                        yield record
                        if wanted <= done < trial.epochs:  # at its last epoch a loop must end by itself
                            break
            except Stopped:
                stopped = True
            _tell(trial, {"initial weights": seen.initial_weights, "first batch": seen.first_batch})
        if watched is not None:
            swallowed = watched.has_stopped and not stopped
            _tell(trial, {"stopped": _yes(stopped), "swallowed": _yes(swallowed)})


def _tell(trial: TrialContext, seen: Mapping[str, str]) -> None:
    trial.fingerprint(**{f"{SEEN}{name}": text for name, text in seen.items() if text})


class _Output(io.RawIOBase):
    """Counts what is written, and throws it away."""

    def __init__(self) -> None:
        self.size = 0

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return 1

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        self.size += size
        return size


@contextmanager
def _output_counted() -> Iterator[_Output]:
    """Count what Python writes to the standard streams; what native code writes is thrown away uncounted."""
    output, before = _Output(), (sys.stdout, sys.stderr)
    kept = [os.dup(number) for number in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for number, stream in zip((1, 2), before, strict=True):
            stream.flush()
            os.dup2(nowhere, number)
        sys.stdout = sys.stderr = io.TextIOWrapper(io.BufferedWriter(output), "utf-8", "replace", write_through=True)
        yield output
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        sys.stdout, sys.stderr = before
        for number, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, number)
        for number in (*kept, nowhere):
            os.close(number)


class _Unseen:
    """What is seen of a loop where torch is not loaded."""

    initial_weights = first_batch = weights = ""


def _observing() -> AbstractContextManager[Any]:
    if "torch" not in sys.modules:
        return nullcontext(_Unseen())
    from fairtrial.training.observation import observing  # noqa: PLC0415  (loads torch)

    return observing()


def _threads() -> int:
    torch: Any = sys.modules.get("torch")
    return 0 if torch is None else int(torch.get_num_threads())


def _yes(does: bool) -> str:
    return "yes" if does else ""


def _changed(before: int, now: int) -> str:
    return str(now) if before and before != now else ""


def _children() -> int:
    """Count the processes that this one has started and that still run; 0 where the system does not tell."""
    own, count = os.getpid(), 0
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            count += int(parent) == own and state != "Z" and int(folder.name) not in _helpers()
    return count


def _helpers() -> set[int]:
    """Processes that multiprocessing keeps for later ones."""
    modules: Any = sys.modules
    tracker = getattr(modules.get("multiprocessing.resource_tracker"), "_resource_tracker", None)
    server = getattr(modules.get("multiprocessing.forkserver"), "_forkserver", None)
    found = getattr(tracker, "_pid", None), getattr(server, "_forkserver_pid", None)
    return {pid for pid in found if pid is not None}


def _peak_bytes() -> int:
    """The most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
