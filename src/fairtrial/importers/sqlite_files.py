"""Look into SQLite files, which trackers keep their runs in, without changing them."""

import sqlite3
from collections.abc import Collection
from contextlib import closing
from pathlib import Path
from urllib.parse import quote


def has_tables(path: Path, names: Collection[str]) -> bool:
    """Tell whether a file is an SQLite database that has all these tables."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        if file.read(16) != b"SQLite format 3\0":
            return False
    try:
        with closing(sqlite3.connect(read_only(path), uri=True, timeout=5)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error:
        return False
    return set(names) <= tables


def read_only(path: Path) -> str:
    """The URI by which SQLite opens a file to read it only."""
    return f"file:{quote(str(path.absolute()))}?mode=ro"
