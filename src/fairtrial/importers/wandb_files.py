"""Read W&B's run files (``run-*.wandb``): settings, history and how the run ended.

A file is a log in LevelDB's format: blocks of 32 KiB with records, each with a checksum, a length and a type; a record
is a `Record` of wandb_internal.proto.
"""

import json
import struct
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fairtrial.errors import RunsError
from fairtrial.files import open_regular
from fairtrial.importers.protobuf import fields, floats, of_field, signed, text
from fairtrial.importers.tracked import merge
from fairtrial.spec.messages import brief

_HEADER = b":W&B" + struct.pack("<HB", 0xBEE1, 0)
_BLOCK = 2**15
#: Bytes of a record; W&B itself refuses larger ones much earlier.
_LARGEST = 2**26
#: Numbers that JSON has no other way to write.
_NOT_FINITE = frozenset({"NaN", "Infinity", "-Infinity"})
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


@dataclass
class RunFile:
    """What the files of one run have; a resumed run has several.

    Attributes:
        settings: its configuration.
        labels: name, group, job type, project.
        history: values by step and name, of the names that are wanted.
        summary: the last value of each name, and what was never in the history.
        status: as in `Source`; a run that was killed has no end, and passes for one that is running.
        repeated: names with several values at a step in one file.
        names: what is in the history.
        id: W&B's identifier of the run.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, Any] = field(default_factory=dict)
    history: dict[int, dict[str, float]] = field(default_factory=dict)
    summary: dict[str, float] = field(default_factory=dict)
    status: str = "running"
    repeated: set[str] = field(default_factory=set)
    names: dict[str, None] = field(default_factory=dict)
    id: str = ""

    def add_file(self, path: Path, wanted: Collection[str] | None = None) -> None:
        """Add a file to those before it; a later value of a step replaces an earlier one.

        Args:
            path: the file.
            wanted: the names whose history is kept; without them, only names are collected.

        Raises:
            RunsError: the file is damaged, or of another kind.
        """
        self.status = "running"
        seen: dict[int, dict[str, float]] = {}
        try:
            with open_regular(path, follow=True) as file:
                for record in _records(file):
                    self._add(record, seen, wanted)
        except OSError as error:
            raise RunsError(f"{brief(str(path), 200)}: {error.strerror or error}") from error
        except (ValueError, OverflowError, RecursionError) as error:
            raise RunsError(f"{brief(str(path), 200)}: is no run file of W&B, or a damaged one: {error}") from error
        for step, values in seen.items():
            self.history.setdefault(step, {}).update(values)

    def _add(self, record: bytes, seen: dict[int, dict[str, float]], wanted: Collection[str] | None) -> None:
        for number, value in fields(record):
            if not isinstance(value, bytes):
                continue
            if number == 2:
                self._add_history(value, seen, wanted)
            elif number == 3:
                self._add_summary(value)
            elif number == 5:
                self._add_config(value)
            elif number == 17:
                self._add_run(value)
            elif number == 18:
                code = next((signed(code) for key, code in fields(value) if key == 1), 0)
                self.status = "failed" if code else "finished"

    def _add_history(self, message: bytes, seen: dict[int, dict[str, float]], wanted: Collection[str] | None) -> None:
        step: int | None = None
        values: dict[str, float] = {}
        for number, value in fields(message):
            if number == 1 and isinstance(value, bytes):
                for name, one in numbers(*_item(value)):
                    if name == "_step":
                        step = int(one)
                    elif wanted is None or name in wanted:
                        values[name] = one
            elif number == 2 and isinstance(value, bytes):
                step = next((signed(one) for key, one in fields(value) if key == 1), 0)
        if wanted is None and step not in seen:  # only names are kept; a step that is logged again follows at once
            seen.clear()
        self.repeated |= merge(seen.setdefault(step or 0, {}), values)
        self.names |= dict.fromkeys(name for name in values if not name.startswith("_"))

    def _add_summary(self, message: bytes) -> None:
        for item in of_field(message, 1):
            for name, value in numbers(*_item(item)):
                if not name.startswith("_"):
                    self.summary[name] = value

    def _add_config(self, message: bytes) -> None:
        for number, value in fields(message):
            if not isinstance(value, bytes):
                continue
            path, content = _item(value)
            if not path or path[0] == "_wandb":
                continue
            table = self.settings
            for key in path[:-1]:
                inner = table.get(key)
                table = table.setdefault(key, {}) if isinstance(inner, dict) or inner is None else {}
            if number == 1:
                table[path[-1]] = content
            elif number == 2:
                table.pop(path[-1], None)

    def _add_run(self, message: bytes) -> None:
        names = {3: "project", 6: "group", 7: "job_type", 8: "name", 12: "sweep"}
        for number, value in fields(message):
            if number == 1:
                self.id = text(value)
            elif number in names:
                self.labels[names[number]] = text(value)
            elif number == 4 and isinstance(value, bytes):
                self._add_config(value)


def _item(message: bytes) -> tuple[list[str], Any]:
    """Read an item of a history or a configuration: its name, which may be nested, and its value."""
    path: list[str] = []
    content: Any = None
    for number, value in fields(message):
        if number in {1, 2}:
            path.append(text(value))
        elif number in {8, 16} and isinstance(value, bytes):
            content = json.loads(value)
        elif number == 4:
            content = bool(value)
        elif number == 5 and isinstance(value, bytes):
            content = int.from_bytes(value, "little", signed=True)
        elif number == 6:
            content = floats(value, 8)[0]
        elif number == 7:
            content = text(value)
    return path, content


def numbers(path: list[str], content: Any) -> Iterator[tuple[str, float]]:
    """The numbers of an item under dotted names; images, tables and other media have a ``_type``, and are none."""
    found = [(".".join(path), content, 0)]
    for name, value, depth in found:
        if isinstance(value, dict) and "_type" not in value and depth < 8:
            found.extend((f"{name}.{key}", inner, depth + 1) for key, inner in value.items())
        elif isinstance(value, bool | int | float) or (isinstance(value, str) and value in _NOT_FINITE):
            yield name, float(value)


def _records(file: Any) -> Iterator[bytes]:
    """Yield the whole records of a file; one at the end that is cut off is left out."""
    if file.read(len(_HEADER)) != _HEADER:
        raise ValueError("it begins otherwise")
    at, record = len(_HEADER), b""
    while True:
        if (rest := _BLOCK - at % _BLOCK) < 7:  # no header fits there
            at += len(file.read(rest))
        header = file.read(7)
        at += len(header)
        if len(header) < 7:
            return
        checksum, size, kind = struct.unpack("<IHB", header)
        content = file.read(size)
        at += len(content)
        if len(content) < size or not any(header):  # cut off, or a block that was never written
            return
        if zlib.crc32(content, zlib.crc32(header[6:])) != checksum or kind not in {_FULL, _FIRST, _MIDDLE, _LAST}:
            raise ValueError(f"a wrong checksum at byte {at - size - 7:,}")
        record = content if kind in {_FULL, _FIRST} else record + content
        if len(record) > _LARGEST:
            raise ValueError("a record has no end")
        if kind in {_FULL, _LAST}:
            yield record
            record = b""
