"""Hugging Face's trainer_state.json, against the runs that the real trainer logged."""

import json

import pytest

import tracked_runs as tracked
from fairtrial.errors import RunsError
from fairtrial.importers.base import open_source

EXPECTED = {optimizer: tracked.final_values(optimizer) for optimizer in tracked.OPTIMIZERS}


def test_runs_of_the_real_trainer(asset, finals, frame):
    source = open_source(asset("transformers"))
    assert finals(source, "eval_accuracy", arm="folder1") == EXPECTED
    rows = frame(source)
    assert len(rows) == len(tracked.runs()) * len(tracked.EPOCHS)  # the last checkpoint of each run has all
    assert set(rows["status"]) == {"finished"}
    assert {"seed", "num_train_epochs", "train_batch_size"} <= set(source.settings)
    assert len(source.notes) == 1


def test_a_run_that_did_not_reach_its_end_is_marked(asset, frame):
    folder = asset("transformers")
    (folder / "adam" / "seed=0" / "checkpoint-6" / "trainer_state.json").unlink()
    rows = frame(open_source(folder), "run", "status")
    assert set(rows[rows["run"] == "adam/seed=0"]["status"]) == {"running"}
    assert set(rows[rows["run"] == "adam/seed=1"]["status"]) == {"finished"}


def test_what_the_trainer_saved_at_the_end_comes_after_the_checkpoints(asset, frame):
    folder = asset("transformers") / "adam" / "seed=0"
    state = json.loads((folder / "checkpoint-6" / "trainer_state.json").read_text())
    state["log_history"].append({"step": 6, "epoch": 3.0, "train_loss": 0.25})
    (folder / "trainer_state.json").write_text(json.dumps(state))
    (folder / "checkpoint-10").mkdir()
    (folder / "checkpoint-10" / "trainer_state.json").write_text('{"log_history": []}')
    assert list(frame(open_source(folder), "train_loss")["train_loss"]) == [0.25]
    assert len(frame(open_source(folder / "checkpoint-4" / "trainer_state.json"), "eval_loss")) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"log_history": [', "is no JSON file, or a damaged one$"),
        ("[]", "has no log_history, as a trainer of Hugging Face writes it$"),
        ('{"log_history": [{"loss": 1}]}', "log_history has an entry without a step$"),
        ('{"log_history": [{"loss": 1, "step": 1e400}]}', "log_history has an entry without a step$"),
        ("[" * 100_000, "is no JSON file, or a damaged one$"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path, text, message):
    (tmp_path / "trainer_state.json").write_text(text)
    with pytest.raises(RunsError, match=rf"trainer_state.json: {message}"):
        open_source(tmp_path)
