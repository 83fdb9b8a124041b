"""The command line: what it prints, what it refuses, and with which exit status."""

import csv
import io
import json
import os
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import typer

from fairtrial.cli import main as cli
from fairtrial.loading import load
from fairtrial.scheduler import plan
from fairtrial.store.base import add_result
from fairtrial.store.sql import SQLStore

pytestmark = pytest.mark.usefixtures("inline")

STUDY = """
name = "mine"
reference = "a"
seeds = 2
[training]
epochs = 2
loop = "loops:good"
[arms.a]
[arms.b]
params.pace = 2
"""


@pytest.fixture
def study(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(STUDY)
    return str(path)


@pytest.fixture
def fairtrial(invoke):
    """The command line, under its name."""
    return invoke


def refused(fairtrial, *words):
    """Run a command that must fail with one line; return that line without the program's name."""
    status, out, err = fairtrial(*words)
    assert status != 0
    assert out == ""
    assert err.count("\n") == 1, err
    assert err.startswith("fairtrial: ")
    return err.removeprefix("fairtrial: ").rstrip("\n")


def test_run_trains_shows_progress_and_prints_the_table(fairtrial, study):
    status, out, err = fairtrial("run", study)
    assert status == 0
    label = load(study).label
    assert f"{label}: 2 arms, 2 seeds, 4 trials" in err
    assert "trial 4/4 b seed 1, epoch 2/2  training" in err
    assert f"figures: fairtrial plot {label}" in err
    assert "a *" in out
    assert "±" in out
    assert "5.0" in out  # seconds: two epochs of 2.0 + 0.5


def test_a_second_run_trains_nothing_and_prints_the_same_table(fairtrial, study):
    _, first, _ = fairtrial("run", study)
    status, second, err = fairtrial("run", study)
    assert (status, second) == (0, first)
    assert "4 trials, 4 already done" in err
    assert "epoch" not in err


def test_the_table_in_every_format(fairtrial, study):
    fairtrial("run", study)
    status, out, _ = fairtrial("table", study, "--format", "json")
    table = json.loads(out)
    assert (status, table["study"], table["hash"]) == (0, "mine", load(study).hash)
    assert [arm["arm"] for arm in table["arms"]] == ["a", "b"]
    keys = {"best_test_acc", "best_train_acc", "final_test_acc", "final_train_loss", "seconds"}
    for arm in table["arms"]:
        assert {"settings", "seeds", "finished", "diverged", "failed"} | keys <= set(arm)
        assert (arm["finished"], arm["seeds"], len(arm["best_test_acc"]["values"])) == (2, [0, 1], 2)
    for form, mark in {"text": "──", "markdown": "| --", "latex": r"\toprule", "csv": "best_test_acc_mean"}.items():
        status, out, _ = fairtrial("table", study, "--format", form)
        assert status == 0
        assert mark in out


def test_every_epoch_record_is_exported(fairtrial, study, tmp_path):
    fairtrial("run", study)
    _, out, _ = fairtrial("export", study)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [(row["arm"], row["seed"], row["epoch"]) for row in rows] == [
        (arm, seed, epoch) for arm in "ab" for seed in "01" for epoch in "12"
    ]
    assert float(rows[0]["grad_norm"]) == 1.0
    status, _, _ = fairtrial("export", study, "--format", "parquet", "--out", str(tmp_path / "records.parquet"))
    assert status == 0
    assert (tmp_path / "records.parquet").read_bytes()[:4] == b"PAR1"
    trials = list(csv.DictReader(io.StringIO(fairtrial("export", study, "--rows", "trials")[1])))
    assert [(row["arm"], row["seed"], row["params.pace"]) for row in trials] == [
        ("a", "0", ""),
        ("a", "1", ""),
        ("b", "0", "2"),
        ("b", "1", "2"),
    ]
    assert fairtrial("failures", study)[1] == (
        f"{load(study).label}: no run was lost: none failed or diverged, and each has the study's measure\n"
    )


@pytest.mark.slow
def test_figures_are_written_where_it_says(fairtrial, study):
    fairtrial("run", study)
    status, out, _ = fairtrial("plot", study)
    assert status == 0
    paths = [Path(line) for line in out.splitlines()]
    assert sorted({path.suffix for path in paths}) == [".pdf", ".png", ".svg"]
    assert sorted({path.stem for path in paths}) == [
        "differences", "generalization_gap", "overfitting", "seeds", "test_accuracy", "time_accuracy", "training_loss",
    ]  # fmt: skip
    assert len(paths) == 21
    assert all(path.stat().st_size > 1000 for path in paths)
    assert {str(path.parent) for path in paths} == {f"figures/{load(study).label.replace('@', '-')}"}


@pytest.mark.slow
def test_a_report_is_written_where_it_says(fairtrial, study):
    fairtrial("run", study)
    status, out, _ = fairtrial("report", study, "--out", "mine")
    assert (status, out) == (0, "mine/index.html\n")
    assert Path(out.strip()).stat().st_size > 100_000
    status, out, _ = fairtrial("report", study)
    assert out == f"{load(study).label.replace('@', '-')}-report/index.html\n"
    Path("other").mkdir()
    Path("other/file").write_text("mine")
    status, _, err = fairtrial("report", study, "--out", "other")
    assert status == 1
    assert err == "fairtrial: other: holds other files; name an empty or a new folder, or that of an earlier report\n"
    assert [path.name for path in Path("other").iterdir()] == ["file"]


def test_ls_lists_studies_and_how_far_each_is(fairtrial, study):
    _, out, _ = fairtrial("ls")
    shipped = "paper, paper-large-map, paper-pretrained, quick, schedules, schedules-adam, sensitivity"
    assert out == f"no studies in fairtrial.db yet\nstudies that ship with fairtrial: {shipped}\n"
    fairtrial("run", study)
    fairtrial("run", study, "--set", "seeds=1")
    _, out, _ = fairtrial("ls")
    assert load(study).label in out
    assert "4 of 4 trials" in out
    assert load(study, ["seeds=1"]).label in out
    assert "2 of 2 trials" in out
    fairtrial("run", study, "--set", "seeds.max=3")
    _, out, _ = fairtrial("ls")
    assert "6 of at most 6 trials" in out


def test_the_forms_of_a_studys_name(fairtrial, study):
    fairtrial("run", study)
    fairtrial("run", study, "--set", "training.epochs=3")
    changed = load(study, ["training.epochs=3"])
    for words in (["mine"], [changed.label], [study, "--set", "training.epochs=3"]):
        _, out, _ = fairtrial("table", *words, "--format", "json")
        assert json.loads(out)["hash"] == changed.hash
    _, out, _ = fairtrial("table", study, "--format", "json")
    assert json.loads(out)["hash"] == load(study).hash


def test_explain_says_what_the_numbers_mean(fairtrial, study):
    _, out, _ = fairtrial("explain", "paper", "--set", "optimizer.eps_convention=keras")
    assert "as torch would read this number, it is Keras's 3.16e-10 at step 1" in " ".join(out.split())
    _, out, _ = fairtrial("explain", "paper", "--json")
    assert json.loads(out)["explanations"][0]["steps"] == 7820
    assert refused(fairtrial, "explain", study).endswith("how many steps an epoch has is unknown here; give --steps N")
    assert fairtrial("explain", study, "--steps", "20")[0] == 0


def test_show_prints_a_study_that_can_be_run(fairtrial, tmp_path):
    _, out, _ = fairtrial("show", "paper", "--set", "seeds=3")
    (tmp_path / "copy.toml").write_text(out)
    assert load(tmp_path / "copy.toml") == load("paper", ["seeds=3"])


def test_another_store(fairtrial, study, tmp_path, monkeypatch):
    fairtrial("run", study, "--store", "other.db")
    assert not (tmp_path / "fairtrial.db").exists()
    assert refused(fairtrial, "table", study).startswith("no store at fairtrial.db: run a study first")
    monkeypatch.setenv("FAIRTRIAL_STORE", "other.db")
    assert fairtrial("table", study)[0] == 0


def test_failed_trials_are_shown_and_the_status_says_so(fairtrial, study, tmp_path):
    Path(study).write_text(STUDY.replace("good", "mixed").replace("[arms.a]", '[arms.a]\nparams.end="raises"')
                           .replace("params.pace = 2", 'params.end = "nan"'))  # fmt: skip
    status, out, err = fairtrial("run", study)
    assert status == 1
    assert "2 failed" in out
    assert "2 diverged" in out
    assert "RuntimeError: boom" in err
    assert "trial 2/4 b seed 0: diverged: train_loss is nan after epoch 2" in err
    assert err.endswith(f"fairtrial: 2 of 4 trials failed; to train them again: fairtrial run {study} --retry-failed\n")
    assert f"tracebacks: fairtrial failures {load(study).label}\n" in err
    status, out, _ = fairtrial("failures", study)
    assert (status, out.count("RuntimeError: boom\nTraceback (most recent call last)")) == (0, 1)
    assert out.startswith("a seeds 0 and 1: RuntimeError: boom\n")
    assert out.endswith("b seeds 0 and 1: diverged: train_loss is nan after epoch 2\n\n")
    listed = json.loads(fairtrial("failures", study, "--json")[1])
    assert [(row["arm"], row["seed"], row["outcome"]) for row in listed] == [
        *(("a", seed, "failed") for seed in (0, 1)),
        *(("b", seed, "diverged") for seed in (0, 1)),
    ]
    assert "RuntimeError: boom\nTraceback" in listed[0]["detail"]
    assert listed[0]["machine.processor"]
    again = f"fairtrial run {study} --retry-failed"
    assert fairtrial(*again.split()[1:])[2].endswith(f"to train them again: {again}\n")


def test_other_threads_than_before_are_refused_unless_forced(fairtrial, study, monkeypatch):
    import torch

    fairtrial("run", study)
    now = torch.get_num_threads() + 1
    monkeypatch.setattr(torch, "get_num_threads", lambda: now)
    more = ("run", study, "--set", "seeds=3")
    status, out, err = fairtrial(*more)
    assert (status, out) == (1, "")
    assert f"began with threads {now - 1}, now {now}: mixing them can change its numbers" in err.splitlines()[-1]
    assert fairtrial(*more, "--force")[0] == 0
    _, out, _ = fairtrial("verdict", *more[1:])
    said = f"The study was continued under other conditions: threads {now - 1}, now {now} (2 trials)."
    assert " ".join(out.split()).startswith(said)


def test_checkpoints_that_can_not_be_written_end_the_study_with_a_line(fairtrial, tmp_path):
    loop = "def train(trial):\n    for epoch in range(2):\n        yield {'test_acc': 0.5}\n        trial.save(epoch)\n"
    write(tmp_path / "saves_each_epoch.py", loop)
    study = str(
        write(
            tmp_path / "saves.toml", STUDY.replace('"loops:good"', '"saves_each_epoch:train"\ncheckpoint_seconds = 0')
        )
    )
    place = tmp_path / "fairtrial.db.checkpoints"
    place.mkdir()
    for trial in plan(load(study)):
        (place / trial.hash).write_text("in the way")
    status, out, err = fairtrial("run", study)
    assert (status, out) == (1, "")
    assert err.splitlines()[-1].startswith("fairtrial: a checkpoint can't be written to fairtrial.db.checkpoints: ")
    assert "failed" not in err
    shutil.rmtree(place)
    assert fairtrial("run", study)[0] == 0


def write(path, text):
    Path(path).write_text(text)
    return path


REFUSALS = {
    "a missing file": (["run", "none.toml"], "none.toml: No such file or directory"),
    "an unknown study": (["run", "nonsense"], "nonsense: no file, no study that ships"),
    "TOML that does not parse": (["run", "broken.toml"], "broken.toml: not valid TOML: "),
    "a wrong type": (["run", "quick", "--set", "seeds=two"], 'quick: seeds = "two": must be an integer of at least 1'),
    "a wrong range": (
        ["run", "paper", "--set", "arms.high_beta1.optimizer.betas=[0.9, 1.2]"],
        "paper: arms.high_beta1.optimizer.betas[1] = 1.2: must be in [0, 1)",
    ),
    "an unknown key": (["run", "paper", "--set", "epocs=3"], "paper: unknown key `epocs`: did you mean `epochs`"),
    "an unknown reference": (
        ["run", "paper", "--set", "reference=basline"],
        'paper: reference = "basline": no arm has that name; did you mean `baseline`?',
    ),
    "twins": (
        ["run", "paper", "--set", "arms.large_eps.optimizer.eps=1e-8"],
        "paper: arms.large_eps: has the same settings as arms.baseline; arms must differ, unless evidence.aa = true",
    ),
    "a data folder with the wrong files": (["run", "quick", "--set", "data.path=."], ""),
    "a data folder that is not there": (["run", "quick", "--set", "data.path=nowhere"], ""),
    "an unknown data set": (["data", "svhn"], "svhn: no such data set; known: `cifar10`, `cifar100`, "),
    "a wrong source": (["data", "cifar10", "--from", "."], ""),
    "no store": (["table", "quick"], "no store at fairtrial.db"),
    "a store that is no database": (["ls", "--store", "broken.toml"], "the store broken.toml can't be opened"),
    "a newer store": (["ls", "--store", "newer.db"], "newer.db was written by a newer fairtrial"),
    "a newer store, when running": (["run", "digits.toml", "--store", "newer.db"], "newer.db was written by a newer"),
    "an unknown command": (["rnu"], "No such command 'rnu'."),
    "an unknown option": (["run", "quick", "--fast"], "No such option: --fast"),
    "a missing argument": (["run"], "Missing argument 'STUDY'"),
    "an unknown format": (["table", "quick", "--format", "xml"], "Invalid value for '--format': "),
    "weights that are not there": (
        ["run", "weights.toml"],
        "weights.toml: model.weights = ",
    ),
    "a loop that is not there": (
        ["run", "loop.toml"],
        'training.loop = "no_such:train": no module named no_such',
    ),
}


@pytest.mark.parametrize(("words", "message"), REFUSALS.values(), ids=REFUSALS.keys())
def test_bad_input_is_one_line_and_a_status(fairtrial, words, message, tmp_path, monkeypatch):
    monkeypatch.setenv("FAIRTRIAL_CACHE", str(tmp_path / "cache"))
    arms = 'reference = "a"\n[arms.a]\n'
    write("broken.toml", "name = [\n" * 40)
    write("digits.toml", 'name = "d"\ndata.name = "digits"\n' + arms)
    write("weights.toml", 'name = "w"\nmodel.weights = "none.pt"\n' + arms)
    write("loop.toml", 'name = "l"\ntraining.loop = "no_such:train"\n' + arms)
    SQLStore("newer.db").__exit__()
    with sqlite3.connect("newer.db") as connection:
        connection.execute("UPDATE fairtrial_version SET version = 99")
    connection.close()
    assert refused(fairtrial, *words).startswith(message)


def test_no_command_prints_help(fairtrial):
    status, out, _ = fairtrial()
    assert status == 0
    assert "Usage" in out
    for command in ("run", "table", "plot", "export", "show", "ls", "data"):
        assert f"\n  {command}" in out


def test_the_version(fairtrial):
    import fairtrial as package

    assert fairtrial("--version") == (0, f"fairtrial {package.__version__}\n", "")


def start(*words, **environment):
    """Start the command line in a process of its own."""
    python_path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-c", "from fairtrial.__main__ import main; main()", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": python_path} | environment,
    )


