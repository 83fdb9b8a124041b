"""Prints results on standard output and everything else on standard error, as text that no terminal obeys."""

import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, TypedDict

from fairtrial.store.url import DEFAULT_STORE, redact_url, redact_words
from fairtrial.text import one_line, visible

if TYPE_CHECKING:
    from rich.console import Console

#: The exit status of the gate where nothing was decided because of an error: 0 to 2 are decisions.
GATE_ERROR = 3


def console() -> "Console":
    """Make a console on standard error."""
    from rich.console import Console  # noqa: PLC0415  (not needed by every command)

    return Console(stderr=True, highlight=False, soft_wrap=True)


class Screen(TypedDict):
    """What standard output shows: columns, whether it has colors, and its encoding."""

    width: int
    color: bool
    encoding: str


def screen() -> Screen:
    """Look at standard output."""
    from rich.console import Console  # noqa: PLC0415  (not needed by every command)

    found = Console()
    color = found.is_terminal and not found.is_dumb_terminal
    return Screen(width=found.width, color=color, encoding=found.encoding)


def out(text: str) -> None:
    """Print a result."""
    print(visible(text))  # noqa: T201


def out_document(content: bytes) -> None:
    """Print a document for other programs, whose encoding does not depend on the terminal."""
    sys.stdout.flush()
    sys.stdout.buffer.write(content)
    sys.stdout.flush()


def say(text: str) -> None:
    """Print a message."""
    print(visible(text), file=sys.stderr)  # noqa: T201


def complain(message: str) -> None:
    """Print an error in one line; a URL that stands where no store belongs has a password, too."""
    say(f"fairtrial: {one_line(redact_words(message))}")


def show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an exception that is a bug, or of the user's own code; a ``sys.excepthook``."""
    say(redact_words("".join(traceback.format_exception(kind, error, trace))).rstrip())


def command_line(verb: str, study: str, store: str) -> str:
    """Write a command about a study in a store, without the store's password."""
    known = {DEFAULT_STORE, os.environ.get("FAIRTRIAL_STORE")}
    return shlex.join(["fairtrial", verb, study, *([] if store in known else ["--store", redact_url(store)])])


def this_command() -> str:
    """Write the command line that started this process, without passwords."""
    return shlex.join(["fairtrial", *(redact_url(word) for word in sys.argv[1:])])


def say_how_to_resume(store: str) -> None:
    """Say that a command which trains was interrupted, what is kept, and how to go on."""
    say(f"interrupted; every finished epoch is in {redact_url(store)}. To resume:\n  {this_command()}")


def run_with_seeds(study: str, overrides: Sequence[str], store: str, least: int, most: int) -> str:
    """Write the command that runs a study, as it was named, with a range of seeds instead of its own number."""
    seeds = [text for text in overrides if text.replace(".", "=").replace(" ", "").startswith("seeds=")]
    others = [text for text in overrides if text not in seeds or "first" in text]
    return run_again(study, [*others, f"seeds={{min = {least}, max = {most}}}"], store)


def run_again(study: str, overrides: Sequence[str], store: str, *options: str) -> str:
    """Write the command that runs a study, as it was named, with these overrides and options."""
    words = [word for text in overrides for word in ("--set", text)]
    known = {DEFAULT_STORE, os.environ.get("FAIRTRIAL_STORE")}
    where = [] if store in known else ["--store", redact_url(store)]
    return shlex.join(["fairtrial", "run", study, *words, *where, *options])
