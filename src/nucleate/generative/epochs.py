"""An endless sequence of batches that a seed alone determines, and that can be entered anywhere."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from nucleate.errors import InputError
from nucleate.generative.seeds import generator_of

SORTED = 16  # batches whose items are sorted by size together

Collate = Callable[[Int[Tensor, " batch"], torch.Generator], Any]


@dataclass(frozen=True)
class EpochBatches:
    """Epochs over `size` items in random order, `batch` of them at a time.

    `collate(items, generator)` makes a batch of item numbers; the generator is for augmentation, and is another
    one for every batch. What does not fill a batch at the end of an epoch is left out of that epoch; where there are
    fewer items than a batch wants, all of them are a batch. With `sizes` of the items, those of like size go
    together among all that is drawn for 16 batches, so that little is padded.
    """

    size: int
    batch: int
    collate: Collate
    sizes: Int[Tensor, " items"] | None = None

    def __post_init__(self) -> None:
        if self.size < 1 or self.batch < 1:
            raise InputError(f"expected items in batches, got {self.size} items in batches of {self.batch}")

    @property
    def per_epoch(self) -> int:
        return max(1, self.size // self.batch)

    def batches(self, seed: int, start: int = 0, stride: int = 1) -> Iterator[Any]:
        """Batches number start, start + stride, ... without end."""
        epoch, order = -1, torch.empty(0, dtype=torch.int64)
        number = start
        while True:
            if number // self.per_epoch != epoch:
                epoch = number // self.per_epoch
                order = self._order(generator_of(seed, "order", epoch))
            first = number % self.per_epoch * self.batch
            yield self.collate(order[first : first + self.batch], generator_of(seed, "batch", number))
            number += stride

    def _order(self, generator: torch.Generator) -> Int[Tensor, " drawn"]:
        order = torch.randperm(self.size, generator=generator)
        if self.sizes is None:
            return order
        order = order[: self.per_epoch * self.batch]
        drawn = order.split(SORTED * self.batch)
        batches = torch.cat([some[self.sizes[some].argsort()] for some in drawn]).reshape(self.per_epoch, -1)
        return batches[torch.randperm(self.per_epoch, generator=generator)].flatten()
