"""What is seen of a loop without its help."""

import torch
from torch import nn

from fairtrial.training.fingerprints import fingerprint
from fairtrial.training.observation import observing


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.ReLU())


def test_the_first_model_and_its_first_batch_are_seen():
    model, batch, other = small(), torch.ones(4, 3), torch.zeros(4, 3)
    with observing() as seen:
        assert (seen.initial_weights, seen.first_batch, seen.weights) == ("", "", "")
        model(batch)
        model(other)
        before = fingerprint(model.state_dict())
        assert (seen.initial_weights, seen.first_batch) == (before, fingerprint([("0", batch)]))
        nn.init.zeros_(model[0].weight)
        assert seen.weights == fingerprint(model.state_dict()) != before
    assert seen.initial_weights == before


def test_evaluations_frozen_models_and_layers_without_weights_are_not_taken_for_it():
    model, batch = small(), torch.ones(4, 3)
    teacher = nn.Linear(3, 2).requires_grad_(False)
    with observing() as seen:
        nn.Flatten()(torch.zeros(4, 3))
        teacher(torch.zeros(4, 3))
        nn.LazyLinear(2)
        with torch.no_grad():
            model(torch.zeros(4, 3))
        model.eval()
        model(torch.zeros(4, 3))
        assert (seen.initial_weights, seen.first_batch) == (fingerprint(model.state_dict()), "")
        model.train()
        model(batch)
    assert seen.first_batch == fingerprint([("0", batch)])


def test_a_model_that_gets_its_batch_by_keyword_is_seen_by_its_layers():
    class ByName(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = small()

        def forward(self, *, points):
            return self.inner(points)

    batch = torch.ones(4, 3)
    with observing() as seen:
        ByName()(points=batch)
    assert seen.first_batch == fingerprint([("0", batch)])


def test_a_model_that_is_gone_has_no_weights_and_nothing_is_seen_outside():
    with observing() as seen:
        small()(torch.ones(4, 3))
    assert (seen.weights, bool(seen.initial_weights)) == ("", True)
    with observing() as later:
        pass
    small()(torch.ones(4, 3))
    assert later.initial_weights == ""


def test_nothing_changes_for_the_loop():
    def train():
        model = small()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.ones(4, 3)).sum().backward()
            optimizer.step()
        return fingerprint(model.state_dict()), torch.get_rng_state().tolist()

    plain = train()
    with observing():
        assert train() == plain
