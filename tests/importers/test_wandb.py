"""W&B's run files, exports and projects, against the runs that its library logged."""

import shutil
import sys
import types

import pytest

import tracked_runs as tracked
from fairtrial.errors import RunsError
from fairtrial.importers.base import open_source
from fairtrial.importers.wandb_files import RunFile

EXPECTED = {optimizer: tracked.final_values(optimizer) for optimizer in tracked.OPTIMIZERS}


@pytest.fixture
def folder(asset):
    return asset("wandb") / "wandb"


def test_offline_runs_of_the_real_library(folder, finals, frame):
    shutil.rmtree(next(folder.glob("*-adam8")))
    source = open_source(folder)
    assert finals(source, "test_acc") == EXPECTED
    assert finals(source, "train.loss") == {
        optimizer: [tracked.train_loss(optimizer, seed, 2) for seed in tracked.SEEDS]
        for optimizer in tracked.OPTIMIZERS
    }
    assert set(source.settings) == {"optimizer", "seed", "lr", "model.layers"}
    rows = frame(source)
    assert set(rows["group"]) == {"adam", "sgd"}
    assert len(rows) == len(tracked.runs()) * len(tracked.EPOCHS)
    assert source.notes == ()


def test_a_resumed_run_is_one_and_ends_as_its_last_part(folder, frame):
    assert len([*folder.glob("*-sgd0")]) == 2
    rows = frame(open_source(folder), "run", "step", "status", "test_acc")
    resumed = rows[rows["run"] == "sgd0"]
    assert list(resumed["test_acc"]) == [tracked.test_acc("sgd", 0, epoch) for epoch in tracked.EPOCHS]
    assert set(resumed["status"]) == {"finished"}
    shutil.rmtree(max(folder.glob("*-sgd0")))
    rows = frame(open_source(folder), "run", "step", "status", "test_acc")
    assert set(rows[rows["run"] == "sgd0"]["status"]) == {"failed"}


def test_runs_that_failed_or_have_no_end_are_marked(folder, frame):
    path = next(folder.glob("*-adam1/*.wandb"))
    path.write_bytes(path.read_bytes()[:-60])  # as a run that is killed leaves it
    source = open_source(folder)
    statuses = frame(source, "run", "status").drop_duplicates().set_index("run")["status"]
    assert statuses["adam8"] == "failed"
    assert statuses["adam1"] == "running"
    assert source.notes == ("1 of 11 runs have no end: they were killed, or are still running.",)


@pytest.mark.parametrize("form", ["{folder}/{run}", "{folder}/{run}/run-adam0.wandb", "wandb:{folder}/{run}"])
def test_one_run_can_be_named(folder, finals, form):
    run = next(folder.glob("*-adam0")).name
    assert finals(open_source(form.format(folder=folder, run=run)), "test_acc") == {"adam": EXPECTED["adam"][:1]}


def test_damaged_files_and_those_of_other_kinds_are_one_line(folder, tmp_path):
    path = next(folder.glob("*-adam1/*.wandb"))
    whole = path.read_bytes()
    path.write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    with pytest.raises(
        RunsError, match=r"run-adam1.wandb: is no run file of W&B, or a damaged one: a wrong checksum at byte"
    ):
        open_source(folder)
    path.write_bytes(b"\0" * 100)
    with pytest.raises(
        RunsError, match=r"run-adam1.wandb: is no run file of W&B, or a damaged one: it begins otherwise$"
    ):
        open_source(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunsError, match=r"empty: has no run files .run-\*.wandb.$"):
        open_source(f"wandb:{tmp_path / 'empty'}")


def test_no_flipped_bit_of_a_run_file_changes_a_number_unseen(folder):
    path = next(folder.glob("*-adam1/*.wandb"))
    whole = path.read_bytes()
    expected = RunFile()
    expected.add_file(path, {"test_acc"})
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
        found = RunFile()
        try:
            found.add_file(path, {"test_acc"})
        except RunsError:
            continue
        # A length that is too large passes for a file that is cut off: then the run has no end.
        assert found.status == "running", at
        assert all(expected.history[step] == values for step, values in found.history.items())


