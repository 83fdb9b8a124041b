"""Inputs without end or of absurd size end in one line, under a limit of time and memory."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from fairtrial.cli import main as cli
from fairtrial.loading import load

ATTACKS = Path(__file__).with_name("attacks.py")
#: Far above what any group takes, and far below what an endless one would.
CPU_SECONDS, ADDRESS_SPACE, PEAK = 300, 16 * 2**30, 2 * 2**30


def limit():
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))


@pytest.mark.parametrize("group", ["studies", "archives", pytest.param("pickles", marks=pytest.mark.slow)])
def test_an_input_without_end_or_of_absurd_size_is_one_line(tmp_path, group):
    environment = os.environ | {"FAIRTRIAL_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, ATTACKS, group],
        cwd=tmp_path,
        env=environment,
        preexec_fn=limit,
        capture_output=True,
        text=True,
        timeout=2 * CPU_SECONDS,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line for line in lines if "wrong" in line] == []
    assert done.returncode == 0, (lines[-1], done.stderr[-1000:])  # killed: the last line names the attack
    assert lines[-1]["peak"] < PEAK


@pytest.mark.parametrize("command", ["run", "plan", "show", "table"])
def test_the_command_line_ends_with_one_line(tmp_path, monkeypatch, capsys, command):
    os.mkfifo("pipe.toml")
    monkeypatch.setattr(sys, "argv", ["fairtrial", command, "pipe.toml", "--store", "sqlite:///none.db"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code != 0
    assert capsys.readouterr().err.count("\n") == 1


def test_a_file_with_a_byte_order_mark_is_read():
    text = 'name = "s"\nreference = "a"\n[arms.a]\n[arms.b]\nlabel = "β₂"\noptimizer.lr = 0.1\n'
    Path("plain.toml").write_bytes(text.encode())
    Path("windows.toml").write_bytes(text.replace("\n", "\r\n").encode("utf-8-sig"))
    assert load("windows.toml") == load("plain.toml")
    assert load("windows.toml").hash == load("plain.toml").hash