def test_ctrl_c_ends_at_once_keeps_epochs_and_says_how_to_resume(tmp_path, fairtrial):
    slow = STUDY.replace("loops:good", "slow:train").replace("epochs = 2", "epochs = 1000")
    write("slow.toml", slow)
    write(
        "slow.py", "import time\ndef train(trial):\n  while True:\n    time.sleep(0.05)\n    yield {'test_acc': 0.5}\n"
    )
    process = start("run", "slow.toml", "--workers", "1")
    for line in process.stderr:
        if "epoch 3/" in line:
            break
    process.send_signal(signal.SIGINT)
    begun = time.monotonic()
    _, err = process.communicate(timeout=30)
    assert time.monotonic() - begun < 60  # far below what the study would take; not a measurement
    assert process.returncode == 130
    again = "fairtrial run slow.toml --workers 1"
    assert f"interrupted; every finished epoch is in fairtrial.db. To resume:\n  {again}\n" in err
    assert "Traceback" not in err
    _, out, _ = fairtrial("export", "slow.toml")
    assert len(out.splitlines()) >= 1 + 3
    _, out, _ = fairtrial("ls")
    assert "0 of 4 trials, 1 interrupted or running" in out


def test_a_reader_that_goes_away_is_no_error(fairtrial, study):
    fairtrial("run", study, "--set", "training.epochs=300", "--set", "seeds=1")
    process = start("export", study, "--set", "training.epochs=300", "--set", "seeds=1")
    process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(timeout=30) == 128 + signal.SIGPIPE
    process.stderr.close()
    assert err == ""


