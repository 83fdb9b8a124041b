"""MLflow's folders, databases and servers, against the runs that its library logged."""

import http.server
import json
import shutil
import socket
import sqlite3
import threading
import urllib.parse

import pytest

import tracked_runs as tracked
from fairtrial.errors import RunsError
from fairtrial.importers import mlflow_server
from fairtrial.importers.base import open_source

EXPECTED = {optimizer: tracked.final_values(optimizer) for optimizer in tracked.OPTIMIZERS}


@pytest.mark.parametrize("place", ["mlruns", "mlflow.db"])
def test_a_store_of_the_real_library_has_its_runs(asset, finals, frame, place):
    source = open_source(asset("mlflow") / place)
    assert source.name == f"{place}#optimizers"
    assert finals(source, "test_acc") == EXPECTED
    rows = frame(source)
    assert rows["run"].nunique() == 11  # and one that failed before it logged anything
    assert set(rows["name"]) == {f"{optimizer}-{seed}" for optimizer, seed in tracked.runs()} | {"failed"}
    assert set(source.settings) == {"optimizer", "seed", "lr"}
    assert {*zip(rows["name"], rows["status"], strict=True)} >= {("adam-0", "finished"), ("failed", "failed")}
    for optimizer, seed in tracked.runs():
        losses = rows[rows["name"] == f"{optimizer}-{seed}"].sort_values("step")["train/loss"]
        assert list(losses) == [tracked.train_loss(optimizer, seed, epoch) for epoch in tracked.EPOCHS]


@pytest.mark.parametrize("place", ["mlruns", "mlflow.db"])
def test_what_is_left_out_or_ambiguous_is_said_once(asset, place):
    assert open_source(asset("mlflow") / place).notes == (
        "test_acc was logged more than once at a step; the last value counts.",
        "1 deleted run is left out.",
        "1 run is left out that only contained others.",
    )


@pytest.mark.parametrize(
    "form", ["mlflow:sqlite:///{}", "mlflow:{}", "{}#optimizers", "mlflow:sqlite:///{}#optimizers"]
)
def test_a_database_can_be_named_in_several_ways(asset, finals, form):
    assert finals(open_source(form.format(asset("mlflow") / "mlflow.db")), "test_acc") == EXPECTED


@pytest.mark.parametrize("place", ["mlruns", "mlflow.db"])
def test_an_unknown_experiment_is_named(asset, place):
    with pytest.raises(RunsError, match=rf'^{place}: has no experiment "other"; it has .*"optimizers"'):
        open_source(f"{asset('mlflow') / place}#other")


def test_of_several_experiments_with_runs_one_must_be_named(asset, finals):
    database = asset("mlflow") / "mlflow.db"
    with sqlite3.connect(database) as connection:
        connection.execute(
            "INSERT INTO runs (run_uuid, experiment_id, status, lifecycle_stage) VALUES ('x', 0, 'RUNNING', 'active')"
        )
    with pytest.raises(
        RunsError, match=r'^mlflow.db: has 2 experiments with runs; name one: mlflow.db#NAME, of "Default"'
    ):
        open_source(database)
    assert finals(open_source(f"{database}#optimizers"), "test_acc") == EXPECTED


def test_numbers_that_are_not_finite_are_as_they_were_logged(asset, frame):
    database = asset("mlflow") / "mlflow.db"
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE metrics SET value = 1.7976931348623157e308 WHERE key = 'train/loss' AND step = 0")
        connection.execute("UPDATE metrics SET value = 0, is_nan = 1 WHERE key = 'train/loss' AND step = 1")
    losses = frame(open_source(database), "step", "train/loss")
    assert set(losses[losses["step"] == 0]["train/loss"]) == {float("inf")}
    assert losses[losses["step"] == 1]["train/loss"].isna().all()


def test_a_damaged_value_is_one_line(asset, frame):
    database = asset("mlflow") / "mlflow.db"
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE metrics SET value = 'x' WHERE key = 'train/loss'")
    source = open_source(database)
    with pytest.raises(RunsError, match=r'^mlflow.db: "train/loss" of run \w+ is damaged$'):
        frame(source)


def test_databases_of_other_kinds_and_versions_are_one_line(asset, tmp_path):
    database = asset("mlflow") / "mlflow.db"
    with sqlite3.connect(database) as connection:
        connection.execute("ALTER TABLE metrics RENAME COLUMN step TO epoch")
    with pytest.raises(RunsError, match=r"^mlflow.db: can't be read as a database of MLflow: no such column: x.step$"):
        open_source(database)
    (tmp_path / "other.db").write_bytes(b"")
    with pytest.raises(
        RunsError, match=r"^other.db: can't be read as a database of MLflow: no such table: experiments$"
    ):
        open_source(f"mlflow:{tmp_path / 'other.db'}")
    assert (tmp_path / "other.db").read_bytes() == b""
    with pytest.raises(RunsError, match=r"missing.db: no such file$"):
        open_source("mlflow:sqlite:///missing.db")
    with pytest.raises(RunsError, match=r"missing: no such file or folder$"):
        open_source("mlflow:missing")
    with pytest.raises(
        RunsError, match=r"^nonsense://user:\*\*\*@host/x: Can't load plugin: sqlalchemy.dialects:nonsense$"
    ):
        open_source("mlflow:nonsense://user:secret@host/x")


