"""Are two crystals the same packing? Coordination shells compared as in Chisholm & Motherwell (2005).

A molecule of the reference and its 14 nearest neighbours are looked for in the other crystal, atom by atom,
hydrogens left out. The answer is how many of the 15 molecules were found within the tolerances, and the RMSD
(Å) of their atoms after the best superposition. No cell enters, so settings, origins, supercells and the
order of atoms or molecules do not matter; densities do, within the tolerances.

    molecules of a cell  ->  cluster of the reference  ->  starts (one rigid motion each)
        ->  assign, judge, superpose, repeat  ->  the motion that matches most

What is ours, and why:

* neighbours are the nearest by shortest contact between heavy atoms (ties: by centroid): for long molecules
  the nearest centroids are not the coordination shell;
* a molecule is found when, after superposition, its distances to the centre (centroid to centroid, and each
  centroid to each atom of the other molecule) agree within 20 %, and its direction from the centre and its
  own orientation within 20 degrees. Distances below 3 Å are given the tolerance of 3 Å, so that a guest at
  the centroid of its host can be compared.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from rdkit import Chem
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import pdist, squareform
from torch import Tensor

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.graph import canonical
from nucleate.geometry.lattice import image_shifts, niggli_reduce
from nucleate.geometry.so3 import Superposition, kabsch

MAX_AUTOMORPHISMS = 200  # of a heavy-atom graph; where there are more, equivalent atoms pair by distance
MAX_STARTS = 256  # that put the centre on its kind, the best fits
SHORTEST = 3.0  # Å: closer than atoms of different molecules come, so no distance needs a finer tolerance
SPARE_RMSD = 0.5  # Å: how much worse than the best a fit of the central molecules may be and still be tried
JUDGED = 60_000  # pairs of atoms looked at to choose among starts: all starts, unless there are very many
REFINED = 8  # starts that are refined, the most promising ones
ROUNDS = 4  # of assigning and superposing
COLLINEAR = 0.3  # Å: a centre thinner than this (root of the second moment) does not fix a rotation


@dataclass(frozen=True, eq=False)
class PackingMatch:
    """What two crystals have in common. Reference positions map as `x @ rotation.T + translation`."""

    n_matched: int  # molecules found, the central one included; 0 where the molecules differ
    n: int  # molecules asked for
    rmsd: float  # Å over the heavy atoms of the matched molecules; NaN where none
    rmsd_1: float  # Å over the central molecule alone, superposed on its own
    rotation: Float[Tensor, "3 3"]  # improper where the other crystal is the mirror image
    translation: Float[Tensor, "3"]  # Å
    centres: tuple[int, int] | None  # index of the central molecule in the reference and in the other crystal

    @property
    def is_match(self) -> bool:
        """True where every molecule of the cluster was found. How small an RMSD must be is yours to say."""
        return self.n_matched == self.n

    @property
    def mirrored(self) -> bool:
        return bool(torch.linalg.det(self.rotation) < 0)

    @staticmethod
    def nothing(n: int) -> "PackingMatch":
        eye, zero = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
        return PackingMatch(0, n, math.nan, math.nan, eye, zero, None)

    def _better_than(self, other: "PackingMatch") -> bool:
        return (self.n_matched, -self.rmsd) > (other.n_matched, -other.rmsd if other.n_matched else -math.inf)


@dataclass(frozen=True)
class Tolerances:
    distance: float  # relative
    angle: float  # rad
    mirror: bool


def compare_packing(
    reference: Crystal,
    other: Crystal,
    n: int = 15,
    distance_tolerance: float = 0.2,
    angle_tolerance: float = 20.0,
    mirror: bool = True,
) -> PackingMatch:
    """Look for the reference's cluster of n molecules in the other crystal.

    Tolerances: distances relative, angles in degrees. `mirror` lets the mirror image count as the same
    packing. Bonds are those of the crystals; where a crystal has none they are perceived from distances. The
    cluster is the reference's, so the count may differ by a molecule or two when the arguments are swapped.
    For many crystals against one reference build a `PackingReference` once.
    """
    return PackingReference(reference, n, distance_tolerance, angle_tolerance, mirror).compare(other)


class PackingReference:
    """A reference crystal with its clusters prepared, to be compared with a whole landscape.

    One cluster for each kind of environment: with several molecules in the asymmetric unit, or several
    species, each is tried as the centre (the largest first), and the best answer counts.
    """

    def __init__(
        self,
        reference: Crystal,
        n: int = 15,
        distance_tolerance: float = 0.2,
        angle_tolerance: float = 20.0,
        mirror: bool = True,
    ) -> None:
        if n < 1 or not 0 < distance_tolerance < 1 or not 0 < angle_tolerance < 180:
            raise ValueError(
                "expected n >= 1, 0 < distance_tolerance < 1 (relative), 0 < angle_tolerance < 180 (degree), "
                f"got {n}, {distance_tolerance}, {angle_tolerance}"
            )
        self.n = n
        self.tolerances = Tolerances(distance_tolerance, math.radians(angle_tolerance), mirror)
        self.clusters = _distinct_clusters(HeavyMolecules.of(reference), n)

    def compare(self, other: Crystal) -> PackingMatch:
        """The best match over the reference's centres; one with all n molecules ends the search."""
        molecules = HeavyMolecules.of(other)
        best = PackingMatch.nothing(self.n)
        for cluster in self.clusters:
            found = _search(cluster, molecules, self.tolerances)
            best = found if found._better_than(best) else best
            if best.is_match:
                break
        return best


