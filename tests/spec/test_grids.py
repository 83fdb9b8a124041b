"""Grids: the arms that they make, their names and hashes, and what a wrong one is told."""

import numpy as np
import pytest

from fairtrial.errors import StudyError
from fairtrial.loading import load
from fairtrial.scheduler import plan
from fairtrial.spec import Study
from fairtrial.spec.grids import Spacing, value_text

HEAD = 'name = "x"\nreference = "default"\nseeds = 2\n[arms.default]\n'


def make(grid, head=HEAD):
    return Study.from_toml(f"{head}\n[grid]\n{grid}")


def names(study):
    return [arm.name for arm in study.arms]


def test_a_full_grid_has_every_combination_once():
    study = make("optimizer.lr = [1e-4, 1e-3]\noptimizer.eps = [1e-8, 1e-6]")
    assert {arm.name: (arm.label, arm.settings.optimizer.lr, arm.settings.optimizer.eps) for arm in study.arms} == {
        "default": ("", 1e-3, 1e-8),  # the point that this arm has already
        "lr_1e-4_eps_1e-8": ("lr = 1e-4, eps = 1e-8", 1e-4, 1e-8),
        "lr_1e-4_eps_1e-6": ("lr = 1e-4, eps = 1e-6", 1e-4, 1e-6),
        "lr_1e-3_eps_1e-6": ("lr = 1e-3, eps = 1e-6", 1e-3, 1e-6),
    }


def test_one_at_a_time_changes_the_reference_in_one_setting():
    head = HEAD + "optimizer.weight_decay = 0.1\noptimizer.betas = [0.8, 0.99]\n"
    grid = 'design = "one_at_a_time"\noptimizer.beta2 = [0.9, 0.99, 0.999]\noptimizer.lr = [1e-4, 1e-3]'
    study = make(grid, head)
    assert names(study) == ["default", "beta2_0p9", "beta2_0p999", "lr_1e-4"]
    assert {arm.settings.optimizer.weight_decay for arm in study.arms} == {0.1}
    assert [arm.settings.optimizer.betas for arm in study.arms] == [(0.8, 0.99), (0.8, 0.9), (0.8, 0.999), (0.8, 0.99)]
    assert [study.differing_keys("default", name) for name in names(study)[1:]] == [
        ("optimizer.betas",),
        ("optimizer.betas",),
        ("optimizer.lr",),
    ]


def test_a_grid_is_the_study_with_its_arms_written_out():
    study = make("optimizer.eps = { log = [1e-8, 1e-6], points = 3 }")
    by_hand = Study.from_toml(f"{HEAD}[arms.eps_1e-7]\noptimizer.eps = 1e-7\n[arms.eps_1e-6]\noptimizer.eps = 1e-6")
    assert study.hash == by_hand.hash
    assert [trial.hash for trial in plan(study)] == [trial.hash for trial in plan(by_hand)]
    again = Study.from_toml(study.to_toml())
    assert (again, again.hash) == (study, study.hash)
    assert "grid" not in study.to_dict()


def test_a_grid_that_grows_keeps_its_trials():
    small = make("optimizer.eps = { log = [1e-8, 1e-6], points = 3 }")
    large = make(
        'design = "one_at_a_time"\noptimizer.eps = { log = [1e-9, 1e-4], points = 6 }\noptimizer.lr = [1e-4, 1]'
    )
    assert {trial.hash for trial in plan(small)} < {trial.hash for trial in plan(large)}


def test_the_reference_may_be_an_arm_of_the_grid():
    study = make("optimizer.lr = [1e-4, 1e-3]", 'name = "x"\nreference = "lr_1e-3"')
    assert names(study) == ["lr_1e-4", "lr_1e-3"]


