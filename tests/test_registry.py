"""Registries: names, users' own entries, messages, tables, and who may import by name."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from fairtrial.errors import StudyError
from fairtrial.registry import (
    CHARTS,
    DATASETS,
    EXECUTORS,
    MEASURES,
    MODELS,
    OPTIMIZERS,
    SCHEDULES,
    Registry,
    did_you_mean,
    names_from,
)
from fairtrial.spec import Study
from fairtrial.spec.settings import REGISTRIES

SOURCE = Path(__file__).parents[1] / "src" / "fairtrial"
#: Who imports by name: the registries, the package's lazy names, commands, and Ray, which may be missing.
BY_NAME = {"registry.py", "__init__.py", "cli/main.py"}
BY_NAME |= {f"executors/ray/{name}.py" for name in ("cluster", "private", "task")}
USERS = '''
from fairtrial.spec import OptimizerSettings

class Descent(OptimizerSettings):
    """Plain descent."""

    lr: float = 0.1
    half: float = 0.5

    def build(self, parameters):
        import torch

        return torch.optim.SGD(parameters, lr=self.lr * self.half)

class NoBuild(OptimizerSettings):
    pass

class Other:
    pass

something = 5
'''


@pytest.fixture
def users_module(tmp_path, monkeypatch):
    """A module of the user's own, beside the study."""
    (tmp_path / "my_optimizers.py").write_text(USERS)
    (tmp_path / "my_broken.py").write_text("import no_such_thing_at_all")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("my_optimizers", "my_broken"):
        sys.modules.pop(name, None)


def test_the_default_comes_first_and_the_rest_by_module():
    assert OPTIMIZERS.names()[0] == "adam"
    assert SCHEDULES.names()[0] == "constant"
    assert MODELS.names()[0] == "mobilenet_v2"
    assert DATASETS.names()[0] == "cifar10"
    for registry in REGISTRIES.values():
        first, *others = registry.names()
        modules = [registry.get(name).__module__ for name in others if registry.get(name).__module__ != first]
        assert first == registry.default
        assert modules == sorted(modules)


@pytest.mark.parametrize("section", REGISTRIES)
def test_an_unknown_name_is_an_error_with_the_nearest(section):
    registry = REGISTRIES[section]
    near = registry.names()[-1] + "x"
    with pytest.raises(StudyError) as caught:
        registry.get(near)
    assert str(caught.value) == f'{section}.name = "{near}": did you mean `{registry.names()[-1]}`?'
    with pytest.raises(StudyError, match="known: `" + "`, `".join(registry.names())):
        registry.get("qqqqqq")


#: What entries can't do without.
REQUIRED = {
    "step": {"milestones": [1]},
    "multistep": {"milestones": [1]},
    "npz": {"path": "."},
    "image_folder": {"path": "."},
    "table": {"path": ".", "target": "y"},
}


@pytest.mark.parametrize("section", REGISTRIES)
def test_every_entry_documents_itself_and_knows_its_name(section):
    registry = REGISTRIES[section]
    for name in registry.names():
        entry = registry.get(name)
        assert entry.__doc__
        required = REQUIRED.get(name, {})
        assert entry(**required).name == name
        assert entry(**required).model_dump()["name"] == name
        assert f'| `"{name}"`' in registry.table()


def test_a_users_class_is_named_by_its_module(users_module):
    from my_optimizers import Descent

    assert OPTIMIZERS.get("my_optimizers:Descent") is Descent
    assert Descent(lr=0.5).name == "my_optimizers:Descent"
    study = Study(
        name="s",
        reference="a",
        arms={
            "a": {},
            "b": {"optimizer": {"name": "my_optimizers:Descent", "half": 0.25}},
            "c": {"optimizer": Descent()},
        },
    )
    assert study.arm("b").settings.optimizer == Descent(half=0.25)
    assert study.arm("c").settings.optimizer == Descent()
    assert Study.from_toml(study.to_toml()) == study
    with pytest.raises(StudyError) as caught:
        Study(name="s", reference="a", arms={"a": {"optimizer": {"name": "my_optimizers:Descent", "hal": 1}}})
    assert str(caught.value) == "unknown key `hal` in [arms.a.optimizer]: did you mean `half`?"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("my_optimizers:Desent", "my_optimizers has no Desent"),
        ("my_optimisers:Descent", "no module named my_optimisers beside the study or installed"),
        ("my_optimizers:Other", "must be a torch.optim.Optimizer, a function that makes one, or an OptimizerSettings"),
        (
            "my_optimizers:something",
            "must be a torch.optim.Optimizer, a function that makes one, or an OptimizerSettings",
        ),
        ("my_optimizers:NoBuild", "must define build"),
        ("__main__:Descent", "must be in a module that workers can import, not in the running script"),
        (":Descent", "must be a name or module:Name"),
        ("my_optimizers:", "must be a name or module:Name"),
        ("my optimizers:Descent", "must be a name or module:Name"),
    ],
)
def test_what_is_wrong_with_a_users_name_is_one_line(users_module, name, hint):
    with pytest.raises(StudyError) as caught:
        Study(name="s", reference="a", arms={"a": {"optimizer": {"name": name}}})
    assert str(caught.value) == f'arms.a.optimizer.name = "{name}": {hint}'


def test_what_a_users_module_raises_is_shown(users_module):
    with pytest.raises(ModuleNotFoundError, match="no_such_thing_at_all"):
        OPTIMIZERS.get("my_broken:Descent")


