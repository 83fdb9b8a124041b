"""Muon for matrices, AdamW for the rest: torch's own, step by step."""

import copy

import pytest
import torch
from torch import nn

from fairtrial.training.matrices import MuonAndAdamW, as_matrix
from fairtrial.training.optimizers.muon import Muon

MUON = {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.1, "adjust_lr_fn": "match_rms_adamw"}
ADAMW = {"lr": 0.02, "weight_decay": 0.1}


def step(network, optimizer, seed):
    inputs = torch.randn(6, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    network.zero_grad()
    network(inputs).square().mean().backward()
    optimizer.step()


def make_network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 7))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_it_is_torchs_muon_and_torchs_adamw(memory_format):
    ours = make_network().to(memory_format=memory_format)
    theirs = copy.deepcopy(ours)
    both = Muon(**MUON).build(ours.parameters())
    kernel = nn.Parameter(theirs[0].weight.detach().clone(memory_format=torch.contiguous_format).flatten(1))
    muon = torch.optim.Muon([kernel, theirs[4].weight], **MUON)
    adamw = torch.optim.AdamW([one for one in theirs.parameters() if one.ndim == 1], **ADAMW)
    for seed in range(5):
        step(ours, both, seed)
        with torch.no_grad():
            theirs[0].weight.copy_(kernel.view(theirs[0].weight.shape))
        step(theirs, adamw, seed)
        kernel.grad = theirs[0].weight.grad.contiguous().flatten(1)
        muon.step()
    tolerance = {"rtol": 2e-2, "atol": 2e-3}  # the iteration runs in bfloat16, and sums columns in another order
    torch.testing.assert_close(ours[0].weight.flatten(1), kernel, **tolerance)
    torch.testing.assert_close(ours[4].weight, theirs[4].weight, **tolerance)
    torch.testing.assert_close(ours[1].bias, theirs[1].bias, **tolerance)


def test_matrices_share_the_memory_of_kernels():
    for shape in [(4, 3, 2, 2), (4, 1, 3, 3), (4, 6, 1, 1), (5, 7)]:
        tensor = torch.randn(shape)
        forms = [tensor, tensor.to(memory_format=torch.channels_last)] if len(shape) == 4 else [tensor]
        for form in forms:
            assert as_matrix(form, form).data_ptr() == form.data_ptr()


def test_a_restored_state_gives_the_same_bits_and_follows_a_schedule():
    network = make_network()
    optimizer = MuonAndAdamW(network.parameters(), MUON, ADAMW)
    for seed in range(3):
        step(network, optimizer, seed)
    again = copy.deepcopy(network)
    restored = MuonAndAdamW(again.parameters(), MUON, ADAMW)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for group in [*optimizer.param_groups, *restored.param_groups]:
        group["lr"] = 0.005
    for seed in range(3, 6):
        step(network, optimizer, seed)
        step(again, restored, seed)
    for one, other in zip(network.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in network.parameters())


def test_weights_whose_memory_has_gaps_take_the_same_steps():
    network = make_network()
    with_gaps = copy.deepcopy(network)
    kernel = with_gaps[0].weight
    memory = torch.zeros(4, 3, 3, 6)
    memory[..., :3] = kernel.detach()
    kernel.data = memory[..., :3]
    assert as_matrix(kernel.detach(), kernel).data_ptr() != kernel.data_ptr()
    start = kernel.detach().clone()
    for one in (network, with_gaps):
        optimizer = MuonAndAdamW(one.parameters(), MUON, ADAMW)
        for seed in range(3):
            step(one, optimizer, seed)
    assert not torch.equal(with_gaps[0].weight, start)
    for one, other in zip(network.parameters(), with_gaps.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=2e-2, atol=2e-3)
    assert not memory[..., 3:].any()
