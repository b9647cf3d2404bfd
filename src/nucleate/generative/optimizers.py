"""The optimizers of a training: AdamW for all parameters, or Muon for the hidden matrices and AdamW for the rest.

Muon (K. Jordan et al., 2024; torch.optim.Muon) makes the momentum of a matrix orthogonal before it steps, so that all
directions of a layer learn alike. A step costs some products of each matrix with itself more.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nucleate.errors import InputError
from nucleate.generative.train_settings import TrainSettings

LEAST = 16  # rows and columns of a matrix that Muon steps; smaller ones are inputs and outputs with a meaning


@dataclass(frozen=True, eq=False)
class Part:
    """An optimizer, its highest learning rate, and the names of its parameters in its order."""

    optimizer: torch.optim.Optimizer
    rate: float
    names: list[str]


class Optimizers:
    """All that change the weights of a network, as one."""

    def __init__(self, network: nn.Module, settings: TrainSettings) -> None:
        trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
        hidden = hidden_matrices(network) if settings.optimizer == "muon" else set()
        self._parts = [_adamw({n: p for n, p in trained.items() if n not in hidden}, settings)]
        matrices = {n: p for n, p in trained.items() if n in hidden}
        if matrices:
            self._parts.append(_muon(matrices, settings))

    def step(self, share: float) -> None:
        """One step with this share of the highest learning rates."""
        for part in self._parts:
            for options in part.optimizer.param_groups:
                options["lr"] = share * part.rate
            part.optimizer.step()

    def state(self) -> dict[str, Tensor]:
        """What they remember of each parameter, as `name/key`."""
        return {
            f"{part.names[i]}/{key}": value
            for part in self._parts
            for i, own in part.optimizer.state_dict()["state"].items()
            for key, value in own.items()
        }

    def load(self, remembered: Mapping[str, Tensor]) -> None:
        for part in self._parts:
            state = part.optimizer.state_dict()
            for name, value in remembered.items():
                parameter, _, key = name.rpartition("/")
                if parameter in part.names:
                    state["state"].setdefault(part.names.index(parameter), {})[key] = value
            part.optimizer.load_state_dict(state)


def hidden_matrices(network: nn.Module) -> set[str]:
    """Names of the weights of linear layers, but for small ones; not embeddings."""
    return {
        f"{name}.weight" if name else "weight"
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear) and min(layer.weight.shape) >= LEAST
    }


def _adamw(trained: Mapping[str, nn.Parameter], settings: TrainSettings) -> Part:
    """AdamW (arXiv 1711.05101); only matrices decay."""
    matrices = {name: p for name, p in trained.items() if p.ndim >= 2}
    vectors = {name: p for name, p in trained.items() if p.ndim < 2}
    groups = [
        {"params": list(matrices.values()), "weight_decay": settings.weight_decay},
        {"params": list(vectors.values()), "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas, fused=True)
    return Part(optimizer, settings.learning_rate, [*matrices, *vectors])


def _muon(matrices: Mapping[str, nn.Parameter], settings: TrainSettings) -> Part:
    if not hasattr(torch.optim, "Muon"):
        raise InputError(
            f"optimizer: expected torch 2.9 or later for muon, got {torch.__version__}; set it to adamw",
            reason="old torch",
        )
    optimizer = torch.optim.Muon(
        list(matrices.values()),
        lr=settings.matrix_rate,
        weight_decay=settings.weight_decay,
        momentum=0.95,
    )
    return Part(optimizer, settings.matrix_rate, list(matrices))
