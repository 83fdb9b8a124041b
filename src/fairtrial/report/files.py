"""Writing a document so that nobody ever finds half of it."""

import os
from pathlib import Path

from fairtrial.errors import ReportError


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file under a temporary name beside it, then rename it: readers see the old content or the new.

    What is no regular file, such as ``/dev/stdout`` or a named pipe, is written to directly.

    Raises:
        ReportError: the folder is missing, or the file can't be written.
    """
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(content)
            return
        target = path.resolve()  # the file behind a link is replaced, not the link
        temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            temporary.write_bytes(content)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ReportError(f"{path}: can't be written: {error.strerror or error}") from error
