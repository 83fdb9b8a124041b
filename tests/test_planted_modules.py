"""Files beside a study, or in the working folder, that could pass for modules: none runs unless the study names it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # each starts programs that load torch

#: Modules that Python, fairtrial and its libraries import.
INSTALLED = (
    *(
        "torch",
        "numpy",
        "scipy",
        "json",
        "typing",
        "signal",
        "pathlib",
        "re",
        "typer",
        "pydantic",
        "sqlalchemy",
        "rich",
    ),
    *("filelock", "platformdirs", "sitecustomize", "usercustomize", "pandas", "ray", "psycopg", "fsspec"),
)

#: Modules that they try to import and that are not there: for these, even the last place on the path is one too many.
MISSING = ("nt", "_winapi", "msvcrt", "cuda", "triton", "opt_einsum", "dill", "pydot", "uarray", "cython", "tensorflow")

BUILT_IN = """
name = "plain"
reference = "a"
[data]
name = "digits"
train = 32
test = 16
[model]
width = 0.1
[training]
epochs = 1
batch_size = 16
[arms.a]
[arms.b]
optimizer.betas = [0.9, 0.99]
"""

OWN = """
name = "own"
reference = "a"
[training]
epochs = 2
loop = "my_loop:train"
[arms.a]
[arms.b]
params.shift = 1
"""

DATA = """
import numpy as np
from fairtrial import DataSettings, DataSize

class Noise(DataSettings):
    size = DataSize(train=32, test=16)
    class_names = ("odd", "even")

    def arrays(self):
        images = np.random.default_rng(0).integers(0, 256, (48, 28, 28), np.uint8)
        labels = np.arange(48) % 2
        return images[:32], labels[:32], images[32:], labels[32:]
"""

#: How people start fairtrial; the first is what its script does, whose own folder is first on the path.
PROGRAMS = {
    "fairtrial": ["-P", "-c", "import sys; sys.argv[0] = 'fairtrial'; from fairtrial.__main__ import main; main()"],
    "python -m fairtrial": ["-m", "fairtrial"],
}


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """Plant modules in the working folder and the study's; each leaves its name in a file, and ends its process.

    Returns a function that starts a program and gives the names of planted modules that have run.
    """
    ran = tmp_path / "ran"
    for folder in (tmp_path / "work", tmp_path / "work/studies"):
        folder.mkdir()
        for name in (*INSTALLED, *MISSING):
            (folder / f"{name}.py").write_text(
                f"import os\nopen({str(ran)!r}, 'a').write({name + ' '!r})\nos._exit(7)\n"
            )
        (folder / "plain.toml").write_text(BUILT_IN)
    monkeypatch.chdir(tmp_path / "work")
    path = [entry for entry in sys.path if entry and Path(entry).is_absolute()]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path)}

    def start(program, *words):
        command = [sys.executable, *PROGRAMS[program], *words]
        done = subprocess.run(command, env=environment, capture_output=True, errors="replace", timeout=300, check=False)
        return (ran.read_text().split() if ran.exists() else []), done.returncode, done.stdout + done.stderr

    return start


STARTS = [("local", "fairtrial"), ("local", "python -m fairtrial"), ("ray", "python -m fairtrial")]


@pytest.mark.parametrize(("executor", "program"), STARTS)
def test_a_study_of_built_in_parts_runs_nothing_that_is_planted(planted, executor, program):
    ran, status, said = planted(program, "run", "studies/plain.toml", "--executor", executor, "--workers", "1")
    assert (ran, status) == ([], 0), said


def test_nor_does_any_other_command(planted):
    for words in (
        *(["show", "quick"], ["plan", "plain.toml"], ["run", "plain.toml", "--executor", "inline"], ["doctor"]),
        *(["verdict", "plain.toml"], ["plot", "plain"], ["export", "plain", "--format", "parquet"]),
    ):
        assert planted("python -m fairtrial", *words)[0] == [], words


@pytest.mark.parametrize(("executor", "program"), STARTS)
def test_a_loop_beside_the_study_is_found_and_what_is_planted_hides_no_module(planted, executor, program):
    for name in MISSING:  # that the study names code in its folder makes these findable
        Path("studies", f"{name}.py").unlink()
    loop = "import json, signal\n\ndef train(trial):\n    import helper\n    yield from helper.epochs(trial)\n"
    Path("studies/my_loop.py").write_text(loop)
    Path("studies/helper.py").write_text("def epochs(trial):\n    yield from [{'test_acc': 0.5}] * trial.epochs\n")
    Path("studies/own.toml").write_text(OWN)
    ran, status, said = planted(program, "run", "studies/own.toml", "--executor", executor)
    assert (ran, status) == ([], 0), said


@pytest.mark.parametrize("executor", ["ray"])
def test_data_beside_the_study_are_found_by_other_processes(planted, executor):
    """Settings of the user's own classes come to Ray's processes before these have the study's path."""
    for name in MISSING:
        Path("studies", f"{name}.py").unlink()
    Path("studies/my_data.py").write_text(DATA)
    Path("studies/own.toml").write_text(BUILT_IN.replace('"digits"', '"my_data:Noise"'))
    ran, status, said = planted("fairtrial", "run", "studies/own.toml", "--executor", executor, "--workers", "1")
    assert (ran, status) == ([], 0), said
