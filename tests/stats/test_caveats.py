"""What stands beside every verdict: only what was really held fixed, the learning rate first."""

import pytest

import fairtrial
from builders import make_results, make_study
from fairtrial.spec.labels import under_labels
from fairtrial.stats.alerts import alerts
from fairtrial.stats.caveats import held_fixed, of_metric, of_records
from fairtrial.stats.comparison import compare
from fairtrial.stats.paired import PairedData
from fairtrial.stats.tuned import tuning_alerts


def test_the_learning_rate_comes_first():
    rate, rest = held_fixed(fairtrial.load("quick"))
    assert rate == "The learning rate was 0.001 for every arm; with a rate tuned for each arm, verdicts could differ."
    assert rest == (
        "Also the same for every arm: 2 epochs, batch size 64, a constant schedule, 5,000 training and 1,000 test "
        "images of cifar10, mobilenet_v2 with stock stem."
    )


@pytest.mark.parametrize(
    ("change", "gone"),
    [
        ({"optimizer": {"lr": 0.01}}, "learning rate"),
        ({"training": {"epochs": 9}}, "epochs"),
        ({"training": {"batch_size": 32}}, "batch size"),
        ({"schedule": {"name": "cosine"}}, "schedule"),
        ({"data": {"train": 100}}, "cifar10"),
        ({"model": {"width": 0.5}}, "mobilenet"),
    ],
)
def test_what_an_arm_changes_was_not_held_fixed(change, gone):
    assert gone in " ".join(held_fixed(make_study({"a": {}, "b": {"optimizer": {"eps": 1e-4}}})))
    assert gone not in " ".join(held_fixed(make_study({"a": {}, "b": change})))


def test_of_a_users_loop_only_what_it_is_known_to_use():
    loop = {"loop": "loops:good"}
    assert held_fixed(make_study({"a": {}, "b": {"params": {"x": 1}}}, training=loop)) == (
        "The same for every arm: 4 epochs.",
    )
    betas = make_study({"a": {}, "b": {"optimizer": {"betas": [0.9, 0.9]}}}, training=loop)
    assert held_fixed(betas)[0].startswith("The learning rate was 0.001")
    own = make_study({"a": {}, "b": {"params": {"x": 1}}}, training=loop, params={"lr": 0.5})
    assert held_fixed(own)[0].startswith("The learning rate was 0.5 ")


def test_trials_that_ended_early_are_named_and_no_number_of_epochs_was_the_same_for_all():
    study = make_study({"a": {}, "b": {"params": {"x": 1}}}, seeds=3, training={"loop": "loops:good"})
    whole = make_results(study)
    assert "4 epochs" in " ".join(held_fixed(study, whole))
    early = make_results(study, epochs={("b", 0): 2, ("b", 1): 3, ("b", 2): 2})
    assert "epoch" not in " ".join(held_fixed(study, early))
    (said,) = [line for line in compare(study, early).alerts if "early" in line]
    assert said.startswith("Trials ended early: b after 2 to 3 of 4 epochs at seeds 0, 1 and 2. Final values")
    assert not [line for line in compare(study, whole).alerts if "early" in line]
    # A loop that records once a trial, whatever its number of epochs, treats all alike.
    once = make_results(study, epochs={(arm, seed): 1 for arm in "ab" for seed in range(3)})
    assert "The same for every arm: 1 epoch." in held_fixed(study, once)
    assert not [line for line in compare(study, once).alerts if "early" in line]


def test_what_was_selected_on_the_test_set_is_called_optimistic():
    assert "optimistic" in of_metric("best_test_acc")[0]
    assert "understated" in of_metric("generalisation_gap")[0]
    assert of_metric("final_test_acc") == of_metric("best_train_acc") == ()


def test_a_source_of_noise_that_was_held_fixed_is_named():
    study = make_study(("a", "b"), noise={"initial_weights": 1})
    found = PairedData.of(study, make_results(study), "best_test_acc", None)
    assert list(of_records(study, found)) == [
        "All seeds share one set of initial weights: the verdicts hold for that one only."
    ]


def test_trials_without_the_metric_are_named():
    study = make_study(("a", "b"), seeds=3)
    curve = lambda arm, seed, epoch: {"test_acc": 0.5} if arm == "a" else {"speed": 1.0}  # noqa: E731
    found = PairedData.of(study, make_results(study, curve, skip={("b", 0)}), "best_test_acc", None)
    assert list(of_records(study, found)) == ["Finished without reporting this metric: b seed 1, b seed 2."]


TUNED = {
    "trials": 20,
    "space": {"optimizer": {"lr": {"log": [1e-5, 1e-1]}}},
    "of": "0" * 64,
    "found": {"a": {"optimizer.lr": 0.002}, "b": {"optimizer.lr": 0.09}},
    "lost": {"b": 3},
}
ARMS = {"a": {"optimizer": {"lr": 0.002}}, "b": {"optimizer": {"lr": 0.09, "eps": 1e-4}, "label": "B, tuned"}}


def test_of_tuned_arms_it_is_said_to_what_and_on_what_budget():
    tuned, also = held_fixed(make_study(ARMS, data={"validation": 500}, tuning=TUNED))
    assert tuned == (
        "Each arm was tuned by final_val_acc, on the validation split: 20 values of each (tpe), at 1 seed that the "
        "comparison does not use. a to optimizer.lr = 0.002; b to optimizer.lr = 0.09. 3 of the 20 of b gave no "
        "number, for they diverged or failed, and counted as the worst."
    )
    assert also.startswith("Also the same for every arm: 4 epochs")


def test_a_rate_that_was_not_tuned_is_still_the_same_for_every_arm():
    space = {"optimizer": {"weight_decay": [0.0, 0.1]}}
    found = {name: {"optimizer.weight_decay": 0.0} for name in ("a", "b")}
    arms = {"a": {}, "b": {"optimizer": {"eps": 1e-4}}}
    study = make_study(arms, data={"validation": 500}, tuning={"trials": 2, "space": space, "found": found})
    assert held_fixed(study)[1].startswith("The learning rate was 0.001 for every arm")


def test_the_edge_of_a_range_is_said_before_all_verdicts_under_the_labels_of_arms():
    study = make_study(ARMS, data={"validation": 500}, tuning=TUNED)
    [said] = tuning_alerts(under_labels(study))
    assert said == (
        "B, tuned: the best optimizer.lr, 0.09, is at the edge of what was tried (1e-05 to 0.1): a wider range may "
        "have a better one, and change its verdict."
    )
    mixed = make_study(ARMS, data={"validation": 500}, tuning=TUNED | {"mixed": ["torch"]})
    assert "ran under other conditions than others (torch)" in next(tuning_alerts(mixed))
    assert said.replace("B, tuned", "b") in alerts(study, ())
    assert not [*tuning_alerts(make_study({"a": {}, "b": {"optimizer": {"eps": 1e-4}}}))]
