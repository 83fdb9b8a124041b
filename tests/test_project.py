"""Rules of the project that no linter holds: imports by name, and one version everywhere."""

import ast
import re
from pathlib import Path

import pytest

import fairtrial

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "fairtrial"


def imports_by_name(path):
    """The imports in a module that are calls, and that import-linter can't see, each as line and what it imports."""
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    for call in calls:
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        if name in {"import_module", "__import__", "module_from_spec", "run_module", "run_path"}:
            yield call.lineno, ast.unparse(call.args[0])


def test_only_the_registry_imports_by_name():
    """Else an import could climb the layers unseen. Names and commands are loaded lazily, and Ray is optional."""
    allowed = {SOURCE / "registry.py", SOURCE / "__init__.py", SOURCE / "cli" / "main.py"}
    found = {
        f"{path.relative_to(SOURCE)}:{line} {what}"
        for path in set(SOURCE.rglob("*.py")) - allowed
        for line, what in imports_by_name(path)
        if not (path.is_relative_to(SOURCE / "executors" / "ray") and re.fullmatch(r"'ray(\.\w+)*'", what))
    }
    assert found == set()


@pytest.mark.parametrize(
    "code", ["importlib.import_module(name)", "import_module(name)", "__import__(name)", "runpy.run_path(name)"]
)
def test_each_way_to_import_by_name_is_seen(code, tmp_path):
    (tmp_path / "module.py").write_text(f"x = {code}\n")
    assert list(imports_by_name(tmp_path / "module.py")) == [(1, "name")]


def test_the_citation_has_the_packages_version():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (.*)$", text, flags=re.MULTILINE)[1] == fairtrial.__version__
