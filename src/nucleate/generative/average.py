"""Average of the weights along training: what is validated and handed over.

    average_k = d_k average_{k-1} + (1 - d_k) weights_k,    d_k = min(d, (1 + k) / (10 + k)),  k = 1, 2, ...

The first steps count less than d alone would make them (the rule of TensorFlow's ExponentialMovingAverage), so that
a short run is not an average with its random start.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def decay_at(update: int, limit: float) -> float:
    """d_k above; `update` counts from 1."""
    return min(limit, (1 + update) / (10 + update))


class Average:
    """Exponential moving average of a network's weights; what is not floating point is copied.

    It looks at the tensors that the network has when it is made: move the network to its device before.
    """

    def __init__(self, network: nn.Module, limit: float) -> None:
        self.limit = limit
        self._live = {name: value.detach() for name, value in network.state_dict().items()}
        self._mean = {name: value.clone() for name, value in self._live.items()}
        smooth = [name for name, value in self._live.items() if value.is_floating_point()]
        self._smooth = [self._mean[name] for name in smooth], [self._live[name] for name in smooth]
        rest = sorted(set(self._live) - set(smooth))
        self._copied = [(self._mean[name], self._live[name]) for name in rest]

    @torch.no_grad()
    def update(self, number: int) -> None:
        """Take in the weights of now, after update number 1, 2, ..."""
        if self._smooth[0]:
            torch._foreach_lerp_(*self._smooth, 1.0 - decay_at(number, self.limit))
        for mean, live in self._copied:
            mean.copy_(live)

    def state_dict(self) -> dict[str, Tensor]:
        """The averages under the names of the network's own state; copies."""
        return {name: value.clone() for name, value in self._mean.items()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for name, mean in self._mean.items():
            mean.copy_(state[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The network has the averages inside, and afterwards its own weights again, bit for bit."""
        own = {name: value.clone() for name, value in self._live.items()}
        self._put(self._mean)
        try:
            yield
        finally:
            self._put(own)

    @torch.no_grad()
    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, live in self._live.items():
            live.copy_(values[name])