# ---------------------------------------------------------------- molecules without hydrogens


@dataclass(frozen=True, eq=False)
class HeavyMolecules:
    """Molecules as their heavy atoms in canonical order, padded to the widest with zeros.

    The same key means the same graph (elements and connections; bond orders and charges are not looked at),
    and atom i of one such molecule corresponds to atom i of the other, up to automorphisms of the key.
    """

    lattice: Float[Tensor, "3 3"]  # Å, Niggli reduced
    keys: tuple[str, ...]
    positions: Float[Tensor, "molecules width 3"]  # Å
    present: Float[Tensor, "molecules width"]  # 1 for atoms, 0 for padding
    centroids: Float[Tensor, "molecules 3"]  # Å, plain mean of the heavy atoms

    @staticmethod
    def of(crystal: Crystal) -> "HeavyMolecules":
        """Molecules of one cell, numbered as in the crystal; one of hydrogen alone keeps its atoms."""
        lattice, _ = niggli_reduce(crystal.lattice.double())
        positions = crystal.positions.double()
        graphs = [_canonical(*graph) for graph in _heavy_graphs(crystal)]
        width = max(len(atoms) for _, atoms in graphs)
        index = torch.tensor([atoms + atoms[:1] * (width - len(atoms)) for _, atoms in graphs])
        sizes = torch.tensor([len(atoms) for _, atoms in graphs])
        present = (torch.arange(width) < sizes[:, None]).double()
        padded = positions[index] * present[..., None]
        keys = tuple(key for key, _ in graphs)
        return HeavyMolecules(lattice, keys, padded, present, padded.sum(1) / sizes[:, None])


Graph = tuple[tuple[int, ...], tuple[int, ...], tuple[tuple[int, int], ...]]


