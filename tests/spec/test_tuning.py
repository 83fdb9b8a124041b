"""[tuning]: its keys, its errors, and that it is a part of the hash."""

import pytest

from fairtrial.errors import StudyError
from fairtrial.spec import Study, override
from fairtrial.spec.tuning import Range, Tuning

SPACE = {"optimizer": {"lr": {"log": [1e-5, 1e-1]}}}
TUNING = {"trials": 20, "space": SPACE}


def table(**changes):
    """A small study with [tuning]."""
    return {
        "name": "s",
        "reference": "a",
        "seeds": 2,
        "data": {"name": "digits", "validation": 100},
        "arms": {"a": {}, "b": {"optimizer": {"eps": 1e-6}}},
        "tuning": TUNING,
    } | changes


def test_a_study_reads_back_what_it_writes():
    space = {"optimizer": {"lr": {"linear": [0.1, 0.2]}, "betas": [[0.9, 0.99], [0.9, 0.999]]}, "training": {
        "batch_size": {"log": [16, 256], "integer": True}}}  # fmt: skip
    arms = {"b": {"optimizer": {"lr": {"log": [1e-3, 1.0]}}}}
    study = Study.from_dict(table(tuning={"trials": 5, "space": space, "arms": arms, "seeds": [200, 300]}))
    again = Study.from_toml(study.to_toml())
    assert (again, again.hash, again.untuned) == (study, study.hash, True)
    assert study.tuning.space_of("b")["optimizer.lr"] == Range(log=(1e-3, 1.0))
    assert study.tuning.space_of("a")["optimizer.betas"].values == ([0.9, 0.99], [0.9, 0.999])
    assert study.tuning.noise.listed == (200, 300)


def test_everything_about_tuning_is_a_part_of_the_hash():
    plain = Study.from_dict({key: value for key, value in table().items() if key != "tuning"})
    changes = ({}, {"trials": 21}, {"sampler": "random"}, {"sampler_seed": 1}, {"metric": "best_val_acc"},
               {"seeds": 2}, {"at_once": 1}, {"arms": {"b": {"optimizer": {"lr": {"log": [1e-3, 1.0]}}}}},
               {"space": {"optimizer": {"lr": {"log": [1e-5, 1.0]}}}})  # fmt: skip
    hashes = [Study.from_dict(table(tuning=TUNING | change)).hash for change in changes]
    assert len({plain.hash, *hashes}) == len(changes) + 1


def test_an_override_changes_a_range():
    study = Study.from_dict(override(table(), ["tuning.space.optimizer.lr.log=[1e-4, 1e-2]", "tuning.trials=3"]))
    assert (study.tuning.space["optimizer.lr"].log, study.tuning.trials) == ((1e-4, 1e-2), 3)


def test_rounds_are_sizes_that_no_number_of_workers_changes():
    def sizes(**changes):
        return list(Tuning(**TUNING | changes).rounds(changes.get("trials", 20)))

    assert sizes() == [10, 5, 5]
    assert sizes(at_once=4) == [10, 4, 4, 2]
    assert sizes(trials=7) == [7]
    assert sizes(sampler="random") == [20]
    assert sizes(sampler="qmc") == [1, 19]


def test_the_edge_is_near_an_end_in_the_ranges_own_scale():
    rate, decay = Range(log=(1e-5, 1e-1)), Range(linear=(0.0, 0.2))
    assert all(rate.at_edge(value) for value in (1e-5, 1.5e-5, 0.07, 0.1))
    assert not any(rate.at_edge(value) for value in (2e-5, 1e-2, 0.06))
    assert [decay.at_edge(value) for value in (0.0, 0.009, 0.02, 0.18, 0.195)] == [True, True, False, False, True]
    assert [Range(values=(2, 1, 3)).at_edge(value) for value in (1, 2, 3)] == [True, False, True]
    assert not Range(values=("a", "b")).at_edge("a")
    assert not Range(values=(True, False)).at_edge(True)