SIMULATED = """
name = "known"
reference = "a"
seeds = { min = 3, max = 6 }
[training]
epochs = 2
loop = "fairtrial.testing:simulate"
[evidence]
margin = 0.01
[arms.a]
[arms.up]
params.mean = 0.9
[arms.same]
params.arm = "same"
[[claims]]
id = "1"
text = "Up is better."
arm = "up"
against = "a"
direction = "higher"
"""


@pytest.fixture
def known(tmp_path):
    path = tmp_path / "known.toml"
    path.write_text(SIMULATED)
    return str(path)


def test_a_run_with_evidence_stops_settled_arms_and_prints_the_verdicts(fairtrial, known):
    status, out, err = fairtrial("run", known)
    assert status == 0
    assert "up: stopped after 3 seeds, its verdict is settled" in err
    assert "up is better than a by" in out
    assert out.index("a *") < out.index("best test accuracy, against a")
    _, again, _ = fairtrial("verdict", known)
    assert again.strip() in out


def test_an_arm_that_stops_for_another_reason_is_not_said_to_be_settled(fairtrial, known):
    _, out, err = fairtrial("run", known, "--set", "arms.same.params.diverge_rate=1.0")
    assert "same: stopped after 3 seeds, no seed has a result of it and a" in err
    assert "same: undecided, no seed has a result of it and a; diverged in 3 of 3 trials" in " ".join(out.split())
    _, _, again = fairtrial("run", known, "--set", "arms.same.params.diverge_rate=1.0")
    assert ": 3 arms, 3 to 6 seeds, 9 trials, 9 already done" in again
    assert "same: stopped after 3 seeds, no seed has a result of it and a" in again
    _, out, _ = fairtrial("plan", known, "--set", "arms.same.params.diverge_rate=1.0")
    assert ": 9 trials, 9 done, 0 to train" in out


