"""Registries: what a study can name. The only module that imports by name.

An entry registers itself where it is defined, so that adding one touches one file:

    @OPTIMIZERS.register("rmsprop")
    class RMSprop(OptimizerSettings): ...

A registry imports the modules of its home when it is first used; ``"module:Name"`` names a user's own entry. Only such
a name brings a folder of the user's onto ``sys.path``, and then last: in a study of built-in parts nobody else's files
can pass for modules.
"""

import difflib
import importlib
import pkgutil
import re
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from fairtrial import sources
from fairtrial.errors import StudyError

if TYPE_CHECKING:
    from fairtrial.spec.sections import DataSettings, ModelSettings, OptimizerSettings, ScheduleSettings

T = TypeVar("T")


class UnknownNameError(StudyError):
    """No entry has that name; `hint` is the message without the key."""

    def __init__(self, key: str, hint: str) -> None:
        super().__init__(f"{key}: {hint}")
        self.hint = hint


class NotFoundError(Exception):
    """A module, or a name in it, can't be found; the message is one line."""


class Registry(Generic[T]):
    """The entries of one kind, by name: the modules of `home` define them, from the class ``"module:Name"`` in `base`.

    What a study names that is not of this class is given to ``adapt``, if there is one: a ``"module:function"`` that
    gets the name and the thing, and returns such a class of it or raises `NotFoundError`.

    Example:
        >>> OPTIMIZERS.get("adamm")
        Traceback (most recent call last):
        fairtrial.registry.UnknownNameError: optimizer.name = "adamm": did you mean `adam`?
    """

    def __init__(self, kind: str, home: str, base: str, default: str = "", adapt: str = "") -> None:
        self.kind, self.home, self.base, self.default, self.adapt = kind, home, base, default, adapt
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Register a class (as a decorator) or an instance under a name; raises ValueError if the name is taken."""

        def add(entry: T) -> T:
            if name in self._entries and _origin(self._entries[name]) != _origin(entry):  # not a reloaded module's
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self._entries[name] = entry
            return entry

        return add

    def names(self) -> tuple[str, ...]:
        """List the names: the default, then the others by module."""
        return tuple(self._loaded)

    def get(self, name: str) -> T:
        """Look up an entry by its registered name, or by ``"module:Name"`` if it is a user's own.

        Raises:
            UnknownNameError: a `StudyError` with the nearest name, or with what is wrong with the user's entry.
        """
        try:
            return self._import(name) if ":" in name else self._named(name)
        except NotFoundError as error:
            raise UnknownNameError(f'{self.kind}.name = "{name}"', str(error)) from error

    def table(self) -> str:
        """Write the entries as a Markdown table: name, description, and the keys of its own with their defaults."""
        rows = [("`name`", "what it is", "keys and defaults")]
        for name in self.names():
            entry: Any = self.get(name)
            about = str(getattr(entry, "about", entry.__doc__ or "")).partition("\n")[0]
            rows.append((f'`"{name}"`' + (" (default)" if name == self.default else ""), about, self._keys(name)))
        columns = 3 if any(keys for _, _, keys in rows[1:]) else 2
        head, *lines = (f"| {' | '.join(row[:columns])} |" for row in rows)
        return "\n".join([head, "|---" * columns + "|", *lines])

    @cached_property
    def _loaded(self) -> Mapping[str, T]:
        home = importlib.import_module(self.home)
        for module in sorted(info.name for info in pkgutil.iter_modules(getattr(home, "__path__", ()))):
            importlib.import_module(f"{self.home}.{module}")
        is_package = hasattr(home, "__path__")  # then the order of registration depends on who imported what before
        order = lambda name: (name != self.default, _origin(self._entries[name])[0], name if is_package else "")  # noqa: E731
        self._entries = {name: self._entries[name] for name in sorted(self._entries, key=order)}
        return self._entries

    def _named(self, name: str) -> T:
        if name not in self._loaded:
            raise NotFoundError(did_you_mean(name, self._loaded))
        return self._loaded[name]

    def _import(self, name: str) -> T:
        if name.startswith("__main__:"):
            raise NotFoundError("must be in a module that workers can import, not in the running script")
        with on_path(_FOLDER.get() or Path.cwd()):
            entry, base = import_name(name, fresh=True), import_name(self.base)
        if not _fits(entry, base) and self.adapt:
            return import_name(self.adapt)(name, entry)  # type: ignore[no-any-return]
        if not _fits(entry, base):
            module, _, needed = self.base.partition(":")
            article = "an" if needed[0] in "AEIOU" else "a"
            raise NotFoundError(f"must be {article} {needed} of {module}")
        if missing := getattr(entry, "__abstractmethods__", None):
            raise NotFoundError(f"must define {' and '.join(sorted(missing))}")
        return entry  # type: ignore[no-any-return]  # the base class was checked

    def _keys(self, name: str) -> str:
        shared = {key: field.default for key, field in getattr(import_name(self.base), "model_fields", {}).items()}
        fields = getattr(self.get(name), "model_fields", {})
        own = {key: field for key, field in fields.items() if key not in shared or field.default != shared[key]}
        return ", ".join(
            f"`{key}`" if field.is_required() or field.default is None else f"`{key}` {_as_toml(field.default)}"
            for key, field in own.items()
        )


#: Where modules are that a study names, while it is read; otherwise they are in the working folder.
_FOLDER: ContextVar[Path | None] = ContextVar("folder", default=None)


@contextmanager
def names_from(folder: Path) -> Iterator[None]:
    """Let registries find the modules of names such as ``"module:Name"`` in a folder, too."""
    token = _FOLDER.set(folder)
    try:
        yield
    finally:
        _FOLDER.reset(token)


@contextmanager
def on_path(folder: Path) -> Iterator[None]:
    """Find modules in a folder, after all others."""
    if str(folder) in sys.path:
        yield
        return
    sys.path.append(str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _fits(entry: Any, base: Any) -> bool:
    if getattr(base, "_is_protocol", False):
        methods = [name for name, value in vars(base).items() if callable(value) and not name.startswith("_")]
        return isinstance(entry, type) and all(callable(getattr(entry, name, None)) for name in methods)
    return issubclass(entry, base) if isinstance(entry, type) else isinstance(entry, base)


def import_name(name: str, *, fresh: bool = False) -> Any:
    """Import ``"module:Name"``; if fresh, import the module again if its file was rewritten since, as with notebooks.

    Raises:
        NotFoundError: no such module, or it has no such name. Any exception of the module itself passes through,
            because the user needs its traceback.
    """
    module_name, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), *attribute.split("."))):
        raise NotFoundError("must be a name or module:Name")
    try:
        found: Any = _import_module(module_name, fresh=fresh)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise NotFoundError(f"no module named {error.name} beside the study or installed") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise NotFoundError(f"{module_name} has no {attribute}")
        found = getattr(found, part)
    return found


#: Size and time of modification (whole seconds) of the files of users' modules when these were imported.
_imported: dict[str, tuple[int, int] | None] = {}


def _import_module(name: str, *, fresh: bool) -> ModuleType:
    importlib.invalidate_caches()
    if name not in sys.modules:
        importlib.import_module(name)
        _imported.update({one.__name__: _now(one) for one in _parts(name)})
    elif fresh and name != "__main__":
        _reload_rewritten(_parts(name))
    return sys.modules[name]


def _parts(name: str) -> list[ModuleType]:
    """A module with the user's own modules that it imports, as far as they are imported, these first."""
    return [sys.modules[one] for one in sources.modules_of(name) or (name,) if one in sys.modules]


