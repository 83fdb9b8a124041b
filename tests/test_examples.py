"""The examples run as they are, and show what their page says."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fairtrial.templates import TEMPLATES

FOLDER = Path(__file__).parents[1] / "examples"
#: What an example prints, as a pattern.
PRINTS = {
    "grid.toml": r"eps from 1e-8 to 0\.01: best and worst differ by",
    "jax_loop.toml": r"low_beta2(:| is) ",
    "judge_arrays.py": r"low_beta2: worse .*\nlarge_eps: equivalent ",
    "keras_loop.toml": r"low_beta2(:| is) ",
    "lightning_loop.toml": r"lr = 1e-4 is worse than default by",
    "own_loop.toml": r"slow is worse than usual by",
    "own_optimizer.py": r"signum(:| is) ",
    "python_api.py": r"10 trials trained; digest [0-9a-f]{64}",
    "sklearn_loop.toml": r"strong(:| is) ",
    "transformers_loop.toml": r"low_beta2(:| is) ",
    "xgboost_loop.toml": r"shallow(:| is) ",
}
#: The packages that an example needs beside fairtrial's own.
NEEDS = {template.files[0]: template.needs for template in TEMPLATES.values()}


def run(*command):
    """Run a program in the test's own folder, as a reader would."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", PRINTS)
def test_an_example_runs(name):
    path = FOLDER / name
    missing = [package for package in NEEDS.get(name, ()) if importlib.util.find_spec(package) is None]
    if missing and "CI" not in os.environ:
        pytest.skip(f"needs {' and '.join(missing)}: pip install 'fairtrial[examples]'")
    out = run(path) if path.suffix == ".py" else run("-m", "fairtrial", "run", path)
    assert re.search(PRINTS[name], out)


def test_each_kind_of_new_has_its_example_on_the_page():
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    for kind, template in TEMPLATES.items():
        toml, loop = template.files
        assert f"| `{kind}` | [{loop}]({loop}), [{toml}]({toml}) |" in page


def test_all_examples_are_run_and_on_the_page():
    files = {path.name for path in FOLDER.iterdir() if path.suffix in {".py", ".toml"}}
    modules = {name.replace(".toml", ".py") for name in PRINTS if name.endswith(".toml")}  # what a study's file names
    assert files == {*PRINTS, *modules}
    tables = {path.name for path in FOLDER.glob("*.csv")}  # docs/judging.md has commands for them, which are run, too
    tables |= {path.name for path in FOLDER.glob("*.ipynb")}  # tests/report/test_notebook.py executes it
    assert files | tables == set(re.findall(r"\]\(([^/]*?)\)", (FOLDER / "README.md").read_text(encoding="utf-8")))
