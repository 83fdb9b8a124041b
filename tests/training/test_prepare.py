"""Finding training loops, and getting everything ready before any trial starts."""

import sys
from pathlib import Path

import pytest

from fairtrial import spec
from fairtrial.errors import StudyError, WeightsError
from fairtrial.scheduler import plan
from fairtrial.training import prepare
from fairtrial.training.kernels import compiler, layers
from fairtrial.training.loop import train

DIGITS = {"name": "digits", "train": 64, "test": 10}


def study(**changes):
    return spec.Study.from_dict({"name": "s", "reference": "a", "arms": {"a": {}}, "data": DIGITS} | changes)


def test_the_built_in_loop_and_a_users():
    assert prepare.find("fairtrial") is train
    records = list(prepare.run(plan(study(training={"epochs": 2, "loop": "loops:good"}))[0]))
    assert len(records) == 2


def test_a_module_that_fails_while_it_is_imported_keeps_its_traceback(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    Path("broken_loop.py").write_text("import no_such_dependency\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        prepare.find("broken_loop:train")
    Path("worse_loop.py").write_text("raise RuntimeError('at import')\n")
    with pytest.raises(RuntimeError, match="at import"):
        prepare.find("worse_loop:train")


def test_a_missing_package_above_the_module_is_named():
    with pytest.raises(StudyError, match="no module named no_such beside the study or installed"):
        prepare.find("no_such.module:train")
    assert "no_such" not in sys.modules


def test_each_data_set_is_loaded_once():
    arms = {"a": {}, "b": {"optimizer": {"lr": 0.1}}, "c": {"data": {"train": 32}}}
    datasets = prepare.prepare(study(arms=arms))
    assert [len(dataset.train) for dataset in datasets] == [64, 32]


@pytest.mark.parametrize(
    ("epochs", "cached", "compiles"), [(24, False, False), (25, False, True), (1, True, True)], ids=str
)
def test_layers_are_compiled_if_the_steps_ahead_repay_it(epochs, cached, compiles, monkeypatch):
    asked = []
    monkeypatch.setattr(compiler, "is_cached", lambda real: cached)
    monkeypatch.setattr(layers, "path", lambda: asked.append(1))
    ahead = plan(study(training={"epochs": epochs, "batch_size": 64}, seeds=2))  # of one step an epoch
    users = plan(study(training={"epochs": 1000, "loop": "loops:good"}))
    assert prepare.compile_layers([*ahead, *users]) is compiles
    assert len(asked) == compiles


def test_a_users_loop_needs_no_data():
    assert prepare.prepare(study(training={"loop": "loops:good"}, data={"name": "cifar10", "path": "nowhere"})) == ()


def test_weights_that_do_not_fit_are_told_before_any_trial(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"no tensors")
    with pytest.raises(WeightsError, match=r"w\.safetensors"):
        prepare.prepare(study(model={"weights": str(path)}))
