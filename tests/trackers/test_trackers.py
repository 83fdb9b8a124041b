"""What fairtrial writes to trackers: read back by its own importers, once for each trial, never in training's way."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import fairtrial as ft
from fairtrial.callbacks import Callback
from fairtrial.errors import FairtrialError
from fairtrial.trackers import base
from fairtrial.trackers.mlflow import MLflowTracker
from fairtrial.trackers.tensorboard import TensorBoardTracker

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of MLflow, in SQLAlchemy's eyes
STUDY = """
name = "tracked"
reference = "a"
seeds = 4
training = { loop = "fairtrial.testing:simulate", epochs = 3 }
evidence.margin = 0.01
[params]
mean = 0.8
[arms.a]
[arms.b]
params.mean = 0.75
[arms.c]
params.mean = 0.801
"""
COLUMNS = {"arm": "arm", "seed": "seed", "measure": "best_test_acc", "reference": "a", "margin": 0.01}


@pytest.fixture
def study(tmp_path):
    (tmp_path / "tracked.toml").write_text(STUDY)
    return ft.load("tracked.toml")


def run(study, *callbacks, **options):
    return ft.run(study, executor=ft.InlineExecutor(), callbacks=callbacks, **options)


def verdicts(source, **columns):
    return {one.arm: one for one in ft.judge_runs(source, **COLUMNS, **columns).data.comparisons}


def make(kind, said=None):
    """A tracker, and where an importer finds what it wrote."""
    say = [].append if said is None else said.append
    if kind == "tensorboard":
        return TensorBoardTracker("logs", say), "logs"
    return MLflowTracker(database(), say), "mlflow.db"


def database():
    """An absolute path: MLflow keeps what it opened by its URI."""
    return f"sqlite:///{Path.cwd()}/mlflow.db"


def histories(kind):
    """What a tracker has of each run: how many values of the test accuracy, by arm and seed."""
    if kind == "tensorboard":
        from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

        found = {}
        for folder in sorted(Path("logs").glob("*/*/seed-*")):
            events = EventAccumulator(str(folder), purge_orphaned_data=True)
            events.Reload()
            found[folder.parent.name, int(folder.name[5:])] = [event.step for event in events.Tensors("test_acc")]
        return found
    from mlflow import MlflowClient

    client = MlflowClient(database())
    experiments = [one.experiment_id for one in client.search_experiments() if one.name != "Default"]
    found = {}
    for one in client.search_runs(experiments):
        key = one.data.params["arm"], int(one.data.params["seed"])
        assert key not in found  # one run a trial
        found[key] = [metric.step for metric in client.get_metric_history(one.info.run_id, "test_acc")]
    return found


@pytest.mark.parametrize("kind", ["tensorboard", "mlflow"])
def test_the_importers_read_back_the_same_verdict(study, kind):
    said = []
    tracker, source = make(kind, said)
    runs = run(study, tracker)
    runs.export("epochs.csv")
    found, expected = verdicts(source), verdicts("epochs.csv", epoch="epoch")
    assert {arm: one.verdict for arm, one in found.items()} == {
        one.arm: one.verdict for one in runs.verdict().data.comparisons
    }
    for arm, one in expected.items():
        assert (found[arm].mean_difference, found[arm].interval) == (one.mean_difference, one.interval)
    assert histories(kind) == {(arm, seed): [1, 2, 3] for arm in "abc" for seed in range(4)}
    assert said == []


INTERRUPTED = """
from pathlib import Path
from fairtrial.testing import simulate
def train(trial):
    for epoch, record in enumerate(simulate(trial)):
        if (trial.arm, trial.seed, epoch) == ("c", 0, 2) and not Path("resumed").exists():
            Path("resumed").touch()
            raise KeyboardInterrupt
        yield record
