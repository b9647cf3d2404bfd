"""What a learned method has to beat: conformers from RDKit alone, and from chance, as many as are asked for.

| name | |
|---|---|
| `etkdg` | ETKDGv3 of RDKit as it is: n for n, nothing pruned, no force field |
| `etkdg+cluster` | 10 n of those, at most 1,000, and of n clusters the middle one |
| `random-torsions` | `etkdg`, then every rotatable bond turned by chance: lengths, angles and rings are right |
| `random-atoms` | atoms in a normal cloud of the size that the molecule has: nothing is right |

Clustering a larger sample is the baseline of Zhou et al. (arXiv 2302.07061, 2023), who find that it equals the learned
methods of its time. Theirs is k-means on superposed coordinates; here it is k-medoids on squared heavy-atom RMSDs
(`metrics.conformer_rmsd`), so that equivalent atoms may change places and every answer is a conformer.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from rdkit import Chem, rdBase
from rdkit.Chem import rdDistGeom
from torch import Tensor

from nucleate.crystal.molecule import Molecule
from nucleate.generative.seeds import generator_of, seed_of
from nucleate.geometry.so3 import rotation_exp
from nucleate.metrics.conformer_rmsd import best_rmsds

MANY, MOST = 10, 1000  # conformers to cluster: so many times what is asked for, and no more
ROUNDS = 30  # of assigning and choosing medoids; few are needed
TIME_LIMIT = 120.0  # s

Baseline = Callable[[Molecule, int, int], Float[Tensor, "made atoms 3"]]  # molecule, how many, seed


def etkdg(molecule: Molecule, n: int, seed: int = 0) -> Float[Tensor, "made atoms 3"]:
    """As many conformers (Å) as RDKit embeds of n, with `TIME_LIMIT` for all; where it can none, once more from random
    coordinates.
    """
    graph = Chem.Mol(molecule.graph)
    graph.RemoveAllConformers()
    if len(molecule) == 1:
        return torch.zeros(n, 1, 3, dtype=torch.float64)
    options: Any = rdDistGeom.ETKDGv3()
    options.randomSeed = seed_of(seed, "etkdg") % (2**31 - 1)
    options.timeout = int(TIME_LIMIT)
    with rdBase.BlockLogs():  # unusual charges are no news to the user
        rdDistGeom.EmbedMultipleConfs(graph, n, options)
        if graph.GetNumConformers() == 0:
            options.useRandomCoords = True
            rdDistGeom.EmbedMultipleConfs(graph, n, options)
    found = [torch.from_numpy(c.GetPositions()) for c in graph.GetConformers()]
    return torch.stack(found) if found else torch.zeros(0, len(molecule), 3, dtype=torch.float64)


def clustered_etkdg(molecule: Molecule, n: int, seed: int = 0) -> Float[Tensor, "made atoms 3"]:
    many = etkdg(molecule, max(n, min(MANY * n, MOST)), seed)
    return many[cluster_medoids(molecule, many, n, generator_of(seed, "cluster"))]


def random_torsions(molecule: Molecule, n: int, seed: int = 0) -> Float[Tensor, "made atoms 3"]:
    """Clashes are left as they come."""
    positions = etkdg(molecule, n, seed)
    generator = generator_of(seed, "torsions")
    for (i, j), beyond in rotatable_bonds(molecule.graph):
        angle = 2 * torch.pi * torch.rand(len(positions), 1, generator=generator, dtype=positions.dtype)
        axis = torch.nn.functional.normalize(positions[:, j] - positions[:, i], dim=-1)
        arm = positions[:, beyond] - positions[:, j : j + 1]
        turned = positions.clone()
        turned[:, beyond] = arm @ rotation_exp(angle * axis).mT + positions[:, j : j + 1]
        positions = turned
    return positions


def random_atoms(molecule: Molecule, n: int, seed: int = 0) -> Float[Tensor, "made atoms 3"]:
    like = etkdg(molecule, n, seed)
    size = (like - like.mean(1, keepdim=True)).square().mean((1, 2), keepdim=True).sqrt()
    return size * torch.randn(like.shape, generator=generator_of(seed, "atoms"), dtype=like.dtype)


BASELINES: dict[str, Baseline] = {
    "etkdg": etkdg,
    "etkdg+cluster": clustered_etkdg,
    "random-torsions": random_torsions,
    "random-atoms": random_atoms,
}


# ---------------------------------------------------------------- clusters


def cluster_medoids(
    molecule: Molecule,
    positions: Float[Tensor, "conformers atoms 3"],
    n: int,
    generator: torch.Generator,
) -> Int[Tensor, " medoids"]:
    """Which conformers are the middle of n clusters, in order; all of them where there are no more than n."""
    if len(positions) <= n:
        return torch.arange(len(positions))
    return medoids(best_rmsds(molecule.graph, positions, positions).square(), n, generator)


def medoids(
    cost: Float[Tensor, "points points"], n: int, generator: torch.Generator
) -> Int[Tensor, " medoids"]:
    """k-medoids: assign to the nearest, then of each cluster the point of least total cost, until nothing changes.

    First medoids are drawn one by one with chances in proportion to the cost that is left, as in k-means++ (Arthur &
    Vassilvitskii, SODA 2007).
    """
    chosen = _scattered(cost, n, generator)
    for _ in range(ROUNDS):
        nearest = cost[:, chosen].argmin(1)
        nearest[chosen] = torch.arange(n)  # of equal points each medoid keeps itself: no cluster is empty
        member = torch.nn.functional.one_hot(nearest, n).to(cost)
        total = torch.where(member > 0, cost @ member, torch.inf)
        better = total.argmin(0)
        if (total.gather(0, better[None]) >= total.gather(0, chosen[None])).all():
            break
        chosen = better
    return chosen.sort().values


def _scattered(
    cost: Float[Tensor, "points points"], n: int, generator: torch.Generator
) -> Int[Tensor, " medoids"]:
    chosen = [int(cost.sum(0).argmin())]
    for _ in range(n - 1):
        left = cost[:, chosen].amin(1).clamp(min=1e-12)
        left[chosen] = 0
        chosen.append(int(torch.multinomial(left, 1, generator=generator)))
    return torch.tensor(chosen)


# ---------------------------------------------------------------- torsions


def rotatable_bonds(graph: Chem.Mol) -> list[tuple[tuple[int, int], Bool[Tensor, " atoms"]]]:
    """Single bonds outside rings whose ends have another heavy neighbour each, and the atoms beyond the second end.

    Amides are turned as well.
    """
    found = []
    for bond in graph.GetBonds():
        i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        ends = (bond.GetBeginAtom(), bond.GetEndAtom())
        heavy = all(sum(n.GetAtomicNum() > 1 for n in end.GetNeighbors()) > 1 for end in ends)
        if heavy and bond.GetBondType() == Chem.BondType.SINGLE and not bond.IsInRing():
            found.append(((i, j), _beyond(graph, i, j)))
    return found


def _beyond(graph: Chem.Mol, i: int, j: int) -> Bool[Tensor, " atoms"]:
    """Atoms on j's side of the bond i-j, which is in no ring."""
    reached = torch.zeros(graph.GetNumAtoms(), dtype=torch.bool)
    waiting = [j]
    while waiting:
        atom = waiting.pop()
        reached[atom] = True
        around = [n.GetIdx() for n in graph.GetAtomWithIdx(atom).GetNeighbors()]
        waiting += [k for k in around if not reached[k] and (atom, k) != (j, i)]
    return reached