def _heavy_graphs(crystal: Crystal) -> list[Graph]:
    """For each molecule: atoms of the crystal, their atomic numbers, bonds between them (local indices)."""
    numbers, molecule = crystal.numbers.numpy(), crystal.molecule.numpy()
    heavy = numbers > 1
    counts = np.bincount(molecule, weights=heavy, minlength=crystal.n_molecules)
    kept = np.flatnonzero(heavy | (counts[molecule] == 0))
    kept = kept[np.argsort(molecule[kept], kind="stable")]
    bounds = np.searchsorted(molecule[kept], np.arange(crystal.n_molecules + 1))
    place = np.full(len(numbers), -1)
    place[kept] = np.arange(len(kept)) - bounds[molecule[kept]]
    bonds = crystal.bonds.numpy() if len(crystal.bonds) else _perceived_bonds(crystal)
    bonds = bonds[(place[bonds] >= 0).all(1)]
    owner = molecule[bonds[:, 0]]
    local = np.sort(place[bonds], 1)
    ranked = np.lexsort((local[:, 1], local[:, 0], owner))
    edges = np.searchsorted(owner[ranked], np.arange(crystal.n_molecules + 1))
    pairs, atoms, elements = local[ranked].tolist(), kept.tolist(), numbers[kept].tolist()
    return [
        (
            tuple(atoms[a:b]),
            tuple(elements[a:b]),
            tuple((i, j) for i, j in pairs[c:d]),
        )
        for a, b, c, d in zip(bounds, bounds[1:], edges, edges[1:])
    ]


def _perceived_bonds(crystal: Crystal) -> np.ndarray:
    """Pairs of one molecule nearer than the sum of their covalent radii + 0.4 Å."""
    radius = np.array([Chem.GetPeriodicTable().GetRcovalent(z) for z in crystal.numbers.tolist()])
    near = squareform(pdist(crystal.positions.double().numpy())) < radius[:, None] + radius + 0.4
    molecule = crystal.molecule.numpy()
    return np.argwhere(np.triu(near & (molecule[:, None] == molecule), 1))


def _canonical(
    atoms: tuple[int, ...], numbers: tuple[int, ...], bonds: tuple[tuple[int, int], ...]
) -> tuple[str, tuple[int, ...]]:
    key, order = _canonical_order(numbers, bonds)
    return key, tuple(atoms[i] for i in order)


@lru_cache(maxsize=4096)  # a landscape shows the same few molecules again and again
def _canonical_order(
    numbers: tuple[int, ...], bonds: tuple[tuple[int, int], ...]
) -> tuple[str, tuple[int, ...]]:
    return canonical(numbers, bonds)


@lru_cache(maxsize=1024)
def _automorphisms(key: str) -> Int[Tensor, "maps atoms"] | None:
    """All permutations of the canonical atoms that keep the graph; None for more than MAX_AUTOMORPHISMS."""
    graph = Chem.MolFromSmiles(key, sanitize=False)
    maps = graph.GetSubstructMatches(graph, uniquify=False, maxMatches=MAX_AUTOMORPHISMS + 1)
    return torch.tensor(maps) if len(maps) <= MAX_AUTOMORPHISMS else None


@lru_cache(maxsize=1024)
def _classes(key: str) -> Int[Tensor, " atoms"]:
    """Equal numbers for atoms that the graph does not tell apart."""
    graph = Chem.MolFromSmiles(key, sanitize=False)
    graph.UpdatePropertyCache(strict=False)
    Chem.FastFindRings(graph)
    return torch.tensor(list(Chem.CanonicalRankAtoms(graph, breakTies=False)))


# ---------------------------------------------------------------- the reference's clusters


@dataclass(frozen=True, eq=False)
class Cluster:
    """A central molecule (index 0) and its neighbours, nearest first."""

    centre: int  # the molecule's index in the reference crystal
    keys: tuple[str, ...]
    positions: Float[Tensor, "n width 3"]  # Å
    present: Float[Tensor, "n width"]
    centroids: Float[Tensor, "n 3"]  # Å
    fingerprint: Float[Tensor, " numbers"]  # Å, equal for symmetry-equivalent (or mirrored) centres


