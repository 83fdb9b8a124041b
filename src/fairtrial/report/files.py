"""Writing a document whole or not at all."""

from pathlib import Path

from fairtrial.errors import ReportError
from fairtrial.files import write_atomically


def write_document(path: Path, content: bytes) -> None:
    """Write a file as `fairtrial.files.write_atomically` does; behind a link, the file that it leads to.

    What is no regular file, such as ``/dev/stdout`` or a named pipe, is written to directly.

    Raises:
        ReportError: the folder is missing, or the file can't be written.
    """
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(content)
        else:
            write_atomically(path.resolve(), content)
    except OSError as error:
        raise ReportError(f"{path}: can't be written: {error.strerror or error}") from error
