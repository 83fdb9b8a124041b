"""Folders of CSV logs, against the runs that Lightning and Keras logged."""

import pytest

import tracked_runs as tracked
from fairtrial.errors import RunsError
from fairtrial.importers.base import open_source

EXPECTED = {optimizer: tracked.final_values(optimizer) for optimizer in tracked.OPTIMIZERS}
NOTE = "CSV logs don't say how a run ended; one that was cut off counts as it stands."


def test_logs_of_lightning_with_their_hyperparameters(asset, finals, frame):
    source = open_source(asset("lightning") / "lightning_logs")
    assert finals(source, "test_acc") == EXPECTED
    assert (source.name, source.epoch, source.notes) == ("lightning_logs", "step", (NOTE,))
    assert set(source.settings) == {"optimizer", "seed", "lr", "model.layers"}
    rows = frame(source)
    assert len(rows) == len(tracked.runs()) * len(tracked.EPOCHS)  # the rows of training and evaluation are joined
    assert not rows[["train_loss", "test_acc", "epoch"]].isna().any(axis=None)


def test_logs_of_keras_with_settings_in_their_names(asset, finals):
    source = open_source(asset("keras"))
    assert finals(source, "val_accuracy") == EXPECTED
    assert (source.epoch, set(source.settings)) == ("epoch", {"optimizer", "seed"})


def test_a_run_that_was_appended_to_has_its_last_values_and_it_is_said(tmp_path, frame):
    (tmp_path / "a.csv").write_text("epoch,acc,loss\n0,0.1,1\n1,0.2,1\n1,0.3,1\n2,0.4,NaN\n")
    (tmp_path / "notes.csv").write_text("who,what\nme,nothing\n")
    source = open_source(tmp_path)
    assert list(frame(source, "acc")["acc"]) == [0.1, 0.3, 0.4]
    assert source.notes == (NOTE, "acc was logged more than once at a step; the last value counts.")
    assert set(frame(source, "run")["run"]) == {"a"}


def test_hyperparameters_that_name_objects_make_none(asset, frame):
    folder = asset("lightning") / "lightning_logs"
    (folder / "version_0" / "hparams.yaml").write_text(
        "optimizer: adam\nsizes: !!python/tuple [1, 2]\nloss: !!python/object/apply:os.system ['touch pwned']\n"
    )
    rows = frame(open_source(folder), "run", "optimizer", "sizes", "loss")
    assert list(rows[rows["run"] == "version_0"].iloc[0])[1:3] == ["adam", "[1, 2]"]
    assert rows["loss"].isna().all()
    assert not [*folder.parent.rglob("pwned")]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metrics.csv", "epoch,step,acc\n0,1\n", r"version_0/metrics.csv: .*Expected 3 columns, got 2"),
        ("metrics.csv", "", r"version_0/metrics.csv: is empty$"),
        ("hparams.yaml", "a: [", r"version_0/hparams.yaml: is no YAML file, or a damaged one$"),
        ("hparams.yaml", "- a", r"version_0/hparams.yaml: has no table of names and values$"),
    ],
)
def test_a_damaged_file_is_one_line(asset, frame, name, text, message):
    folder = asset("lightning") / "lightning_logs"
    (folder / "version_0" / name).write_text(text)
    with pytest.raises(RunsError, match=message):
        frame(open_source(folder))


def test_files_that_count_otherwise_are_named(tmp_path, frame):
    (tmp_path / "a.csv").write_text("epoch,step,acc\n0,9,0.1\n")
    (tmp_path / "b.csv").write_text("epoch,acc\n0,0.2\n")
    assert open_source(tmp_path).epoch == "epoch"
    assert list(frame(open_source(tmp_path), "acc")["acc"]) == [0.1, 0.2]
    (tmp_path / "c.csv").write_text("step,acc\n0,0.2\n")
    with pytest.raises(RunsError, match=r"c.csv: has no column epoch, which other files of the folder have$"):
        open_source(tmp_path)


def test_a_folder_of_other_files_is_one_line(tmp_path):
    (tmp_path / "a.csv").write_text("who,what\n")
    with pytest.raises(RunsError, match=r'has no CSV file with a column "epoch" or "step", as loggers write them$'):
        open_source(f"csv_logs:{tmp_path}")
    with pytest.raises(
        RunsError, match=r"can't be read; it must be a folder of CSV logs .lightning_logs or of Keras., "
    ):
        open_source(tmp_path)


def test_links_to_folders_are_not_followed(tmp_path, frame):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "a.csv").write_text("epoch,acc\n0,0.1\n")
    (tmp_path / "runs" / "again").symlink_to(tmp_path / "runs")
    assert list(frame(open_source(tmp_path / "runs"), "run")["run"]) == ["a"]
