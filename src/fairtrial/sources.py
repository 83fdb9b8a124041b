"""Digests of the user's own code: the modules that a trial runs, what they import, and functions of a script.

Imports are found by reading the sources, wherever in a file they are; a module that is imported by a computed name, and
files that are no Python, are not found.
"""

import ast
import dis
import hashlib
import importlib.metadata
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, partial
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, resolve_name
from pathlib import Path
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import NamedTuple

#: Packages that are not followed: their versions are a part of every trial's provenance anyway.
KNOWN = frozenset({"fairtrial", "numpy", "torch"})

_INSTALLED = {"site-packages", "dist-packages"}


def code_of(entries: Iterable[str]) -> dict[str, str]:
    """Digest the code that entries named ``"module:Name"`` come from; names without a colon are fairtrial's own.

    The code is that of the file's own modules and of all modules that these import, unless they are installed as
    packages: of packages it is the version. What was found first in this process is what it has imported, so it counts
    until `forget`.

    Returns:
        SHA-256 of each file by its name, such as ``my_loop.py`` or ``my_package/layers.py``; the version of each
        package by the name under which it is imported; and for a function of the running script (a `spec.LoopName` has
        it) a digest of ``__main__:train`` and of the functions, classes and plain values of the script that it uses.

    Example:
        >>> code_of(["fairtrial", "adam", "fairtrial.testing:simulate"])
        {}
    """
    found: dict[str, str] = {}
    for entry in entries:
        module, colon, _ = entry.partition(":")
        function = getattr(entry, "function", None) if module == "__main__" else None
        if colon:
            found |= _of_module(module) if function is None else _of_script(entry, function)
    return dict(sorted(found.items()))


def is_digest(value: str) -> bool:
    """Tell the digest of a file from the version of a package."""
    return len(value) == hashlib.sha256().digest_size * 2


def modules_of(module: str) -> tuple[str, ...]:
    """List the user's own modules that a module is made of, itself included, each after those that it imports."""
    return tuple(name for name, _, _ in _walk(module) if name)


def forget() -> None:
    """Read sources anew from now on: a study starts, or modules were imported again."""
    _walk.cache_clear()
    _SCRIPTS.clear()


def _of_module(module: str) -> dict[str, str]:
    return {key: digest for _, key, digest in _walk(module)}


class _Source(NamedTuple):
    """A module (empty for an installed package), the name of its file or of the package, and digest or version."""

    module: str
    key: str
    digest: str


@cache
def _walk(start: str) -> tuple[_Source, ...]:
    return tuple(_sources(start, set()))


def _sources(name: str, seen: set[str]) -> Iterator[_Source]:
    """Find what a module imports and the packages that it is in, then the module itself."""
    top = name.partition(".")[0]
    if name in seen or top in KNOWN or top in sys.stdlib_module_names or top == "__main__":
        return
    seen.add(name)
    spec = _find(name)
    if spec is None:  # a function of a package, or an optional dependency that is missing
        return
    place = Path(spec.origin or next(iter(spec.submodule_search_locations or ()), ""))
    if _INSTALLED & set(place.parts):
        yield from _version(top)
        return
    if parent := name.rpartition(".")[0]:
        yield from _sources(parent, seen)
    try:
        content = place.read_bytes()
    except OSError:  # a package without a file of its own
        return
    package = parent if spec.submodule_search_locations is None else name
    if place.suffix == ".py":
        for imported in _imports(content, package):
            yield from _sources(imported, seen)
    yield _Source(name, "/".join([*filter(None, package.split(".")), place.name]), hashlib.sha256(content).hexdigest())


def _find(name: str) -> ModuleSpec | None:
    """Find a module without importing anything."""
    parent, _, _ = name.rpartition(".")
    try:
        if not parent:
            return find_spec(name)
        above = _find(parent)
        return PathFinder.find_spec(name, above.submodule_search_locations) if above else None
    except (ImportError, ValueError):  # a module that was put into sys.modules by hand has no origin
        return None


