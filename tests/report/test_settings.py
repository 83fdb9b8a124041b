"""Which settings make a column, and how they are written."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import PAPER_ARMS, make_study
from fairtrial.report.settings import adam_columns, differing_columns, write
from fairtrial.stats.summary import summarize
from fairtrial.testing import simulated_results, simulated_study


def differing(arms, **sections):
    summary = summarize(make_study(arms, **sections), [])
    return {column.title: column.cells for column in differing_columns(summary)}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-8, "1e-8"),
        (1e-10, "1e-10"),
        (2.5e-6, "2.5e-6"),
        (1e16, "1e16"),
        (0.99999999, "0.99999999"),
        (0.0, "0"),
        (1.0, "1"),
        (64, "64"),
        (True, "true"),
        ([5, 8], "[5, 8]"),
        ("cosine", "cosine"),
    ],
)
def test_written_short_and_exact(value, text):
    assert write(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_written_float_reads_back(value):
    assert float(write(value)) == pytest.approx(value, rel=1e-12, abs=0.0)


def test_the_papers_arms_differ_in_adams_settings_alone():
    summary = summarize(make_study(PAPER_ARMS), [])
    assert differing_columns(summary) == ()
    assert [column.cells for column in adam_columns(summary)] == [
        ("0.9", "0.95", "0.9", "0.9", "0.99"),
        ("0.999", "0.999", "0.99", "0.999", "0.9999"),
        ("1e-8", "1e-8", "1e-8", "1e-6", "1e-7"),
    ]


def test_what_differs_makes_a_column_and_nothing_else_does():
    arms = {"a": {}, "b": {"optimizer": {"lr": 0.01}}, "c": {"training": {"batch_size": 128}}}
    assert differing(arms) == {"lr": ("0.001", "0.01", "0.001"), "batch_size": ("64", "64", "128")}


def test_another_optimizer_shows_what_was_chosen_not_its_defaults():
    arms = {"adam": {}, "sgd": {"optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9}}}
    assert differing(arms) == {"optimizer": ("adam", "sgd"), "lr": ("0.001", "0.1"), "momentum": ("-", "0.9")}
    assert [column.cells[1] for column in adam_columns(summarize(make_study(arms), []))] == ["-", "-", "-"]


def test_another_schedule():
    arms = {"a": {}, "b": {"schedule": {"name": "step", "milestones": [2, 3]}}, "c": {"schedule": {"name": "cosine"}}}
    assert differing(arms) == {"schedule": ("constant", "step", "cosine"), "milestones": ("-", "[2, 3]", "-")}


def test_the_size_of_the_data_names_its_section_and_all_of_it_is_called_all():
    assert differing({"a": {}, "b": {"data": {"train": 5000}}}) == {"data.train": ("all", "5000")}


def test_weights_are_told_by_the_head_of_their_digest():
    arms = {"a": {}, "b": {"model": {"weights": "w.pt", "weights_sha256": "12345678" + "0" * 56}}}
    assert differing(arms) == {"weights": ("-", "12345678")}


def test_data_files_are_told_by_the_head_of_their_digest(tmp_path):
    arms = {}
    for arm in ("a", "b"):
        (tmp_path / f"{arm}.npz").write_text(arm)
        arms[arm] = {"data": {"name": "npz", "path": str(tmp_path / f"{arm}.npz")}}
    assert [len(cell) for cell in differing(arms)["data.path_sha256"]] == [8, 8]


def test_a_users_own_setting_that_is_called_like_another_names_its_place():
    summary = summarize(make_study({"a": {}, "b": {"optimizer": {"lr": 0.01}}}), [])
    own = [{"lr": 1, "name": "x"}, {"lr": 2, "name": "y"}]
    arms = tuple(
        replace(arm, settings={**arm.settings, "params": params}) for arm, params in zip(summary.arms, own, strict=True)
    )
    titles = [column.title for column in differing_columns(replace(summary, arms=arms))]
    assert titles == ["optimizer.lr", "params.lr", "name"]


OWN_LOOP = {"training": {"loop": "mine:train"}}


def test_adams_settings_are_none_of_a_loop_that_may_use_another_optimizer():
    summary = summarize(make_study({"a": {}, "b": {"params": {"x": 1}}}, **OWN_LOOP), [])
    assert [column.values for column in adam_columns(summary)] == [(None, None)] * 3


def test_adams_settings_are_shown_of_a_loop_whose_arms_differ_in_them_and_of_those_arms_alone():
    arms = {"a": {}, "b": {"optimizer": {"betas": [0.8, 0.9]}}, "c": {"optimizer": {"name": "sgd", "lr": 0.1}}}
    summary = summarize(make_study(arms, **OWN_LOOP), [])
    assert [column.cells for column in adam_columns(summary)] == [
        ("0.9", "0.8", "-"),
        ("0.999", "0.9", "-"),
        ("1e-8", "1e-8", "-"),
    ]


def test_three_betas_are_no_epsilon_and_any_key_of_a_function_has_a_column(tmp_path, monkeypatch):
    (tmp_path / "users_of_settings.py").write_text(
        "import torch\n"
        "def three(params, lr=1e-3, betas=(0.9, 0.99, 0.999), eps=1e-6, etas=(0.5, 1.2), **more):\n"
        "    return torch.optim.SGD(params, lr=lr)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    name = "users_of_settings:three"
    arms = {
        "a": {},
        "b": {"optimizer": {"name": name}},
        "c": {"optimizer": {"name": name, "betas": [0.8, 0.9, 0.7], "more": 2}},
    }
    summary = summarize(make_study(arms), [])
    assert [column.cells for column in adam_columns(summary)] == [
        ("0.9", "-", "-"),
        ("0.999", "-", "-"),
        ("1e-8", "1e-6", "1e-6"),
    ]
    assert differing(arms) == {
        "optimizer": ("adam", name, name),
        "betas": ("-", "[0.9, 0.99, 0.999]", "[0.8, 0.9, 0.7]"),
        "more": ("-", "-", "2"),
    }


def test_what_a_computation_left_beside_a_short_number_is_not_shown():
    assert write(3 * 0.003) == "0.009"
    assert write(0.1 + 0.2) == "0.3"
    assert write([0.1 + 0.2, 1e-8]) == "[0.3, 1e-8]"
    assert float(write(1 / 3)) == 1 / 3


def test_numbers_that_would_read_the_same_and_are_not_have_all_their_digits():
    arms = {name: {"optimizer": {"lr": lr}} for name, lr in (("a", 0.3), ("b", 0.1 + 0.2), ("c", 0.7))}
    assert differing(arms) == {"lr": ("0.3", "0.30000000000000004", "0.7")}


def test_an_argument_that_repeats_the_arms_names_has_no_column():
    study = simulated_study({"a": {}, "b": {"mean": 0.9}}, seeds=2)
    columns = differing_columns(summarize(study, simulated_results(study)))
    assert [column.key for column in columns] == ["params.mean"]