def test_a_damaged_folder_is_one_line(asset, frame):
    folder = asset("mlflow") / "mlruns"
    meta = next(path for path in folder.glob("*/*/meta.yaml") if "run_name: adam-0" in path.read_text())
    metric = meta.parent / "metrics" / "test_acc"
    metric.write_text("1000 0.5 0\n1000 zero 1\n")
    with pytest.raises(RunsError, match=r"metrics/test_acc: a line is damaged: 1000 zero 1$"):
        frame(open_source(folder))
    meta.write_text("run_id: [")
    with pytest.raises(RunsError, match=r"meta.yaml: is no YAML file, or a damaged one$"):
        open_source(folder)
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(RunsError, match=r"mlruns: has no experiments of MLflow$"):
        open_source(f"mlflow:{folder}")


class Replay(http.server.BaseHTTPRequestHandler):
    """Answers as the real server did, of which `make_assets.py` wrote the answers down."""

    def do_POST(self):
        self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def do_GET(self):
        self.answer(dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query)))

    def answer(self, asked):
        server = self.server
        path = urllib.parse.urlsplit(self.path).path.removeprefix("/api/2.0/mlflow/")
        server.asked.append((path, asked, self.headers["Authorization"]))
        key = " ".join([path, *(asked[name] for name in ("run_id", "metric_key") if name in asked)])
        content = server.answers.get(key, b"") if server.broken is None else server.broken
        self.send_response(server.status if content or server.status != 200 else 404)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(asset):
    answers = json.loads((asset("mlflow") / "server.json").read_text())
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Replay)
    server.answers = {key: json.dumps(answer).encode() for key, answer in answers.items()}
    server.asked, server.status, server.broken = [], 200, None
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_server_has_its_runs(server, finals, frame):
    source = open_source(f"mlflow:{server.url}#optimizers")
    assert source.name == f"{server.url}#optimizers"
    assert finals(source, "test_acc") == EXPECTED
    assert frame(source, "run", "status").drop_duplicates()["status"].value_counts().to_dict() == {
        "finished": 10,
        "failed": 1,
    }
    assert "1 deleted run is left out." in source.notes


def test_all_pages_of_a_server_are_read(server, finals):
    everything = json.loads(server.answers["runs/search"])["runs"]
    first, second = everything[:6], everything[6:]
    server.answers["runs/search"] = json.dumps({"runs": first, "next_page_token": "more"}).encode()

    class Pages(dict):
        def get(self, key, default=None):
            if key == "runs/search" and server.asked[-1][1].get("page_token"):
                return json.dumps({"runs": second}).encode()
            return super().get(key, default)

    server.answers = Pages(server.answers)
    assert finals(open_source(f"mlflow:{server.url}#optimizers"), "test_acc") == EXPECTED


def test_a_server_gets_the_name_and_password_or_the_token_of_the_environment(server, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "abc")
    open_source(f"mlflow:{server.url}#optimizers")
    assert {authorization for *_, authorization in server.asked} == {"Bearer abc"}
    server.asked.clear()
    source = open_source(f"mlflow:{server.url.replace('//', '//me:secret@')}#optimizers")
    assert {authorization for *_, authorization in server.asked} == {"Basic bWU6c2VjcmV0"}
    assert "secret" not in source.name


@pytest.mark.parametrize(
    ("status", "content", "message"),
    [
        (401, b"", "refuses access .HTTP 401.; set MLFLOW_TRACKING_USERNAME"),
        (404, b"", "is no tracking server of MLflow"),
        (500, b"", "answers with an error .HTTP 500.$"),
        (200, b"<html>", "does not answer as a server of MLflow does$"),
        (200, b"[]", "does not answer as a server of MLflow does$"),
        (200, b'{"experiments": [{"name": 1}]}', "does not answer as a server of MLflow does$"),
    ],
)
def test_a_server_that_refuses_is_one_line(server, status, content, message):
    server.status, server.broken = status, content
    with pytest.raises(RunsError, match=rf"^{server.url}: {message}"):
        open_source(f"mlflow:{server.url}#optimizers")


def test_a_server_that_is_down_or_does_not_answer_is_one_line(server, monkeypatch):
    monkeypatch.setattr(mlflow_server, "_TIMEOUT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(RunsError, match=rf"^{url}: does not answer: .*timed out"):
            open_source(f"mlflow:{url}")
    with pytest.raises(RunsError, match=rf"^{url}: does not answer: .*refused"):
        open_source(f"mlflow:{url}")


def test_a_server_that_fails_on_the_way_ends_the_import(server, frame):
    source = open_source(f"mlflow:{server.url}#optimizers")
    server.status, server.broken = 503, b""
    with pytest.raises(RunsError, match=r"answers with an error .HTTP 503.$"):
        frame(source)
