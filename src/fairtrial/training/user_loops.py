"""Find users' training loops by name, reload them if their file was rewritten, and check them before they run."""

import ast
import inspect
import textwrap
from types import FunctionType

from fairtrial.errors import StudyError
from fairtrial.registry import NotFoundError, import_name
from fairtrial.spec import LoopName
from fairtrial.trial import TrainingLoop


def find(name: str, *, fresh: bool = False) -> TrainingLoop:
    """Find a user's training loop by its name.

    Args:
        name: ``"module:function"`` with a module that Python can import; or a `LoopName`, which has the function.
        fresh: reload the module if its file was rewritten. For the start of a study: while it runs, all trials get the
            same code.

    Raises:
        StudyError: no such module or function, or the function can't be a training loop. Errors that the module itself
            raises during import pass through with their traceback.
    """
    module_name, _, function_name = name.partition(":")
    loop: object = name.function if isinstance(name, LoopName) else None
    if loop is None or (module_name != "__main__" and "<" not in function_name and isinstance(loop, FunctionType)):
        try:
            loop = import_name(name, fresh=fresh)
        except NotFoundError as error:
            raise StudyError(f'training.loop = "{name}": {error}') from error
    if not callable(loop):
        raise StudyError(f'training.loop = "{name}": {module_name} has no function {function_name}')
    if _forgets_to_yield(loop):
        raise StudyError(
            f'training.loop = "{name}": must be a generator that yields a dict of metrics after each epoch, such as '
            '{"train_loss": 0.3, "test_acc": 0.8}; it has no yield'
        )
    return loop  # what it yields is checked record by record


def _forgets_to_yield(loop: object) -> bool:
    """Whether a function is no generator, and can only return None and dicts."""
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
