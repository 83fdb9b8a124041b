"""Fast layers as PyTorch's machinery meets them: the way back, hooks, modes, transforms."""

import gc
import weakref

import pytest
import torch
from torch import nn

from fairtrial.training.kernels import layers
from fast_layers import assert_same, block, distance, images, needs_kernels, pair


def test_weights_replaced_or_cut_behind_autograds_back(either_path):
    layer = layers.accelerate(nn.Conv2d(64, 6, 1))
    inputs = images(8, 64, 4, 4, dtype=torch.float32, requires_grad=True)
    output, weight = layer(inputs), layer.weight.detach().clone()
    layer.weight.data = layer.weight.data * 0
    reused = [torch.full((6, 64, 1, 1), torch.nan) for _ in range(50)]  # where the weight was, if it is gone
    output.sum().backward()
    torch.testing.assert_close(inputs.grad, weight.sum(0).expand_as(inputs))
    del reused
    layer.weight.data, layer.bias.data, layer.out_channels = layer.weight.data[:3], layer.bias.data[:3], 3
    assert layer(inputs).shape == (8, 3, 4, 4)


def test_maps_are_let_go_after_the_way_back():
    needs_kernels()
    fast, _ = pair(block())
    output = fast(images(3, 5, 4, 4)).sum()
    tensors = [*output.grad_fn.next_functions[0][0].saved_tensors]
    kept = [weakref.ref(tensor) for tensor in tensors if tensor.dim() == 1]
    assert kept
    del tensors
    output.backward()
    gc.collect()
    assert all(reference() is None for reference in kept)
    assert output.grad_fn is not None


def test_a_default_device_is_not_ours(either_path):
    fast, plain = (module.eval() for module in pair(block()))
    values = images(2, 5, 4, 4)
    with torch.device("meta"):
        output = fast(values)
    assert distance(output.detach(), plain(values).detach()) < 1e-10


def test_functions_of_functions(either_path):
    fast, _ = pair(block().eval())
    values = torch.stack([images(2, 5, 4, 4, seed=seed) for seed in range(3)])
    mapped = torch.func.vmap(fast)(values)
    for one, several in zip(mapped, values, strict=True):
        torch.testing.assert_close(one, fast(several))


def test_hooks_of_all_modules_are_heard(either_path):
    fast, _ = pair(block())
    heard = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: heard.append(type(module)))
    try:
        fast(images(2, 5, 4, 4))
    finally:
        handle.remove()
    assert nn.ReLU6 in heard


def test_symbolic_tracing(either_path):
    layer = layers.accelerate(nn.Conv2d(4, 6, 1))
    traced = torch.fx.symbolic_trace(nn.Sequential(layer))
    torch.testing.assert_close(traced(torch.ones(2, 4, 3, 3)), layer(torch.ones(2, 4, 3, 3)))


def test_hooks_see_what_they_always_saw(either_path):
    fast, plain = pair(block())
    seen = []
    for module in (fast, plain):
        module[0][1].register_forward_hook(lambda _module, given, output: seen.append((given[0], output)))
        module[1].register_full_backward_hook(lambda _module, given, output: seen.append((given[0], output[0])))
    assert_same(fast, plain, images(2, 5, 4, 4))
    assert len(seen) == 4
    for found, expected in zip(seen[:2], seen[2:], strict=True):
        for one, other in zip(found, expected, strict=True):
            assert distance(one.detach(), other.detach()) < 1e-10


def test_the_output_may_be_changed_in_place(either_path):
    """As an in-place activation does that stands outside the sequence."""
    fast, plain = pair(nn.ModuleList([block(), nn.ReLU(inplace=True)]))
    assert_same(
        nn.Sequential(layers.accelerate(fast[0]), nn.Identity(), fast[1]),
        nn.Sequential(plain[0], nn.Identity(), plain[1]),
        images(2, 5, 4, 4),
    )


@pytest.mark.parametrize("change", ["input", "weight"])
def test_a_tensor_changed_before_the_backward_pass_is_an_error(change):
    needs_kernels()
    fast, _ = pair(block())
    given = images(2, 5, 4, 4, requires_grad=True) * 1
    output = fast(given)
    with torch.no_grad():
        (given if change == "input" else fast[2].weight).mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_backward_twice(either_path):
    fast, _ = pair(block())
    output = fast(images(2, 5, 4, 4)).square().sum()
    output.backward(retain_graph=True)
    once = [parameter.grad.clone() for parameter in fast.parameters()]
    output.backward()
    for first, parameter in zip(once, fast.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, 2 * first, rtol=1e-12, atol=1e-12)
    with pytest.raises(RuntimeError, match="second time"):
        output.backward()


def test_frozen_parameters_get_no_gradient(either_path):
    fast, plain = pair(block())
    for module in (fast, plain):
        module[0].requires_grad_(False)
        module[1][0].weight.requires_grad_(False)
    assert_same(fast, plain, images(2, 5, 4, 4))


def test_without_a_gradient_nothing_is_kept(either_path):
    fast, plain = pair(block())
    for mode in (torch.no_grad, torch.inference_mode):
        for training in (True, False):
            with mode():
                found, expected = (module.train(training)(images(2, 5, 4, 4)) for module in (fast, plain))
            assert not found.requires_grad
            assert distance(found, expected) < 1e-10
    assert distance(fast[0][1].running_var, plain[0][1].running_var) < 1e-10


def test_the_input_is_not_written_to():
    needs_kernels()
    fast, _ = pair(nn.Sequential(nn.BatchNorm2d(4), nn.ReLU6()).double())
    given = images(2, 4, 3, 3)
    kept = given.clone()
    with torch.no_grad():
        fast(given)
    fast(given).sum().backward()
    assert torch.equal(given, kept)
