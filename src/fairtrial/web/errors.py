"""Says what goes wrong on the live page because of a bug: one line for each kind of error, and each kind once."""

from collections.abc import Callable

from fairtrial.text import one_line

#: Characters of a line: the message of an error may be of any length.
LONGEST = 400


class Errors:
    """Says errors that are bugs, each kind once: a page looks at its store every second, and would repeat them.

    Args:
        say: called with a line for whoever started the server.

    Example:
        >>> errors = Errors(print)
        >>> for _ in range(2):
        ...     errors.tell(KeyError("seed"), "/events")
        the live page: /events: KeyError: 'seed'
    """

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say = say
        self._told: set[tuple[str, str]] = set()

    def tell(self, error: BaseException, where: str = "") -> None:
        """Say an error, unless one of its type from its place in the code was said before.

        Args:
            error: what was raised.
            where: what was asked for, such as the path of a request.
        """
        kind = type(error).__name__, _place(error)
        if kind in self._told:
            return
        self._told.add(kind)
        message = one_line(f"the live page: {f'{where}: ' if where else ''}{kind[0]}: {error}")
        self._say((message if len(message) <= LONGEST else f"{message[:LONGEST]} ...") + kind[1])


def _place(error: BaseException) -> str:
    """Where an error was raised, for a bug report: the last line of its traceback."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f" ({trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno})"
