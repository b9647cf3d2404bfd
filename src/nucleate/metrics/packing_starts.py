"""Where a packing comparison starts: motions that lay the central molecule on one of its kind."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from torch import Tensor

from nucleate.geometry.so3 import kabsch
from nucleate.metrics import packing_kernels
from nucleate.metrics.coordination import Cluster, images_within
from nucleate.metrics.heavy_molecules import HeavyMolecules, automorphisms, classes_of

MAX_STARTS = 256  # that put the centre on its kind, the best fits
ONE_SITE = 0.01  # Å: atoms as near as this under a translation of the crystal are equivalent
SPARE_RMSD = 0.5  # Å: how much worse than the best a fit of the central molecules may be and still be tried
COLLINEAR = 0.3  # Å: a centre thinner than this (root of the second moment) does not fix a rotation


@dataclass(frozen=True, eq=False)
class Motions:
    """Rigid motions that may carry the cluster into the other crystal, its centre to molecule `centre`."""

    rotation: Float[Tensor, "starts 3 3"]  # improper where `hand` is -1
    translation: Float[Tensor, "starts 3"]  # Å
    hand: Float[Tensor, " starts"]
    centre: Int[Tensor, " starts"]

    def __len__(self) -> int:
        return len(self.centre)

    def __getitem__(self, index: Tensor) -> "Motions":
        return Motions(self.rotation[index], self.translation[index], self.hand[index], self.centre[index])


@dataclass(frozen=True)
class Tolerances:
    distance: float  # relative
    angle: float  # rad
    mirror: bool


def find_starts(cluster: Cluster, molecules: HeavyMolecules, tolerances: Tolerances) -> Motions:
    """Motions that put the centre on a molecule of its kind, in every way and hand that fits."""
    key = cluster.keys[0]
    hands = torch.tensor([1.0, -1.0] if tolerances.mirror else [1.0], dtype=torch.float64)
    where = torch.tensor([i for i, other in enumerate(molecules.keys) if other == key], dtype=torch.long)
    where = _without_translations(molecules, where)
    own = cluster.positions[0, : len(classes_of(key))]
    thickness = torch.linalg.svdvals(own - own.mean(0)) / len(own) ** 0.5
    if len(cluster.keys) > 2 and (len(own) < 3 or thickness[1] < COLLINEAR):
        return _starts_from_neighbours(cluster, molecules, where, hands, tolerances)
    maps = automorphisms(key)
    theirs = molecules.positions[where, : len(own)]
    if maps is None:
        place, source, target, hand = _paired_by_distance(own, theirs, classes_of(key), hands)
        fit = kabsch(source, target)
        best = torch.argsort(fit.rmsd, stable=True)[:MAX_STARTS]
        best = best[fit.rmsd[best] <= fit.rmsd[best[:1]] + SPARE_RMSD]
        rotation, place, hand = fit.rotation[best] * hand[best, None, None], place[best], hand[best]
        return Motions(rotation, fit.translation[best], hand, where[place])
    arrays = (x.contiguous().numpy() for x in (own, theirs, maps, hands))
    hand, place, rotation, translation = map(
        torch.from_numpy, packing_kernels.fit_maps(*arrays, MAX_STARTS, SPARE_RMSD)
    )
    return Motions(rotation, translation, hand, where[place])


def _without_translations(molecules: HeavyMolecules, where: Int[Tensor, " all"]) -> Int[Tensor, " places"]:
    """One of those molecules that translations of the crystal carry into each other: a supercell adds no starts."""
    own = molecules.present[where[0]] > 0
    arms = (molecules.positions[where] - molecules.centroids[where, None])[:, own]
    alike = torch.cdist(arms, arms[:1]).amin(2).amax(1) < ONE_SITE  # whatever the order of equivalent atoms
    if int(alike.sum()) < 2:
        return where
    lattice, (owner, place) = molecules.lattice, torch.nonzero(molecules.present, as_tuple=True)
    frac = molecules.positions[owner, place] @ torch.linalg.inv(lattice)
    labels = [(key, number) for key in molecules.keys for number in classes_of(key).tolist()]
    kinds = torch.from_numpy(np.unique(labels, axis=0, return_inverse=True)[1].reshape(-1))
    tree = cKDTree(frac % 1 % 1, boxsize=1)  # the second: rounding may give exactly 1
    first, orbit, m = int(where[0]), np.arange(len(molecules.keys)), len(molecules.keys)
    pairs = np.zeros((2, 0), np.int64)
    for other in where[alike][1:].tolist():
        if orbit[other] == orbit[first]:
            continue
        moved = frac + (molecules.centroids[other] - molecules.centroids[first]) @ torch.linalg.inv(lattice)
        image = torch.from_numpy(tree.query(moved % 1 % 1)[1])
        gap = moved - frac[image]
        near = ((gap - gap.round()) @ lattice).norm(dim=1) < ONE_SITE
        if (near & (kinds[image] == kinds)).all():
            pairs = np.concatenate([pairs, torch.stack([owner, owner[image]]).numpy()], 1)
            orbit = connected_components(coo_array((np.ones(pairs.shape[1]), pairs), shape=(m, m)), False)[1]
    return where[np.sort(np.unique(orbit[where], return_index=True)[1])]


def _paired_by_distance(
    own: Float[Tensor, "atoms 3"],
    theirs: Float[Tensor, "places atoms 3"],
    classes: Int[Tensor, " atoms"],
    hands: Float[Tensor, " hands"],
) -> tuple[
    Int[Tensor, " starts"],
    Float[Tensor, "starts atoms 3"],
    Float[Tensor, "starts atoms 3"],
    Float[Tensor, " starts"],
]:
    """Places, sources, targets and hands of fits, where too many automorphisms forbid to try each.

    Three atoms are laid on all equivalent threes with about their distances; the other atoms then pair with
    their nearest equivalents.
    """
    triple = _telling_triple(own, classes)
    images = torch.cartesian_prod(*[torch.nonzero(classes == classes[i])[:, 0] for i in triple])
    corners = theirs[:, images]
    sides, asked = ((x - x.roll(1, -2)).norm(dim=-1) for x in (corners, own[triple]))
    place, image = torch.nonzero((sides - asked).abs().amax(-1) < SPARE_RMSD, as_tuple=True)
    hand = hands.repeat_interleave(len(place))
    place, image = place.repeat(len(hands)), image.repeat(len(hands))
    source = hand[:, None, None] * own
    fit = kabsch(source[:, triple], corners[place, image])
    moved = source @ fit.rotation.mT + fit.translation[:, None]
    gaps = torch.where(classes[:, None] == classes, torch.cdist(moved, theirs[place]), math.inf)
    miss = gaps.amin(-1).square().mean(-1).sqrt()  # Å, a lower bound of the RMSD
    best = torch.argsort(miss, stable=True)[:MAX_STARTS]
    best = best[miss[best] <= miss[best[:1]] + SPARE_RMSD / 2]
    target = theirs[place[best]].gather(1, _pairing(gaps[best])[..., None].expand(-1, -1, 3))
    return place[best], source[best], target, hand[best]


def _telling_triple(own: Float[Tensor, "atoms 3"], classes: Int[Tensor, " atoms"]) -> list[int]:
    """Three atoms that span a wide triangle and have few equivalents."""
    copies = (classes[:, None] == classes).sum(1).double()
    first = int((copies - 0.01 * (own - own.mean(0)).norm(dim=-1)).argmin())
    arms = own - own[first]
    length = arms.norm(dim=-1)
    second = int((copies - 1e6 * length.clamp(max=2.0) - 0.01 * length).argmin())
    height = torch.linalg.cross(arms, arms[second].expand_as(arms)).norm(dim=-1) / length[second]
    third = int((copies - 1e6 * height.clamp(max=1.0) - 0.01 * height).argmin())
    return [first, second, third]


def _pairing(gaps: Float[Tensor, "*n atoms atoms"]) -> Int[Tensor, "*n atoms"]:
    """The column of each row: its nearest, or where two rows share one, the least sum of squares overall."""
    nearest = gaps.argmin(-1)
    flat = nearest.flatten(0, -2)
    shared = (flat.sort(-1).values != torch.arange(flat.shape[1])).any(-1)
    costs = gaps.flatten(0, -3)[shared].square().clamp(max=1e6).numpy()
    for row, cost in zip(torch.nonzero(shared)[:, 0].tolist(), costs):  # few: good fits share none
        flat[row] = torch.from_numpy(linear_sum_assignment(cost)[1])
    return flat.unflatten(0, nearest.shape[:-1])


def _starts_from_neighbours(
    cluster: Cluster,
    molecules: HeavyMolecules,
    where: Int[Tensor, " places"],
    hands: Float[Tensor, " hands"],
    tolerances: Tolerances,
) -> Motions:
    """For atoms and linear molecules: the centre and two neighbours, by their centroids, onto three such."""
    pair = _two_directions(cluster)
    arms = cluster.centroids[list(pair)] - cluster.centroids[0]
    lengths = arms.norm(dim=-1)
    cutoff = float(lengths.max()) * (1 + tolerances.distance)
    targets, centres = [], []
    for centre in where.tolist():  # the few linear molecules of one cell
        who, shift = images_within(molecules, centre, cutoff)
        reach = molecules.centroids[who] + shift[:, 0] - molecules.centroids[centre]
        right = torch.tensor([[molecules.keys[w] == cluster.keys[k] for w in who.tolist()] for k in pair])
        right &= (reach.norm(dim=-1) - lengths[:, None]).abs() <= tolerances.distance * lengths[:, None]
        right[:, 0] = False  # the centre itself
        first, second = (torch.nonzero(row)[:, 0] for row in right)
        first, second = torch.cartesian_prod(first, second).unbind(1)
        found = torch.stack([reach[first], reach[second]], 1)
        found = found[((_angle(found) - _angle(arms)).abs() <= tolerances.angle) & (first != second)]
        targets.append(found + molecules.centroids[centre])
        centres.append(torch.full((len(found),), centre))
    apexes = torch.cat(centres)
    target = torch.cat([molecules.centroids[apexes][:, None], torch.cat(targets)], 1)
    source = cluster.centroids[[0, *pair]]
    images, aims = torch.broadcast_tensors(hands[:, None, None, None] * source, target[None])
    fit = kabsch(images, aims)
    hand = hands.repeat_interleave(len(apexes))
    rotation = fit.rotation.flatten(0, 1) * hand[:, None, None]
    return Motions(rotation, fit.translation.flatten(0, 1), hand, apexes.repeat(len(hands)))


def _two_directions(cluster: Cluster) -> tuple[int, int]:
    """The nearest neighbour and the next one that is not in line with it and the centre."""
    for second in range(2, len(cluster.keys)):
        arms = cluster.centroids[[1, second]] - cluster.centroids[0]
        if abs(math.pi / 2 - float(_angle(arms))) < math.radians(60):
            return 1, second
    return 1, 2


def _angle(arms: Float[Tensor, "*n 2 3"]) -> Float[Tensor, "*n"]:
    """Angle (rad) between two vectors."""
    a, b = arms.unbind(-2)
    return torch.atan2(torch.linalg.cross(a, b).norm(dim=-1), (a * b).sum(-1))
