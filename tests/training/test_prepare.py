"""Finding training loops, and getting everything ready before any trial starts."""

import pytest

from fairtrial import spec
from fairtrial.errors import WeightsError
from fairtrial.scheduler import plan
from fairtrial.training import prepare
from fairtrial.training.kernels import compiler, library
from fairtrial.training.loop import train
from fairtrial.trial import TrialContext

DIGITS = {"name": "digits", "train": 64, "test": 10}


def study(**changes):
    return spec.Study.from_dict({"name": "s", "reference": "a", "arms": {"a": {}}, "data": DIGITS} | changes)


def test_the_built_in_loop_and_a_users():
    assert prepare.find("fairtrial") is train
    records = list(prepare.run(TrialContext(plan(study(training={"epochs": 2, "loop": "loops:good"}))[0])))
    assert len(records) == 2


def test_each_data_set_is_loaded_once():
    arms = {"a": {}, "b": {"optimizer": {"lr": 0.1}}, "c": {"data": {"train": 32}}}
    datasets = prepare.prepare(study(arms=arms))
    assert [len(dataset.train) for dataset in datasets] == [64, 32]


def test_layers_are_compiled_for_fairtrials_own_loop_however_few_steps_are_ahead(monkeypatch):
    asked = []
    monkeypatch.setattr(compiler, "is_cached", lambda real: False)
    monkeypatch.setattr(library, "path", lambda: asked.append(1))
    users = plan(study(training={"epochs": 1000, "loop": "loops:good"}))
    assert prepare.compile_layers(users) == ()
    assert asked == []
    assert prepare.compile_layers([*users, *plan(study(training={"epochs": 1}))]) == ()
    assert asked == [1]


def test_a_users_loop_needs_no_data():
    assert prepare.prepare(study(training={"loop": "loops:good"}, data={"name": "cifar10", "path": "nowhere"})) == ()


def test_weights_that_do_not_fit_are_told_before_any_trial(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"no tensors")
    with pytest.raises(WeightsError, match=r"w\.safetensors"):
        prepare.prepare(study(model={"weights": str(path)}))