def _reload_rewritten(modules: Sequence[ModuleType]) -> None:
    """Import modules again from the first one on whose file was rewritten."""
    first = next((index for index, module in enumerate(modules) if _is_rewritten(module)), len(modules))
    for module in modules[first:]:
        importlib.reload(module)
        _imported[module.__name__] = _now(module)
    if modules[first:]:
        sources.forget()


def _is_rewritten(module: ModuleType) -> bool:
    return _imported.setdefault(module.__name__, _when_compiled(module)) != _now(module)


def _now(module: ModuleType) -> tuple[int, int] | None:
    try:
        status = Path(module.__file__ or "").stat()
    except (AttributeError, OSError):
        return None
    return status.st_size, int(status.st_mtime)


def _when_compiled(module: ModuleType) -> tuple[int, int] | None:
    """Read the same from the header of the bytecode (PEP 552): the user's own code imported the module."""
    try:
        flags, seconds, size = struct.unpack("<4xIII", Path(module.__cached__ or "").read_bytes()[:16])
    except (AttributeError, OSError, struct.error):
        return _now(module)
    return _now(module) if flags else (size, seconds)


#: At most so many known names are listed.
_MOST_KNOWN = 50


def did_you_mean(word: str, known: Iterable[str], else_try: Mapping[str, str] | None = None) -> str:
    """Suggest the nearest known word, or list all if none is near; `else_try` maps words of other tables to these.

    Example:
        >>> did_you_mean("adamm", ["adam", "sgd"])
        'did you mean `adam`?'
    """
    names, elsewhere = list(known), else_try or {}
    if near := difflib.get_close_matches(word, names, n=1):
        return f"did you mean `{near[0]}`?"
    if near := difflib.get_close_matches(word, elsewhere, n=1):
        return f"did you mean `{near[0]}` in [{elsewhere[near[0]]}]?"
    more = f" and {len(names) - _MOST_KNOWN:,} more" if len(names) > _MOST_KNOWN else ""
    return "known: " + ", ".join(f"`{name}`" for name in names[:_MOST_KNOWN]) + more