"""


@pytest.mark.parametrize("kind", ["tensorboard", "mlflow"])
def test_a_resumed_study_continues_its_runs_and_logs_nothing_twice(kind):
    Path("interrupted_loop.py").write_text(INTERRUPTED)
    Path("tracked.toml").write_text(STUDY.replace("fairtrial.testing:simulate", "interrupted_loop:train"))
    study = ft.load("tracked.toml")
    with pytest.raises(KeyboardInterrupt):
        run(study, make(kind)[0])
    assert histories(kind) == {("a", 0): [1, 2, 3], ("b", 0): [1, 2, 3], ("c", 0): [1, 2]}
    run(study, make(kind)[0])
    whole = {(arm, seed): [1, 2, 3] for arm in "abc" for seed in range(4)}
    assert histories(kind) == whole
    run(study, make(kind)[0])  # all trials are in the store
    assert histories(kind) == whole


@pytest.mark.parametrize("kind", ["tensorboard", "mlflow"])
def test_a_failed_trial_that_is_retried_is_one_run(make_study, kind, monkeypatch):
    study = make_study(
        arms={"a": {}, "b": {"params": {"end": "raises"}}}, training={"epochs": 3, "loop": "loops:mixed"}
    )
    run(study, make(kind)[0])
    assert histories(kind)["b", 0] == [1]
    run(study, make(kind)[0], retry_failed=True)
    assert histories(kind)["b", 0] == [1]
    assert len(histories(kind)) == 4


def test_mlflow_has_an_experiment_for_the_study_with_settings_outcomes_and_verdicts(study):
    from mlflow import MlflowClient

    runs = run(study, make("mlflow")[0])
    client = MlflowClient(database())
    experiment = client.get_experiment_by_name(study.label)
    note = experiment.tags["mlflow.note.content"]
    assert "b is worse than a by" in note
    found = client.search_runs([experiment.experiment_id])
    assert {one.data.tags["fairtrial.trial"] for one in found} == {one.trial for one in runs.results}
    (one,) = [one for one in found if (one.data.params["arm"], one.data.params["seed"]) == ("b", "2")]
    assert one.info.run_name == "b seed 2"
    assert one.info.status == "FINISHED"
    assert one.data.tags["fairtrial.outcome"] == "finished"
    assert one.data.params["params.mean"] == "0.75"
    assert one.data.params["training.epochs"] == "3"


def test_an_interrupted_trial_is_scheduled_and_a_failed_one_failed(make_study):
    from mlflow import MlflowClient

    class Stop(Callback):
        def on_epoch(self, trial, record):
            if (trial.arm, trial.seed) == ("a", 1):
                raise KeyboardInterrupt

    arms = {"a": {"params": {"end": "well"}}, "b": {"params": {"end": "raises"}}, "c": {"params": {"end": "nan"}}}
    study = make_study(arms=arms, training={"epochs": 3, "loop": "loops:mixed"})
    with pytest.raises(KeyboardInterrupt):
        run(study, make("mlflow")[0], Stop())
    client = MlflowClient(database())
    found = client.search_runs([client.get_experiment_by_name(study.label).experiment_id])
    ends = {one.info.run_name: (one.info.status, one.data.tags["fairtrial.outcome"]) for one in found}
    assert ends == {
        "a seed 0": ("FINISHED", "finished"),
        "b seed 0": ("FAILED", "failed"),
        "c seed 0": ("FAILED", "diverged"),
        "a seed 1": ("SCHEDULED", "interrupted"),
    }
    (failed,) = [one for one in found if one.info.run_name == "b seed 0"]
    assert "Traceback" in failed.data.tags["fairtrial.detail"]


def test_verdicts_are_a_text_of_tensorboard(study):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(study, make("tensorboard")[0])
    (folder,) = Path("logs").glob("*/verdicts")
    events = EventAccumulator(str(folder))
    events.Reload()
    (event,) = events.Tensors("verdicts/text_summary")
    assert "b is worse than a by" in event.tensor_proto.string_val[0].decode()


def test_a_tracker_that_came_late_has_what_was_trained_since(study):
    class Stop(Callback):
        def on_trial_end(self, trial, outcome, detail):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(study, Stop())
    run(study, make("mlflow")[0])
    assert ("a", 0) not in histories("mlflow")
    assert len(histories("mlflow")) == 11


# Servers that do not answer


def test_a_dead_server_is_said_once_and_stops_nothing(study):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    said = []
    runs = run(study, MLflowTracker(f"http://127.0.0.1:{port}", said.append))
    assert runs.trained == 12
    first, last = said
    assert first == f"MLflow at http://127.0.0.1:{port} does not answer; training goes on without it"
    # 12 trials, each with its start, three epochs and its end; and the verdicts
    assert last == f"MLflow at http://127.0.0.1:{port}: 61 messages about trials were not logged"


def test_a_server_that_hangs_is_left_alone_at_the_end(study, monkeypatch):
    monkeypatch.setattr(base, "EXIT_SECONDS", 0.2)
    said = []
    with socket.create_server(("127.0.0.1", 0)) as hanging:  # it takes connections, and says nothing
        address = f"http://127.0.0.1:{hanging.getsockname()[1]}"
        assert run(study, MLflowTracker(address, said.append)).trained == 12
    assert said[-1].startswith(f"MLflow at {address}: ")


def test_a_password_in_the_uri_is_not_said(study):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    said = []
    run(study, MLflowTracker(f"http://ada:secret@127.0.0.1:{port}", said.append))
    assert said
    assert "secret" not in " ".join(said)


# What is refused before anything is trained


@pytest.mark.parametrize(("option", "module"), [("--mlflow", "mlflow"), ("--wandb", "wandb")])
def test_a_missing_library_is_one_line(study, invoke, monkeypatch, option, module):
    find = base.importlib.util.find_spec
    monkeypatch.setattr(base.importlib.util, "find_spec", lambda name: None if name == module else find(name))
    values = ["sqlite:///mlflow.db"] if option == "--mlflow" else []
    status, out, err = invoke("run", "tracked.toml", option, *values)
    assert (status, out) == (1, "")
    needs = f"needs {module}, which is not installed: pip install 'fairtrial[{module}]'"
    assert err == f"fairtrial: {option}: {needs}\n"
    assert not Path("fairtrial.db").exists()


def test_a_uri_that_mlflow_refuses_is_one_line(invoke, study):
    status, out, err = invoke("run", "tracked.toml", "--mlflow", "nonsense://ada:secret@host")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("fairtrial: --mlflow nonsense://ada:***@host: ")
    assert not Path("fairtrial.db").exists()


def test_a_folder_that_cannot_be_made_is_one_line(invoke, study):
    Path("file").write_text("")
    status, _, err = invoke("run", "tracked.toml", "--tensorboard", "file/logs")
    assert (status, err) == (1, "fairtrial: --tensorboard file/logs: can't be made: Not a directory\n")


def test_the_command_line_has_all_of_them(study, invoke, inline):
    status, out, err = invoke("run", "tracked.toml", "--tensorboard", "logs", "--mlflow", database())
    assert status == 0, err
    assert "b is worse than a" in out
    assert len(histories("tensorboard")) == len(histories("mlflow")) == 12


# Weights & Biases, in processes of their own: its library keeps what it was first set up with


def fairtrial(*words, **environment):
    """Run the program, logging offline into this folder."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    own |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "HOME": str(Path.cwd()), **environment}
    command = [sys.executable, "-m", "fairtrial", *words]
    return subprocess.run(command, env=own, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.slow
def test_wandb_offline_is_read_back_and_a_second_run_adds_nothing(study):
    done = fairtrial("run", "tracked.toml", "--executor", "inline", "--wandb", WANDB_MODE="offline")
    assert done.returncode == 0, done.stderr
    ft.open_results(study).export("epochs.csv")
    found, expected = verdicts("wandb"), verdicts("epochs.csv", epoch="epoch")
    assert found["b"].verdict == "worse"
    for arm, one in expected.items():
        assert (found[arm].mean_difference, found[arm].interval) == (one.mean_difference, one.interval)
    files = sorted(Path("wandb").rglob("run-*.wandb"))
    assert len(files) == 13  # of twelve trials and the verdicts
    assert b"b is worse than a by" in b"".join(path.read_bytes() for path in files)
    again = fairtrial("run", "tracked.toml", "--executor", "inline", "--wandb=other", WANDB_MODE="offline")
    assert again.returncode == 0, again.stderr
    assert len(sorted(Path("wandb").rglob("run-*.wandb"))) == 14  # the verdicts alone


@pytest.mark.slow
def test_wandb_without_a_server_keeps_the_runs_here(study):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = {"WANDB_API_KEY": "a" * 40, "WANDB_BASE_URL": f"http://127.0.0.1:{port}"}
    done = fairtrial("run", "tracked.toml", "--executor", "inline", "--wandb", "mine", **server)
    assert done.returncode == 0, done.stderr
    assert "b is worse than a" in done.stdout
    assert "W&B does not answer; runs are kept in the folder wandb, for `wandb sync`" in done.stderr


@pytest.mark.slow
def test_wandb_without_a_key_is_one_line(study):
    done = fairtrial("run", "tracked.toml", "--wandb", WANDB_MODE="online")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "fairtrial: --wandb: W&B has no key: run `wandb login`, set WANDB_API_KEY, or log to this machine with "
        "WANDB_MODE=offline\n"
    )
    assert not Path("fairtrial.db").exists()