ERRORS = {
    "no space": ({"space": {}}, "tuning.space"),
    "no trials": ({"trials": None}, "trials: is missing; say how many each arm gets, such as 20"),
    "no range": ({"space": {"optimizer": {"lr": 0.1}}}, "optimizer.lr = 0.1: must be a list of values, {log = [1e-5"),
    "two scales": ({"space": {"optimizer": {"lr": {"log": [0.1, 1], "linear": [0.1, 1]}}}}, "must have one of log,"),
    "upside down": ({"space": {"optimizer": {"lr": {"log": [0.1, 0.01]}}}}, "the first end must be below the second"),
    "log of 0": ({"space": {"optimizer": {"lr": {"log": [0.0, 0.01]}}}}, "a logarithmic range must be above 0"),
    "the same twice": ({"space": {"optimizer": {"lr": [0.1, 0.1]}}}, "must list values that differ"),
    "fractions": ({"space": {"training": {"batch_size": {"log": [16.5, 64], "integer": True}}}}, "must be integers"),
    "unknown key": ({"space": {"optimizer": {"rate": [0.1, 0.2]}}}, "tuning.space: unknown key `rate` in [arms.a.opt"),
    "not allowed": ({"space": {"optimizer": {"eps": {"linear": [-1.0, 1.0]}}}}, "eps = -1.0: must be in [0, inf)"),
    "a name": ({"space": {"optimizer": {"name": ["adam", "sgd"]}}}, "is what arms are compared on"),
    "data": ({"space": {"data": {"train": [100, 200]}}}, "is what arms are compared on, and can't be tuned"),
    "a file": ({"space": {"model": {"weights": ["a.pt", "b.pt"]}}}, "tuning.space.model.weights: files can't be tuned"),
    "too deep": ({"space": {"optimizer": {"lr": {"deep": [1, 2]}}}}, "must be a section and a key"),
    "the arm's own": ({"space": {"optimizer": {"eps": [1e-8, 1e-6]}}}, "arms.b.optimizer.eps: is tuned, so the arm"),
    "unknown arm": ({"arms": {"c": SPACE}}, "tuning.arms.c: no arm has that name; the study has a, b"),
    "the test set": ({"metric": "final_test_acc"}, "test_acc is not of the validation split; the test set must not"),
    "both sets": ({"metric": "test_acc_at_best_val"}, "test_acc is not of the validation split"),
    "time": ({"metric": "seconds"}, "train_seconds is not of the validation split"),
    "no metrics": ({"metric": "epochs_to_target"}, "does not say which metrics it needs"),
    "no measure": ({"metric": "accuracy"}, 'tuning.metric = "accuracy"'),
    "the comparison's seeds": ({"seeds": {"first": 1, "count": 2}}, "tuning.seeds: seed 1 is one of the comparison's"),
    "seeds of A/A arms": ({"seeds": [1_000_000]}, "seed 1000000: must be below 1,000,000"),
    "a range of seeds": ({"seeds": {"min": 1, "max": 3}}, "must be a fixed number"),
    "a grid of a range": ({"sampler": "grid"}, "space.optimizer.lr: of a grid, list the values"),
    "another sampler": ({"sampler": "cmaes"}, "tuning.sampler"),
    "grids of two sizes": (
        {"sampler": "grid", "trials": None, "space": {"optimizer": {"lr": [0.1, 0.2]}},
         "arms": {"b": {"optimizer": {"lr": [0.1, 0.2, 0.3]}}}},
        "a grid with these numbers of points: a 2, b 3; every arm must have the same budget",
    ),
    "too many": ({"trials": 10_000, "seeds": 100}, "tuning: 2,000,000 tuning trials; a study has at most 1,000,000"),
    "found what no arm has": ({"found": {"a": {"optimizer.lr": 0.1}, "b": {"optimizer.lr": 0.1}}}, "but the arm has"),
    "found nothing of an arm": ({"found": {"a": {"optimizer.lr": 0.001}}}, "tuning.found.b: must have a value of each"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), ERRORS.values(), ids=ERRORS)
def test_wrong_tuning_is_an_error_that_says_what_is_allowed(changes, message):
    tuning = {key: value for key, value in (TUNING | changes).items() if value is not None}
    with pytest.raises(StudyError) as raised:
        Study.from_dict(table(tuning=tuning))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_round_of_the_test_set_is_refused_because_its_looks_do_not_count():
    plain = {key: value for key, value in table().items() if key != "tuning"}
    with pytest.raises(StudyError, match="tuning_round: final_test_acc is not of the validation split"):
        Study.from_dict(plain | {"tuning_round": 1, "evidence": {"metric": "final_test_acc"}})
    assert Study.from_dict(plain | {"tuning_round": 1, "evidence": {"metric": "final_val_acc"}}).tuning_round == 1


def test_tuning_needs_images_that_are_held_out():
    with pytest.raises(StudyError, match=r'final_val_acc": is recorded only with data.validation'):
        Study.from_dict(table(data={"name": "digits"}))
    arms = {"a": {}, "b": {"data": {"validation": 0}}}
    with pytest.raises(StudyError, match=r"tuning: b holds no images out to tune on; set data.validation"):
        Study.from_dict(table(arms=arms))


def test_an_arm_with_an_optimizer_by_path_is_tuned_as_any_other():
    arms = {"a": {}, "b": {"optimizer": {"name": "torch.optim:NAdam"}}}
    untuned = Study.from_dict(table(arms=arms)).to_dict()
    found = {"a": {"optimizer.lr": 0.01}, "b": {"optimizer.lr": 0.02}}
    for name, values in found.items():
        untuned["arms"][name].setdefault("optimizer", {})["lr"] = values["optimizer.lr"]
    study = Study.from_dict(untuned | {"tuning": untuned["tuning"] | {"found": found}})
    assert [arm.settings.optimizer.lr for arm in study.arms] == [0.01, 0.02]
    assert (study.untuned, Study.from_toml(study.to_toml())) == (False, study)
