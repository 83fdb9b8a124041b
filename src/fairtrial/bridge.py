"""Turns a training API that calls callbacks into a training loop, which yields its epochs.

A generator can't yield from within a callback, so the training runs in a thread of its own. The two threads never run
at the same time: whoever trains waits while a record is dealt with, as a generator does at its ``yield``.
"""

import contextvars
import ctypes
import functools
import inspect
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from queue import SimpleQueue
from typing import TypeAlias

from fairtrial.trial import TrainingLoop, TrialContext

#: Takes the metrics of an epoch, as a training loop would yield them.
Report: TypeAlias = Callable[[Mapping[str, float]], None]


def reporting(loop: Callable[[TrialContext, Report], object]) -> TrainingLoop:
    """Make a training loop of a function that reports its epochs instead of yielding them.

    For training APIs that have callbacks, such as those of Lightning, Keras, Transformers and XGBoost: call ``report``
    in a callback, once after each epoch, with the dictionary that a training loop would yield. A call of ``report`` is
    in all respects what a ``yield`` is in a generator:

    - It returns when the next epoch is wanted; until then nothing is trained. So ``trial.save`` belongs after it.
    - It raises `GeneratorExit` if the trial is abandoned. Let it pass: ``finally`` and ``with`` clean up. A training
      that catches it gets it again at its next report.
    - What the function raises is raised by the generator, `Diverged` and `Stopped` too.

    The training runs in a thread of its own, with the context variables of its caller, from the first epoch that is
    asked for; the thread has ended when the generator has. On Ctrl-C the training is interrupted where it is by a
    `GeneratorExit`, once native code allows it; a second Ctrl-C does not wait for that.

    Args:
        loop: called with the trial and with ``report``. What it returns is ignored. Name it in ``training.loop``.

    Raises:
        TypeError: the function is a generator, which needs no ``report``.
        RuntimeError: (``report``) the training has ended.

    Example:
        >>> def fit(epochs, on_epoch_end):  # stands for a library's
        ...     for epoch in range(epochs):
        ...         on_epoch_end({"val_accuracy": 0.5 + 0.1 * epoch})
        >>> @ft.reporting
        ... def train(trial, report):
        ...     fit(trial.epochs, on_epoch_end=lambda logs: report({"test_acc": logs["val_accuracy"]}))
        >>> list(train(ft.TrialContext(ft.Trial("baseline", 0, study.arms[0].settings))))[0]
        {'test_acc': 0.5}
    """
    if inspect.isgeneratorfunction(loop):
        raise TypeError(f"reporting: {loop.__name__} yields; remove the decorator, or report where it yields")

    @functools.wraps(loop)
    def train(trial: TrialContext) -> Iterator[Mapping[str, float]]:
        yield from _Training(functools.partial(loop, trial)).epochs()

    return train


class _Training:
    """A training that takes turns with whoever iterates over its epochs."""

    def __init__(self, train: Callable[[Report], object]) -> None:
        self._train, self._context = train, contextvars.copy_context()
        # Where a generator is never closed, its thread must not keep the interpreter from its end.
        self._thread = threading.Thread(target=self._run, name="fairtrial-training", daemon=True)
        self._records: SimpleQueue[tuple[Mapping[str, float]] | None] = SimpleQueue()  # None: there are no more
        self._turns: SimpleQueue[None] = SimpleQueue()
        self._paused = self._stopped = self._ended = self._begun = False
        self._beginning = threading.Lock()  # so that nothing interrupts the thread before it can deal with it
        self._error: BaseException | None = None

    def epochs(self) -> Iterator[Mapping[str, float]]:
        """Start, and yield the records; the thread has ended when this has."""
        try:
            self._thread.start()
            while (record := self._records.get()) is not None:
                self._paused = True
                yield record[0]
                self._paused = False
                self._turns.put(None)
            self._thread.join()
        except GeneratorExit:
            self._stop()
            self._raise_error(Exception)  # one of the cleaning up, which a generator's `close` raises, too
            raise
        except BaseException:  # Ctrl-C, say, which must not become another error
            self._stop()
            raise
        self._raise_error(BaseException)

    def _run(self) -> None:
        """Train, in the thread."""
        try:
            with self._beginning:
                self._begun = not self._stopped
            if self._begun:
                self._context.run(self._train, self._report)
        except BaseException as error:  # noqa: BLE001  (raised in the other thread)
            self._error = error
        self._ended = True
        self._records.put(None)

    def _report(self, metrics: Mapping[str, float]) -> None:
        if self._ended:
            raise RuntimeError("report: the training has ended")
        if not self._stopped:
            self._records.put((metrics,))
            self._turns.get()
        if self._stopped:
            raise GeneratorExit

    def _stop(self) -> None:
        """Have the training end, and wait for it."""
        thread = self._thread
        with self._beginning:
            self._stopped = self._stopped or not self._begun
        if self._begun and thread.ident is not None and not self._paused:  # it trains, or is about to leave `_report`
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(GeneratorExit))
        self._stopped = True
        self._turns.put(None)
        if thread.is_alive() and not sys.is_finalizing():  # then it never gets a turn again
            thread.join()

    def _raise_error(self, kind: type[BaseException]) -> None:
        error, self._error = self._error, None
        try:
            if isinstance(error, kind):
                raise error
        finally:
            del error  # its traceback has this frame, and with it all that was trained would stay in memory
