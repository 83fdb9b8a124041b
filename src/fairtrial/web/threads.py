"""A thread of its own for work that must not hold up the server, and that must not hold up its end."""

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Worker:
    """Runs functions one after another in a daemon thread, which a process that ends does not wait for.

    The thread begins with the first call.

    Example:
        >>> worker = Worker("adding")
        >>> asyncio.run(worker.call(lambda: 1 + 1))
        2
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def call(self, work: Callable[[], T]) -> T:
        """Run a function in the thread, and return its result or raise its exception."""
        loop = asyncio.get_running_loop()
        found: asyncio.Future[T] = loop.create_future()

        def task() -> None:
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001  (whoever waits gets it)
                _tell(loop, _set_error, found, error)
            else:
                _tell(loop, _set_result, found, result)

        self.later(task)
        return await found

    def later(self, work: Callable[[], object]) -> None:
        """Run a function in the thread after all that was asked before; nobody waits for it."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"fairtrial {self._name}", daemon=True)
            self._thread.start()
        self._tasks.put(work)

    def _run(self) -> None:
        while True:
            self._tasks.get()()


def _tell(loop: asyncio.AbstractEventLoop, tell: Callable[..., object], *words: Any) -> None:
    """Call something in the loop's thread; nothing if the loop has been closed, for then nobody waits."""
    try:
        loop.call_soon_threadsafe(tell, *words)
    except RuntimeError:
        return


def _set_result(future: "asyncio.Future[Any]", result: object) -> None:
    if not future.done():
        future.set_result(result)


def _set_error(future: "asyncio.Future[Any]", error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
