"""TensorBoard's event files, against the runs that the real writers logged."""

import struct

import numpy as np
import pytest

import tracked_runs as tracked
from fairtrial.errors import RunsError
from fairtrial.importers import event_files
from fairtrial.importers.base import open_source
from fairtrial.importers.event_files import EventLog

#: Event files have single precision.
EXPECTED = {
    optimizer: [float(np.float32(value)) for value in tracked.final_values(optimizer)]
    for optimizer in tracked.OPTIMIZERS
}


@pytest.fixture
def runs(asset):
    return asset("tensorboard")


def test_runs_of_torchs_writer_with_its_table_of_hyperparameters(runs, finals, frame):
    source = open_source(runs / "torch")
    assert finals(source, "test_acc") == EXPECTED
    assert set(frame(source, "run")["run"]) == {f"{optimizer}-{seed}" for optimizer, seed in tracked.runs()}
    assert set(source.settings) == {"optimizer", "seed", "lr"}
    assert {"train/loss", "hparam/best"} <= set(source.columns)
    assert set(frame(source, "lr")["lr"]) == {"0.001", "0.1"}


def test_folders_are_arms_and_seeds_where_nothing_else_is(runs, finals):
    source = open_source(runs / "folders")
    assert source.settings == ("seed",)
    assert finals(source, "test_acc", arm="folder1") == EXPECTED


def test_tensors_of_one_number_and_folders_of_keras_for_training_and_validation(runs, finals, frame):
    source = open_source(runs / "tensors")
    assert finals(source, "validation/epoch_accuracy") == EXPECTED
    assert len(frame(source)) == len(tracked.runs()) * len(tracked.EPOCHS)
    assert "train/epoch_loss" in source.columns


def test_a_resumed_run_has_the_later_files_values_and_it_is_said(runs, finals, tmp_path):
    first, second = (next((runs / "folders" / "adam" / f"seed={seed}").iterdir()) for seed in (0, 1))
    (tmp_path / "runs" / "adam").mkdir(parents=True)
    (tmp_path / "runs" / "adam" / "events.out.tfevents.1.vm").write_bytes(first.read_bytes())
    (tmp_path / "runs" / "adam" / "events.out.tfevents.2.vm").write_bytes(second.read_bytes())
    source = open_source(tmp_path / "runs")
    assert finals(source, "test_acc", arm="folder1", seed="run") == {"adam": EXPECTED["adam"][1:2]}
    assert source.notes[1:] == (
        "1 of 1 runs have several event files with the same steps, as resumed runs have; the later file counts.",
    )


def test_damaged_files_are_one_line_and_those_cut_off_are_marked(runs, frame):
    path = next((runs / "folders" / "adam" / "seed=0").iterdir())
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    rows = frame(open_source(runs / "folders"), "run", "status", "test_acc")
    assert set(rows[rows["run"] == "adam/seed=0"]["status"]) == {"running"}
    assert (rows["run"] == "adam/seed=0").sum() == 2
    path.write_bytes(whole[:-20] + bytes([whole[-20] ^ 1]) + whole[-19:])
    with pytest.raises(
        RunsError, match=r"no event file of TensorBoard, or a damaged one: a wrong checksum at byte \d+$"
    ):
        open_source(runs / "folders")
    path.write_text("something else that has this name")
    with pytest.raises(RunsError, match=r"no event file of TensorBoard, or a damaged one: a wrong checksum at byte 0$"):
        open_source(runs / "folders")
    path.write_bytes(b"")
    assert frame(open_source(runs / "folders"), "run", "test_acc")["test_acc"].isna().sum() == 1


def test_no_flipped_bit_of_an_event_file_changes_a_number_unseen(runs):
    path = next((runs / "folders" / "adam" / "seed=0").iterdir())
    whole = path.read_bytes()
    expected = EventLog()
    expected.add_file(path)
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.raises(RunsError, match="a wrong checksum"):
            EventLog().add_file(path)


def test_what_an_interrupted_session_logged_after_the_step_of_the_next_is_void(tmp_path):
    def write(name, *events):
        chunks = []
        for step, content in events:
            event = b"\x10" + bytes([step]) + content
            size = struct.pack("<Q", len(event))
            checks = [struct.pack("<I", event_files.masked_crc32c(part)) for part in (size, event)]
            chunks += [size, checks[0], event, checks[1]]
        (tmp_path / name).write_bytes(b"".join(chunks))

    def loss(value):
        item = b"\x0a\x04loss" + b"\x15" + struct.pack("<f", value)
        return b"\x2a" + bytes([len(item) + 2]) + b"\x0a" + bytes([len(item)]) + item

    write("events.out.tfevents.1", *((step, loss(0.5)) for step in range(5)))
    write("events.out.tfevents.2", (2, b"\x3a\x02\x08\x01"), (2, loss(0.25)))
    log = EventLog()
    log.add_file(tmp_path / "events.out.tfevents.1")
    assert log.add_file(tmp_path / "events.out.tfevents.2") == set()
    assert log.scalars == {"loss": {0: 0.5, 1: 0.5, 2: 0.25}}


def test_a_folder_without_event_files_is_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunsError, match=r"empty: has no event files .their names contain .tfevents..$"):
        open_source(f"tensorboard:{tmp_path / 'empty'}")
    with pytest.raises(RunsError, match=r"can't be read; it must be .*a folder of TensorBoard's event files"):
        open_source(tmp_path / "empty")
