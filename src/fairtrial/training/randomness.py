"""The states of torch's random numbers that a network uses."""

import torch


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """Read the random states that a network on this device uses: the CPU's, and the GPU's if it is one."""
    states = {"cpu": torch.get_rng_state()}
    return states | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def set_random_state(states: dict[str, torch.Tensor], device: torch.device) -> None:
    """Set what `random_state` has read, except the states of other devices."""
    if "cpu" in states:
        torch.set_rng_state(states["cpu"])
    if "cuda" in states and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)
