"""What stands beside every verdict: only what was really held fixed, the learning rate first."""

import pytest

import fairtrial
from builders import make_results, make_study
from fairtrial.stats.caveats import held_fixed, of_metric, of_records
from fairtrial.stats.comparison import compare
from fairtrial.stats.paired import PairedData


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
