"""Runs of a tracker as a source."""

import pytest

from fairtrial.errors import RunsError
from fairtrial.importers import folders
from fairtrial.importers.base import open_source
from fairtrial.importers.protobuf import fields
from fairtrial.importers.tracked import MOST_RUNS, Run, flatten, source_of
from fairtrial.importers.yaml_files import load_yaml


def run(name="a", steps=None, **others):
    values = steps or {0: {"loss": 1.0}}
    return Run(name, [*{key: None for step in values.values() for key in step}], lambda _: values, **others)


def test_a_name_that_metrics_and_settings_share_is_the_metrics(frame):
    settings, labels = {"loss": "mse", "run": 7, "name": "mine"}, {"name": "label"}
    source = source_of("x", [run(settings=settings, labels=labels, status="failed")])
    assert source.columns == ("run", "step", "status", "loss", "config.loss", "config.run", "name", "run.name")
    assert source.settings == ("config.loss", "config.run", "name")
    assert frame(source).iloc[0].to_list() == ["a", 0, "failed", 1.0, "mse", "7", "mine", "label"]


def test_a_run_without_values_has_a_row(frame):
    source = source_of("x", [run(), Run("b", [], lambda _: {}, status="failed")])
    rows = frame(source, "run", "step", "loss")
    assert list(rows["run"]) == ["a", "b"]
    assert rows.iloc[1].isna().to_list() == [False, True, True]


def test_rows_come_in_batches(monkeypatch):
    monkeypatch.setattr("fairtrial.importers.tracked._ROWS", 4)
    steps = {step: {"loss": float(step)} for step in range(3)}
    source = source_of("x", [run(str(number), steps) for number in range(5)])
    assert [batch.num_rows for batch in source.read(["loss"])] == [6, 6, 3]


def test_only_the_metrics_that_are_asked_for_are_read():
    asked = []
    one = Run("a", ["loss", "acc"], lambda names: asked.append(set(names)) or {})
    list(source_of("x", [one]).read(["run", "acc"]))
    list(source_of("x", [one]).read(["run"]))
    assert asked == [{"acc"}]


def test_no_runs_and_too_many_are_one_line():
    with pytest.raises(RunsError, match=r"^x: has no runs$"):
        source_of("x", [])
    with pytest.raises(RunsError, match=r"^x: has 100,001 runs; at most 100,000 are read$"):
        source_of("x", [run()] * (MOST_RUNS + 1))
    with pytest.raises(RunsError, match=r"^x: has more than 20,000 settings and metrics$"):
        source_of("x", [run(settings={str(index): 0}) for index in range(20_001)])


def test_settings_that_contain_themselves_or_are_deep_end():
    deep = settings = {}
    for _ in range(1000):
        settings["a"] = settings = {}
    assert list(flatten(deep)) == ["a" + 8 * ".a"]
    deep["self"] = deep
    assert len(flatten(deep)) < 20_001


def test_settings_of_a_small_file_that_grows_without_end(tmp_path):
    for kind, opened, closed in (("list", "[", "]"), ("table", "{a: ", "}")):
        lines = [f"x0: &x0 {opened}1{closed}"]
        for level in range(1, 30):
            names = [f"*x{level - 1}" if kind == "list" else f"k{index}: *x{level - 1}" for index in range(10)]
            lines.append(f"x{level}: &x{level} {opened[0]}{', '.join(names)}{closed}")
        (tmp_path / "hparams.yaml").write_text("\n".join(lines))
        settings = flatten(load_yaml(tmp_path / "hparams.yaml"))
        assert max(len(str(value)) for value in settings.values()) < 1_100
        assert len(settings) < 20_100
    merging = [f"x{level}: &x{level} {{<<: [{', '.join([f'*x{level - 1}'] * 10)}]}}" for level in range(1, 30)]
    (tmp_path / "hparams.yaml").write_text("x0: &x0 {a: 1}\n" + "\n".join(merging))
    assert load_yaml(tmp_path / "hparams.yaml")["x0"] == {"a": 1}


def test_a_folder_of_too_many_files_is_one_line(tmp_path, monkeypatch):
    for name in "abc":
        (tmp_path / name).touch()
    monkeypatch.setattr(folders, "MOST_FILES", 2)
    with pytest.raises(RunsError, match=r"has more than 2 files; name a folder nearer to the runs$"):
        list(folders.files_in(tmp_path, bool))


def test_names_that_are_not_utf_8_can_be_read(tmp_path, frame):
    (tmp_path / "a\udcff").mkdir()
    (tmp_path / "a\udcff" / "trainer_state.json").write_text('{"log_history": [{"step": 1, "loss": 0.5}]}')
    assert list(frame(open_source(tmp_path))["run"]) == ["a?"]
    (tmp_path / "b\udcff.csv").write_text("epoch,acc\n0,0.1\n")
    with pytest.raises(RunsError, match=r"b\\udcff.csv: its name is not UTF-8; rename it$"):
        open_source(tmp_path / "b\udcff.csv")


def test_damaged_messages_are_value_errors():
    for message in (b"\x08", b"\x0a\x05abc", b"\x09abc", b"\x0b", b"\xff" * 11):
        with pytest.raises(ValueError, match=r"cut off|unknown type"):
            list(fields(message))