def _distinct_clusters(molecules: HeavyMolecules, n: int) -> list[Cluster]:
    """One cluster for each environment that differs by more than 0.02 Å, centres with more atoms first."""
    sizes = molecules.present.sum(1)
    found: list[Cluster] = []
    for centre in torch.argsort(-sizes, stable=True).tolist():
        new = _cluster(molecules, centre, n)
        known = (
            c
            for c in found
            if c.keys[0] == new.keys[0] and c.keys.count(c.keys[0]) == new.keys.count(new.keys[0])
        )
        if not any(torch.allclose(c.fingerprint, new.fingerprint, atol=0.02, rtol=0) for c in known):
            found.append(new)
    return found


def _cluster(molecules: HeavyMolecules, centre: int, n: int) -> Cluster:
    own = molecules.positions[centre][molecules.present[centre] > 0]
    radii = (molecules.positions - molecules.centroids[:, None]).norm(dim=-1) * molecules.present
    reach = float(radii[centre].max() + radii.max())
    volume = torch.linalg.det(molecules.lattice) / len(molecules.keys)
    cutoff = reach + float(volume * n) ** (1 / 3) / 2
    while True:
        who, shift = _images_within(molecules, centre, cutoff)
        if len(who) >= n:
            atoms = molecules.positions[who] + (shift * molecules.present[who][..., None])
            gaps = torch.cdist(own, atoms.flatten(0, 1)).unflatten(1, atoms.shape[:2])
            contact = torch.where(molecules.present[who] > 0, gaps, math.inf).amin((0, 2))
            contact[0] = 0.0  # the centre itself, which _images_within puts first
            if float(contact.kthvalue(n).values) <= cutoff - reach:
                break  # no molecule farther out can be nearer than these
        cutoff *= 1.25
    distance = (molecules.centroids[who] + shift[:, 0] - molecules.centroids[centre]).norm(dim=-1)
    order = torch.from_numpy(np.lexsort((distance.numpy(), contact.round(decimals=3).numpy())))[:n]
    fingerprint = torch.cat(
        [contact.sort().values[:n], distance.sort().values[:n], radii[centre].sort().values]
    )
    return Cluster(
        centre=centre,
        keys=tuple(molecules.keys[i] for i in who[order].tolist()),
        positions=atoms[order],
        present=molecules.present[who[order]],
        centroids=molecules.centroids[who[order]] + shift[order, 0],
        fingerprint=fingerprint,
    )


def _images_within(
    molecules: HeavyMolecules, centre: int, cutoff: float
) -> tuple[Int[Tensor, " images"], Float[Tensor, "images 1 3"]]:
    """Molecules (index, shift in Å) with their centroid within `cutoff` Å of the centre's, itself first."""
    inverse = torch.linalg.inv(molecules.lattice)
    apart = (molecules.centroids - molecules.centroids[centre]) @ inverse
    near = torch.round(apart)
    cells, _ = image_shifts(molecules.lattice[None], cutoff, spread=0.5)
    shift = (cells[:, None] - near) @ molecules.lattice
    distance = (molecules.centroids - molecules.centroids[centre] + shift).norm(dim=-1)
    cell, who = torch.nonzero(distance <= cutoff, as_tuple=True)
    order = torch.argsort(distance[cell, who], stable=True)
    itself = (who == centre) & (cells[cell] == 0).all(1)
    order = torch.cat([torch.nonzero(itself)[:, 0], order[~itself[order]]])
    return who[order], shift[cell[order], who[order]][:, None]


# ---------------------------------------------------------------- the search


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


@dataclass(frozen=True, eq=False)
class Assignment:
    """For each motion and molecule of the cluster, the nearest of its kind in the other crystal."""

    molecule: Int[Tensor, "starts n"]
    shift: Float[Tensor, "starts n 3"]  # Å, the lattice translation to add
    gap: Float[Tensor, "starts n"]  # Å, between the centroids
    allowed: Bool[Tensor, "starts n"]  # within the tolerances, and no molecule taken twice

    def score(self) -> Float[Tensor, " starts"]:
        """How many were found, then how near."""
        return self.allowed.sum(1) - 1e-3 * torch.where(self.allowed, self.gap, 0.0).mean(1)


