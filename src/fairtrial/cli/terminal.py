"""How commands speak: answers on standard output, all else on standard error."""

import sys

from rich.console import Console


def console() -> Console:
    """Standard error, where everything goes that is not the answer itself."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def out(text: str) -> None:
    """Print a part of the answer."""
    print(text)  # noqa: T201


def say(text: str) -> None:
    """Print what is no part of the answer."""
    print(text, file=sys.stderr)  # noqa: T201


def complain(message: str) -> None:
    """Print what went wrong, in one line."""
    say(f"fairtrial: {message}")
