"""`fairtrial doctor`: what it finds, and that it changes nothing."""

import json
import sqlite3
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fairtrial import doctor
from fairtrial.cli.main import app
from fairtrial.doctor import CheckStatus, check_installation
from fairtrial.store.sql import SQLStore


def found(store="fairtrial.db", **options):
    return {finding.part: finding for finding in check_installation(store, **options)}


def test_every_part_is_checked_and_nothing_is_left_behind():
    findings = found()
    assert list(findings) == [
        "versions",
        "processor",
        "memory",
        "disk",
        "layers",
        "data",
        "store",
        "Ray",
        "PostgreSQL",
    ]
    assert "torch 2" in findings["versions"].detail
    assert f"SQLite {sqlite3.sqlite_version}" in findings["versions"].detail
    assert "can be written to" in findings["store"].detail
    assert list(Path().iterdir()) == []


def test_a_store_is_opened_and_checked(make_study):
    study = make_study()
    with SQLStore("fairtrial.db") as store:
        store.add_study(study, doctor_time())
    assert found()["store"].state is CheckStatus.GOOD
    assert "fairtrial.db is sound, with 1 study" in found()["store"].detail


def doctor_time():
    from datetime import UTC, datetime

    return datetime(2026, 1, 2, tzinfo=UTC)


def test_a_damaged_store_is_bad():
    with SQLStore("fairtrial.db"):
        pass
    content = bytearray(Path("fairtrial.db").read_bytes())
    content[4096:4200] = bytes(104)
    Path("fairtrial.db").write_bytes(content)
    assert found()["store"].state is CheckStatus.BAD


def test_a_file_that_is_no_database_is_bad():
    Path("fairtrial.db").write_text("notes, and no database at all " * 100)
    assert found()["store"].state is CheckStatus.BAD


def test_what_is_missing_is_reported(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    from fairtrial.training.kernels import compiler

    compiler.find_compiler.cache_clear()
    monkeypatch.setenv("FAIRTRIAL_CACHE", str(Path("cache").resolve()))
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    findings = found("postgresql://somewhere/db", address="somewhere:6379")
    compiler.find_compiler.cache_clear()
    assert (findings["layers"].state, findings["data"].state) == (CheckStatus.NOTE, CheckStatus.NOTE)
    assert "no compiler found (looked for no-such-compiler)" in findings["layers"].detail
    assert findings["Ray"].state is findings["PostgreSQL"].state is CheckStatus.BAD
    assert 'pip install "fairtrial[ray]"' in findings["Ray"].detail


@pytest.fixture
def _a_compiler(monkeypatch):
    from fairtrial.training.kernels import compiler

    monkeypatch.setattr(compiler, "find_compiler", lambda: compiler.Compiler("/usr/bin/g++", "g++ 12.2.0"))


@pytest.mark.usefixtures("_a_compiler")
def test_a_cache_without_a_home_folder_is_bad(monkeypatch):
    monkeypatch.setenv("FAIRTRIAL_CACHE", "~nosuch/x")
    findings = found()
    states = [findings[part].state for part in ("disk", "data", "layers")]
    assert states == [CheckStatus.BAD, CheckStatus.BAD, CheckStatus.NOTE]
    for part in ("disk", "data", "layers"):
        assert "no home folder for the cache; set FAIRTRIAL_CACHE to a folder" in findings[part].detail


@pytest.mark.usefixtures("_a_compiler")
def test_layers_that_cant_be_kept_are_not_ready(monkeypatch):
    """Asked is the nearest folder that exists; root, who may write everywhere, would not notice a refusal."""
    monkeypatch.setenv("FAIRTRIAL_CACHE", str(Path("a/b").resolve()))
    assert found()["layers"].detail == "kernels by g++ 12.2.0, compiled when a study first needs them"
    asked = []
    monkeypatch.setattr("os.access", lambda path, *_: asked.append(path))
    layers = found()["layers"]
    assert layers.state is CheckStatus.NOTE
    assert layers.detail.startswith("torch's own, several times slower: ")
    assert layers.detail.endswith("can't be written to; set FAIRTRIAL_CACHE to a folder that can")
    assert Path.cwd() in asked


@pytest.mark.usefixtures("_a_compiler")
def test_layers_below_a_file_are_not_ready(monkeypatch):
    Path("file").write_text("in the way")
    monkeypatch.setenv("FAIRTRIAL_CACHE", str(Path("file").resolve()))
    layers = found()["layers"]
    assert layers.state is CheckStatus.NOTE
    assert layers.detail.startswith("torch's own, several times slower: ")
    assert layers.detail.endswith("can't be read (Not a directory)")


def test_damaged_data_are_bad(monkeypatch):
    monkeypatch.setenv("FAIRTRIAL_CACHE", str(Path("cache").resolve()))
    folder = Path("cache/cifar10")
    folder.mkdir(parents=True)
    for name in ("train_images", "train_labels", "test_images", "test_labels"):
        (folder / f"{name}.npy").write_bytes(b"no array")
    assert found()["data"].state is CheckStatus.BAD


@pytest.mark.parametrize(("state", "code"), [(CheckStatus.GOOD, 0), (CheckStatus.NOTE, 0), (CheckStatus.BAD, 1)])
def test_the_command_ends_by_what_it_found(monkeypatch, state, code):
    monkeypatch.setattr("fairtrial.doctor._versions", lambda: (state, "as they are"))
    monkeypatch.setattr("fairtrial.doctor._memory", lambda: (CheckStatus.GOOD, "enough"))
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == code
    assert done.stdout.splitlines()[0].split() == [
        {"good": "ok", "note": "note", "bad": "BAD"}[state],
        "versions",
        "as",
        "they",
        "are",
    ]


def test_json_has_all_of_it():
    done = CliRunner().invoke(app, ["doctor", "--json"])
    parts = json.loads(done.stdout)
    assert [part["part"] for part in parts] == list(found())
    assert set(parts[0]) == {"part", "state", "detail"}


def test_a_part_that_breaks_is_a_finding(monkeypatch):
    monkeypatch.setitem(sys.modules, "fairtrial.training.machine", None)
    assert found()["processor"].state is CheckStatus.BAD