@pytest.mark.parametrize("evidence", ["", "[evidence]\n", "[evidence]\nmargin = 0.01\n"])
def test_a_run_prints_verdicts_whatever_the_evidence_section_says(fairtrial, study, evidence):
    Path(study).write_text(STUDY + evidence)
    _, out, _ = fairtrial("run", study)
    _, verdict, _ = fairtrial("verdict", study)
    assert "b: undecided" in verdict
    assert out.endswith(verdict)


def test_a_run_of_one_arm_prints_no_verdict(fairtrial, study):
    Path(study).write_text(STUDY.partition("[arms.b]")[0])
    _, out, _ = fairtrial("run", study)
    assert "against a" not in out


def test_a_device_that_is_none_is_one_line(fairtrial, study, monkeypatch):
    monkeypatch.setenv("FAIRTRIAL_DEVICE", "cpu")  # so that the option's own setting ends with this test
    message = refused(fairtrial, "run", study, "--device", "cuda:x")
    assert message.startswith("device 'cuda:x' (of --device or FAIRTRIAL_DEVICE): must be cpu, cuda, cuda:0 and so on")
    assert fairtrial("run", study, "--device", "cpu")[0] == 0


def test_an_executor_is_chosen_and_refuses_the_options_of_others(fairtrial, study):
    assert fairtrial("run", study, "--executor", "inline")[0] == 0
    message = refused(fairtrial, "run", study, "--address", "auto")
    assert message == "--address: requires --executor ray"
    message = refused(fairtrial, "run", study, "--executor", "inline", "--time-limit", "5s")
    assert message == "--time-limit: requires --executor auto or cuda or local or ray"
    assert "known" in refused(fairtrial, "run", study, "--executor", "slurm")