def test_values_of_any_kind_have_names():
    study = make('schedule.name = ["cosine", "constant"]\noptimizer.betas = [[0.9, 0.99], [0.9, 0.999]]')
    assert names(study)[1] == "schedule_cosine_betas_0p9_0p99"
    assert study.arms[1].label == "schedule = cosine, betas = [0.9, 0.99]"
    own = 'params.eps = [1, 2]\noptimizer.eps = [1e-8, 1e-7]\nparams."odd key" = [true, false]'
    study = make(own, HEAD.replace("seeds = 2", 'seeds = 2\ntraining.loop = "mine:train"'))
    assert names(study)[1] == "params_eps_1_odd_key_true_optimizer_eps_1e-8"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((1e-8, "1e-8"), (0.001, "1e-3"), (0.000316228, "3.16228e-4"), (0.05, "0.05"), (0.999, "0.999"), (64, "64")),
        *((1.0, "1"), (2.5e7, "2.5e7"), (0.1 + 0.2, "0.30000000000000004"), (-1e-3, "-1e-3"), (True, "true")),
    ],
)
def test_values_are_written_exactly_and_short(value, text):
    assert value_text(value) == text


@pytest.mark.parametrize(
    ("low", "high", "points"), [(1e-10, 1e-4, 7), (1e-10, 1e-4, 13), (3e-5, 0.7, 9), (1e-3, 1.0, 2)]
)
def test_values_are_spread_as_numpy_does(low, high, points):
    log = Spacing(log=(low, high), points=points).values("")
    linear = Spacing(linear=(low, high), points=points).values("")
    np.testing.assert_allclose(log, np.geomspace(low, high, points), rtol=1e-5)
    np.testing.assert_allclose(linear, np.linspace(low, high, points), rtol=1e-5)
    assert (log[0], log[-1], linear[0], linear[-1]) == (low, high, low, high)


def test_powers_of_ten_are_exact_and_integers_stay_integers():
    assert Spacing(log=(1e-10, 1e-4), points=7).values("") == [1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4]
    sizes = make("training.batch_size = { log = [16, 256], points = 5 }")
    assert [arm.settings.training.batch_size for arm in sizes.arms] == [64, 16, 32, 128, 256]


def test_an_override_changes_a_grid(tmp_path):
    (tmp_path / "mine.toml").write_text(f"{HEAD}[grid]\noptimizer.lr = [1e-4, 1e-3]")
    assert names(load(tmp_path / "mine.toml", ["grid.optimizer.lr=[1e-2, 1e-3]"])) == ["default", "lr_0p01"]


def test_a_grid_in_python_is_that_of_a_file():
    grid = {"optimizer": {"lr": [1e-4, 1e-3]}}
    study = Study(name="x", reference="default", seeds=2, arms={"default": {}}, grid=grid)
    assert study == make("optimizer.lr = [1e-4, 1e-3]")