def _search(cluster: Cluster, molecules: HeavyMolecules, tolerances: Tolerances) -> PackingMatch:
    n = len(cluster.keys)
    best = PackingMatch.nothing(n)
    if cluster.keys[0] not in molecules.keys:
        return best
    starts = _starts(cluster, molecules, tolerances)
    if not len(starts):
        return best
    kinds = torch.tensor([[a == b for b in molecules.keys] for a in cluster.keys])
    motions = _most_promising(cluster, molecules, kinds, starts, tolerances)
    for _ in range(ROUNDS):
        assignment = _assign(cluster, molecules, kinds, motions, tolerances)
        target = _target(cluster, molecules, motions, assignment)
        ok = assignment.allowed & _agree(cluster, motions, target, tolerances)
        found = _describe(cluster, motions, target, ok)
        if not found._better_than(best):
            break
        best = found
        # what is nearly right pulls the rest into place: superpose on all whose centroids agree
        motions = _superposed(cluster, motions, target, assignment.allowed)
    return best


def _most_promising(
    cluster: Cluster,
    molecules: HeavyMolecules,
    kinds: Bool[Tensor, "n molecules"],
    starts: Motions,
    tolerances: Tolerances,
) -> Motions:
    """The starts that match most: all of them by centroids, the best of those atom by atom."""
    score = _assign(cluster, molecules, kinds, starts, tolerances).score()
    maps = _automorphisms(cluster.keys[0])
    pairs = cluster.present.numel() * (len(maps) if maps is not None else MAX_AUTOMORPHISMS)
    starts = starts[torch.argsort(score, descending=True, stable=True)[: max(JUDGED // pairs, REFINED)]]
    assignment = _assign(cluster, molecules, kinds, starts, tolerances)
    target = _target(cluster, molecules, starts, assignment)
    agreed = (assignment.allowed & _agree(cluster, starts, target, tolerances)).sum(1)
    score = 100 * agreed + assignment.score()
    return starts[torch.argsort(score, descending=True, stable=True)[:REFINED]]


def _starts(cluster: Cluster, molecules: HeavyMolecules, tolerances: Tolerances) -> Motions:
    """Motions that put the centre on a molecule of its kind, in every way and hand that fits."""
    key = cluster.keys[0]
    hands = torch.tensor([1.0, -1.0] if tolerances.mirror else [1.0], dtype=torch.float64)
    where = torch.tensor([i for i, other in enumerate(molecules.keys) if other == key], dtype=torch.long)
    own = cluster.positions[0, : len(_classes(key))]
    thickness = torch.linalg.svdvals(own - own.mean(0)) / len(own) ** 0.5
    if len(cluster.keys) > 2 and (len(own) < 3 or thickness[1] < COLLINEAR):
        return _starts_from_neighbours(cluster, molecules, where, hands, tolerances)
    maps = _automorphisms(key)
    theirs = molecules.positions[where, : len(own)]
    if maps is None:
        place, source, target, hand = _paired_by_distance(own, theirs, _classes(key), hands)
    else:
        target = theirs[:, maps].flatten(0, 1).repeat(len(hands), 1, 1)
        place = torch.arange(len(where)).repeat_interleave(len(maps)).repeat(len(hands))
        hand = hands.repeat_interleave(len(where) * len(maps))
        source = hand[:, None, None] * own
    fit = kabsch(source, target)
    best = torch.argsort(fit.rmsd, stable=True)[:MAX_STARTS]
    best = best[fit.rmsd[best] <= fit.rmsd[best[:1]] + SPARE_RMSD]
    return Motions(
        fit.rotation[best] * hand[best, None, None], fit.translation[best], hand[best], where[place[best]]
    )


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
        who, shift = _images_within(molecules, centre, cutoff)
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


def _assign(
    cluster: Cluster,
    molecules: HeavyMolecules,
    kinds: Bool[Tensor, "n molecules"],
    motions: Motions,
    tolerances: Tolerances,
) -> Assignment:
    """The nearest molecule of its kind for each moved centroid, judged by centroids alone.

    Images come from rounding in the reduced cell: exact for gaps below half its smallest height.
    """
    arms = cluster.centroids @ motions.rotation.mT
    moved = arms + motions.translation[:, None]
    apart = moved[:, :, None] - molecules.centroids
    shifts = torch.round(apart @ torch.linalg.inv(molecules.lattice)) @ molecules.lattice
    gaps = torch.where(kinds, (apart - shifts).norm(dim=-1), math.inf)
    gaps[:, 0] = torch.where(
        torch.arange(len(molecules.keys)) == motions.centre[:, None], gaps[:, 0], math.inf
    )
    gap, molecule = gaps.min(-1)
    shift = shifts.gather(2, molecule[..., None, None].expand(-1, -1, 1, 3))[:, :, 0]
    found = molecules.centroids[molecule] + shift
    allowed = gap.isfinite() & _same_arm(arms - arms[:, :1], found - found[:, :1], tolerances)
    # a molecule wanted twice goes to the nearer, and the centre (gap of whatever size) always stays
    taken = (molecule[:, :, None] == molecule[:, None]) & (
        (found[:, :, None] - found[:, None]).norm(dim=-1) < 1e-3
    )
    rank = torch.where(allowed, gap, math.inf)
    rank[:, 0] = -1.0
    order = torch.arange(rank.shape[1])
    beaten = (rank[:, None] < rank[:, :, None]) | (
        (rank[:, None] == rank[:, :, None]) & (order < order[:, None])
    )
    return Assignment(molecule, shift, gap, allowed & ~(taken & beaten).any(-1))


def _same_arm(
    a: Float[Tensor, "*n 3"], b: Float[Tensor, "*n 3"], tolerances: Tolerances
) -> Bool[Tensor, "*n"]:
    """Do two vectors from the centre agree in length and direction? Short ones by their difference."""
    length, other = a.norm(dim=-1), b.norm(dim=-1)
    chord = 2 * math.sin(tolerances.angle / 2) * SHORTEST
    direction = (_angle(torch.stack([a, b], -2)) <= tolerances.angle) | ((a - b).norm(dim=-1) <= chord)
    return ((length - other).abs() <= tolerances.distance * length.clamp(min=SHORTEST)) & direction


def _target(
    cluster: Cluster, molecules: HeavyMolecules, motions: Motions, assignment: Assignment
) -> Float[Tensor, "starts n width 3"]:
    """Atoms of the assigned molecules, each in the automorphic order nearest to the moved cluster."""
    width = cluster.positions.shape[1]
    found = molecules.positions[assignment.molecule][:, :, :width]
    found = torch.nn.functional.pad(found, (0, 0, 0, width - found.shape[2]))
    found = found + assignment.shift[:, :, None]
    centred = (cluster.positions - cluster.centroids[:, None]) @ motions.rotation[:, None].mT
    target = found.clone()
    for key in set(cluster.keys):
        maps, classes = _automorphisms(key), _classes(key)
        k = torch.tensor([i for i, other in enumerate(cluster.keys) if other == key])
        size = len(classes)
        ours, theirs = centred[:, k, :size], found[:, k, :size]
        if maps is None:
            gaps = torch.cdist(ours, theirs - theirs.mean(2, keepdim=True))
            chosen = _pairing(torch.where(classes[:, None] == classes, gaps, math.inf))
        else:
            overlap = (ours @ theirs.mT).flatten(-2)  # larger is nearer: |x - y|^2 = |x|^2 + |y|^2 - 2 x.y
            gain = overlap[..., torch.arange(size) * size + maps].sum(-1)
            chosen = maps[gain.argmax(-1)]
        target[:, k, :size] = theirs.gather(2, chosen[..., None].expand(*chosen.shape, 3))
    return target


def _agree(
    cluster: Cluster, motions: Motions, target: Float[Tensor, "starts n width 3"], tolerances: Tolerances
) -> Bool[Tensor, "starts n"]:
    """Molecules whose atoms keep their distances to the centre and their orientation."""
    present = cluster.present > 0
    sizes = cluster.present.sum(1)[:, None]
    middle = (target * cluster.present[..., None]).sum(2) / sizes
    far = _distances_to_centre(cluster.positions, cluster.centroids)
    far_found = _distances_to_centre(target, middle)
    off = (far_found - far).abs() > tolerances.distance * far.clamp(min=SHORTEST)
    kept = ~(off & torch.stack([present, present[:1].expand_as(present)])).any(-1).any(-2)
    ours = (
        (cluster.positions - cluster.centroids[:, None])
        @ motions.rotation[:, None].mT
        * cluster.present[..., None]
    )
    theirs = (target - middle[:, :, None]) * cluster.present[..., None]
    size = (ours.square().sum((-1, -2)) * theirs.square().sum((-1, -2))).sqrt()
    turned = (ours * theirs).sum((-1, -2)) < math.cos(tolerances.angle) * size - 1e-9
    kept = kept & ~turned
    return kept | (torch.arange(kept.shape[1]) == 0)


def _distances_to_centre(
    positions: Float[Tensor, "*s n width 3"], centroids: Float[Tensor, "*s n 3"]
) -> Float[Tensor, "*s 2 n width"]:
    """From the centre's centroid to each molecule's atoms, and from each centroid to the centre's atoms."""
    outward = (positions - centroids[..., :1, None, :]).norm(dim=-1)
    inward = (positions[..., :1, :, :] - centroids[..., None, :]).norm(dim=-1)
    return torch.stack([outward, inward], -3)


def _superposed(
    cluster: Cluster,
    motions: Motions,
    target: Float[Tensor, "starts n width 3"],
    ok: Bool[Tensor, "starts n"],
) -> Motions:
    fit = _fit(cluster, motions.hand, target, ok)
    return Motions(fit.rotation * motions.hand[:, None, None], fit.translation, motions.hand, motions.centre)


def _fit(
    cluster: Cluster,
    hand: Float[Tensor, " starts"],
    target: Float[Tensor, "starts n width 3"],
    ok: Bool[Tensor, "starts n"],
) -> Superposition:
    """Best proper motion of the (reflected, if hand is -1) cluster onto the molecules that are ok."""
    source = hand[:, None, None] * cluster.positions.flatten(0, 1)
    return kabsch(source, target.flatten(1, 2), (ok[..., None] * cluster.present).flatten(1))


def _describe(
    cluster: Cluster,
    motions: Motions,
    target: Float[Tensor, "starts n width 3"],
    ok: Bool[Tensor, "starts n"],
) -> PackingMatch:
    """The best of the motions: most molecules, then the smallest RMSD."""
    fit = _fit(cluster, motions.hand, target, ok)
    count = ok.sum(1)
    ties = torch.nonzero(count == count.max())[:, 0]
    best = int(ties[(fit.rmsd - 1e-6 * motions.hand)[ties].argmin()])  # of equals the proper one
    hand = motions.hand[best]
    alone = kabsch(hand * cluster.positions[0], target[best, 0], cluster.present[0])
    return PackingMatch(
        n_matched=int(count[best]),
        n=len(cluster.keys),
        rmsd=float(fit.rmsd[best]),
        rmsd_1=float(alone.rmsd),
        rotation=fit.rotation[best] * hand,
        translation=fit.translation[best],
        centres=(cluster.centre, int(motions.centre[best])),
    )
