import copy

import pytest
import torch
from torch import nn

from nucleate.errors import InputError
from nucleate.generative.optimizers import Optimizers, hidden_matrices
from nucleate.generative.train_settings import TrainSettings

KINDS = ("adamw", "muon")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(30, 20), nn.Linear(20, 32), nn.SiLU(), nn.Linear(32, 3))


def settings(kind: str, **changes: float) -> TrainSettings:
    return TrainSettings.model_validate({"optimizer": kind, "learning_rate": 0.01, **changes})


def go(net: nn.Sequential, optimizers: Optimizers, steps: int, first: int = 0) -> None:
    for k in range(first, first + steps):
        net.zero_grad()
        x = torch.randint(30, (8,), generator=torch.Generator().manual_seed(k))
        (net(x) - 1).square().mean().backward()
        optimizers.step(0.5)


def test_muon_takes_hidden_matrices_only():
    assert hidden_matrices(network()) == {"1.weight"}
    assert hidden_matrices(nn.Linear(20, 20)) == {"weight"}


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_learns_and_the_loss_falls(kind: str):
    net = network()
    before = copy.deepcopy(net.state_dict())
    go(net, Optimizers(net, settings(kind)), 60)
    assert all((value != before[name]).any() for name, value in net.state_dict().items())
    assert (net(torch.arange(30)) - 1).square().mean() < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_remembered_is_enough_to_go_on(kind: str):
    net = network()
    optimizers = Optimizers(net, settings(kind))
    go(net, optimizers, 5)
    other = copy.deepcopy(net)
    resumed = Optimizers(other, settings(kind))
    resumed.load({name: value.clone() for name, value in optimizers.state().items()})
    go(net, optimizers, 5, first=5)
    go(other, resumed, 5, first=5)
    assert all((a == b).all() for a, b in zip(net.parameters(), other.parameters(), strict=True))


def test_a_step_of_muon_is_orthogonal():
    """Without decay, the change of a matrix has all its singular values near the learning rate's scale."""
    net = network()
    before = net[1].weight.detach().clone()
    go(net, Optimizers(net, settings("muon", matrix_rate=0.1, weight_decay=0.0)), 1)
    values = torch.linalg.svdvals(net[1].weight.detach() - before)
    rank = int((values > 1e-4).sum())
    assert rank >= 3  # that of the gradient: three outputs
    assert values[:3].max() / values[:3].min() < 2.5


def test_old_torch_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(InputError, match="set it to adamw"):
        Optimizers(network(), settings("muon"))
