"""The optimizers: their state by name, and what eigenbases are for."""

import pytest
import torch
from torch import nn

from compress.steps.distill import features
from compress.steps.distill._optimizer import optimizer_of, put_state, state_of

SMALL = 0.03


def spec(optimizer, rate=1e-2):
    return features.Spec(optimizer=optimizer, rate=rate, weight_decay=0)


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(288, 5))


def train(model, optimizer, batches):
    for batch in batches:
        optimizer.zero_grad()
        model(batch).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("kind", ["adamw", "soap"])
def test_state_by_name_is_all_of_it(kind):
    model, resumed = network(), network(1)
    batches = torch.randn(40, 7, 3, 8, 8)
    optimizer = optimizer_of(model, spec(kind))
    train(model, optimizer, batches[:15])
    kept = {name: value.clone() for name, value in state_of(optimizer).items()}
    resumed.load_state_dict(model.state_dict())
    other = optimizer_of(resumed, spec(kind))
    put_state(other, kept)
    train(model, optimizer, batches[15:])
    train(resumed, other, batches[15:])
    for one, two in zip(model.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, two)
    assert all("/" in name for name in kept)


def missed(kind):
    """How far a weight is from what it should be, where it is seldom asked in a direction that no axis lies in."""
    torch.manual_seed(0)
    turned, _ = torch.linalg.qr(torch.randn(16, 16))
    spread = torch.linspace(1, SMALL, 16)
    wanted = torch.randn(16, 8)
    model = nn.Linear(16, 8, bias=False)
    nn.init.zeros_(model.weight)
    optimizer = optimizer_of(model, spec(kind))
    batch = torch.randn(256, 16) * spread @ turned.T
    for _ in range(300):
        optimizer.zero_grad()
        (model(batch) - batch @ wanted).square().mean().backward()
        optimizer.step()
    return float((model.weight.detach().T - wanted).square().mean() / wanted.square().mean())


def test_soap_learns_directions_that_are_seldom_asked():
    assert missed("soap") < 0.5 * missed("adamw")


def test_a_side_that_is_too_wide_has_no_basis(monkeypatch):
    monkeypatch.setattr("compress.steps.distill._soap._WIDEST", 100)
    model = network()
    optimizer = optimizer_of(model, spec("soap"))
    train(model, optimizer, torch.randn(3, 7, 3, 8, 8))
    kept = state_of(optimizer)
    assert kept["1/left_basis"].shape == (5, 5)
    assert "1/right_basis" not in kept