def test_a_loop_beside_a_study_is_found_behind_all_other_modules(fairtrial, study, tmp_path):
    loop = "def train(trial):\n    yield {'test_acc': 0.5}\n"
    for name in ("beside_the_study", "fractions"):  # one that only the study has, and one of the standard library
        write(tmp_path / f"{name}.py", loop)
        write(study, STUDY.replace("loops:good", f"{name}:train"))
        before = list(sys.path)
        status, _, err = fairtrial("run", study, "--set", f"name={name}", "--executor", "inline")
        assert sys.path == before
        assert (status == 0) is (name == "beside_the_study"), err


@pytest.mark.parametrize("start", [["-c", "from fairtrial.__main__ import main; main()"], ["-m", "fairtrial"]])
def test_a_working_folder_that_was_deleted_is_said_in_a_line(start, tmp_path):
    command = ["sh", "-c", 'rmdir ../gone; exec "$@"', "sh", sys.executable, "-P", *start, "show", "quick"]
    (tmp_path / "gone").mkdir()
    path = [entry for entry in sys.path if entry]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path)}
    done = subprocess.run(command, cwd=tmp_path / "gone", env=environment, capture_output=True, text=True, check=False)
    said = "fairtrial: the working folder has been deleted; change to one that exists\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)


def test_verdicts_and_claims_in_every_format(fairtrial, known):
    fairtrial("run", known)
    marks = {"text": "Equivalent: within 1.00 points", "markdown": "| :--", "latex": r"\toprule"}
    for form, mark in marks.items():
        status, out, _ = fairtrial("verdict", "known", "--format", form)
        assert (status, mark in out) == (0, True)
    _, out, _ = fairtrial("verdict", "known", "--format", "json")
    assert [row["arm"] for row in json.loads(out)["comparisons"]] == ["up", "same"]
    _, out, _ = fairtrial("claims", "known", "--format", "json")
    assert [row["verdict"] for row in json.loads(out)["claims"]] == ["supported"]
    _, out, _ = fairtrial("claims", "known")
    assert "1 supported: Up is better." in out