def test_records_longer_than_a_block_are_joined(tmp_path):
    """Written as LevelDB's format has it, with a history of 100 kB."""
    import struct
    import zlib

    def field(number, content):
        return varint(number << 3 | 2) + varint(len(content)) + content

    def varint(value):
        return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)

    text = field(16, b'"' + b"x" * 100_000 + b'"')
    item = field(1, field(2, b"text") + text) + field(1, field(2, b"test_acc") + field(16, b"0.5"))
    record, blocks = field(2, item), b":W&B" + struct.pack("<HB", 0xBEE1, 0)
    first = True
    while record:
        room = 2**15 - len(blocks) % 2**15 - 7
        part, record = record[:room], record[room:]
        kind = bytes([{(True, True): 1, (True, False): 2, (False, False): 3, (False, True): 4}[first, not record]])
        blocks += struct.pack("<IHB", zlib.crc32(part, zlib.crc32(kind)), len(part), kind[0]) + part
        first = False
    (tmp_path / "run-a.wandb").write_bytes(blocks)
    run = RunFile()
    run.add_file(tmp_path / "run-a.wandb", {"test_acc"})
    assert run.history == {0: {"test_acc": 0.5}}


def test_an_export_of_the_table_of_runs(tmp_path, frame):
    (tmp_path / "export.csv").write_text(
        '"Name","State","Created","optimizer","seed","test_acc"\n'
        '"a","finished","2026-01-01","adam","0","0.8"\n"b","crashed","2026-01-01","adam","1","0.1"\n'
        '"c","running","2026-01-01","sgd","0","0.7"\n'
    )
    source = open_source(tmp_path / "export.csv")
    assert source.status == "State"
    assert list(frame(source, "State")["State"]) == ["finished", "failed", "running"]
    assert list(frame(source, "test_acc")["test_acc"]) == ["0.8", "0.1", "0.7"]
    assert source.notes == ("An export of W&B's table has the last value of each metric only.",)


def test_an_export_of_a_chart_is_refused(tmp_path):
    (tmp_path / "chart.csv").write_text('"Step","a - acc","a - acc__MIN","a - acc__MAX"\n0,0.1,0.1,0.1\n')
    with pytest.raises(
        RunsError, match=r"chart.csv: is the export of a chart of W&B, which lacks the settings of runs"
    ):
        open_source(tmp_path / "chart.csv")


def test_a_project_without_the_library_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(
        RunsError, match=r"^wandb:me/optimizers: needs W&B's library: pip install 'fairtrial\[wandb\]'$"
    ):
        open_source("wandb:me/optimizers")
    with pytest.raises(RunsError, match=r"^wandb:nothing: no such folder; a project is written wandb:ENTITY/PROJECT$"):
        open_source("wandb:nothing")


class Library(types.ModuleType):
    """Stands for W&B's library: no test reaches its server."""

    class Error(Exception):
        pass

    def __init__(self, error=None):
        super().__init__("wandb")
        self.error = error

    def Api(self, timeout):  # noqa: N802
        assert timeout <= 30
        if self.error:
            raise self.Error(self.error)
        return self

    def runs(self, path):
        assert path == "me/optimizers"
        return [self.run(optimizer, seed) for optimizer, seed in tracked.runs()]

    @staticmethod
    def run(optimizer, seed):
        def scan_history(keys):
            return [{"_step": epoch, "test_acc": tracked.test_acc(optimizer, seed, epoch)} for epoch in tracked.EPOCHS]

        return types.SimpleNamespace(
            id=f"{optimizer}{seed}", name="", group=None, job_type=None, state="crashed" if seed == 4 else "finished",
            config={"optimizer": optimizer, "seed": seed, "_wandb": {}}, scan_history=scan_history,
            summary={"test_acc": 0.0, "_runtime": 1, "best": {"max": 1}, "image": {"_type": "image-file", "size": 9}},
        )  # fmt: skip


def test_a_project_of_a_server(monkeypatch, finals, frame):
    monkeypatch.setitem(sys.modules, "wandb", Library())
    source = open_source("wandb:me/optimizers")
    assert source.name == "wandb:me/optimizers"
    assert finals(source, "test_acc") == EXPECTED
    assert (frame(source, "status")["status"] == "failed").sum() == 2
    assert source.columns == ("run", "step", "status", "test_acc", "best.max", "optimizer", "seed")
    assert set(frame(source, "best.max")["best.max"]) == {1.0}


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("No API key configured. Use `wandb login` to log in.", "W&B's library has no key; set WANDB_API_KEY"),
        ("Could not find project\noptimizers", "Could not find project optimizers$"),
    ],
)
def test_a_server_that_refuses_is_one_line(monkeypatch, error, message):
    monkeypatch.setitem(sys.modules, "wandb", Library(error))
    with pytest.raises(RunsError, match=rf"^wandb:me/optimizers: {message}"):
        open_source("wandb:me/optimizers")
