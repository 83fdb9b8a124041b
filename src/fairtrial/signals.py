"""Ctrl-C, SIGTERM and SIGHUP: how the command line answers them, and how they are held back for a moment.

The first one raises an exception in the main thread: `KeyboardInterrupt` for Ctrl-C, `errors.Terminated` for the
others. Work is then saved and workers end. Whoever sends a second one is in a hurry: the process ends at once, and its
workers with it. What is in the store stays whole either way.
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

#: Makes a terminal show its cursor again, which moving bars hide.
_SHOW_CURSOR = b"\x1b[?25h"

_answered: list[int] = []


def answer() -> None:
    """Answer the signals as the command line does; those that are ignored, as under ``nohup``, stay so."""
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _answer)


def exit_status(end: BaseException) -> int:
    """Give the exit status of a process that such an exception has ended: 128 and the number of the signal."""
    return end.exit_code if isinstance(end, Terminated) else 128 + signal.SIGINT


@contextmanager
def held() -> Iterator[None]:
    """Hold the signals back while a block runs that must not be torn apart; what came is answered after it.

    A second signal is answered at once all the same. Only handlers written in Python are held back, and only in the
    main thread, because Python runs them nowhere else. A mask of blocked signals would not do: another thread, of the
    numeric libraries for instance, would take the signal, and the main thread run the handler.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {number: handler for number in ENDING if callable(handler := signal.getsignal(number))}

    def note(number: int, frame: FrameType | None) -> None:
        if came and before[signal.Signals(number)] is _answer:
            _end_at_once(number)
        if came:
            before[signal.Signals(number)](number, frame)
        came.append(number)

    for number in before:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def _answer(number: int, _frame: FrameType | None) -> None:
    if _answered:
        _end_at_once(number)
    _answered.append(number)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise Terminated(number)


def _end_at_once(number: int) -> NoReturn:
    """End without another look at anything; workers notice, and end too."""
    with suppress(OSError):
        if os.isatty(2):
            os.write(2, _SHOW_CURSOR)
    os._exit(128 + number)