POINTS = "a list of two values or more, or a table such as {log = [1e-10, 1e-4], points = 7}"
WRONG = {
    "optimizer.lrr = [1, 2]": "unknown key `lrr` in [grid.optimizer]: did you mean `lr`?",
    "optimzer.lr = [1, 2]": "unknown key `optimzer` in [grid]: did you mean `optimizer`?",
    "optimizer.lr = [-1.0, 2.0]": "grid.optimizer.lr = -1.0: must be in (0, inf)",
    "optimizer.lr = 3": f"grid.optimizer.lr = 3: must be {POINTS}",
    "optimizer.lr = [3]": f"grid.optimizer.lr = [3]: must be {POINTS}",
    "optimizer.lr = [0.1, 1e-1]": "grid.optimizer.lr = [0.1, 0.1]: has 0.1 twice",
    "optimizer = [1, 2]": "grid.optimizer = [1, 2]: must be a table of settings with their values",
    "": "grid: names no setting; write one below [grid], such as optimizer.lr = [1e-4, 1e-3]",
    'design = "some"': 'grid.design = "some": must be "full" or "one_at_a_time"',
    "design = [1]": 'grid.design = [1]: must be "full" or "one_at_a_time"',
    "optimizer.lr = { points = 3 }": "grid.optimizer.lr: needs either log or linear, such as {log = [1e-10, 1e-4], ",
    "optimizer.lr = { log = [0, 1], points = 3 }": "lr.log = [0, 1]: must be the lower and the upper end",
    "optimizer.lr = { linear = [1, nan], points = 3 }": "grid.optimizer.lr.linear[1] = nan: must be a finite number",
    "optimizer.lr = { log = [1e-3, 1], points = 1_000_000_000 }": "grid.optimizer.lr.points = 1000000000: must be in",
    "training.epochs = { linear = [1, 3], points = 7 }": "grid.training.epochs.points = 7: there are not so many "
    "integers between the ends",
    "optimizer.lr = { log = [1e-3, 1], points = 99 }\noptimizer.eps = { log = [1e-3, 1], points = 99 }": "grid: makes "
    "9,801 arms; at most 1,000 are allowed",
    'data.path = ["a", "b"]': "grid.data.path: can't be in a grid; write an arm for each, such as [arms.mine]",
    'optimizer = { name = ["sgd", "rmsprop"], beta2 = [0.9, 0.99] }': "grid.optimizer.beta2: sgd has no betas",
    f'params.a = ["{"x" * 150}", "y"]': "can't be named",
    'params.a = ["x y", "x_y"]': "grid: two of its arms would be called a_x_y; write them as arms of their own",
}


@pytest.mark.parametrize("grid", WRONG)
def test_a_wrong_grid_is_told_what_is_allowed(grid):
    head = HEAD.replace("seeds = 2", 'seeds = 2\ntraining.loop = "mine:train"') if "params" in grid else HEAD
    with pytest.raises(StudyError) as error:
        make(grid, head)
    assert WRONG[grid] in str(error.value)
    assert "\n" not in str(error.value)


def test_errors_of_the_study_itself_are_not_blamed_on_the_grid():
    with pytest.raises(StudyError, match=r"^optimizer\.lr = -1\.0: must be"):
        make("optimizer.eps = [1e-8, 1e-7]", HEAD + "[optimizer]\nlr = -1.0\n")
    with pytest.raises(StudyError, match=r"^arms\.default\.optimizer\.lr = -1\.0: must be"):
        make("optimizer.eps = [1e-8, 1e-7]", HEAD + "optimizer.lr = -1.0\n")
    with pytest.raises(StudyError, match=r"^arms\.a = 3: must be a table"):
        make("optimizer.eps = [1e-8, 1e-7]", 'name = "x"\nreference = "a"\narms.a = 3\n')
    with pytest.raises(StudyError, match=r"^grid = 3: must be a table"):
        Study.from_toml(f"grid = 3\n{HEAD}")


def test_a_reference_that_is_not_there_or_an_arm_of_another_meaning():
    with pytest.raises(StudyError, match=r'reference must be an arm of its own.*reference = "default" is none'):
        make('design = "one_at_a_time"\noptimizer.lr = [1e-4, 1e-3]', 'name = "x"\nreference = "default"')
    with pytest.raises(StudyError, match=r'reference = "lr_1e3": no arm has that name; did you mean `lr_1e-3`\?'):
        make("optimizer.lr = [1e-4, 1e-3]", 'name = "x"\nreference = "lr_1e3"')
    with pytest.raises(StudyError, match=r"arms\.lr_1e-4: the grid makes an arm of that name with other settings"):
        make("optimizer.lr = [1e-4, 1e-3]", f"{HEAD}[arms.lr_1e-4]\noptimizer.lr = 0.5")


def test_a_grid_can_not_have_both_the_betas_and_one_of_them():
    grid = {"optimizer": {"betas": [[0.9, 0.99], [0.9, 0.999]], "beta1": [0.8, 0.9]}}
    with pytest.raises(StudyError, match=r"grid\.optimizer: has betas as well as beta1, which is one of them"):
        Study.from_dict({"name": "s", "reference": "default", "arms": {"default": {}}, "grid": grid})
