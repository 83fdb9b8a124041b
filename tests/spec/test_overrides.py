"""Tables: overrides from the command line, and TOML as the standard library reads it."""

import tomllib

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

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


assignments = st.dictionaries(
    st.sampled_from(["optimizer", "arms.a.optimizer", "arms.b.optimizer"]).flatmap(
        lambda where: st.sampled_from([f"{where}.lr", f"{where}.weight_decay"])
    ),
    st.floats(1e-12, 10).map(repr),
    max_size=4,
).map(lambda chosen: [f"{key}={value}" for key, value in chosen.items()])
others = st.lists(st.sampled_from(["seeds=4", "seeds.max=9", "training.epochs=2", "data.name=digits", "name=t-1"]))


@given(assignments, others)
def test_an_overridden_study_survives_toml(chosen, more):
    """And one override after another is all of them at once."""
    study = Study.from_dict(override(table(), [*chosen, *more]))
    again = Study.from_toml(study.to_toml())
    assert (again, again.hash) == (study, study.hash)
    step_by_step = table()
    for assignment in [*chosen, *more]:
        step_by_step = override(step_by_step, [assignment])
    assert Study.from_dict(step_by_step).hash == study.hash


@given(st.floats(allow_nan=False) | st.integers() | st.booleans() | st.text(st.characters(codec="ascii")))
def test_override_reads_any_value_that_toml_can_write(value):
    text = tomli_w.dumps({"value": value}).removeprefix("value = ")
    assert override({}, [f"params.x={text}"]) == {"params": {"x": value}}


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("seeds", "--set seeds: must be KEY=VALUE, for example training.epochs=3"),
        ("=3", "--set =3: must be KEY=VALUE, for example training.epochs=3"),
        ("a..b=3", "--set a..b=3: must be KEY=VALUE, for example training.epochs=3"),
        ("name.x=3", "--set name: is not a table, so it has no keys to set"),
    ],
)
def test_a_bad_override_is_named(assignment, message):
    with pytest.raises(StudyError) as caught:
        override(table(), [assignment])
    assert str(caught.value) == message


def test_parse_toml_is_the_standard_librarys():
    text = 'a = 1e-8\nb.c = "x"'
    assert parse_toml(text) == tomllib.loads(text)
