"""What a user's training loop reads of its trial's settings, so that a setting that does nothing can be named.

Recorded are the keys of ``params``, and whether the sections data, model, optimizer and schedule were read at all; not
the keys within these, and not the section training. Whoever copies settings, or writes them out, has read all of them.
"""

import copy
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pydantic import PrivateAttr

from fairtrial.spec import BUILT_IN, Settings, Study, content
from fairtrial.spec.hashing import differing
from fairtrial.spec.settings import REGISTRIES

#: The prefix of the names of parameters.
PARAMS = "params."


class RecordedParams(dict[str, Any]):
    """The parameters of a trial, which add the names of those that are read to a set."""

    def __init__(self, params: Mapping[str, Any], reads: set[str]) -> None:
        super().__init__(params)
        self._reads = reads

    def _note(self, key: object) -> None:
        self._reads.add(f"{PARAMS}{key}")

    def _note_all(self) -> "RecordedParams":
        self._reads.update(f"{PARAMS}{key}" for key in dict.__iter__(self))
        return self

    def __getitem__(self, key: str) -> Any:
        self._note(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self._note(key)
        return super().__contains__(key)

    def __iter__(self) -> Iterator[str]:
        return super(RecordedParams, self._note_all()).__iter__()

    def __reversed__(self) -> Iterator[str]:
        return super(RecordedParams, self._note_all()).__reversed__()

    def __eq__(self, other: object) -> bool:
        return super(RecordedParams, self._note_all()).__eq__(other)

    __hash__ = None  # as of any dictionary

    def __or__(self, other: Any) -> Any:
        return self.copy() | other

    def __ror__(self, other: Any) -> Any:
        return other | self.copy()

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[dict[str, Any]]]:
        return dict, (self.copy(),)

    def get(self, key: str, default: Any = None) -> Any:
        """Get a parameter, or the default."""
        self._note(key)
        return super().get(key, default)

    def pop(self, key: str, *default: Any) -> Any:
        """Remove a parameter from this copy, and return it."""
        self._note(key)
        return super().pop(key, *default)

    def popitem(self) -> tuple[str, Any]:
        """Remove the last parameter from this copy, and return it."""
        return super(RecordedParams, self._note_all()).popitem()

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Get a parameter, or set it in this copy."""
        self._note(key)
        return super().setdefault(key, default)

    def keys(self) -> Any:
        """The names."""
        return super(RecordedParams, self._note_all()).keys()

    def values(self) -> Any:
        """The values."""
        return super(RecordedParams, self._note_all()).values()

    def items(self) -> Any:
        """Names and values."""
        return super(RecordedParams, self._note_all()).items()

    def copy(self) -> dict[str, Any]:
        """Copy them to a plain dictionary."""
        self._note_all()
        return dict(dict.items(self))


class RecordedSettings(Settings):
    """The settings of a trial, which note what is read of them; copies are plain settings."""

    _reads: set[str] = PrivateAttr(default_factory=set)

    @classmethod
    def of(cls, settings: Settings, reads: set[str]) -> "RecordedSettings":
        """Copy settings; the names of what is read are added to a set."""
        recorded = cls.model_construct(**_fields(settings) | {"params": RecordedParams(settings.params, reads)})
        recorded._reads = reads  # noqa: SLF001  (its own)
        return recorded

    def __getattribute__(self, name: str) -> Any:
        if name in REGISTRIES:
            self._reads.add(name)
        return super().__getattribute__(name)

    def plain(self) -> Settings:
        """Copy them to plain settings, which reads all."""
        return Settings.model_construct(**_fields(self) | {"params": self.params.copy()})

    def model_dump(self, **options: Any) -> dict[str, Any]:
        """Write all of them, as `Settings` does."""
        return self.plain().model_dump(**options)

    def model_dump_json(self, **options: Any) -> str:
        """Write all of them, as `Settings` does."""
        return self.plain().model_dump_json(**options)

    def model_copy(self, **options: Any) -> Settings:  # type: ignore[override]  # a plain one
        """Copy them to plain settings, as `Settings` does."""
        return self.plain().model_copy(**options)

    def __iter__(self) -> Any:
        return iter(self.plain())

    def __eq__(self, other: object) -> bool:
        return self.plain() == (other.plain() if isinstance(other, RecordedSettings) else other)

    __hash__ = None  # type: ignore[assignment]  # a dictionary is a part of it

    def __copy__(self) -> Settings:  # type: ignore[override]  # a plain one
        return self.plain()

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Settings:  # type: ignore[override]  # a plain one
        return copy.deepcopy(self.plain(), memo)

    def __reduce__(self) -> tuple[type[Settings], tuple[()], Any]:
        plain = self.plain()
        return Settings, (), plain.__getstate__()


def _fields(settings: Settings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in Settings.model_fields}


def unread_keys(study: Study, reads: Collection[str]) -> tuple[str, ...]:
    """Name the settings in which arms of a study differ and that are not among what was read.

    Only arms with training loops of the user's own are looked at.

    Example:
        >>> unread_keys(study, {"params.mean"})
        ('params.arm',)
    """
    users = (arm.settings for arm in study.arms if arm.settings.training.loop != BUILT_IN)
    tables = map(content, users)
    first = next(tables, {})
    keys = dict.fromkeys(key for other in tables for key in differing(first, other))
    recorded = {key: key if key.startswith(PARAMS) else key.partition(".")[0] for key in keys}
    known = {key: name for key, name in recorded.items() if name == key or name in REGISTRIES}
    return tuple(key for key, name in known.items() if name not in reads)