def test_another_metric_is_labeled_and_checked(fairtrial, known):
    fairtrial("run", known)
    _, out, _ = fairtrial("verdict", "known", "--metric", "final_test_acc")
    assert "Exploratory: the study set best_test_acc beforehand" in " ".join(out.split())
    assert "known: `best_NAME`, `final_NAME`" in refused(fairtrial, "verdict", "known", "--metric", "test_acc")


def test_a_spoilt_pairing_is_refused_with_its_reason(fairtrial, known):
    fairtrial("run", known)
    study = load(known)
    (trial,) = (one for one in plan(study) if (one.arm, one.seed) == ("up", 1))
    with SQLStore("fairtrial.db") as store:
        (result,) = (one for one in store.results(study) if one.trial == trial.hash)

        def spoil(writer):
            other = {**result.fingerprints, "batch_order": "x"}
            add_result(writer, trial, replace(result, fingerprints=other), "spoilt")

        store.write(spoil)
    status, out, err = fairtrial("verdict", "known")
    assert status == 1
    assert "up: refused" in out
    assert "comparison refused: known@" in err
    assert "batch_order" in err


def test_plan_says_what_seeds_would_find_and_cost(fairtrial, known):
    _, out, _ = fairtrial("plan", known)
    assert "give --spread" in " ".join(out.split())
    _, out, _ = fairtrial("plan", known, "--spread", "0.008")
    assert [line.split()[0] for line in out.splitlines()[-5:]] == ["3", "5", "8", "12", "20"]
    assert "deviation of 0.80 points as given" in " ".join(out.split())
    fairtrial("run", known)
    _, out, _ = fairtrial("plan", known)
    assert "in the store" in out
    assert out.splitlines()[-5].endswith("done")
    assert "must be a positive number" in refused(fairtrial, "plan", known, "--spread", "-1")


