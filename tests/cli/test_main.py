"""The table of commands, and what the command line does not load."""

import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest

import fairtrial.cli
from fairtrial.cli.main import COMMANDS, Commands

STUDY = """
name = "mine"
reference = "a"
seeds = 4
evidence.margin = 0.01
training = { loop = "fairtrial.testing:simulate", epochs = 3 }
[arms.a]
[arms.b]
params.mean = 0.82
"""
#: What helps to train, to draw, to serve or to read runs of elsewhere; and parts of SciPy that few verdicts need.
FOR_OTHERS = [
    "torch", "altair", "vl_convert", "pandas", "pyarrow", "ray", "optuna", "mlflow", "wandb", "starlette", "jinja2",
    "safetensors", "rich.progress", "scipy.stats", "scipy.optimize", "scipy.integrate", "scipy.interpolate",
    "fairtrial.runner", "fairtrial.tuning", "fairtrial.executors.base", "fairtrial.checkpoints", "fairtrial.judging",
]  # fmt: skip


@pytest.mark.parametrize("entry", COMMANDS, ids=lambda entry: entry.name)
def test_the_table_says_of_a_command_what_its_docstring_says(entry):
    function = getattr(importlib.import_module(f"fairtrial.cli.{entry.module}"), entry.function)
    assert " ".join(inspect.getdoc(function).partition("\n\n")[0].split()) == entry.help


@pytest.mark.parametrize("width", [12, 50, 80, 400])
def test_the_help_of_all_is_what_the_commands_themselves_would_say(width):
    commands = Commands()
    shown = {name: commands.short_help(name, width) for name in commands}
    assert shown == {name: command.get_short_help_str(width) for name, command in commands.items()}


def test_every_module_of_commands_is_in_the_table():
    modules = {info.name for info in pkgutil.iter_modules(fairtrial.cli.__path__)}
    assert {entry.module for entry in COMMANDS} == modules - {"main", "options", "output"}
    assert len({entry.name for entry in COMMANDS}) == len(COMMANDS)


def loaded(modules, *words):
    """Which modules a fresh interpreter has loaded after a command."""
    program = (
        "import sys\nfrom fairtrial.__main__ import main\nfrom fairtrial.cli.main import _Computations\n"
        "_Computations.PATIENCE = 1e9\n"  # on a busy machine a bar may be due
        f"sys.argv = ['fairtrial', *{list(words)}]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        f"print('loaded:', *[m for m in {modules} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()[1:]


def test_help_loads_nothing_but_typer():
    heavy = ["rich", "numpy", "sqlalchemy", "scipy", "fairtrial.api", "fairtrial.spec", "fairtrial.registry"]
    modules = [f"fairtrial.cli.{entry.module}" for entry in COMMANDS]
    assert loaded([*FOR_OTHERS, *heavy, *modules, "pydantic"], "--help") == []
    assert loaded([*FOR_OTHERS, *heavy, *modules], "--version") == []  # Typer parses with pydantic
    assert loaded([*FOR_OTHERS, *heavy, *modules]) == []


def test_a_verdict_loads_what_it_needs(invoke, inline, tmp_path):
    (tmp_path / "mine.toml").write_text(STUDY)
    assert invoke("run", "mine.toml")[0] == 0
    assert loaded([*FOR_OTHERS, "scipy.special"], "verdict", "mine") == ["scipy.special"]
    assert loaded([*FOR_OTHERS, "rich.console"], "table", "mine") == ["rich.console"]


def test_a_long_computation_is_shown_by_a_bar(monkeypatch):
    from fairtrial.cli import main
    from fairtrial.report import live

    shown = []

    class Bar:
        def __init__(self, console, patience):
            shown.append(("patience", patience))

        def __call__(self, *said):
            shown.append(said)

        def __exit__(self, *exc_info):
            shown.append("removed")

    clock = iter([0.0, 1.0, 3.0, 4.0])
    monkeypatch.setattr(main, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(live, "ComputationBar", Bar)
    with main._Computations() as show:
        show(1, 9, "levels")
        show(2, 9, "levels")
        show(3, 9, "levels")
    assert shown == [("patience", 0.0), (2, 9, "levels"), (3, 9, "levels"), "removed"]
