"""Prints results on standard output and everything else on standard error."""

import os
import shlex
import sys
from collections.abc import Sequence

from rich.console import Console

from fairtrial.api import DEFAULT_STORE
from fairtrial.store.url import redact_url


def console() -> Console:
    """Make a console on standard error."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def out(text: str) -> None:
    """Print a result."""
    print(text)  # noqa: T201


def say(text: str) -> None:
    """Print a message."""
    print(text, file=sys.stderr)  # noqa: T201


def complain(message: str) -> None:
    """Print an error in one line."""
    say(f"fairtrial: {message}")


def command_line(verb: str, study: str, store: str) -> str:
    """Write a command about a study in a store, without the store's password."""
    known = {DEFAULT_STORE, os.environ.get("FAIRTRIAL_STORE")}
    return shlex.join(["fairtrial", verb, study, *([] if store in known else ["--store", redact_url(store)])])


def this_command() -> str:
    """Write the command line that started this process, without passwords."""
    return shlex.join(["fairtrial", *(redact_url(word) for word in sys.argv[1:])])


def run_with_seeds(study: str, overrides: Sequence[str], store: str, least: int, most: int) -> str:
    """Write the command that runs a study, as it was named, with a range of seeds instead of its own number."""
    others = [text for text in overrides if not text.replace(".", "=").replace(" ", "").startswith("seeds=")]
    return run_again(study, [*others, f"seeds={{min = {least}, max = {most}}}"], store)


def run_again(study: str, overrides: Sequence[str], store: str, *options: str) -> str:
    """Write the command that runs a study, as it was named, with these overrides and options."""
    words = [word for text in overrides for word in ("--set", text)]
    known = {DEFAULT_STORE, os.environ.get("FAIRTRIAL_STORE")}
    where = [] if store in known else ["--store", redact_url(store)]
    return shlex.join(["fairtrial", "run", study, *words, *where, *options])