COMMANDS = typer.main.get_command(cli.app).commands
SINGLE = [
    (name, option.opts[0])
    for name, command in COMMANDS.items()
    for option in command.params
    if option.opts[0].startswith("--") and not option.multiple and not option.is_flag
]


@pytest.mark.parametrize(("command", "option"), SINGLE)
def test_an_option_that_takes_one_value_can_be_given_once(fairtrial, command, option):
    """Else the first value would be ignored without a word."""
    for words in ((option, "1", option, "2"), (f"{option}=1", f"{option}=1")):
        status, out, err = fairtrial(command, "quick", *words)
        assert (status, out) == (3 if command == "gate" else 2, "")  # 2 is a decision of the gate
        assert f"{option} is given 2 times: it takes one value" in err


def test_the_options_that_may_be_repeated_are_known():
    options = {option.opts[0] for command in COMMANDS.values() for option in command.params if option.multiple}
    assert options == {"--allow-host", "--arm", "--set"}


def test_a_single_arm_is_compared_with_a_constant(fairtrial, study):
    text = Path(study).read_text().partition("[arms.b]")[0].replace("seeds = 2", "seeds = 3\nevidence.against = 0.9")
    Path(study).write_text(text)
    status, out, _ = fairtrial("run", study)
    assert status == 0
    assert "best test accuracy, against 90.00%" in out
    assert "a is worse than 90.00% by" in out


def test_a_confirmation_runs_on_fresh_seeds_as_a_study_of_its_own(fairtrial, study):
    assert refused(fairtrial, "run", study, "--confirm").startswith("no store at fairtrial.db: run a study")
    fairtrial("run", study)
    status, out, _ = fairtrial("run", study, "--confirm")
    assert status == 0
    assert out.startswith("mine-confirmation@")
    _, again, _ = fairtrial("verdict", "mine-confirmation", "--format", "json")
    assert json.loads(again)["comparisons"][0]["arm"] == "b"
    assert "first_seed = 1000" in fairtrial("show", "mine-confirmation")[1]
    assert fairtrial("verdict", study)[1].startswith("mine@")


# Looks


NOISY = """
name = "noisy"
reference = "a"
seeds = 3
[training]
loop = "fairtrial.testing:simulate"
epochs = 1
[evidence]
margin = 0.0001
[params]
mean = 0.8
[arms.a]
[arms.b]
params.arm = "b"
"""


@pytest.fixture
def noisy(tmp_path):
    """A study whose arms do not differ, so that it stays undecided."""
    path = tmp_path / "noisy.toml"
    path.write_text(NOISY)
    return str(path)


def test_an_undecided_study_says_how_to_go_on(fairtrial, noisy):
    for words in (["run", noisy], ["verdict", noisy]):
        status, out, err = fairtrial(*words)
        assert (status, "b: undecided, about" in out) == (0, True)
        (line,) = [line for line in err.splitlines() if line.startswith("to go on until it is settled")]
        assert f"fairtrial run {noisy} --set 'seeds={{min = 4, max = " in line
    status, _, err = fairtrial(
        *shlex.split(line.partition(" in all: fairtrial ")[2])[:2], "--set", "seeds={min=4,max=5}"
    )
    assert status == 0
    assert "to go on" not in err  # a plan is a whole one


