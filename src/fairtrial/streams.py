"""Standard output and standard error that never raise: a full disk or a closed terminal must not end a study.

The first error of standard output is kept for the exit status; whatever can't be written is dropped.
"""

import codecs
import errno
import io
import os
import signal
import sys
from contextlib import suppress
from typing import Any, TextIO

from fairtrial.text import escape

#: What characters become where a terminal or file can't encode them; others become escapes.
_PLAIN = {"±": "+-", "−": "-", "–": "-", "—": "-", "─": "-", "━": "-", "×": "x", "·": ".", "…": "..."}
_PLAIN |= dict.fromkeys("‘’", "'") | dict.fromkeys("“”", '"')

_ERRORS = "fairtrial.plain"


def encodable(text: str, encoding: str) -> str:
    r"""Write what an encoding lacks as the standard streams do, so that its width is known before it is printed.

    Example:
        >>> print(encodable("β₁ ± 1", "ascii"))
        \u03b2\u2081 +- 1
    """
    return text if text.isascii() else text.encode(encoding, _ERRORS).decode(encoding)


class _Sink(io.FileIO):
    """A file descriptor whose writes never raise; it remembers the first error."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write, or drop what can't be written."""
        size = memoryview(data).nbytes
        try:
            written = super().write(data)
        except OSError as error:
            self.error = self.error or error
            return size
        return size if written is None else written  # None: it would block


def install() -> None:
    """Replace this process's standard streams, and open those that are closed.

    An open file must never have the number of a standard stream, to which any library may write. What reads or writes a
    stream that was closed finds it empty, cannot write, or writes to nowhere: input, output, errors.
    """
    for number, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, mode), True)  # the lowest free number, which is this one
    sys.stdout, sys.stderr = _tolerant(1, sys.stdout), _tolerant(2, sys.stderr)


def exit_status(status: str | int | None) -> str | int | None:
    """Return the exit status of this process once its output is complete: of an error if some could not be written.

    A reader that has gone away, as in ``fairtrial export ... | head``, is no error, and gets no message: the status is
    that of a process which SIGPIPE ended.
    """
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    error = raw.error if isinstance(raw, _Sink) else None
    if error is None:
        return status
    if error.errno == errno.EPIPE:
        return status or 128 + signal.SIGPIPE
    lost = "output was lost; nothing in the store was"
    print(f"fairtrial: standard output: {error.strerror}; {lost}", file=sys.stderr)  # noqa: T201
    return status or 1


def _tolerant(number: int, stream: TextIO | None) -> TextIO:
    """Make a stream like the given one, None if it was closed, that drops what it can't write."""
    if stream is not None:
        with suppress(OSError, ValueError):
            stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Sink(number, "w", closefd=False)),
        encoding=stream.encoding if stream is not None else "utf-8",
        errors=_ERRORS,
        line_buffering=number == 2 or bool(getattr(stream, "line_buffering", False)),
    )


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    chars = error.object[error.start : error.end]
    return "".join(_PLAIN.get(char) or escape(char) for char in chars), error.end


codecs.register_error(_ERRORS, _replace)
