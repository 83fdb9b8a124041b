"""Compiled libraries in the cache: none is loaded that others could have written, or that is damaged."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fairtrial.doctor import CheckStatus, check_installation
from fairtrial.scheduler import plan
from fairtrial.spec import Study
from fairtrial.training import prepare
from fairtrial.training.kernels import cache, compiler, library

NAME = "float-0123.so"


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    """An empty cache of this test's own."""
    monkeypatch.setenv("FAIRTRIAL_CACHE", str(tmp_path / "cache"))
    cache.prepare()
    return cache.folder_path()


@pytest.fixture
def real(home, monkeypatch):
    """A library that works, in this cache, where the compiler expects it; nothing is loaded yet."""
    monkeypatch.delenv("FAIRTRIAL_CACHE")
    compiler.find_compiler.cache_clear()
    try:
        shared = compiler.library("float")
    except cache.KernelsUnavailableError as reason:
        pytest.skip(str(reason))
    monkeypatch.setenv("FAIRTRIAL_CACHE", str(home.parent))
    cache.write(shared.path.name, shared.path.read_bytes())
    monkeypatch.setattr(compiler, "_compile", lambda *_: shared.path)  # as good as compiling it, and quicker
    library._kernels.cache_clear()
    yield home / shared.path.name
    library._kernels.cache_clear()
    os.close(shared.descriptor)


def content(name=NAME):
    found = cache.find(name)
    with os.fdopen(found.descriptor, "rb") as file:
        file.seek(0)
        return file.read()


def test_what_was_written_is_found_and_closed_to_others(home):
    assert cache.find(NAME) is None
    before = os.umask(0)
    try:
        cache.write(NAME, b"code")
    finally:
        os.umask(before)
    assert content() == b"code"
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in home.iterdir()} == {0o600}


def test_a_folder_that_was_open_is_closed(home):
    home.chmod(0o777)
    cache.prepare()
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def flip(path):
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)


def another_library(path):
    """Put a sound library under this one's name, with its digest."""
    cache.write("double-4567.so", b"other code")
    for suffix in ("", ".sha256"):
        path.with_name(f"double-4567.so{suffix}").rename(f"{path}{suffix}")


def link(path):
    path.rename(path.with_suffix(".elsewhere"))
    path.symlink_to(path.with_suffix(".elsewhere"))


def hard_link(path):
    path.with_suffix(".elsewhere").hardlink_to(path)


def to_others(path):
    os.chown(path, 12345, 12345)


DAMAGE = {
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "garbage with an ELF head": lambda path: path.write_bytes(path.read_bytes()[:4096] + os.urandom(4096)),
    "a flipped bit": flip,
    "planted over it": lambda path: path.write_bytes(b"other code"),
    "without a digest": lambda path: path.with_name(f"{path.name}.sha256").unlink(),
    "with a damaged digest": lambda path: flip(path.with_name(f"{path.name}.sha256")),
    "with an endless digest": lambda path: os.truncate(f"{path}.sha256", 10**12),
    "with a digest that others may write": lambda path: path.with_name(f"{path.name}.sha256").chmod(0o666),
    "another one, renamed": another_library,
    "group-writable": lambda path: path.chmod(0o620),
    "writable by all": lambda path: path.chmod(0o602),
    "a link": link,
    "a hard link": hard_link,
    "a FIFO": lambda path: (path.unlink(), os.mkfifo(path)),
    "of another user": to_others,
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_planted_or_damaged_library_is_not_opened_and_makes_room_for_a_sound_one(kind, home):
    if kind == "of another user" and os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    cache.write(NAME, b"code" * 4096)
    DAMAGE[kind](home / NAME)
    with pytest.raises(cache.UnsoundError) as caught:
        cache.find(NAME)
    assert str(caught.value).startswith(str(home / NAME))
    assert "\n" not in str(caught.value)
    cache.write(NAME, b"new code")
    if kind == "a link":
        assert (home / NAME).with_suffix(".elsewhere").read_bytes() == b"code" * 4096
    assert content() == b"new code"


@pytest.mark.parametrize("kind", ["of another user", "a link", "a file"])
def test_a_folder_that_is_not_this_users_is_not_used(kind, home, monkeypatch):
    cache.write(NAME, b"code")
    if kind == "of another user":
        me = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: me + 1)
        home.rename(cache.folder_path())  # where that one would look
    else:
        home.rename(home.with_name("elsewhere"))
        if kind == "a link":
            home.symlink_to(home.with_name("elsewhere"))
        else:
            home.touch()
    reason = "belongs to another user" if kind == "of another user" else "is not a folder"
    for use in (lambda: cache.find(NAME), cache.prepare):
        with pytest.raises(cache.KernelsUnavailableError, match=reason):
            use()