def test_who_raises_seeds_is_offered_a_plan(fairtrial, noisy):
    fairtrial("run", noisy)
    for command in ("plan", "run"):
        _, _, err = fairtrial(command, noisy, "--set", "seeds=6", "--set", "evidence.alpha=0.05")
        (line,) = [line for line in err.splitlines() if "looked at with fewer seeds" in line]
        assert line.endswith("seeds = {min = 6, max = 12} would stop each arm as soon as it is settled")
    assert err.count("fairtrial run ") == 1  # one command, and it is about all seeds so far
    assert f"{noisy} --set evidence.alpha=0.05 --set 'seeds={{min = 7, max = " in err
    _, _, err = fairtrial("run", noisy)
    assert "looked at with fewer seeds" not in err


def test_with_the_error_rate_spent_fresh_seeds_are_offered_and_no_range(fairtrial, noisy):
    fairtrial("run", noisy, "--set", "seeds={min=3,max=4}")
    words = ["--set", "seeds=6"]
    spent = "a plan of 3 to 4 seeds spent the error rate of these trials"
    status, out, err = fairtrial("run", noisy, *words)
    assert (status, f"Exploratory: {spent}." in out) == (0, True)
    assert [line for line in err.splitlines() if "looked at" in line or "exploratory" in line] == [
        f"verdicts will be exploratory: {spent}"
    ]
    for text in (err, fairtrial("verdict", noisy, *words)[2]):
        (line,) = [line for line in text.splitlines() if "fairtrial run" in line]
        assert line == (
            f"for a test on fresh seeds, of the arm that leads: fairtrial run {noisy} --set seeds=6 --confirm"
        )
    assert "Exploratory" not in fairtrial(*shlex.split(line.partition(": fairtrial ")[2]))[1]


def test_what_was_set_after_a_look_is_the_first_line(fairtrial, noisy):
    fairtrial("run", noisy)
    fairtrial("run", noisy, "--set", "evidence.margin=0.02")
    _, out, _ = fairtrial("verdict", noisy, "--set", "evidence.margin=0.02")
    assert out.splitlines()[0] == "Exploratory: the margin 0.02 was set after 6 trials had ended."
    _, out, _ = fairtrial("verdict", noisy, "--set", "evidence.margin=0.02", "--format", "json")
    table = json.loads(out)
    assert (table["exploratory"], table["stage"]) == (["the margin 0.02 was set after 6 trials had ended"], 2)
    _, out, _ = fairtrial("verdict", noisy)
    assert "Exploratory" not in out
    assert "the margin that the study set beforehand" in " ".join(out.split())


def test_a_margin_in_points_is_refused(fairtrial, noisy):
    assert refused(fairtrial, "run", noisy, "--set", "evidence.margin=1") == (
        f"{noisy}: evidence.margin = 1: must be below 1: best_test_acc is a fraction; write 0.01 for 1 point"
    )


def test_tasks_run_one_after_another_and_have_one_verdict(fairtrial, study):
    text = Path(study).read_text().replace("[arms.a]", "[tasks.x]\n[tasks.y]\nparams.shift = 1\n[arms.a]")
    Path(study).write_text(text)
    status, out, err = fairtrial("run", study)
    assert status == 0
    assert err.count("trial 4/4 b seed 1, epoch 2/2") == 2
    assert err.count("fairtrial run ") <= 1
    assert out.index("mine.x@") < out.index("mine.y@") < out.index("against a over all tasks")
    table = json.loads(fairtrial("verdict", study, "--format", "json")[1])
    assert (table["reference"], table["tasks"]) == ("a", ["x", "y"])
    each = table["questions"][0]["verdicts"]
    assert [(one["reference"], one["tasks"]) for one in each] == [("a", ["x"]), ("a", ["y"])]
    assert fairtrial("table", "mine.y")[1].startswith("mine.y@")
    assert fairtrial("verdict", study, "--set", "task=x")[1].startswith("mine.x@")
    assert "has tasks: name one with --set task=x" in refused(fairtrial, "table", study)
