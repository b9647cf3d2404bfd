"""The gradient as one vector: summed over processes, measured and clipped as a whole."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from nucleate.errors import NucleateError


class GradientVector:
    """The gradients of all parameters, as views into one vector that has `spare` numbers behind them.

    The spare numbers travel with the gradient, so that processes need to talk only once a step.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], spare: int) -> None:
        self.parameters = [p for p in parameters if p.requires_grad]
        kinds = {(p.dtype, p.device) for p in self.parameters}
        if len(kinds) != 1:
            found = ", ".join(sorted(f"{dtype} on {device}" for dtype, device in kinds)) or "no parameters"
            raise NucleateError(f"expected parameters of one dtype on one device, got {found}")
        dtype, device = kinds.pop()
        sizes = [p.numel() for p in self.parameters]
        self.vector = torch.zeros(sum(sizes) + spare, dtype=dtype, device=device)
        self.gradient, self.spare = self.vector[: sum(sizes)], self.vector[sum(sizes) :]
        self._views = [v.view_as(p) for v, p in zip(self.gradient.split(sizes), self.parameters)]

    def clear(self) -> None:
        """Zero everything. A network that threw its gradients away gets the views back."""
        self.vector.zero_()
        for parameter, view in zip(self.parameters, self._views):
            parameter.grad = view

    def clip(self, limit: float) -> Tensor:
        """Scale the gradient down to the length `limit` if it is longer; returns the length before."""
        length = torch.linalg.vector_norm(self.gradient)
        self.gradient.mul_((limit / length.clamp(min=1e-30)).clamp(max=1.0))
        return length