def test_an_object_with_another_kinds_name_is_refused():
    with pytest.raises(StudyError, match="optimizer"):
        Study(name="s", reference="a", optimizer=SCHEDULES.get("cosine")(), arms={"a": {}})


def test_a_name_is_registered_once():
    registry = Registry("thing", "fairtrial.errors", "builtins:object")
    registry.register("one")(int)
    registry.register("one")(int)
    with pytest.raises(ValueError, match="thing 'one' is registered twice"):
        registry.register("one")(float)


def test_words_from_elsewhere_are_suggested_with_their_place():
    assert did_you_mean("epocs", ["name"], {"epochs": "training"}) == "did you mean `epochs` in [training]?"


def test_only_the_registry_imports_by_name():
    """So that no import goes round the rules that import-linter holds."""
    users = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute | ast.Name):
                word = node.attr if isinstance(node, ast.Attribute) else node.id
                if word in {"import_module", "__import__"}:
                    users.add(str(path.relative_to(SOURCE)))
    assert users <= BY_NAME


def test_validating_every_shipped_study_and_every_entry_loads_no_torch():
    code = (
        f"REQUIRED = {REQUIRED!r}"
        """
import sys
import fairtrial
from fairtrial.loading import shipped_studies
from fairtrial.spec.settings import REGISTRIES

for name in shipped_studies():
    fairtrial.load(name)
for section, registry in REGISTRIES.items():
    for name in registry.names():
        table = {section: {"name": name, **REQUIRED.get(name, {})}}
        fairtrial.Study(name="s", reference="a", arms={"a": {}}, **table).to_toml()
assert "torch" not in sys.modules
"""
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("registry", [*REGISTRIES.values(), MEASURES, CHARTS, EXECUTORS], ids=lambda each: each.kind)
def test_the_documentation_has_the_table(registry):
    """Where it has not, paste what the assertion shows."""
    table = registry.table()
    assert table in (SOURCE.parents[1] / "docs" / "studies.md").read_text(encoding="utf-8"), table


@pytest.mark.parametrize(
    ("registry", "names"),
    [
        (
            "OPTIMIZERS",
            [
                *("adadelta", "adafactor", "adagrad", "adam", "adamax", "adamw", "asgd", "lbfgs"),
                *("muon", "nadam", "radam", "rmsprop", "rprop", "sgd"),
            ],
        ),
        (
            "SCHEDULES",
            ["constant", "cosine", "exponential", "linear", "multistep", "onecycle", "plateau", "polynomial", "step"],
        ),
        ("MODELS", ["mlp", "mobilenet_v2", "resnet18", "resnet20", "small_cnn"]),
        ("DATASETS", ["cifar10", "cifar100", "digits", "fashion_mnist", "image_folder", "mnist", "npz", "table"]),
        (
            "CHARTS",
            [
                *("differences", "generalization_gap", "heat_map", "history", "noise", "overfitting", "seeds"),
                *("sensitivity", "test_accuracy", "time_accuracy", "training_loss"),
                *("xray_epsilon", "xray_layers", "xray_losses", "xray_sqrt_vhat", "xray_updates"),
            ],
        ),
        ("EXECUTORS", ["auto", "cuda", "inline", "local", "ray"]),
    ],
)
def test_a_fresh_process_knows_every_entry(registry, names):
    """A test process has imported more than a user's."""
    code = f"from fairtrial.registry import {registry}; print(*sorted({registry}.names()))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == names


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("users_executors:Wrong", "must be an Executor of fairtrial.executors.base"),
        ("users_executors:Missing", "users_executors has no Missing"),
    ],
)
def test_an_executor_of_the_users_own(tmp_path, monkeypatch, name, message):
    (tmp_path / "users_executors.py").write_text(
        "from fairtrial import InlineExecutor\nclass Mine(InlineExecutor): pass\nclass Wrong: pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert EXECUTORS.get("users_executors:Mine").__name__ == "Mine"
    with pytest.raises(StudyError, match=message):
        EXECUTORS.get(name)


def test_a_class_that_was_rewritten_is_imported_again(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "users_optimizers.py"
    text = "from fairtrial import OptimizerSettings\nclass {}(OptimizerSettings):\n    def build(self, p): ...\n"
    module.write_text(text.format("First"))
    OPTIMIZERS.get("users_optimizers:First")
    module.write_text(text.format("Another"))
    assert OPTIMIZERS.get("users_optimizers:Another").__name__ == "Another"


def test_a_folder_of_the_users_own_is_on_the_path_last_and_only_while_a_name_asks_for_it(tmp_path):
    """A chart or an executor that the command line names is in the working folder; a study's parts are beside it."""
    executor = "import sys\nfrom fairtrial import InlineExecutor\nclass Mine(InlineExecutor): path = list(sys.path)\n"
    for folder in (tmp_path, tmp_path / "studies"):
        folder.mkdir(exist_ok=True)
        (folder / f"executors_in_{folder.name}.py").write_text(executor)
    before = list(sys.path)
    working = EXECUTORS.get(f"executors_in_{tmp_path.name}:Mine")
    with names_from(tmp_path / "studies"):
        assert "inline" in EXECUTORS.names()
        assert sys.path == before
        beside = EXECUTORS.get("executors_in_studies:Mine")
    assert sys.path == before
    assert working.path == [*before, str(tmp_path)]
    assert beside.path == [*before, str(tmp_path / "studies")]
    with pytest.raises(StudyError, match="no module named"):
        EXECUTORS.get("executors_in_elsewhere:Mine")
