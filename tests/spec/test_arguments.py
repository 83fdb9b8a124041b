"""Keys from the arguments of anybody's class or function: types, defaults, what is refused, and pickles."""

import copy
import pickle
import sys

import pytest

from fairtrial.errors import StudyError
from fairtrial.spec import Study
from fairtrial.spec.arguments import parameters_of, takes_any

USERS = '''
import torch


class Descent(torch.optim.SGD):
    """Descent that steps back now and then."""

    def __init__(self, params, lr: float = 1, back: int = 3, how="often", rates=(0.1, 0.2), hook=print, **more):
        super().__init__(params, lr=lr, **more)


def make(params, lr, **more):
    more.pop("names", None)
    return torch.optim.SGD(params, lr=lr, **more)


def make_sam(params, base_optimizer, lr=0.1):
    pass


def make_of_model(model, params, lr=0.1):
    pass


def make_other(params, lr=0.1):
    return params


def rate_by_itself(params, lr=None):
    return torch.optim.SGD(params, lr=0.1 if lr is None else lr)


def no_rate(params, beta=0.1):
    pass


def load_part(train: bool = True):
    pass


def underscore(params, _beta, lr=0.1):
    pass


class Shadow(torch.optim.SGD):
    def __init__(self, params, build, lr=0.1):
        pass
'''


@pytest.fixture(autouse=True)
def _users_module(tmp_path, monkeypatch):
    (tmp_path / "users_arguments.py").write_text(USERS)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("users_arguments", None)


def settings(name="Descent", **keys):
    table = {"name": f"users_arguments:{name}", **keys}
    return Study(name="s", reference="a", optimizer=table, arms={"a": {}}).settings.optimizer


def error(name="Descent", **keys):
    with pytest.raises(StudyError) as caught:
        settings(name, **keys)
    return str(caught.value)


def test_the_arguments_are_keys_with_their_defaults_and_those_of_the_bases():
    """A default that no file can hold is None, and never passed."""
    plain = settings().model_dump(exclude_none=True)
    assert plain == {
        "name": "users_arguments:Descent",
        "lr": 1.0,
        "back": 3,
        "how": "often",
        "rates": (0.1, 0.2),
        "momentum": 0,
        "dampening": 0,
        "weight_decay": 0,
        "nesterov": False,
        "maximize": False,
        "differentiable": False,
    }
    assert settings().arguments == {}
    assert settings(lr=1.0, back=3, rates=[0.1, 0.2]).arguments == {}
    assert settings(momentum=0.9, rates=[0.3, 0.2]).arguments == {"rates": (0.3, 0.2), "momentum": 0.9}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"momentun": 0.9}, "unknown key `momentun` in [optimizer]: did you mean `momentum`?"),
        ({"params": [1]}, "unknown key `params` in [optimizer]: "),
        ({"back": 2.5}, "optimizer.back = 2.5: "),
        ({"how": 3}, "optimizer.how = 3: must be a string"),
        ({"nesterov": 1}, "optimizer.nesterov = 1: must be true or false"),
        ({"rates": [0.1]}, "optimizer.rates = [0.1]: must be a list of 2"),
        ({"rates": 0.1}, "optimizer.rates = 0.1: must be a list of 2"),
        ({"momentum": float("nan")}, "optimizer.momentum = nan: must be finite"),
        ({"momentum": {"a": 1}}, "optimizer.momentum = {a = 1}: must be a number"),
        ({"lr": -1.0}, "optimizer.lr = -1.0: must be in (0, inf)"),
    ],
)
def test_a_wrong_argument_is_an_error_of_one_line(keys, message):
    assert error(**keys).startswith(message)


def test_a_function_with_keywords_takes_any_key():
    made = settings("make", lr=0.5, momentum=0.9, names=["a", "b"])
    assert made.arguments == {"lr": 0.5, "momentum": 0.9, "names": ("a", "b")}
    assert Study(name="s", reference="a", optimizer=made, arms={"a": {}}).settings.optimizer == made
    assert "must be a finite number" in error("make", lr=0.5, momentum={"a": 1})
    assert error("make") == "optimizer.lr: is missing"


def test_a_key_of_the_sections_own_is_never_none():
    """All else that reads a learning rate would meet it."""
    assert error("rate_by_itself") == "optimizer.lr: is missing"
    assert settings("rate_by_itself", lr=0.5).arguments == {"lr": 0.5}


def test_what_the_thing_itself_refuses_is_an_error_of_the_study():
    assert error("make", lr=0.5, momentun=0.9).startswith("optimizer: users_arguments:make: ")
    assert error("make", lr=0.5, momentun=0.9).endswith("argument 'momentun' (users_arguments.py, line 14)")
    assert error("make_other") == "optimizer: users_arguments:make_other: gave a list, not a torch.optim.Optimizer"
    assert error(momentum=-1.0) == "optimizer: users_arguments:Descent: Invalid momentum value: -1.0"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("no_rate", "must take the parameters first, and a learning rate `lr`"),
        ("make_sam", "wraps another optimizer; name a function that makes both"),
        ("make_of_model", "takes the model, not only its parameters"),
        ("underscore", "its argument `_beta` can't be set in a study; name a function that gives it"),
        ("Shadow", "its argument `build` can't be set in a study; name a function that gives it"),
    ],
)
def test_what_a_study_cannot_call_is_refused_by_name(name, hint):
    assert error(name) == f'optimizer.name = "users_arguments:{name}": {hint}'


def test_a_study_of_them_is_written_and_read_and_its_hash_stays():
    study = Study(
        name="s",
        reference="a",
        optimizer={"name": "users_arguments:Descent"},
        arms={"a": {}, "b": {"optimizer": {"back": 2, "rates": [0.5, 0.5]}}},
    )
    again = Study.from_toml(study.to_toml())
    assert (again, again.hash) == (study, study.hash)
    assert study.arm("b").settings.optimizer.arguments == {"back": 2, "rates": (0.5, 0.5)}


def test_settings_are_pickled_copied_hashed_and_compared():
    one = settings(back=2, rates=[0.5, 0.5])
    assert pickle.loads(pickle.dumps(one)) == one
    assert pickle.loads(pickle.dumps(settings("make", lr=0.5, names="x"))) == settings("make", lr=0.5, names="x")
    assert copy.deepcopy(one) is copy.copy(one) is one
    assert hash(one) == hash(settings(back=2, rates=[0.5, 0.5]))
    assert one != settings(back=3, rates=[0.5, 0.5])


def test_keywords_of_a_class_are_those_of_its_bases():
    class Above:
        def __init__(self, *, width=1, depth=2):
            pass

    class Between(Above):
        def __init__(self, *, depth=3, **more):
            pass

    class Below(Between):
        def __init__(self, first, **more):
            pass

    found = parameters_of(Below)
    assert {key: one.default for key, one in found.items() if key != "first"} == {"width": 1, "depth": 3}
    assert not takes_any(found)
    assert takes_any(parameters_of(lambda **more: None))


def test_an_argument_that_means_something_else_than_the_key_of_its_name():
    message = "its argument `train` is True by default, which is also the name of a key that can't be that"
    with pytest.raises(StudyError, match=message):
        Study(name="s", reference="a", data={"name": "users_arguments:load_part"}, arms={"a": {}})