def test_wandb_refuses_a_project_that_is_no_name(study):
    with pytest.raises(FairtrialError, match=r"--wandb a/b: a project's name has at most"):
        ft.WandbTracker("a/b")


# Hostile names


def test_names_stay_in_their_folders_and_mlflow_takes_them(tmp_path):
    loop = "def train(trial):\n    yield {'test_acc': 0.5, '../../loss': 1.0, '/x': 2.0, '=cmd()': 3.0, '</b>': 4.0}\n"
    Path("hostile_loop.py").write_text(loop)
    label = "</script>" + "x" * 100
    arms = {"a": {}, "b": {"label": label, "params": {"../y": "=cmd", "z" * 120: "\x1b[2J" * 2000}}}
    study = ft.Study.from_dict(
        {
            "name": "evil",
            "reference": "a",
            "seeds": 1,
            "training": {"epochs": 1, "loop": "hostile_loop:train"},
            "arms": arms,
        }
    )
    said = []
    run(study, make("tensorboard", said)[0], make("mlflow", said)[0])
    assert said == []
    assert {path.name for path in Path("logs").glob("*/*")} == {"a", "b", "verdicts"}
    from mlflow import MlflowClient

    client = MlflowClient(database())
    (one,) = client.search_runs([client.get_experiment_by_name(study.label).experiment_id], "params.arm = 'b'")
    assert one.data.metrics == {
        "test_acc": 0.5, "_2e__2e__2f__2e__2e__2f_loss": 1.0, "_2f_x": 2.0, "_3d_cmd_28__29_": 3.0, "_3c_/b_3e_": 4.0,
    }  # fmt: skip
    assert json.dumps(dict(one.data.params))
