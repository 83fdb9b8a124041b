"""Handles Ctrl-C, SIGTERM and SIGHUP, and delays them while something must not be interrupted.

The first signal raises an exception in the main thread: `KeyboardInterrupt` for Ctrl-C, `errors.Terminated` for the
others. Work is then saved and workers end. A second signal ends the process at once, and its workers with it. Either
way the store stays consistent.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from fairtrial.errors import Terminated

#: The signals that ask this process to end.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

#: Makes a terminal show its cursor, which progress bars hide.
_SHOW_CURSOR = b"\x1b[?25h"

_received: list[int] = []


def install_handlers() -> None:
    """Install the handlers; signals that are ignored, as under ``nohup``, stay ignored."""
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _handle)


def exit_status(end: BaseException) -> int:
    """Return the exit status of a process that such an exception ended: 128 plus the signal's number."""
    return end.exit_code if isinstance(end, Terminated) else 128 + signal.SIGINT


@contextmanager
def delayed() -> Iterator[None]:
    """Delay signals until the end of a block that must not be interrupted.

    A second signal is handled at once. Only Python handlers are delayed, and only in the main thread, because Python
    runs them nowhere else. A signal mask would not work: another thread, of a numeric library for instance, would
    receive the signal, and the main thread would run the handler.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pending: list[int] = []
    before = {number: handler for number in ENDING if callable(handler := signal.getsignal(number))}

    def note(number: int, frame: FrameType | None) -> None:
        if pending and before[signal.Signals(number)] is _handle:
            _end_at_once(number)
        if pending:
            before[signal.Signals(number)](number, frame)
        pending.append(number)

    for number in before:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if pending:
            signal.raise_signal(pending[0])


def _handle(number: int, _frame: FrameType | None) -> None:
    if _received:
        _end_at_once(number)
    _received.append(number)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise Terminated(number)


def _end_at_once(number: int) -> NoReturn:
    """End without cleanup; workers notice, and end too."""
    with suppress(OSError):
        if os.isatty(2):
            os.write(2, _SHOW_CURSOR)
    os._exit(128 + number)
