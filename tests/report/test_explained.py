"""Explanations as people and programs read them."""

import json

from fairtrial.explain import explain
from fairtrial.loading import load
from fairtrial.report.explained import explanation_json, explanation_text
from fairtrial.spec import Study


def text_of(study, width=80):
    return explanation_text(study, explain(study), width)


def test_the_text_has_horizons_corrections_and_both_conventions():
    lines = text_of(load("paper")).splitlines()
    assert lines[:3] == ["paper@d4b45a5e", "", "baseline"]
    assert "  beta1 = 0.9: average of gradients, over about 10 steps; full after 44 steps" in lines
    assert "      782          1.000    1.843           1e-8    7.37e-9" in lines
    joined = " ".join(" ".join(lines).split())
    assert "as Keras would read this number, it is torch's 3.16e-7 at step 1 and 1e-8 at step 7,820" in joined
    assert "full after 46,050 steps (58.9 epochs), after the end of this training" in joined
    assert max(map(len, lines)) <= 80


def test_every_schedule_of_arms_with_one_optimizer_has_its_line():
    text = " ".join(text_of(load("schedules")).split())
    assert "learning rate of constant (constant): 0.001 throughout" in text
    assert "learning rate of onecycle (onecycle): 4e-5 at step 1, 0.001 at step 2,346, 4e-9 at the last" in text


def test_what_is_tuned_is_said_to_be_as_written():
    table = {"validation": 200, "name": "digits", "train": 300, "test": 200}
    arms = {"adam": {}, "sgd": {"optimizer": {"name": "sgd"}}}
    space = {"optimizer.lr": {"log": [1e-5, 1e-1]}}
    study = Study.from_dict(
        {
            "name": "tuned",
            "reference": "adam",
            "seeds": 2,
            "data": table,
            "arms": arms,
            "tuning": {"trials": 2, "space": space},
        }
    )
    said = "As written, before tuning: each arm will be compared with its best optimizer.lr."
    assert said in " ".join(text_of(study).split())
    assert "before tuning" not in text_of(load("paper"))


def test_what_is_no_adam_has_no_epsilon_of_another_convention():
    arms = {"a": {"optimizer": {"name": "sgd", "momentum": 0.9}, "schedule": {"name": "plateau"}}}
    text = text_of(Study(name="s", reference="a", arms=arms))
    assert "momentum = 0.9: steps add up over about 10 steps, steady ones to 10 times one" in text
    assert "0.01 throughout, lower once train_loss stops" in text
    assert "Keras" not in text


def test_a_schedule_that_tells_nothing_beforehand_is_said_to():
    schedule = {"name": "torch.optim.lr_scheduler:CosineAnnealingWarmRestarts", "T_0": 2}
    text = text_of(Study(name="s", reference="a", arms={"a": {}, "b": {"schedule": schedule}}))
    assert "learning rate of a (constant): 0.001 throughout" in text
    assert "learning rate of b: its scheduler tells only as it is stepped" in text


def test_no_text_of_a_study_can_break_a_line():
    mine = {"loop": "fairtrial.testing:simulate"}
    schedule = {"name": "plateau", "metric": "a\nb\x1b[31m"}
    study = Study(name="s", reference="a", arms={"a": {}}, training=mine, schedule=schedule)
    text = explanation_text(study, explain(study, 10))
    assert "\x1b" not in text
    assert "a\\nb" in text


def test_json_is_for_programs():
    study = load("schedules-adam")
    table = json.loads(explanation_json(study, explain(study)))
    assert table["hash"] == study.hash
    first = table["explanations"][0]
    assert first["arms"] == ["baseline", "constant"]
    assert first["optimizer"]["eps"] == 1e-8
    assert [step["step"] for step in first["adam"]] == [1, 10, 100, 782, 7820]
    assert first["averages"][1]["horizon"] == 1000
    assert [rates["schedule"]["name"] for rates in first["learning_rates"]] == ["cosine", "constant"]
