"""Are the distances within the conformers that were made distributed as those of the references?

For samples X and Y, n and m of them, pooled into n + m, the squared maximum mean discrepancy

    MMD^2 = mean k(x, x') + mean k(y, y') - 2 mean k(x, y)                  over all pairs, each with itself too
    k(a, b) = sum_{i=0..4} exp(-|a - b|^2 / b_i),   b_i = 2^(i-2) b,   b = mean |a - b|^2 over different pooled samples

is that of GraphDG (Simm & Hernández-Lobato, ICML 2020) and ConfGF, who print it as MMD. It is 0 for equal samples,
at most 10, and depends on n and m: two samples of one distribution have up to 5 (1/n + 1/m) on average.

A sample is a distance (Å) of one conformer (single), two of them (pair), or all of them (joint); distances are those of
the extended graph, heavy atoms at most three bonds apart. The published code leaves out pairs that begin at one atom,
which depends on how atoms are numbered; here all pairs are taken.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from rdkit import Chem
from torch import Tensor

from nucleate.crystal.molecule import Molecule

WIDTHS = 5
AT_ONCE = 4_000_000  # distances between samples in memory together


@dataclass(frozen=True, eq=False)
class DistanceMMD:
    """Of one molecule; tables show mean and median over molecules of `single.mean()`, `pair.mean()` and `joint`."""

    single: Float[Tensor, " distances"]
    pair: Float[Tensor, " pairs"]
    joint: float


def heavy_pairs(molecule: Molecule, order: int = 3) -> Int[Tensor, "distances 2"]:
    """Pairs of heavy atoms at most `order` bonds apart."""
    hops = torch.from_numpy(Chem.GetDistanceMatrix(molecule.graph))
    near = torch.zeros_like(hops, dtype=torch.bool)
    heavy = molecule.heavy
    near[heavy[:, None], heavy] = hops[heavy[:, None], heavy] <= order
    return near.triu(1).nonzero()


def distance_mmd(
    references: Float[Tensor, "references atoms 3"],
    generated: Float[Tensor, "generated atoms 3"],
    pairs: Int[Tensor, "distances 2"],
) -> DistanceMMD:
    """Single, pair and joint MMD^2 of the distances of these pairs of atoms."""
    x, y = ((z[:, pairs[:, 0]] - z[:, pairs[:, 1]]).norm(dim=-1).double() for z in (references, generated))
    two = torch.combinations(torch.arange(len(pairs)))
    return DistanceMMD(
        single=mmd_squared(x.T[..., None], y.T[..., None]),
        pair=mmd_squared(x.T[two].mT, y.T[two].mT),
        joint=float(mmd_squared(x[None], y[None])),
    )


def mmd_squared(x: Float[Tensor, "sets n d"], y: Float[Tensor, "sets m d"]) -> Float[Tensor, " sets"]:
    """MMD^2 of each pair of samples (its V-statistic), with bandwidths of their own.

    Pairs i < j of the pooled sample are enough: w is 1/n^2, 1/m^2 or -1/(nm), and each sample with itself gives the
    number of widths.
    """
    n, m = x.shape[1], y.shape[1]
    i, j = torch.triu_indices(n + m, n + m, 1, device=x.device)
    of_x = torch.arange(n + m, device=x.device) < n
    sign = torch.where(of_x, 1 / n, -1 / m).to(x)
    weight = sign[i] * sign[j]
    step = max(1, AT_ONCE // max(1, len(i)))
    parts = [
        _weighted(torch.cat([a, b], 1), i, j, weight)
        for a, b in zip(x.split(step), y.split(step), strict=True)
    ]
    off = torch.cat(parts) if parts else x.new_zeros(0)
    return (2 * off + WIDTHS * (1 / n + 1 / m)).clamp(min=0)


def _weighted(
    pooled: Float[Tensor, "sets samples d"],
    i: Int[Tensor, " pairs"],
    j: Int[Tensor, " pairs"],
    weight: Float[Tensor, " pairs"],
) -> Float[Tensor, " sets"]:
    """Sum of weight times kernel; one exponential is enough, the others are its squares."""
    apart = pooled.new_zeros(len(pooled), len(i))
    for column in pooled.unbind(-1):
        apart += (column[:, i] - column[:, j]).square()
    mean = apart.mean(1, keepdim=True)
    widest = 2.0 ** (WIDTHS - 1 - WIDTHS // 2)
    kernel = (-apart / (widest * mean.clamp(min=1e-300))).exp()  # all equal: every kernel is 1
    total = kernel @ weight
    for _ in range(WIDTHS - 1):
        kernel = kernel.square_()
        total += kernel @ weight
    return total
