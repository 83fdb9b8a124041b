"""Bugs of the live page: one line for each kind, whoever serves the page, and nothing of them in a browser."""

import asyncio
import threading

import pytest
from rich.console import Console

from fairtrial.web import companion, hub
from fairtrial.web.companion import Companion
from fairtrial.web.errors import LONGEST, Errors
from fairtrial.web.hub import Hub
from fairtrial.web.reader import KEPT, Reader


def raised(make):
    with pytest.raises(Exception) as caught:  # noqa: PT011
        make()
    return caught.value


def test_each_kind_is_said_once_in_one_line():
    said = []
    errors = Errors(said.append)
    for number in range(3):
        errors.tell(raised(lambda number=number: [][number]), "/a\nb\x1b[2J")
        errors.tell(raised(lambda: 1 / 0))
    first, second = said
    assert first.startswith(r"the live page: /a\nb\u001b[2J: IndexError: list index out of range (")
    assert first.endswith(")")
    assert "test_errors.py, line " in first
    assert second.startswith("the live page: ZeroDivisionError: division by zero (")
    errors.tell(ValueError("x" * 10_000))
    assert len(said[2]) < LONGEST + 10


def test_a_bug_of_every_look_is_said_once(serve, ran, stream, monkeypatch, eventually):
    looks = []

    def look(*_):
        looks.append(1)
        raise RuntimeError("broken\nhere")

    monkeypatch.setattr(hub, "LOOK", 0.05)
    monkeypatch.setattr(Reader, "look", look)
    with serve("fairtrial.db", said=(said := [])) as url:
        events = stream(f"{url}/events")
        problem = events.until(lambda event, got: event == "problem" and got["text"])["text"]
        assert "an error in fairtrial" in problem
        assert "broken" not in problem
        eventually(lambda: len(looks) > 3)
    assert len(said) == 1
    assert said[0].startswith(r"the live page: RuntimeError: broken\nhere (")


def test_a_run_says_the_errors_of_its_page(monkeypatch, eventually):
    """A process that tells the run of an error and goes on until the run ends."""
    program = f"import sys; sys.path[:] = sys.argv[1:]; from {companion.__name__} import _tell_the_run; "
    program += r"_tell_the_run('the live page: KeyError: \u202e1'); sys.stdin.read()"
    monkeypatch.setattr(companion, "_PROGRAM", program)
    said = []
    with Companion("fairtrial.db", 0, said.append):
        eventually(lambda: len(said) == 2)
    assert said[1] == "the live page: KeyError: \u202e1"
    assert len(said) == 2  # nor that it has ended: the run has


def test_a_line_of_another_thread_leaves_progress_bars_whole(monkeypatch, tmp_path):
    """`cli.output.say`, by which a run says them, prints above the bars: they are drawn again below it."""
    from rich.progress import Progress

    from fairtrial.cli.output import say

    with (tmp_path / "screen").open("w+", encoding="utf-8") as screen:
        monkeypatch.setattr("sys.stderr", screen)
        console = Console(stderr=True, force_terminal=True, width=60)
        with Progress(console=console, auto_refresh=False) as bars:
            bars.add_task("trial 1", total=2)
            bars.refresh()
            thread = threading.Thread(target=say, args=("the live page: an error",))
            thread.start()
            thread.join()
            bars.refresh()
        screen.seek(0)
        text = screen.read()
    line = next(each for each in text.split("\n") if "an error" in each)
    assert "trial 1" not in line.rpartition("\x1b[2K")[2]
    assert "trial 1" in text[text.index("an error") :]


def test_pages_that_nobody_follows_any_more_are_forgotten():
    async def visit():
        followed = Hub(Reader("none.db"), Errors(print))
        for number in range(3 * KEPT):
            stream = followed.follow(f"{number:08x}")
            await anext(stream)
            await stream.aclose()
        followed.close()
        return list(followed._topics)

    kept = asyncio.run(visit())
    assert len(kept) <= KEPT + 1
    assert kept[-1] == f"{3 * KEPT - 1:08x}"
