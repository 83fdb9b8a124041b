"""Tables: overrides from the command line, and TOML as the standard library reads it."""

import tomllib

import pytest

from fairtrial.errors import StudyError
from fairtrial.spec import Noise, Study, Target, override, parse_toml
from fairtrial.training.optimizers.adam import Adam
from fairtrial.training.schedules.cosine import Cosine


def table(**changes):
    """A small valid study; keywords replace top-level keys."""
    base = {"name": "s", "reference": "a", "seeds": 2, "arms": {"a": {}, "b": {"optimizer": {"eps": 1e-6}}}}
    return base | changes


def test_override_reads_values_as_toml():
    changed = override(table(), ["training.epochs=3", "optimizer.betas=[0.5, 0.6]", "arms.b.optimizer.eps=1e-5"])
    study = Study.from_dict(override(changed, ["data.name=digits", "seeds = 7"]))
    assert study.settings.training.epochs == 3
    assert study.arm("b").settings.optimizer == Adam(betas=(0.5, 0.6), eps=1e-5)
    assert (study.settings.data.name, study.seeds) == ("digits", 7)


def test_override_leaves_its_input_alone():
    before = table(training={"epochs": 1})
    override(before, ["training.epochs=3", "arms.b.optimizer.eps=1"])
    assert before == table(training={"epochs": 1})


@pytest.mark.parametrize(
    ("seeds", "assignments", "expected"),
    [
        (2, ["seeds=5"], (5, 5)),
        (2, ["seeds.max=5"], (2, 5)),
        (None, ["seeds.max=5"], (1, 5)),
        (2, ["seeds.min=3", "seeds.max=12"], (3, 12)),
        (2, ["seeds={min=3, max=12}"], (3, 12)),
        ({"min": 3, "max": 12}, ["seeds.max=5"], (3, 5)),
        ({"min": 3, "max": 12}, ["seeds=5"], (5, 5)),
    ],
)
def test_override_of_seeds(seeds, assignments, expected):
    before = table() if seeds is None else table(seeds=seeds)
    if seeds is None:
        del before["seeds"]
    study = Study.from_dict(override(before, assignments))
    assert (study.min_seeds, study.seeds) == expected


def test_override_of_what_is_asked():
    study = Study.from_dict(
        override(
            table(),
            [
                "evidence.margin=0.005",
                "evidence.target.metric=test_acc",
                "evidence.target.value=0.6",
                "noise.batch_orders=1",
            ],
        )
    )
    assert study.evidence.margin == 0.005
    assert study.evidence.target == Target(metric="test_acc", value=0.6)
    assert study.noise == Noise(batch_orders=1)


def test_override_can_change_the_kind():
    study = Study.from_dict(override(table(schedule={"name": "step", "milestones": [1]}), ["schedule.name=cosine"]))
    assert study.settings.schedule == Cosine()


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("seeds", "--set seeds: must be KEY=VALUE, for example training.epochs=3"),
        ("=3", "--set =3: must be KEY=VALUE, for example training.epochs=3"),
        ("a..b=3", "--set a..b=3: must be KEY=VALUE, for example training.epochs=3"),
        ("name.x=3", "--set name: is no table, so nothing can be set below it"),
    ],
)
def test_a_bad_override_is_named(assignment, message):
    with pytest.raises(StudyError) as caught:
        override(table(), [assignment])
    assert str(caught.value) == message


def test_parse_toml_is_the_standard_librarys():
    text = 'a = 1e-8\nb.c = "x"'
    assert parse_toml(text) == tomllib.loads(text)
