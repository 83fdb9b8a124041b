"""What counts as reading a setting, and which settings nobody read."""

import copy
import json
import pickle
from dataclasses import replace
from types import SimpleNamespace

import pytest

from fairtrial.reads import RecordedSettings, unread_keys
from fairtrial.scheduler import plan
from fairtrial.spec import Settings, Study, content
from fairtrial.trial import TrialContext

PARAMS = {"lr": 0.1, "depth": 3}
BOTH = {"params.lr", "params.depth"}
SECTIONS = {"data", "model", "optimizer", "schedule"}


def context(**changes):
    """What the loop of a trial gets."""
    arms = {"a": {}, "b": {"params": {"depth": 4}}}
    table = {"name": "s", "reference": "a", "arms": arms, "params": PARAMS, "training": {"loop": "my:train"}}
    return TrialContext(plan(Study.from_dict(table | changes))[0])


OF_ONE = {
    "by key": lambda params: params["lr"],
    "get": lambda params: params.get("lr"),
    "in": lambda params: "lr" in params,
    "pop": lambda params: params.pop("lr"),
    "setdefault": lambda params: params.setdefault("lr", 1.0),
    "format": "{lr}".format_map,
}
OF_ALL = {
    "iteration": list,
    "reversed": lambda params: list(reversed(params)),
    "keys": lambda params: list(params.keys()),
    "values": lambda params: list(params.values()),
    "items": lambda params: list(params.items()),
    "a dict": dict,
    "keywords": lambda params: SimpleNamespace(**params),
    "unpacked": lambda params: {**params},
    "or": lambda params: params | {},
    "or into": lambda params: {} | params,
    "update": {}.update,
    "equality": lambda params: params == {},
    "copy": lambda params: params.copy(),
    "copy.copy": copy.copy,
    "copy.deepcopy": copy.deepcopy,
    "pickle": pickle.dumps,
    "JSON": json.dumps,
    "popitem": lambda params: params.popitem(),
}


@pytest.mark.parametrize("how", OF_ONE)
def test_one_parameter_is_read(how):
    trial = context()
    OF_ONE[how](trial.settings.params)
    assert trial.reads == {"params.lr"}


@pytest.mark.parametrize("how", OF_ALL)
def test_all_parameters_are_read(how):
    trial = context()
    OF_ALL[how](trial.settings.params)
    assert trial.reads == BOTH


def test_what_reads_nothing():
    trial = context()
    assert len(trial.settings.params) == 2
    assert trial.settings.params
    trial.settings.params["new"] = 1
    assert (trial.trial.hash, trial.epochs, trial.arm) == (context().trial.hash, 10, "a")
    assert trial.reads == set()


def test_parameters_behave_as_the_dictionary_that_they_are():
    params = context().settings.params
    assert isinstance(params, dict)
    assert params == PARAMS
    assert [{**params}, dict(params), params | {}, {} | params, params.copy(), copy.deepcopy(params)] == [PARAMS] * 6
    assert pickle.loads(pickle.dumps(params)) == PARAMS
    assert json.loads(json.dumps(params)) == PARAMS
    assert (params.get("none"), params.get("none", 3), params.pop("none", 4)) == (None, 3, 4)
    with pytest.raises(KeyError, match="none"):
        params["none"]
    assert (params.pop("depth"), list(params)) == (3, ["lr"])


def test_sections_are_read_as_wholes():
    trial = context()
    assert trial.settings.optimizer.lr == 0.001
    assert trial.trial.settings.model.name == "mobilenet_v2"
    assert trial.reads == {"optimizer", "model"}


@pytest.mark.parametrize(
    "whole",
    [
        lambda settings: settings.model_dump(),
        lambda settings: settings.model_dump_json(),
        lambda settings: settings.model_copy(update={"params": {}}),
        content,
        dict,
        copy.copy,
        copy.deepcopy,
        pickle.dumps,
        lambda settings: settings == 3,
    ],
    ids=["model_dump", "model_dump_json", "model_copy", "content", "dict", "copy", "deepcopy", "pickle", "equality"],
)
def test_who_copies_settings_has_read_all(whole):
    trial = context()
    whole(trial.settings)
    assert trial.reads == BOTH | SECTIONS


def test_recorded_settings_are_the_settings():
    trial, own = context(), plan(Study.from_dict({"name": "s", "reference": "a", "arms": {"a": {}}}))[0].settings
    plain = own.model_copy(update={"params": PARAMS, "training": trial.settings.training})
    assert trial.settings == plain
    assert plain == trial.settings
    assert trial.settings == context().settings
    assert trial.settings.model_dump() == plain.model_dump()
    assert isinstance(trial.settings, Settings)
    for copied in (copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))):
        assert copied(trial.settings) == plain
        assert type(copied(trial.settings)) is Settings
    assert isinstance(trial.settings, RecordedSettings)
    assert replace(trial.trial, settings=plain).hash == trial.trial.hash


def test_fairtrials_own_loop_reads_what_it_needs():
    trial = TrialContext(plan(Study.from_dict({"name": "s", "reference": "a", "arms": {"a": {}}}))[0])
    assert type(trial.settings) is Settings
    assert trial.reads is None


def test_settings_in_which_arms_differ_and_that_nobody_read():
    loop = {"loop": "my:train"}
    arms = {"a": {}, "b": {"params": {"x": 1, "y": 2}}, "c": {"optimizer": {"betas": [0.9, 0.99]}, "params": {"y": 3}}}
    study = Study.from_dict({"name": "s", "reference": "a", "arms": arms, "params": {"z": 1}, "training": loop})
    assert unread_keys(study, ()) == ("params.x", "params.y", "optimizer.betas")
    assert unread_keys(study, {"params.y", "optimizer"}) == ("params.x",)
    assert unread_keys(study, {"params.x", "params.y", "optimizer", "params.z"}) == ()
    longer = {"a": {}, "b": {"training": {"epochs": 3, "batch_size": 8}}}
    assert unread_keys(Study.from_dict({"name": "s", "reference": "a", "arms": longer, "training": loop}), ()) == ()
    ours = {"a": {}, "b": {"optimizer": {"lr": 0.1}}}
    assert unread_keys(Study.from_dict({"name": "s", "reference": "a", "arms": ours}), ()) == ()
