"""The conditioner of Rigid Body Flows as published: attention between molecules that are known by their numbers.

    number of the molecule, what is seen of it --8 heads for each--> what it is told --> parameters of its map

Nodes begin as the rows of an identity matrix, so weights belong to n molecules in one order. Values come from the nodes
alone; what is seen (positions or turns) only steers who listens to whom. Of turns a linear map without bias is taken
and the logits are squared, so that p and -p say the same.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

HEADS, CHANNELS, BLOCKS = 8, 32, 2


class SiteAttention(nn.Module):
    """Parameters and their gates for each of n molecules; `even` where what is seen has no sign."""

    def __init__(self, n: int, seen: int, out: int, even: bool, closed: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([AttentionBlock(n, seen, even) for _ in range(BLOCKS)])
        self.decoder = nn.Sequential(nn.LayerNorm(n), nn.Linear(n, 2 * out))
        self.n, self.closed = n, closed

    def forward(self, seen: Float[Tensor, "batch n seen"]) -> Float[Tensor, "batch n out"]:
        nodes = torch.eye(self.n, dtype=seen.dtype, device=seen.device).expand(len(seen), -1, -1)
        for block in self.blocks:
            nodes = block(nodes, seen)
        value, gate = self.decoder(nodes).chunk(2, -1)
        return value * torch.sigmoid(gate - self.closed)  # gates are closed to begin with: near the identity


class AttentionBlock(nn.Module):
    """One round: eight heads steered by the nodes, eight by what is seen, and eight that hear all alike, added up.

    (The last are steered by auxiliary variables in the reference, which its experiments leave out.)
    """

    def __init__(self, n: int, seen: int, even: bool) -> None:
        super().__init__()
        self.even = even
        self.by_node = nn.Linear(n, 2 * HEADS * CHANNELS)
        self.by_seen = nn.Linear(seen, 2 * HEADS * CHANNELS, bias=not even)
        self.values = nn.Linear(n, 3 * HEADS * n)
        self.norm = nn.LayerNorm(n)

    def forward(
        self, nodes: Float[Tensor, "batch n n"], seen: Float[Tensor, "batch n seen"]
    ) -> Float[Tensor, "batch n n"]:
        steered = self._logits(self.by_seen(seen))
        steered = steered.square() if self.even else steered
        logits = torch.cat([self._logits(self.by_node(nodes)), steered, torch.zeros_like(steered)], 1)
        heard = (logits / math.sqrt(HEADS)).softmax(-1)  # batch heads i j
        values = self.values(nodes).unflatten(-1, (3 * HEADS, -1)).transpose(1, 2)
        return nodes + self.norm((heard @ values).sum(1))

    def _logits(self, keys_queries: Float[Tensor, "batch n both"]) -> Float[Tensor, "batch heads n n"]:
        keys, queries = keys_queries.unflatten(-1, (2, HEADS, CHANNELS)).permute(2, 0, 3, 1, 4)
        return keys @ queries.mT