def test_the_file_that_was_checked_is_loaded_whatever_has_its_name_since(home):
    cache.write(NAME, b"checked")
    found = cache.find(NAME)
    cache.write(NAME, b"planted")
    if found.loadable == str(found.path):
        pytest.skip("no /proc on this system")
    assert Path(found.loadable).read_bytes() == b"checked"
    os.close(found.descriptor)


def test_what_killed_processes_left_is_removed_and_what_a_live_one_has_is_not(home):
    def leave():
        (home / "compiling-dead").mkdir()
        (home / "compiling-dead" / "kernels.cpp").touch()
        (home / f".{NAME}.1a2b3c4d.part").touch()

    leave()
    cache.prepare()
    assert [path.name for path in home.iterdir()] == [".lock"]
    leave()
    with cache.compiling() as workspace:
        assert {path.name for path in home.iterdir()} == {".lock", workspace.name}
        child = "from fairtrial.training.kernels import cache; cache.prepare()"
        subprocess.run([sys.executable, "-c", child], check=True, env=environment())
        assert workspace.is_dir()
    assert [path.name for path in home.iterdir()] == [".lock"]


def environment(**more):
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | more


def test_a_kill_while_compiling_leaves_nothing_after_the_next_start(home, tmp_path):
    """The compiler of this test waits; its parent is killed, as by a power cut."""
    program = tmp_path / "slow++"
    program.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo "slow 1" && exit\ntouch "$TMPDIR/left"\necho go\nsleep 2\n'
    )
    program.chmod(0o755)
    code = "from fairtrial.training.kernels import compiler; compiler.library('float')"
    with subprocess.Popen([sys.executable, "-c", code], env=environment(CXX=str(program))) as child:
        while not list(home.glob("compiling-*/left")):
            assert child.poll() is None
        child.send_signal(signal.SIGKILL)
    assert list(home.glob("compiling-*"))
    cache.prepare()
    assert [path.name for path in home.iterdir()] == [".lock"]


TINY = {
    "name": "s",
    "reference": "a",
    "data": {"name": "digits", "train": 64, "test": 10},
    "training": {"epochs": 1},
    "arms": {"a": {}},
}


@pytest.mark.parametrize("kind", ["truncated", "empty", "garbage with an ELF head", "writable by all"])
def test_an_unsound_library_is_named_once_and_compiled_again(kind, real):
    """By the way of a study: one line, then the same layers as ever; `doctor` says it and changes nothing."""
    DAMAGE[kind](real)
    before = real.read_bytes()
    (layers,) = [one for one in check_installation() if one.part == "layers"]
    assert layers.state is CheckStatus.NOTE
    assert layers.detail.startswith(str(real))
    assert layers.detail.endswith(": it is not loaded; the next study compiles it again")
    assert real.read_bytes() == before
    (note,) = prepare.compile_layers(plan(Study.from_dict(TINY)))
    assert note.startswith(str(real))
    assert note.endswith(": not loaded, and compiled again")
    assert library.path().startswith("compiled kernels (")
    assert library.load(torch.float32) is not None
    assert prepare.compile_layers(plan(Study.from_dict(TINY))) == ()


def test_doctor_says_why_layers_are_not_compiled(home, monkeypatch):
    compiler.find_compiler.cache_clear()
    home.rename(home.with_name("elsewhere"))
    home.symlink_to(home.with_name("elsewhere"))
    (layers,) = [one for one in check_installation() if one.part == "layers"]
    assert layers.state is CheckStatus.NOTE
    assert "torch's own, several times slower: " in layers.detail
