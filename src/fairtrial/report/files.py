"""Writing a document whole or not at all."""

from pathlib import Path

from fairtrial.errors import ReportError
from fairtrial.files import write_atomically


def write_document(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; of a link, the file that it leads to.

    Anything but a regular file, such as ``/dev/stdout`` or a named pipe, is written to directly.

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


def replace_document(path: Path, content: bytes) -> None:
    """Write one of the files of a folder whole or not at all; a link, a pipe or a device of that name is replaced.

    Raises:
        ReportError: the folder is missing, or the file can't be written.
    """
    try:
        write_atomically(path, content)
    except OSError as error:
        raise ReportError(f"{path}: can't be written: {error.strerror or error}") from error
