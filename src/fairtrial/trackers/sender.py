"""A thread that carries out what a tracker has to send, so that no server ever slows training."""

import queue
import threading
from collections.abc import Callable
from typing import Literal, TypeAlias

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
        self._lost = 0
        self._ending, self._dropped = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def put(self, job: Job) -> None:
        """Send something, soon."""
        if self._jobs.qsize() >= MOST_WAITING:
            self._lost += 1
            return
        if self._thread is None:
            self._ending, self._dropped = threading.Event(), threading.Event()
            arguments = (self._jobs, self._ending, self._dropped)
            self._thread = threading.Thread(
                target=self._run, args=arguments, name=f"fairtrial {self.name}", daemon=True
            )
            self._thread.start()
        self._jobs.put(job)

    def messages(self) -> list[str]:
        """Return what is to be said, each problem once."""
        with self._lock:
            said, self._messages = self._messages, []
        return said

    def close(self, seconds: float) -> None:
        """Wait until all is sent, but so long only in all; what is left then is dropped, and counted."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._ending.set()
            self._jobs.put(None)
            thread.join(seconds)
            if thread.is_alive():  # within a call, after which it ends; if that does not return, with the process
                self._dropped.set()
                self._lost += self._jobs.qsize()  # with its end instead of the job that is being sent
                self._jobs = queue.SimpleQueue()
        if self._lost:
            self._say("lost", f"{self.name}: {self._lost} messages about trials were not logged")
            self._lost = 0

    def _run(self, jobs: "queue.SimpleQueue[Job | None]", ending: threading.Event, dropped: threading.Event) -> None:
        gave_up = False
        while (job := jobs.get()) is not None and not dropped.is_set():
            how = "silent" if gave_up else self._send(job, ending)
            gave_up = how == "silent"
            if how != "sent" and not dropped.is_set():  # what was dropped is counted already
                self._lost += 1

    def _send(self, job: Job, ending: threading.Event) -> Literal["sent", "refused", "silent"]:
        """Carry out a job; tell how that went."""
        pause = FIRST_PAUSE
        while True:
            try:
                job()
            except Exception as error:  # noqa: BLE001  (of whatever kind, training goes on)
                if not self._is_temporary(error):
                    first = one_line(str(error).strip().partition("\n")[0]) or type(error).__name__
                    self._say("refused", f"{self.name}: something was not logged: {redact_words(first)[:200]}")
                    return "refused"
                self._say("silent", f"{self.name} does not answer; training goes on without it")
                if ending.is_set():
                    return "silent"
                ending.wait(pause)  # if the run ends meanwhile, there is one more attempt
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                return "sent"

    def _say(self, kind: str, text: str) -> None:
        """Keep a message for the thread that trains, the first of its kind."""
        with self._lock:
            if kind not in self._said or kind == "lost":
                self._said.add(kind)
                self._messages.append(text)
