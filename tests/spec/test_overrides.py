"""Tables: overrides from the command line, and TOML as the standard library reads it."""

import re
import tomllib

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from fairtrial.errors import StudyError
from fairtrial.spec import Noise, Study, Target, override, parse_toml
from fairtrial.spec.messages import brief
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


numbers = st.floats(allow_nan=False) | st.integers(-(2**63), 2**63 - 1) | st.booleans()
texts = st.text(st.characters(codec="ascii", exclude_characters="\0"))


@given(numbers | texts)
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
        ("arms.bb.optimizer.lr=1", "--set arms.bb.optimizer.lr: no arm is named bb; did you mean `b`?"),
        ("arms.zzz={}", "--set arms.zzz: no arm is named zzz; known: `a`, `b`"),
        ("params.x=False", "--set params.x=False: write false, or '\"False\"' for text"),
        ("params.x=.003", "--set params.x=.003: write 0.003, or '\".003\"' for text"),
        (
            "params.x=None",
            "--set params.x=None: leave the key out, for TOML has no null, or '\"None\"' for text",
        ),
        (
            "params.x=[true, x]",
            "--set params.x=[true, x]: the value is not valid TOML; quote text as '\"...\"'",
        ),
        (
            f"params.x={'9' * 4301}",
            f"--set {brief('params.x=' + '9' * 4301)}: an integer of more than 4,300 digits",
        ),
    ],
)
def test_a_bad_override_is_named(assignment, message):
    with pytest.raises(StudyError) as caught:
        override(table(), [assignment])
    assert str(caught.value) == message


SPELT = {
    "True": "true",
    "FALSE": "false",
    ".003": "0.003",
    "1.": "1.0",
    "+.5": "0.5",
    "-.5": "-0.5",
    "2.e3": "2000.0",
    "007": "7",
    "0X1F": "31",
    "NaN": "nan",
    "-Inf": "-inf",
    "(0.9, 0.99)": "[0.9, 0.99]",
    "[.9, True]": "[0.9, true]",
}


@pytest.mark.parametrize(("spelt", "toml"), SPELT.items())
def test_a_value_in_the_spelling_of_another_language_is_no_text(spelt, toml):
    assert repr(tomllib.loads(f"x = {toml}")["x"]) == repr(override({}, [f"params.x={toml}"])["params"]["x"])
    with pytest.raises(StudyError, match=rf"write {re.escape(toml)}, or '"):
        override(table(), [f"params.x={spelt}"])


@pytest.mark.parametrize("text", ["adam", "1-2", "10%", "a b", "b'x'", "1j", "True story", "cosine.v2", "x=(1, 2)", ""])
def test_other_text_stays_text(text):
    assert override({}, [f"params.x={text}"]) == {"params": {"x": text}}


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63 - 1) | st.booleans())
def test_every_value_of_python_is_read_or_told_how(value):
    for spelt in (repr(value), str(value), repr(value).replace("0.", ".", 1), repr(value).upper()):
        try:
            read = override({}, [f"params.x={spelt}"])["params"]["x"]
        except StudyError as error:
            read = tomllib.loads(f"x = {re.search('write (.+), or', str(error))[1]}")["x"]
        assert not isinstance(read, str)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("a = 1\n[optimizer]\nlr = .003 # False", "(at line 3, column 6); in place of .003 write 0.003"),
        ("x = False", "(at line 1, column 5); in place of False write false"),
        ("betas = [.9, 0.5]", "(at line 1, column 10); in place of .9 write 0.9"),
        ("x = 1.", "(at line 1, column 6); in place of 1. write 1.0"),
        ("x = None", "(at line 1, column 5); in place of None leave the key out, for TOML has no null"),
        ("x = adam", "(at line 1, column 5)"),
    ],
)
def test_a_misspelt_value_of_a_file_is_told_how(text, hint):
    with pytest.raises(StudyError) as caught:
        parse_toml(text)
    assert str(caught.value).endswith(hint)


def test_parse_toml_is_the_standard_librarys():
    text = 'a = 1e-8\nb.c = "x"'
    assert parse_toml(text) == tomllib.loads(text)
