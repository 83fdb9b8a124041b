"""Standard output and error that are full, closed, unread or ASCII: a study trains on, and the status says so."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fairtrial

STUDY = """
name = "small"
reference = "a"
seeds = 2
[training]
epochs = 2
loop = "chatty:train"
[arms.a]
label = "α → ✓"
[arms.b]
params.pace = 2
"""
#: Prints, as training loops do, and what ASCII lacks.
LOOP = """
import sys
def train(trial):
    for epoch in range(1, trial.epochs + 1):
        print("epoch", epoch, "±", flush=True)
        print("to standard error", file=sys.stderr, flush=True)
        yield {"test_acc": 0.5 + trial.seed / 10, "train_loss": 1.0, "test_loss": 1.0, "train_acc": 0.5}
"""
RUN = "fairtrial run small.toml --executor inline"
WORKERS = "fairtrial run small.toml --workers 1"
FULL = "fairtrial: standard output: No space left on device; output was lost; nothing in the store was\n"
CLOSED = FULL.replace("No space left on device", "Bad file descriptor")
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture
def shell(tmp_path):
    """Run a command of a shell in which `fairtrial` is the program."""
    Path("small.toml").write_text(STUDY, encoding="utf-8")
    Path("chatty.py").write_text(LOOP, encoding="utf-8")

    def run(command, **environment):
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG", "PYTHONIO"))}
        return subprocess.run(
            ["bash", "-c", f'fairtrial() {{ "{sys.executable}" -m fairtrial "$@"; }}; {command}'],
            capture_output=True,
            env=inherited | environment,
            timeout=600,
            check=False,
        )

    return run


def digests(monkeypatch):
    """The digest of the study in the store, and that of an undisturbed run."""
    monkeypatch.syspath_prepend(Path.cwd())
    study = fairtrial.load("small.toml")
    undisturbed = fairtrial.run(study, store="whole.db", executor=fairtrial.InlineExecutor())
    sys.modules.pop("chatty")
    return fairtrial.open_results(study).digest(), undisturbed.digest()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "status", "errors"),
    [
        (f"{WORKERS} > /dev/full", 1, FULL),
        (f"{WORKERS} <&- >&- 2>&-", 1, ""),
        (f"{RUN} > /dev/full", 1, FULL),
        (f"{RUN} >&-", 1, CLOSED),
        (f"{RUN} 2> /dev/full", 0, ""),
        (f"{RUN} > /dev/full 2>&1", 1, ""),
        (f"{RUN} 2>&1 | true; exit ${{PIPESTATUS[0]}}", 141, ""),
    ],
)
def test_output_that_cannot_be_written_ends_no_study(shell, monkeypatch, command, status, errors):
    found = shell(command)
    said = found.stderr.decode()
    assert found.returncode == status, said
    assert "Traceback" not in said
    assert "ignored" not in said
    assert said.endswith(errors)
    assert errors or not said
    broken, whole = digests(monkeypatch)
    assert broken == whole


@pytest.mark.slow
@pytest.mark.parametrize("environment", [ASCII, {"PYTHONIOENCODING": "ascii"}])
def test_ascii_terminals_get_replacements(shell, monkeypatch, environment):
    found = shell(WORKERS, **environment)
    assert (found.returncode, b"Traceback" in found.stderr) == (0, False), found.stderr
    assert rb"\u03b1 \u2192 \u2713 *" in found.stdout
    assert b" +- 7.07" in found.stdout
    broken, whole = digests(monkeypatch)
    assert broken == whole


def test_a_document_is_utf_8_whatever_the_terminal(shell):
    assert 'label = "α → ✓"' in shell("fairtrial show small.toml", **ASCII).stdout.decode()


@pytest.mark.parametrize(
    ("command", "status", "errors"),
    [
        ("fairtrial ls > /dev/full", 1, FULL),
        ("fairtrial run --help > /dev/full", 1, FULL),
        ("fairtrial show quick >&-", 1, CLOSED),
        ("fairtrial nonsense 2> /dev/full", 2, ""),
    ],
)
def test_every_command_ends_with_one_line_and_a_status(shell, command, status, errors):
    found = shell(command)
    assert (found.returncode, found.stderr.decode()) == (status, errors)
