"""Read TensorBoard's event files: scalars by tag and step, and the session that its table of hyperparameters shows.

A file is a chain of records, each with its length and checksums (TensorFlow's TFRecord format); a record is an `Event`
of tensorboard's event.proto. Scalars are plain numbers (torch) or tensors of one number (TensorFlow 2, Keras).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fairtrial.errors import RunsError
from fairtrial.files import open_regular
from fairtrial.importers.protobuf import fields, floats, of_field, signed, text
from fairtrial.spec.messages import brief

#: In the name of a file in which fairtrial itself notes a study's verdicts for TensorBoard: no run of anything.
NO_RUN = ".fairtrial-verdicts."
#: Bytes of an event that is read; larger ones, such as graphs, are passed over.
_LARGEST = 2**24
#: Bytes of an event whose content is checked as well as its length: scalars are smaller, and images would take long.
_LARGEST_CHECKED = 2**16
#: `Status` of tensorboard's hparams/api.proto.
_STATUS = {1: "finished", 2: "failed", 3: "running"}
#: `DataType`s of tensors that hold a scalar: how many bytes a number has, and how `struct` calls it.
_TYPES = {1: "f", 2: "d", 3: "i", 9: "q"}


@dataclass
class EventLog:
    """What a run's event files have.

    Attributes:
        scalars: values by tag and step.
        settings: hyperparameters of its session, if it has one.
        status: how the session ended.
        is_cut_off: whether a file ends within a record.
        repeated: tags that a file has more than once at a step.
    """

    scalars: dict[str, dict[int, float]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    status: str | None = None
    is_cut_off: bool = False
    repeated: set[str] = field(default_factory=set)

    def add_file(self, path: Path) -> set[str]:
        """Add a file's events to those before; return the tags of which it has other values at the same steps.

        Raises:
            RunsError: the file is damaged, or is no event file.
        """
        found = EventLog()
        try:
            with open_regular(path, follow=True) as file:
                for event in _records(file):
                    if event is None:
                        found.is_cut_off = True
                    else:
                        _add_event(event, found, self)
        except OSError as error:
            raise RunsError(f"{brief(str(path), 200)}: {error.strerror or error}") from error
        except (ValueError, OverflowError, struct.error) as error:
            raise RunsError(
                f"{brief(str(path), 200)}: is no event file of TensorBoard, or a damaged one: {error}"
            ) from error
        again = {tag for tag, values in found.scalars.items() if values.keys() & self.scalars.get(tag, {}).keys()}
        for tag, values in found.scalars.items():
            self.scalars.setdefault(tag, {}).update(values)
        self.settings |= found.settings
        self.status = found.status or self.status
        self.is_cut_off = found.is_cut_off
        self.repeated |= found.repeated
        return again


def _records(file: Any) -> Iterator[bytes | None]:
    """Yield the content of each record, and None at the end if the last one is cut off."""
    while header := file.read(12):
        if len(header) < 12:
            yield None
            return
        size, checksum = struct.unpack("<QI", header)
        at = file.tell() - 12
        if checksum != masked_crc32c(header[:8]):
            raise ValueError(f"a wrong checksum at byte {at:,}")
        if size > _LARGEST:
            file.seek(size, 1)
            content = b""
        else:
            content = file.read(size)
        footer = file.read(4)
        if len(footer) < 4:
            yield None
            return
        if 0 < len(content) <= _LARGEST_CHECKED and struct.unpack("<I", footer)[0] != masked_crc32c(content):
            raise ValueError(f"a wrong checksum at byte {at:,}")
        yield content


def _add_event(event: bytes, log: EventLog, before: EventLog) -> None:
    step = 0
    summaries: list[bytes] = []
    for number, value in fields(event):
        if number == 2:
            step = signed(value)
        elif number == 5 and isinstance(value, bytes):
            summaries.append(value)
        elif number == 7 and isinstance(value, bytes) and (1, 1) in list(fields(value)):
            # The session starts (again): what an interrupted one logged from this step on is void.
            for scalars in (*before.scalars.values(), *log.scalars.values()):
                for late in [one for one in scalars if one >= step]:
                    del scalars[late]
    for summary in summaries:
        for item in of_field(summary, 1):
            _add_value(item, step, log)


def _add_value(item: bytes, step: int, log: EventLog) -> None:
    tag, scalar = "", None
    for number, value in fields(item):
        if number == 1:
            tag = text(value)
        elif number == 2:
            scalar = floats(value)[0]
        elif number == 8 and isinstance(value, bytes):
            scalar = _scalar(value)
        elif number == 9 and isinstance(value, bytes):
            for plugin in of_field(value, 1):
                if b"hparams" in of_field(plugin, 1):
                    for content in of_field(plugin, 2):
                        _add_session(content, log)
    if scalar is not None and tag and not tag.startswith("_hparams_/"):
        values = log.scalars.setdefault(tag, {})
        if values.get(step, scalar) != scalar:
            log.repeated.add(tag)
        values[step] = scalar


def _scalar(tensor: bytes) -> float | None:
    """The number of a `TensorProto` of one number; None for others."""
    kind = None
    numbers: list[float] = []
    for number, value in fields(tensor):
        if number == 1:
            kind = _TYPES.get(signed(value))
        elif kind and number == 4 and isinstance(value, bytes):
            size = struct.calcsize(f"<{kind}")
            if len(value) != size:
                return None
            numbers += struct.unpack(f"<{kind}", value)
        elif kind and number in {5, 6}:
            numbers += floats(value, 4 if number == 5 else 8)
        elif kind and number in {7, 10} and isinstance(value, int):
            numbers.append(signed(value))
        elif kind and number in {7, 10} and isinstance(value, bytes) and len(value) == 1:  # packed
            numbers.append(value[0])
    return float(numbers[0]) if len(numbers) == 1 else None


def _add_session(content: bytes, log: EventLog) -> None:
    """Read an `HParamsPluginData`: the session's start has the hyperparameters, its end the status."""
    for start in of_field(content, 3):
        log.status = log.status or "running"
        for entry in of_field(start, 1):
            name = b"".join(of_field(entry, 1)).decode("utf-8", "replace")
            for value in of_field(entry, 2):
                log.settings[name] = _setting(value)
    for end in of_field(content, 4):
        log.status = next((_STATUS.get(signed(value)) for number, value in fields(end) if number == 1), None)


def _setting(message: bytes) -> object:
    """Read a `google.protobuf.Value`: a number, text, or true or false."""
    for number, value in fields(message):
        if number == 2:
            found = floats(value, 8)[0]
            return int(found) if found.is_integer() else found
        if number == 3:
            return text(value)
        if number == 4:
            return bool(value)
    return None


def _crc32c_table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _crc32c_table()


def masked_crc32c(content: bytes) -> int:
    """The checksum of TFRecord: CRC-32C (Castagnoli), rotated by 15 bits, plus a constant."""
    table, crc = _TABLE, 0xFFFFFFFF
    for byte in content:
        crc = table[(crc ^ byte) & 255] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
