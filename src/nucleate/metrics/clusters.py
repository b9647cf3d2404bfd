"""How near is a predicted cluster of molecules to the true one? As published, and as it means something.

Positions are (molecules, atoms, 3) in Å, the same molecule in each, molecule 0 the central one. Distance errors

    pm(X, Y) = sqrt( mean_ij (|X_i - X_j| - |Y_i - Y_j|)^2 )   over all N^2 pairs, the diagonal too

are what CrystalFlow (Liu et al., GRaM workshop at ICML 2024) and AssembleFlow (Guo et al., ICLR 2025) call packing
matching: `pm_atom` over atoms, `pm_center` over centroids. They compare molecule i with molecule i, but the molecules
of a cluster have no names: at 450 Å^3 per molecule the true cluster in another order scores 5 to 6 Å in `pm_center`,
as another crystal does, and all molecules on one spot 13 Å. So `shuffled` and `collapsed` belong beside every such
number, and these say more:

| function | |
|---|---|
| `pm_center_permuted`, `pm_atom_permuted` | least over assignments of molecules; like `pm`, blind to mirror images |
| `rmsd_cluster` | all atoms (Å), after assignment and superposition |
| `match_cluster` | how many molecules lie as in the truth, within 20 % and 20 degrees (`packing`) |
| `neighbour_distance_error`, `volume_error` | is it as dense? |
| `collision_between` | atoms of *different* molecules inside each other; the published `collision` counts bonds |

Least values over assignments are searched for (`cluster_assignment`), so they are upper bounds.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from scipy.spatial import ConvexHull, Voronoi
from torch import Generator, Tensor

from nucleate.crystal.cluster import Cluster
from nucleate.crystal.graph import canonical
from nucleate.crystal.perceive import RADII
from nucleate.errors import InputError
from nucleate.geometry.so3 import random_rotation
from nucleate.metrics.cluster_assignment import assignments, largest_overlap
from nucleate.metrics.coordination import Cluster as Shell
from nucleate.metrics.heavy_molecules import HeavyMolecules
from nucleate.metrics.packing import PackingMatch, Prepared
from nucleate.metrics.packing_starts import Tolerances
from nucleate.metrics.rate import Rate

SEPARATE = 0.5  # Å: two molecules whose atoms all keep this apart count as separate
COMPACT = 100.0  # Å: the largest distance within a compact cluster
DROPPED = 100.0  # Å: the published means leave out what lies above
FLAT = 1e-3  # Å: centroids that spread less than this in one direction have no volume
BOND_SLACK = 0.4  # Å beyond the sum of covalent radii, where a cluster comes without bonds


# ---------------------------------------------------------------- as published


def pm(x: Float[Tensor, "*batch points 3"], y: Float[Tensor, "*batch points 3"]) -> Float[Tensor, "*batch"]:
    """Root mean square error (Å) of all distances between points, in the order given; blind to mirror images."""
    return (distances(x) - distances(y)).square().mean((-2, -1)).sqrt()


def pm_atom(
    truth: Float[Tensor, "*batch molecules atoms 3"], predicted: Float[Tensor, "*batch molecules atoms 3"]
) -> Float[Tensor, "*batch"]:
    """`pm` over all atoms (Å)."""
    return pm(truth.flatten(-3, -2), predicted.flatten(-3, -2))


def pm_center(
    truth: Float[Tensor, "*batch molecules atoms 3"], predicted: Float[Tensor, "*batch molecules atoms 3"]
) -> Float[Tensor, "*batch"]:
    """`pm` over the centroids of the molecules (Å)."""
    return pm(truth.mean(-2), predicted.mean(-2))


def collision(
    positions: Float[Tensor, "*batch molecules atoms 3"], numbers: Int[Tensor, " atoms"]
) -> Float[Tensor, "*batch"]:
    """Share of all N^2 ordered pairs of atoms nearer than the sum of their covalent radii (Cordero et al. 2008).

    As published, an atom with itself and the shorter half of the bonds count too: near 0.3 % for crystals.
    """
    return _inside(positions, numbers).double().mean((-2, -1))


def separation(positions: Float[Tensor, "*batch molecules atoms 3"]) -> Float[Tensor, "*batch"]:
    """Share of the pairs of molecules whose least distance is above 0.5 Å; NaN for one molecule alone."""
    m, n = positions.shape[-3:-1]
    gaps = distances(positions.flatten(-3, -2)).unflatten(-1, (m, n)).unflatten(-3, (m, n))
    first, second = torch.triu_indices(m, m, 1)
    return (gaps.amin((-3, -1))[..., first, second] > SEPARATE).double().mean(-1)


def is_compact(positions: Float[Tensor, "*batch molecules atoms 3"]) -> Bool[Tensor, "*batch"]:
    """Are all atoms within 100 Å of each other? False for positions that are not numbers."""
    return distances(positions.flatten(-3, -2)).amax((-2, -1)) < COMPACT


def published_mean(values: Float[Tensor, " samples"]) -> tuple[float, Rate]:
    """The mean as in the published tables, without NaN, infinity and values above 100 Å; and how many were kept.

    A model that fails more often looks better by it: never quote it without the rate.
    """
    kept = values[values <= DROPPED]
    return float(kept.mean()), Rate(len(kept), len(values))


# ---------------------------------------------------------------- assignment and superposition


def pm_center_permuted(truth: Float[Tensor, "molecules atoms 3"], predicted: Float[Tensor, "_ _ 3"]) -> float:
    """The least `pm_center` (Å) over assignments of the molecules."""
    return _least_pm(truth.mean(1, keepdim=True), predicted.mean(1, keepdim=True), None)


def pm_atom_permuted(
    truth: Float[Tensor, "molecules atoms 3"],
    predicted: Float[Tensor, "_ _ 3"],
    automorphisms: Int[Tensor, "maps atoms"] | None = None,
) -> float:
    """The least `pm_atom` (Å) over assignments of the molecules.

    Atoms that `automorphisms` make equal are named as in the best superposition.
    """
    return _least_pm(truth, predicted, automorphisms)


def rmsd_cluster(
    truth: Float[Tensor, "molecules atoms 3"],
    predicted: Float[Tensor, "_ _ 3"],
    automorphisms: Int[Tensor, "maps atoms"] | None = None,
    mirror: bool = False,
) -> float:
    """RMSD (Å) of all atoms after the best assignment of molecules and the best motion.

    `mirror` lets the mirror image of the whole cluster count as equal. `automorphisms` of the molecule, identity
    first, make its equivalent atoms equal. For the assignment itself see `cluster_assignment.assignments`.
    """
    return assignments(truth, predicted, automorphisms, mirror)[0].rmsd


def _least_pm(truth: Tensor, predicted: Tensor, automorphisms: Tensor | None) -> float:
    """Superpose in both hands, then exchange molecules: (|X|^2 + |Y|^2 - 2 overlap) / N^2 is what gets least."""
    found = assignments(truth, predicted, automorphisms, mirror=True)
    m, n = truth.shape[:2]
    named = predicted.double().clone()
    named[found[0].molecule] = found[0].ordered(predicted.double())
    blocks = [
        distances(z.double().flatten(0, 1)).reshape(m, n, m, n).transpose(1, 2).reshape(m * m, n * n)
        for z in (truth, named)
    ]
    # single precision decides as well, in half the time; the answer is double
    overlap = (blocks[0].float() @ blocks[1].float().T).double().reshape(m, m, m, m)
    starts = torch.stack([torch.arange(m), *(a.molecule for a in found)])
    best = named[largest_overlap(overlap, starts)]
    return min(float(pm_atom(truth.double(), z)) for z in (best, predicted.double()))


def match_cluster(
    truth: Cluster,
    predicted: Float[Tensor, "_ _ 3"],
    n: int = 15,
    distance_tolerance: float = 0.2,
    angle_tolerance: float = 20.0,
    mirror: bool = True,
) -> PackingMatch:
    """How many of the central molecule and its n - 1 nearest (by centroid) are found in the prediction.

    The comparison of `packing`, without hydrogens and without a cell: any predicted molecule may be the centre,
    equivalent atoms may change places, `mirror` lets the mirror image count. Bonds are those of the cluster;
    without any they are perceived from distances. Tolerances: distances relative, angles in degrees. Raises
    InputError for positions of another shape or not finite.
    """
    if predicted.shape != truth.positions.shape or not predicted.isfinite().all():
        raise InputError(
            f"expected finite positions of shape {tuple(truth.positions.shape)}, got {tuple(predicted.shape)} with "
            f"{int((~predicted.isfinite()).sum())} that are NaN or inf; count a broken sample as a failure"
        )
    key, order = _heavy_order(truth)
    x, y = truth.positions[:, order].double(), predicted[:, order].double()
    c = x.mean(1)
    near = torch.argsort((c - c[0]).norm(dim=1), stable=True)[:n]
    near = torch.cat([torch.tensor([0]), near[near != 0]])  # also where another lies on the centre
    present = torch.ones(len(x), len(order), dtype=torch.float64)
    shell = Shell(0, (key,) * len(near), x[near], present[near], c[near], torch.zeros(0, dtype=torch.float64))
    edge = 10 * float(x.abs().max() + y.abs().max() + 1)  # Å: so wide a cell that no image is near
    box = edge * torch.eye(3, dtype=torch.float64)
    tolerances = Tolerances(distance_tolerance, math.radians(angle_tolerance), mirror)
    return Prepared.of(shell).search(HeavyMolecules(box, (key,) * len(y), y, present, y.mean(1)), tolerances)


def _heavy_order(cluster: Cluster) -> tuple[str, Int[Tensor, " heavy"]]:
    """The key of the molecule without its hydrogens, and its atoms in the order that the key has."""
    numbers = cluster.numbers
    heavy = torch.nonzero(numbers > 1)[:, 0] if (numbers > 1).any() else torch.arange(len(numbers))
    place = torch.full((len(numbers),), -1)
    place[heavy] = torch.arange(len(heavy))
    bonds = place[cluster.bonds if len(cluster.bonds) else _perceived(cluster)]
    key, order = canonical(numbers[heavy].tolist(), bonds[(bonds >= 0).all(1)].tolist())
    return key, heavy[list(order)]


def _perceived(cluster: Cluster) -> Int[Tensor, "bonds 2"]:
    radius = torch.from_numpy(RADII)[cluster.numbers]
    near = distances(cluster.positions[0].double()) < radius[:, None] + radius + BOND_SLACK
    return torch.nonzero(near.triu(1))


# ---------------------------------------------------------------- density and contacts


def collision_between(
    positions: Float[Tensor, "*batch molecules atoms 3"], numbers: Int[Tensor, " atoms"]
) -> Float[Tensor, "*batch"]:
    """Share of the pairs of atoms of different molecules nearer than the sum of their covalent radii.

    0 for real crystals, whatever the molecule; NaN for one molecule alone.
    """
    m, n = positions.shape[-3:-1]
    owner = torch.arange(m, device=positions.device).repeat_interleave(n)
    return _inside(positions, numbers)[..., owner[:, None] != owner].double().mean(-1)


def neighbour_distance_error(
    truth: Float[Tensor, "*batch molecules atoms 3"], predicted: Float[Tensor, "*batch molecules atoms 3"]
) -> Float[Tensor, "*batch"]:
    """Mean error (Å) of the molecules' distances to their nearest neighbour, centroid to centroid.

    Both lists are sorted first (their Wasserstein-1 distance), so that no order of molecules enters.
    """
    near, found = (_nearest(z.mean(-2)).sort(-1).values for z in (truth, predicted))
    return (near - found).abs().mean(-1)


def volume_per_molecule(positions: Float[Tensor, "molecules atoms 3"]) -> float:
    """Volume (Å^3) of the Voronoi cell, among the centroids, of the molecule nearest to the middle of the cluster.

    The cell of the true cluster's centre is the crystal's volume per molecule wherever its nearest 16 molecules
    surround it. NaN where the cell is open: molecules in one layer, on one spot, or fewer than five.
    """
    c = positions.double().mean(1)
    if len(c) < 5 or float(torch.linalg.svdvals(c - c.mean(0))[-1]) < FLAT:
        return math.nan
    points = (c - c.mean(0)).numpy()
    cells = Voronoi(points)
    corners = cells.regions[cells.point_region[(points**2).sum(1).argmin()]]
    return math.nan if -1 in corners else float(ConvexHull(cells.vertices[corners]).volume)


def volume_error(
    truth: Float[Tensor, "molecules atoms 3"], predicted: Float[Tensor, "molecules atoms 3"]
) -> float:
    """(V - V_true) / V_true of `volume_per_molecule`: -0.1 is a tenth too dense. NaN where one is not known."""
    return volume_per_molecule(predicted) / volume_per_molecule(truth) - 1


# ---------------------------------------------------------------- controls


def collapsed(truth: Float[Tensor, "*batch molecules atoms 3"]) -> Float[Tensor, "*batch molecules atoms 3"]:
    """All molecules on one spot, each turned as it was: what a regression to the mean ends in."""
    return truth - truth.mean(-2, keepdim=True) + truth.mean((-3, -2), keepdim=True)


def shuffled(
    truth: Float[Tensor, "molecules atoms 3"], generator: Generator
) -> Float[Tensor, "molecules atoms 3"]:
    """The truth itself, molecules in another order, turned as a whole: without any error, and it must score so."""
    order = torch.randperm(len(truth), generator=generator, device=generator.device)
    return truth[order] @ random_rotation(generator=generator, dtype=truth.dtype).mT


# ---------------------------------------------------------------- parts


def distances(points: Float[Tensor, "*batch n 3"]) -> Float[Tensor, "*batch n n"]:
    """All distances (Å), without the cancellation of the product form."""
    return torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")


def _inside(
    positions: Float[Tensor, "*batch molecules atoms 3"], numbers: Int[Tensor, " atoms"]
) -> Bool[Tensor, "*batch n n"]:
    radius = torch.from_numpy(RADII).to(positions)[numbers].repeat(positions.shape[-3])
    return distances(positions.flatten(-3, -2)) < radius[:, None] + radius


def _nearest(points: Float[Tensor, "*batch n 3"]) -> Float[Tensor, "*batch n"]:
    itself = torch.eye(points.shape[-2], dtype=torch.bool, device=points.device)
    return distances(points).masked_fill(itself, math.inf).amin(-1)
