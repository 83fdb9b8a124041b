"""Explain errors of a database in words that say what to do."""

import os
from pathlib import Path

from sqlalchemy.exc import DBAPIError

DELETED = "the database file was deleted or replaced while it was open"

_SAFE = "nothing that was stored is lost"


def explain(error: Exception, file: Path | None, *, opened: bool) -> str:
    """Explain an error of a database or its driver.

    Args:
        error: the error.
        file: the database's file, if it has one of its own.
        opened: whether the database had been opened before.
    """
    cause = error.orig if isinstance(error, DBAPIError) else error
    code = getattr(cause, "sqlite_errorname", None) or getattr(cause, "sqlstate", None) or ""
    if code == "SQLITE_READONLY_DBMOVED" or (opened and file is not None and not file.exists()):
        return DELETED
    if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")) or code == "55P03":
        return f"another process is using it ({cause}); {_SAFE}: let that process end, and try again"
    failing = code.startswith("SQLITE_IOERR")
    if failing or code in {"SQLITE_FULL", "53100"}:
        return f"disk full{' or failing' if failing else ''} ({cause}); {_SAFE}: make room, and try again"
    if file is not None and code.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY")) and (why := _obstacle(file)):
        return f"{why} ({cause})"
    return str(cause)


def _obstacle(file: Path) -> str:
    """Find what keeps SQLite from a file, which keeps its journal in the same folder."""
    folder = file.absolute().parent
    if file.is_dir():
        return f"{file} is a folder"
    if not folder.is_dir():
        return f"there is no folder {folder}"
    places = [file, folder] if file.exists() else [folder]
    return next((f"{place} can't be written to" for place in places if not _writable(place)), "")


def _writable(path: Path) -> bool:
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)
