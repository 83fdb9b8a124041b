"""Averaged weights and recomputed batch norm, against torch's own and against sums by hand."""

import copy

import pytest
import torch
from torch import nn

from fairtrial.errors import StudyError
from fairtrial.registry import MODELS
from fairtrial.training.averages import WeightAverage, recalibrated, restored
from fairtrial.training.fingerprints import fingerprint
from fairtrial.training.kernels.layers import accelerate


def network_of(flavor="torchvision", **settings):
    settings = MODELS.get("mobilenet_v2").model_validate({"flavor": flavor, "width": 0.35, "stem": "cifar"} | settings)
    return settings.build(classes=10, image_size=32, channels=3, seed=0)


def images(seed, number=4, batch=16):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(batch, 3, 32, 32, generator=generator) for _ in range(number)]


def trained(network):
    """Let the running statistics become something else than they began with."""
    for batch in images(1):
        network(batch)
    return network


@pytest.mark.parametrize("fast", [True, False])
def test_recalibrated_statistics_are_torchs_own_cumulative_ones(fast):
    network = trained(network_of())
    reference = copy.deepcopy(network)
    torch.optim.swa_utils.update_bn(images(2), reference)
    with recalibrated(accelerate(network) if fast else network, images(2)):
        for (name, ours), theirs in zip(network.named_buffers(), reference.buffers(), strict=True):
            if "tracked" not in name:
                torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("fast", [True, False])
def test_keras_flavor_averages_biased_variances(fast):
    network = trained(network_of("keras"))
    with torch.no_grad():
        first = [network.features[0][0](batch) for batch in images(2)]
    expected = torch.stack([features.var(dim=(0, 2, 3), unbiased=False) for features in first]).mean(dim=0)
    with recalibrated(accelerate(network) if fast else network, images(2)):
        torch.testing.assert_close(network.features[0][1].running_var, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("flavor", ["torchvision", "keras"])
def test_recalibration_is_without_dropout_and_leaves_no_trace(flavor):
    network = accelerate(trained(network_of(flavor, dropout=0.9)))
    before, momenta = fingerprint(network.state_dict()), [getattr(of, "momentum", None) for of in network.modules()]
    torch.manual_seed(3)
    state = torch.get_rng_state()
    with recalibrated(network, images(2)):
        assert fingerprint(network.state_dict()) != before
    assert fingerprint(network.state_dict()) == before
    assert [getattr(of, "momentum", None) for of in network.modules()] == momenta
    assert all(module.training for module in network.modules())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_model_without_batch_norm_can_not_be_recalibrated():
    with (
        pytest.raises(StudyError, match="the model has no batch norm with running statistics"),
        recalibrated(nn.Linear(2, 2), []),
    ):
        pass


def test_the_average_follows_its_formula():
    network = nn.Linear(1, 1, bias=False)
    values = [0.5, -1.0, 2.0, *[3.0] * 100]
    expected = float(network.weight.detach())
    average = WeightAverage(network, 0.9)
    for step, value in enumerate(values, start=1):
        nn.init.constant_(network.weight, value)
        average.update()
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    with average.applied():
        assert float(network.weight.detach()) == pytest.approx(expected, rel=1e-5)
    assert float(network.weight.detach()) == 3.0


def test_running_statistics_are_averaged_with_the_weights_and_counters_are_not():
    network = network_of()
    average = WeightAverage(network, 0.5)
    norm = network.features[0][1]
    before = norm.running_mean.clone()
    network(images(1)[0])
    after = norm.running_mean.clone()
    average.update()
    with average.applied():
        torch.testing.assert_close(norm.running_mean, torch.lerp(after, before, 2 / 11))
        assert norm.num_batches_tracked == 1


def test_an_average_goes_on_from_its_state():
    networks = [nn.Linear(2, 2), nn.Linear(2, 2)]
    whole, resumed = (WeightAverage(networks[0], 0.99) for _ in range(2))
    whole.update()
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    for average in (whole, resumed):
        nn.init.ones_(networks[0].weight)
        average.update()
    one, other = (average.state_dict() for average in (whole, resumed))
    assert one["steps"] == other["steps"] == 2
    assert all(torch.equal(*pair) for pair in zip(one["average"], other["average"], strict=True))


def test_tensors_are_restored_in_place_also_after_an_error():
    tensor = torch.tensor([1.0, float("nan")])
    address = tensor.data_ptr()
    with pytest.raises(TypeError), restored([tensor]):
        tensor.zero_().add_("no number")
    assert tensor.data_ptr() == address
    assert tensor[0] == 1.0
    assert tensor[1].isnan()


def test_an_average_follows_tensors_that_others_have_replaced():
    """As optimizers do by ``weight.data = ...``, and networks of their buffers."""
    network = nn.BatchNorm1d(1)
    average = WeightAverage(network, 1e-9)
    network.weight.data = torch.full((1,), 3.0)
    network.running_mean = torch.full((1,), 4.0)
    average.update()
    network.weight.data = torch.full((1,), 5.0)
    with average.applied():
        assert (network.weight.item(), network.running_mean.item()) == pytest.approx((3.0, 4.0))
    assert network.weight.item() == 5.0


def test_an_average_that_holds_its_tensors_does_not_look_for_them_again(monkeypatch):
    network, other = (nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)) for _ in range(2))
    other.load_state_dict(network.state_dict())
    held, looking = WeightAverage(network, 0.9), WeightAverage(other, 0.9)
    held.hold()
    monkeypatch.setattr(network, "state_dict", None)
    for _ in range(3):
        for one, average in ((network, held), (other, looking)):
            with torch.no_grad():
                for parameter in one.parameters():
                    parameter.mul_(1.5)
            average.update()
    pairs = zip(held.state_dict()["average"], looking.state_dict()["average"], strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)
