"""Users' training loops: found by name, imported again when their file was rewritten, and checked before they run."""

import ast
import importlib
import inspect
import sys
import textwrap
from pathlib import Path
from types import FunctionType, ModuleType

from fairtrial.errors import StudyError
from fairtrial.spec import LoopName
from fairtrial.trial import TrainingLoop

#: Size and time of modification of the files of users' modules, as they were when these were imported.
_imported: dict[str, tuple[int, int] | None] = {}


def find(name: str, *, fresh: bool = False) -> TrainingLoop:
    """Find a user's training loop by its name.

    Args:
        name: ``"module:function"`` with a module that Python can import; or a `LoopName`, which holds the function
            itself, where no module has it.
        fresh: import the module again if its file was rewritten since. For the start of a study: while it runs, all
            trials get the same code.

    Raises:
        StudyError: no such module or function, or the function can't be a training loop. What the module itself raises
            while it is imported passes through: it is the user's code, and its traceback says more than a line of ours.
    """
    module_name, _, function_name = name.partition(":")
    loop: object = name.function if isinstance(name, LoopName) else None
    if loop is None or (module_name != "__main__" and "<" not in function_name and isinstance(loop, FunctionType)):
        loop = _import(module_name, f'training.loop = "{name}"', fresh=fresh)
        for part in function_name.split("."):
            loop = getattr(loop, part, None)
    if not callable(loop):
        raise StudyError(f'training.loop = "{name}": {module_name} has no function {function_name}')
    if _forgets_to_yield(loop):
        raise StudyError(
            f'training.loop = "{name}": must be a generator that yields a dict of metrics after each epoch, such as '
            '{"train_loss": 0.3, "test_acc": 0.8}; it has no yield'
        )
    return loop  # a user's function; what it yields is checked record by record


def _import(module_name: str, what: str, *, fresh: bool) -> ModuleType:
    """Import a module; again if its file was rewritten since, as happens beside a notebook."""
    importlib.invalidate_caches()
    module = sys.modules.get(module_name)
    fresh = fresh and module_name != "__main__"
    try:
        if module is None:
            module = importlib.import_module(module_name)
            _imported[module_name] = _stamp(module)
        elif _stamp(module) != _imported.setdefault(module_name, _compiled(module)) and fresh:
            module = importlib.reload(module)
            _imported[module_name] = _stamp(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise StudyError(f"{what}: no module named {error.name} beside the study or installed") from error
    return module


def _stamp(module: ModuleType) -> tuple[int, int] | None:
    """Give the size and the time of modification, in whole seconds, of a module's file as it is now."""
    try:
        status = Path(module.__file__ or "").stat()
    except (AttributeError, OSError):
        return None
    return status.st_size, int(status.st_mtime)


def _compiled(module: ModuleType) -> tuple[int, int] | None:
    """Give the same as of the import of a module that others have imported, from its bytecode (PEP 552) if it can."""
    try:
        head = Path(module.__cached__ or "").read_bytes()[:16]
    except (AttributeError, OSError):
        return _stamp(module)
    flags, seconds, size = (int.from_bytes(head[place : place + 4], "little") for place in (4, 8, 12))
    return _stamp(module) if flags else (size, seconds)


def _forgets_to_yield(loop: object) -> bool:
    """Tell whether a function is no generator, and can return nothing but None and dicts."""
    loop = inspect.unwrap(loop) if callable(loop) else loop
    if not isinstance(loop, FunctionType) or inspect.isgeneratorfunction(loop):
        return False
    try:
        [function] = ast.parse(textwrap.dedent(inspect.getsource(loop))).body
    except (OSError, SyntaxError, ValueError):  # typed into a prompt, say; what it returns is checked when it runs
        return False
    nodes: list[ast.AST] = [function] if isinstance(function, ast.FunctionDef) else [ast.Return(ast.Name("lambda"))]
    returned = []
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Return):
            returned.append(node.value)
        inner = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
        nodes += [child for child in ast.iter_child_nodes(node) if not isinstance(child, inner)]
    return all(isinstance(value, ast.Dict | ast.Constant | None) for value in returned)
