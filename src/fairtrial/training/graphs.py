"""Record what a device does in a training step, and repeat it without Python: CUDA graphs.

A step of a small network is hundreds of tiny kernels, and starting each from Python takes longer than its work. A graph
starts all of them at once, on the same addresses as when it was recorded. So what is recorded must write its results
into tensors that stay, and whatever Python decides in it is decided once.

`OperationRecorder` is a stand-in for machines without a GPU: it records the operations themselves, and repeats them one
by one on the same tensors. Code that would go wrong under a CUDA graph (a number that changes from step to step, a
result that is a new tensor each time) goes wrong under it, too, which is what the tests need.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

T = TypeVar("T")


class Mark(Protocol):
    """A place in a device's work."""

    def done(self) -> bool:
        """Whether the device has come past it."""

    def wait(self) -> None:
        """Wait until it has."""


@dataclass(frozen=True)
class Recording(Generic[T]):
    """Recorded work: `repeat` has the device do it once more; ``result`` are the tensors that it then writes anew."""

    repeat: Callable[[], None]
    result: T


class Recorder(Protocol):
    """Records work of one trial. All of it is done in the order in which it is started."""

    def record(self, action: Callable[[], T]) -> Recording[T]:
        """Record an action, and have the device do it once."""

    def mark(self) -> Mark:
        """Mark the place after all work that has been started."""


class GraphRecorder:
    """Records CUDA graphs on the current stream, which must be the trial's own.

    The graphs of a trial share memory for what they compute in between: they never run at the same time.

    Not recorded by `torch.cuda.graph`, which waits for the whole device, where other trials are at work.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None  # torch names no type for it

    def record(self, action: Callable[[], T]) -> Recording[T]:
        """See `Recorder.record`."""
        graph = torch.cuda.CUDAGraph()
        torch.cuda.current_stream(self._device).synchronize()
        with _no_garbage_collection():
            # Other threads may go on: of this trial's work only autograd's own is in another thread.
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                result = action()
            except BaseException:
                with suppress(RuntimeError):  # that the recording is of no use; the action's own error says why
                    graph.capture_end()
                raise
            graph.capture_end()
        self._pool = self._pool or graph.pool()
        graph.replay()
        return Recording(graph.replay, result)

    def mark(self) -> Mark:
        """See `Recorder.mark`."""
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        return _Event(event)


@dataclass(frozen=True)
class _Event:
    event: torch.cuda.Event

    def done(self) -> bool:
        return bool(self.event.query())  # type: ignore[no-untyped-call]

    def wait(self) -> None:
        self.event.synchronize()


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Keep Python from freeing another trial's graph or events while one is recorded, which CUDA forbids."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class OperationRecorder:
    """Records torch's operations, below autograd, and repeats them: the stand-in for CUDA graphs on any device."""

    def record(self, action: Callable[[], T]) -> Recording[T]:
        """See `Recorder.record`; a RuntimeError if the action reads a number of the device, as under CUDA."""
        log = _OperationLog()
        with log:
            result = action()
        return Recording(log.repeat, result)

    def mark(self) -> Mark:
        """See `Recorder.mark`."""
        return _Done()


class _Done:
    def done(self) -> bool:
        return True

    def wait(self) -> None:
        pass


class _OperationLog(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Logs each operation with its arguments and outputs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:  # noqa: SLF001  (an operation's name)
            raise RuntimeError("a number of the device was read while its work was recorded")
        outputs = func(*args, **(kwargs or {}))
        self._calls.append((func, args, kwargs or {}, outputs))
        return outputs

    @torch.no_grad()
    def repeat(self) -> None:
        for func, args, kwargs, outputs in self._calls:
            again = func(*args, **kwargs)
            for before, now in zip(tree_leaves(outputs), tree_leaves(again), strict=True):
                if isinstance(before, Tensor) and before.data_ptr() != now.data_ptr():  # no view, and not in place
                    before.copy_(now)


class Repeated(Generic[T]):
    """An action that is done as it is at first, is recorded the second time, and repeated from then on.

    The first time prepares what can't be recorded: an optimizer's state, workspaces of libraries. It counts like any
    other, and gives the same bits.
    """

    def __init__(self, recorder: Recorder, action: Callable[[], T]) -> None:
        self._recorder, self._action = recorder, action
        self.was_done = False
        self._recording: Recording[T] | None = None

    def __call__(self) -> T:
        """Do it once; what is returned is valid until the next time."""
        if not self.was_done:
            return self.plainly()
        if self._recording is not None:
            self._recording.repeat()
        else:
            self._recording = self._recorder.record(self._action)
        return self._recording.result

    def plainly(self) -> T:
        """Do it once by its single operations, which gives the same bits."""
        self.was_done = True
        return self._action()


def recorder_for(device: torch.device) -> Recorder | None:
    """Make the recorder of a trial on a device; None where there is nothing to gain."""
    return GraphRecorder(device) if device.type == "cuda" else None