def _imports(source: bytes, package: str) -> Iterator[str]:
    """Name the modules that a source may import; ``package`` resolves relative names."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # not for this Python; whoever imports it gets the error
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            try:
                base = (
                    resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module or ""
                )
            except ImportError:  # above the top
                continue
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


@cache
def _version(package: str) -> tuple[_Source, ...]:
    """The version of the distribution that an installed package comes from, if it has one."""
    try:
        return (_Source("", package, importlib.metadata.version(package)),)
    except importlib.metadata.PackageNotFoundError:
        names = sorted(set(importlib.metadata.packages_distributions().get(package, ())))
        versions = " and ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
        return (_Source("", package, versions),) if versions else ()


_SCRIPTS: dict[str, Mapping[str, str]] = {}


def _of_script(entry: str, function: object) -> Mapping[str, str]:
    """Digest a function of the running script, with all that it uses."""
    if entry in _SCRIPTS:
        return _SCRIPTS[entry]
    found: dict[str, str] = {}
    waiting = [(entry.partition(":")[2].partition("#")[0], function)]
    while waiting:
        name, value = waiting.pop()
        module = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
        if f"__main__:{name}" in found:
            continue
        if _is_plain(value):
            found[f"__main__:{name}"] = _sha256(value)
        elif isinstance(value, partial | MethodType):
            waiting.append((name, value.func if isinstance(value, partial) else value.__func__))
        elif module == "__main__" and isinstance(value, FunctionType | type):
            functions = [value] if isinstance(value, FunctionType) else [*_functions(value)]
            found[f"__main__:{name}"] = _sha256([describe(one) for one in functions])
            waiting += [used for one in functions for used in _used_by(one)]
            if isinstance(value, type):
                waiting += [(base.__qualname__, base) for base in value.__bases__]
                waiting += [
                    (f"{name}.{key}", one) for key, one in vars(value).items() if _is_plain(one) and key[0] != "_"
                ]
        elif module == "__main__":
            waiting.append((type(value).__qualname__, type(value)))
        elif module:
            found |= _of_module(module)
    _SCRIPTS[entry] = found
    return found


def _is_plain(value: object) -> bool:
    """Whether a value of a script is a constant or a table of them; a list may be one that results are added to."""
    if isinstance(value, tuple | dict):
        return all(map(_is_plain, value.values() if isinstance(value, dict) else value))
    return value is None or isinstance(value, bool | int | float | str)


def _functions(kind: type) -> Iterator[FunctionType]:
    """The functions that a class defines, those of its properties and other descriptors included."""
    for value in vars(kind).values():
        parts = [value, *(getattr(value, name, None) for name in ("__func__", "fget", "fset"))]
        yield from (part for part in parts if isinstance(part, FunctionType))


def _used_by(function: FunctionType) -> Iterator[tuple[str, object]]:
    """The globals that a function reads and does not set, and what it has captured, by name."""
    for code in _nested(function.__code__):
        steps = [(step.opname, step.argval) for step in dis.get_instructions(code)]
        names = {name for kind, name in steps if kind in {"LOAD_GLOBAL", "LOAD_NAME"}}
        names -= {name for kind, name in steps if kind == "STORE_GLOBAL"}
        yield from ((name, function.__globals__[name]) for name in sorted(names) if name in function.__globals__)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        if (value := _captured(cell)) is not None:
            yield name, value


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def describe(value: object, within: tuple[object, ...] = ()) -> object:
    """Describe a function by what decides what it does, but for the modules that it uses; it may capture itself."""
    if any(value is one for one in within):
        return "itself"
    if isinstance(value, partial):
        return describe(value.func), [describe(item) for item in value.args], sorted(value.keywords.items())
    if isinstance(value, MethodType):
        return describe(value.__func__), describe(value.__self__)
    if isinstance(value, FunctionType):
        captured = [describe(_captured(cell), (*within, value)) for cell in value.__closure__ or ()]
        return describe(value.__code__), value.__defaults__, value.__kwdefaults__, captured
    if isinstance(value, CodeType):
        return value.co_code, value.co_names, [describe(constant) for constant in value.co_consts]
    return (type(value), vars(value)) if hasattr(value, "__dict__") and not isinstance(value, type) else value


def _captured(cell: CellType) -> object:
    """What a cell holds; None if its variable has no value yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _sha256(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()
