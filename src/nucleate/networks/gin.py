"""Graph isomorphism network on the extended graph of molecules: one number for each pair of atoms.

    h_i = element,    e_ij = kind of pair * MLP(d_ij)
    h_i <- h_i + ReLU MLP(h_i + sum_j ReLU(h_j + e_ij))           each layer (the last one without its ReLU)
    s_ij = MLP[h_i h_j, e_ij]

Shi et al., "Learning gradient fields for molecular conformation generation", ICML 2021, eq. 10 to 12.
Everything about a pair is the same seen from either end, so a pair is computed once and told to both.
"""

from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from nucleate.networks.elements import refuse_unknown

KINDS = 100  # rows of both tables, as published: elements, and kinds of pairs


class PairScores(nn.Module):
    """Elements of atoms, kinds and lengths (Å) of pairs -> a number for each pair.

    With the published width of 256 and 4 layers it has 808,193 parameters. Lengths go in raw, and sums over neighbours
    are not divided: the first numbers are large, and Adam does not mind.
    """

    def __init__(self, width: int = 256, layers: int = 4) -> None:
        super().__init__()
        self.element = nn.Embedding(KINDS, width)
        self.kind = nn.Embedding(KINDS, width)
        self.length = _perceptron(1, width, width)
        self.layers = nn.ModuleList(_perceptron(width, width, width) for _ in range(layers))
        self.answer = _perceptron(2 * width, width, width // 2, 1)

    def forward(
        self,
        numbers: Int[Tensor, " atoms"],
        i: Int[Tensor, " pairs"],
        j: Int[Tensor, " pairs"],
        kind: Int[Tensor, " pairs"],
        length: Float[Tensor, " pairs"],
    ) -> Float[Tensor, " pairs"]:
        """Each pair is given once. Raises InputError for elements beyond plutonium."""
        refuse_unknown(numbers)
        h, e = self.element(numbers), self.kind(kind) * self.length(length[:, None])
        for layer in self.layers:
            told = torch.zeros_like(h).index_add(0, i, torch.relu(h.index_select(0, j) + e))
            told = told.index_add(0, j, torch.relu(h.index_select(0, i) + e))
            out = layer(h + told)
            h = h + (torch.relu(out) if layer is not self.layers[-1] else out)
        return self.answer(torch.cat([h.index_select(0, i) * h.index_select(0, j), e], -1))[:, 0]


def _perceptron(*widths: int) -> nn.Sequential:
    """Linear maps with ReLUs in between, Xavier's weights and no bias to begin with."""
    parts: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        linear = nn.Linear(inputs, outputs)
        nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(linear.bias)
        parts += [linear, nn.ReLU()]
    return nn.Sequential(*parts[:-1])