def _origin(entry: Any) -> tuple[str, str]:
    """The module in which an entry's class is defined, and its name there."""
    owner = entry if isinstance(entry, type) else type(entry)
    return owner.__module__, owner.__qualname__


def _as_toml(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_as_toml(item) for item in value) + "]"
    if isinstance(value, str):
        return f'`"{value}"`'
    return re.sub(r"e([+-])0*", lambda sign: "e" + sign[1].strip("+"), str(value).lower())


OPTIMIZERS: "Registry[type[OptimizerSettings]]" = Registry(
    "optimizer",
    "fairtrial.training.optimizers",
    "fairtrial.spec.sections:OptimizerSettings",
    default="adam",
    adapt="fairtrial.training.optimizers.own:adapt",
)
SCHEDULES: "Registry[type[ScheduleSettings]]" = Registry(
    "schedule",
    "fairtrial.training.schedules",
    "fairtrial.spec.sections:ScheduleSettings",
    default="constant",
    adapt="fairtrial.training.schedules.own:adapt",
)
MODELS: "Registry[type[ModelSettings]]" = Registry(
    "model",
    "fairtrial.training.models",
    "fairtrial.spec.sections:ModelSettings",
    default="mobilenet_v2",
    adapt="fairtrial.training.models.own:adapt",
)
DATASETS: "Registry[type[DataSettings]]" = Registry(
    "data",
    "fairtrial.training.datasets",
    "fairtrial.spec.sections:DataSettings",
    default="cifar10",
    adapt="fairtrial.training.datasets.own:adapt",
)
MEASURES: "Registry[Any]" = Registry("measure", "fairtrial.measures", "fairtrial.measures:Measure")
EXECUTORS: "Registry[Any]" = Registry("executor", "fairtrial.executors", "fairtrial.executors.base:Executor")
CHARTS: "Registry[Any]" = Registry("chart", "fairtrial.report.charts", "fairtrial.report.charts:Chart")
IMPORTERS: "Registry[Any]" = Registry("importer", "fairtrial.importers", "fairtrial.importers.base:Importer")
