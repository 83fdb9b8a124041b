"""The package as a whole: public names, import time, import rules, version."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import fairtrial

ROOT = Path(__file__).parents[1]
HEAVY = ["torch", "sqlalchemy", "ray", "scipy", "pandas", "altair", "numpy", "pydantic", "rich", "typer"]


def test_the_public_names_are_sorted_and_there():
    assert list(fairtrial.__all__) == sorted(fairtrial.__all__)
    assert set(fairtrial.__all__) == set(fairtrial._MODULE_OF)
    assert all(getattr(fairtrial, name).__name__ == name for name in fairtrial.__all__)
    assert set(fairtrial.__all__) <= set(dir(fairtrial))


def test_every_public_name_has_a_docstring_and_a_line_in_the_documents():
    assert [name for name in fairtrial.__all__ if not getattr(fairtrial, name).__doc__] == []
    listed = re.findall(r"`ft\.(\w+)", (ROOT / "docs" / "studies.md").read_text())
    assert set(fairtrial.__all__) <= set(listed)
    assert [name for name in listed if not hasattr(fairtrial, name)] == []


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'fairtrial' has no attribute 'nonsense'"):
        _ = fairtrial.nonsense


def loaded_after(code):
    """Which heavy modules a fresh interpreter has loaded after some code."""
    program = f"import sys\n{code}\nprint(*[m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_importing_the_package_loads_nothing_heavy():
    assert loaded_after("import fairtrial") == []


def test_the_command_line_starts_without_torch_and_charts():
    assert not {"torch", "altair", "scipy", "pandas"} & set(loaded_after("import fairtrial.cli.main"))


def test_imports_go_one_way():
    """The import rules of the design, as pyproject.toml states them."""
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_version_is_the_changelogs_newest():
    headings = re.findall(r"^## \[?(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert headings[0] == fairtrial.__version__


def test_every_constraint_is_exact():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert "torch==2.13.0" in pins
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.]+", pin) for pin in pins)


def test_modules_stay_small():
    long = {str(path): n for path in (ROOT / "src").rglob("*.py") if (n := len(path.read_text().splitlines())) > 400}
    assert long == {}
