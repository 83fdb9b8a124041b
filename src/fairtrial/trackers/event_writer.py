"""Write TensorBoard's event files, without its library; `importers/event_files.py` reads them.

A file is a chain of records (TFRecord), each an `Event` of tensorboard's event.proto in the wire format of Protocol
Buffers. Numbers are tensors of double precision, which TensorBoard shows as it does those of single precision.
"""

import os
import struct
import time
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import BinaryIO

from fairtrial.importers.event_files import masked_crc32c

#: `DataType`s of a tensor, and `DataClass`es of a summary.
_DOUBLE, _STRING, _SCALAR, _TENSOR = 2, 7, 1, 2
#: `Status` of the hparams plugin.
SUCCESS, FAILURE = 1, 2
#: Orders the files that one process writes in the same second.
_NUMBERS = count()


class EventWriter:
    """One event file of a run. What an earlier file of the folder has from a step on can be declared void.

    Args:
        folder: the run's; it is made if there is none.
        kind: a part of the file's name, such as `fairtrial.importers.event_files.NO_RUN`.

    Example:
        >>> with EventWriter(Path("runs/adam")) as writer:
        ...     writer.start(1)
        ...     writer.scalars(1, {"test_acc": 0.75})
    """

    def __init__(self, folder: Path, kind: str = ".fairtrial.") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time()):010d}{kind}{os.getpid()}.{next(_NUMBERS)}"
        self._file: BinaryIO = (folder / name).open("xb")
        self._write(_bytes(3, b"brain.Event:2"))

    def __enter__(self) -> "EventWriter":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def start(self, step: int) -> None:
        """Declare void what earlier files have from this step on."""
        self._write(_number(2, step) + _bytes(7, _number(1, 1)))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write the values of a step."""
        summary = b"".join(
            _bytes(1, _bytes(1, tag.encode("utf-8", "replace")) + _plugin("scalars", b"", _SCALAR) + _double(value))
            for tag, value in values.items()
        )
        self._write(_number(2, step) + _bytes(5, summary))

    def session(self, settings: Mapping[str, object]) -> None:
        """Write a run's hyperparameters, for TensorBoard's table of them."""
        table = b"".join(
            _bytes(1, _bytes(1, key.encode("utf-8", "replace")) + _bytes(2, _value(value)))
            for key, value in settings.items()
        )
        self._hparams("_hparams_/session_start_info", _bytes(3, table + _float64(5, time.time())))

    def end(self, status: int) -> None:
        """Write how the run ended."""
        self._hparams("_hparams_/session_end_info", _bytes(4, _number(1, status) + _float64(2, time.time())))

    def text(self, tag: str, text: str) -> None:
        """Write Markdown for the tab of texts."""
        tensor = _number(1, _STRING) + _bytes(2, _bytes(2, _number(1, 1))) + _bytes(8, text.encode("utf-8", "replace"))
        value = _bytes(1, f"{tag}/text_summary".encode()) + _plugin("text", b"", _TENSOR) + _bytes(8, tensor)
        self._write(_bytes(5, _bytes(1, value)))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _hparams(self, tag: str, content: bytes) -> None:
        self._write(_bytes(5, _bytes(1, _bytes(1, tag.encode()) + _plugin("hparams", content, _TENSOR))))

    def _write(self, event: bytes) -> None:
        content = _float64(1, time.time()) + event
        size = struct.pack("<Q", len(content))
        sums = (struct.pack("<I", masked_crc32c(part)) for part in (size, content))
        self._file.write(size + next(sums) + content + next(sums))
        self._file.flush()


def _plugin(name: str, content: bytes, kind: int) -> bytes:
    """A `SummaryMetadata`: which plugin shows a value."""
    return _bytes(9, _bytes(1, _bytes(1, name.encode()) + _bytes(2, content)) + _number(4, kind))


def _double(value: float) -> bytes:
    """A `TensorProto` of one number."""
    return _bytes(8, _number(1, _DOUBLE) + _bytes(2, b"") + _bytes(6, struct.pack("<d", value)))


def _value(setting: object) -> bytes:
    """A `google.protobuf.Value`."""
    if isinstance(setting, bool):
        return _number(4, int(setting))
    if isinstance(setting, int | float):
        return _float64(2, float(setting))
    return _bytes(3, str(setting).encode("utf-8", "replace"))


def _bytes(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _float64(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 127:
        written.append(value & 127 | 128)
        value >>= 7
    return bytes([*written, value])
