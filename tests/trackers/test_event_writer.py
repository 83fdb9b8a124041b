"""Event files, read by TensorBoard's own library and by fairtrial's importer."""

import math
from pathlib import Path

import pytest

from fairtrial.importers.event_files import EventLog
from fairtrial.trackers.event_writer import FAILURE, SUCCESS, EventWriter


def read(folder):
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator  # the server's own

    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def test_tensorboard_reads_numbers_to_the_bit():
    from tensorboard.util import tensor_util

    values = {"acc": 1 / 3, "loss/train": 1e-300, "ä": -0.0, "nan": math.nan, "inf": math.inf}
    with EventWriter(Path("run")) as writer:
        writer.start(1)
        for step in (1, 2, 70_000):
            writer.scalars(step, values)
    events = read("run")
    assert set(events.Tags()["tensors"]) == set(values)
    for tag, value in values.items():
        found = events.Tensors(tag)
        assert [one.step for one in found] == [1, 2, 70_000]
        assert repr(float(tensor_util.make_ndarray(found[0].tensor_proto).item())) == repr(value)
        assert events.SummaryMetadata(tag).plugin_data.plugin_name == "scalars"


def test_a_later_file_replaces_what_an_earlier_one_has_from_its_start():
    with EventWriter(Path("run")) as writer:
        writer.start(1)
        for step in (1, 2, 3):
            writer.scalars(step, {"acc": step / 10})
    with EventWriter(Path("run")) as writer:
        writer.start(1)
        for step in (1, 2):
            writer.scalars(step, {"acc": step / 5})
    assert [(one.step, one.tensor_proto.double_val[0]) for one in read("run").Tensors("acc")] == [(1, 0.2), (2, 0.4)]
    log = EventLog()
    for path in sorted(Path("run").iterdir()):
        log.add_file(path)
    assert log.scalars == {"acc": {1: 0.2, 2: 0.4}}


@pytest.mark.parametrize(("status", "word"), [(SUCCESS, "finished"), (FAILURE, "failed")])
def test_tensorboards_table_of_hyperparameters_has_the_settings(status, word):
    from tensorboard.plugins.hparams import metadata

    settings = {"optimizer.lr": 0.001, "optimizer.name": "adam", "nesterov": True, "seed": 3}
    with EventWriter(Path("run")) as writer:
        writer.session(settings)
        writer.end(status)
    content = read("run").SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    found = metadata.parse_session_start_info_plugin_data(content).hparams
    values = {name: getattr(value, value.WhichOneof("kind")) for name, value in found.items()}
    assert values == settings
    end = read("run").SummaryMetadata(metadata.SESSION_END_INFO_TAG).plugin_data.content
    assert metadata.parse_session_end_info_plugin_data(end).status == status
    log = EventLog()
    (path,) = Path("run").iterdir()
    log.add_file(path)
    assert (log.settings, log.status) == (settings, word)


def test_texts_are_texts():
    with EventWriter(Path("run")) as writer:
        writer.text("note", "a **b** \ud800")
    (event,) = read("run").Tensors("note/text_summary")
    assert event.tensor_proto.string_val[0].decode() == "a **b** ?"
    assert read("run").SummaryMetadata("note/text_summary").plugin_data.plugin_name == "text"
