"""Losses and metrics of a task, against plain NumPy and scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_absolute_error, r2_score

from fairtrial.errors import StudyError
from fairtrial.spec import Study
from fairtrial.training.losses import ClassAccumulator, Objective

CPU = torch.device("cpu")


def softmax_losses(logits, shares):
    """Cross entropies of rows in float64."""
    logits = logits.double().numpy()
    log_softmax = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return -(shares * log_softmax).sum(1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_with_label_smoothing(smoothing):
    logits, labels = torch.randn(7, 4, generator=torch.manual_seed(0)), torch.tensor([0, 1, 2, 3, 3, 1, 0])
    shares = (1 - smoothing) * np.eye(4)[labels] + smoothing / 4
    objective = Objective(label_smoothing=smoothing)
    assert objective.loss(logits, labels).item() == pytest.approx(softmax_losses(logits, shares).mean(), rel=1e-6)
    assert objective.plain.loss(logits, labels).item() == pytest.approx(
        softmax_losses(logits, np.eye(4)[labels]).mean(), rel=1e-6
    )


def test_shares_of_classes_where_images_were_mixed():
    logits = torch.randn(5, 3, generator=torch.manual_seed(0))
    first, second = torch.tensor([0, 1, 2, 0, 1]), torch.tensor([1, 1, 0, 2, 2])
    shares = 0.7 * torch.eye(3)[first] + 0.3 * torch.eye(3)[second]
    loss = Objective().loss(logits, shares)
    assert loss.item() == pytest.approx(softmax_losses(logits, shares.numpy()).mean(), rel=1e-6)
    tally = Objective().accumulator(CPU)
    tally.add(loss, logits, shares)
    predicted = logits.argmax(1)
    expected = 0.7 * (predicted == first).float().mean() + 0.3 * (predicted == second).float().mean()
    assert tally.read("train")["train_acc"] == pytest.approx(expected.item(), rel=1e-6)


def test_a_tally_weighs_batches_by_their_images():
    tally = ClassAccumulator.empty(CPU)
    tally.add(torch.tensor(1.0), torch.tensor([[1.0, 0.0]] * 3), torch.tensor([0, 0, 1]))
    tally.add(torch.tensor(3.0), torch.tensor([[1.0, 0.0]]), torch.tensor([1]))
    assert tally.read("train") == {"train_loss": 1.5, "train_acc": 0.5}


@pytest.mark.parametrize("targets", [1, 3])
def test_regression_against_scikit_learn(targets):
    random = np.random.default_rng(0)
    labels = random.normal(5, 2, (50, targets)).astype(np.float32)
    outputs = (labels + random.normal(0, 1, labels.shape)).astype(np.float32)
    objective = Objective(regression=True)
    tally = objective.accumulator(CPU)
    for rows in (slice(0, 32), slice(32, 50)):
        batch = torch.from_numpy(outputs[rows]), torch.from_numpy(labels[rows])
        tally.add(objective.loss(*batch), *batch)
    assert tally.read("test") == {
        "test_loss": pytest.approx(np.square(outputs - labels).mean(), rel=1e-6),
        "test_mae": pytest.approx(mean_absolute_error(labels, outputs), rel=1e-6),
        "test_r2": pytest.approx(r2_score(labels, outputs), rel=1e-6),
    }


def test_a_constant_target_has_no_r2():
    tally = Objective(regression=True).accumulator(CPU)
    tally.add(torch.tensor(1.0), torch.zeros(4, 1), torch.ones(4, 1))
    assert tally.read("train") == {"train_loss": 1.0, "train_mae": 1.0, "train_r2": 0.0}


def test_outputs_of_another_shape_are_not_broadcast():
    objective, labels = Objective(regression=True), torch.zeros(4, 1)
    assert objective.loss(torch.ones(4), labels).item() == 1
    with pytest.raises(StudyError, match=r"^model: its outputs have shape \(4, 10\); they must be \(4, 1\)$"):
        objective.loss(torch.ones(4, 10), labels)


@pytest.mark.parametrize("objective", [Objective(), Objective(regression=True)])
def test_a_tally_goes_on_from_its_state(objective):
    batch = torch.randn(6, 3), torch.randn(6, 3) if objective.regression else torch.arange(6) % 3
    tally, other = objective.accumulator(CPU), objective.accumulator(CPU)
    tally.add(objective.loss(*batch), *batch)
    other.load_state_dict(tally.state_dict())
    for one in (tally, other):
        one.add(objective.loss(*batch), *batch)
    assert tally.read("x") == other.read("x")
    assert tally.images == 12


def test_the_recorded_loss_is_without_label_smoothing():
    outputs, labels = torch.linspace(-2, 3, 15).reshape(3, 5), torch.tensor([4, 4, 2])
    smoothed = Objective(label_smoothing=0.2)
    loss = smoothed.loss(outputs, labels)
    recorded = smoothed.recorded(loss, outputs, labels)
    assert recorded.item() == pytest.approx(softmax_losses(outputs, np.eye(5)[labels]).mean(), rel=1e-6)
    assert recorded != loss
    assert Objective().recorded(loss, outputs, labels) is loss


def test_the_trials_settings_say_how_much_labels_are_smoothed():
    study = Study(name="s", reference="a", training={"label_smoothing": 0.1}, arms={"a": {}})
    assert Objective.of(study.settings) == Objective(label_smoothing=0.1)


def test_r2_of_targets_that_differ_little_from_each_other():
    targets = 1e7 + 2 * torch.randn(200, 1, generator=torch.manual_seed(0))
    outputs = targets + torch.randn(200, 1, generator=torch.manual_seed(1))
    tally = Objective(regression=True).accumulator(CPU)
    for some, labels in zip(outputs.split(16), targets.split(16), strict=True):
        tally.add(torch.tensor(1.0), some, labels)
    expected = r2_score(targets.double().numpy(), outputs.double().numpy())
    assert tally.read("test")["test_r2"] == pytest.approx(expected, rel=1e-12)
