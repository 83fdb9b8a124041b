"""A thread that carries out what a tracker has to send, so that no server ever slows training."""

import queue
import threading
from collections.abc import Callable
from typing import TypeAlias

from fairtrial.store.url import redact_words
from fairtrial.text import one_line

#: Something to send; it raises if that did not work.
Job: TypeAlias = Callable[[], None]

#: Seconds between two attempts, of which each waits twice as long as the one before.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
#: Jobs that wait for a server; further ones are dropped, and counted.
MOST_WAITING = 100_000


class Sender:
    """Sends jobs in their order from a thread of its own.

    A job whose error is temporary, such as a server that does not answer, is tried again until it works or the sender
    is closed. Any other error is said once, and the next job is tried.

    Args:
        name: what messages call the receiver.
        is_temporary: whether another attempt may work after an error.
    """

    def __init__(self, name: str, is_temporary: Callable[[Exception], bool]) -> None:
        self.name = name
        self._is_temporary = is_temporary
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._said: set[str] = set()
        self._messages: list[str] = []
        self._done = self._lost = 0
        self._gave_up = False
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def put(self, job: Job) -> None:
        """Send something, soon."""
        if self._jobs.qsize() >= MOST_WAITING:
            self._lost += 1
            return
        if self._thread is None:
            self._gave_up = False
            self._ending.clear()
            self._thread = threading.Thread(target=self._run, name=f"fairtrial {self.name}", daemon=True)
            self._thread.start()
        self._jobs.put(job)

    def messages(self) -> list[str]:
        """Return what is to be said, each problem once."""
        with self._lock:
            said, self._messages = self._messages, []
        return said

    def close(self, seconds: float) -> None:
        """Wait until all is sent, but so long only for a job; what is left then is dropped, and counted."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._ending.set()
            self._jobs.put(None)
            before = -1
            while thread.is_alive() and before != self._done:
                before = self._done
                thread.join(seconds)
            if thread.is_alive():  # within a call that does not return; it ends with the process
                self._lost += self._jobs.qsize()
                self._jobs = queue.SimpleQueue()
        if self._lost:
            self._say("lost", f"{self.name}: {self._lost} messages about trials were not logged")
            self._lost = 0

    def _run(self) -> None:
        jobs, gave_up = self._jobs, False
        while (job := jobs.get()) is not None:
            if gave_up or not self._send(job):
                gave_up = gave_up or self._gave_up
                self._lost += 1
            self._done += not gave_up

    def _send(self, job: Job) -> bool:
        """Carry out a job; tell whether that worked."""
        pause = FIRST_PAUSE
        while True:
            try:
                job()
            except Exception as error:  # noqa: BLE001  (of whatever kind, training goes on)
                if not self._is_temporary(error):
                    first = one_line(str(error).strip().partition("\n")[0]) or type(error).__name__
                    self._say("refused", f"{self.name}: something was not logged: {redact_words(first)[:200]}")
                    return False
                self._say("silent", f"{self.name} does not answer; training goes on without it")
                if self._ending.is_set():
                    self._gave_up = True
                    return False
                self._ending.wait(pause)  # if the run ends meanwhile, there is one more attempt
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                return True

    def _say(self, kind: str, text: str) -> None:
        """Keep a message for the thread that trains, the first of its kind."""
        with self._lock:
            if kind not in self._said or kind == "lost":
                self._said.add(kind)
                self._messages.append(text)
