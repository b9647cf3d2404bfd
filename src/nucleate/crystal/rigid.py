"""Rigid molecules: species of a crystal, poses by graph isomorphism and Kabsch, `Crystal` -> `Packings`.

A copy is matched to a reference conformer by

    min over maps p, handedness h, proper R of  rms_i | x_p(i) - c - h R l_i |

Maps p run over the automorphisms of the molecule. Heavy atoms are mapped first, then the hydrogens of each
heavy atom among themselves by position, so methyl and tert-butyl groups do not multiply the number of maps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any, overload

import torch
from jaxtyping import Float, Int
from rdkit import Chem
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.graph import (
    build_graph,
    canonical,
    local_bonds,
    molecule_atoms,
    molecule_bonds,
    require_bonds,
    skeleton,
    with_stereo,
)
from nucleate.crystal.molecule import Molecule
from nucleate.crystal.packing import Packings
from nucleate.errors import InputError
from nucleate.geometry.so3 import nearest_rotation
from nucleate.geometry.symmetry import P1

CONFORMER_TOLERANCE = 0.15  # Å RMSD, all atoms: copies farther apart are different conformers
MAX_MAPS = 2000  # automorphisms looked at
KEPT_MAPS = 16  # of these, fitted: those that agree best in internal distances
TIE = 1e-4  # Å: below this a mirrored pose counts as equal and the unmirrored one is taken


@dataclass(frozen=True)
class Poses:
    """Best rigid fit of copies of one molecule to one conformer; `map[k, i]` is the copy's atom of atom i."""

    rotation: Float[Tensor, "copies 3 3"]  # proper
    handedness: Int[Tensor, " copies"]  # +1 or -1
    map: Int[Tensor, "copies atoms"]
    rmsd: Float[Tensor, " copies"]  # Å, all atoms


def _best_rotation(
    local: Float[Tensor, "*n atoms 3"], target: Float[Tensor, "*n atoms 3"]
) -> Float[Tensor, "*n 3 3"]:
    """Proper rotations R that minimise sum |target - local R^T|^2, both centred (Kabsch 1978)."""
    return nearest_rotation(target.mT @ local)


def principal_axes(positions: Float[Tensor, "atoms 3"]) -> Float[Tensor, "atoms 3"]:
    """Centred and turned (properly) so that the longest principal axis is x and the shortest z."""
    centred = positions.double() - positions.double().mean(0)
    _, axes = torch.linalg.eigh(centred.T @ centred)
    axes = axes.flip(1)
    return centred @ (axes * torch.linalg.det(axes).sign())


def own_axes(positions: Float[Tensor, "*n atoms 3"]) -> Float[Tensor, "*n 3 3"]:
    """Rows: the principal axes of centred positions, the longest first, pointing where the shape is heavier.

    The two axes along which the third moment is largest choose their direction by it, the last makes the three
    right-handed. A shape that leaves a direction open has a symmetry that makes both alike.
    """
    axes = torch.linalg.eigh(positions.mT @ positions).eigenvectors.mT.flip(-2)
    moments = (positions @ axes.mT).pow(3).sum(-2)
    last = torch.nn.functional.one_hot(moments.abs().argmin(-1), 3).bool()
    axes = axes * torch.where(moments < 0, -1.0, 1.0)[..., None]
    return torch.where(last[..., None], torch.linalg.det(axes).sign()[..., None, None] * axes, axes)


class Matcher:
    """Fits copies of one molecule; what depends on the graph alone is worked out once."""

    def __init__(self, molecule: Molecule) -> None:
        self.numbers, self.bonds = molecule.numbers, molecule.bonds
        self.heavy = torch.nonzero(self.numbers > 1).flatten()
        self.groups = _hydrogen_groups(self.numbers, self.bonds)
        attached = sum(len(g) for _, g in self.groups)
        self.simple = attached == int((self.numbers == 1).sum())  # every hydrogen hangs on one heavy atom
        self.heavy_maps = self._automorphisms_of_heavy() if self.simple and len(self.heavy) > 2 else None
        self.all_maps: Tensor | None = None
        self.graph = skeleton(self.numbers.tolist(), self.bonds.tolist())
        self.crowded = self.heavy_maps is not None and len(self.heavy_maps) >= MAX_MAPS

    def fit(self, local: Float[Tensor, "atoms 3"], copies: Float[Tensor, "copies atoms 3"]) -> Poses:
        """Poses of `copies` (Å, atoms in the molecule's order) against the conformer `local` (Å)."""
        local = local.double() - local.double().mean(0)
        target = copies.double() - copies.double().mean(1, keepdim=True)
        hands = torch.tensor([1, -1])
        if self.crowded:
            maps = torch.stack([_maps_by_frames(self.graph, local, copy) for copy in target])
        else:
            maps = (
                self._every_map(local, target)
                if self._is_straight(local)
                else self._guided_maps(local, target)
            )
        n, n_maps = len(target), maps.shape[2]
        mapped = _take(target, maps)
        model = hands[:, None, None, None] * local  # hands, 1, atoms, 3
        R = _best_rotation(model.expand_as(mapped), mapped)
        rmsd = (mapped - model @ R.mT).square().sum(-1).mean(-1).sqrt()
        cost = rmsd + TIE * torch.tensor([0.0, 1.0])[:, None]
        best = cost.reshape(n, -1).argmin(1)
        hand, which = best // n_maps, best % n_maps
        at = (torch.arange(n), hand, which)
        return Poses(R[at], hands[hand], maps[at], rmsd[at])

    def _every_map(
        self, local: Float[Tensor, "atoms 3"], target: Float[Tensor, "copies atoms 3"]
    ) -> Int[Tensor, "copies 2 maps atoms"]:
        """Automorphisms of all atoms, for molecules whose heavy atoms alone do not fix the orientation."""
        if self.all_maps is None:
            self.all_maps = _automorphisms(self.graph, MAX_MAPS)
        return _closest_shapes(self.all_maps, local, target)[:, None].expand(-1, 2, -1, -1)

    def _automorphisms_of_heavy(self) -> Int[Tensor, "maps heavy"]:
        """Automorphisms of the heavy atoms that respect their numbers of hydrogens; places in `heavy`."""
        place = {int(a): k for k, a in enumerate(self.heavy)}
        bonds = [(place[a], place[b]) for a, b in self.bonds.tolist() if a in place and b in place]
        graph = Chem.RWMol(skeleton(self.numbers[self.heavy].tolist(), bonds))
        for owner, hydrogens in self.groups:
            graph.GetAtomWithIdx(place[owner]).SetIsotope(200 + len(hydrogens))
        return _automorphisms(graph, MAX_MAPS)

    def _is_straight(self, local: Float[Tensor, "atoms 3"]) -> bool:
        """True where the heavy atoms do not fix the orientation: fewer than three, or on a line."""
        if self.heavy_maps is None:
            return True
        heavy = local[self.heavy] - local[self.heavy].mean(0)
        return bool(torch.linalg.svdvals(heavy)[1] < 0.3)

    def _guided_maps(
        self, local: Float[Tensor, "atoms 3"], target: Float[Tensor, "copies atoms 3"]
    ) -> Int[Tensor, "copies 2 maps atoms"]:
        """For each copy, handedness and heavy map: hydrogens permuted on their atom to lie closest."""
        hands = torch.tensor([1.0, -1.0], dtype=torch.float64)[:, None, None, None]
        assert self.heavy_maps is not None  # else the molecule counts as straight
        chosen = _closest_shapes(self.heavy_maps, local[self.heavy], target[:, self.heavy])
        heavy = self.heavy[chosen][:, None].expand(-1, 2, -1, -1)  # copies, hands, maps, heavy
        placed = _take(target, heavy)
        model = hands * local[self.heavy]
        middle = placed.mean(-2, keepdim=True)
        R = _best_rotation((model - model.mean(-2, keepdim=True)).expand_as(placed), placed - middle)
        shift = middle - model.mean(-2, keepdim=True) @ R.mT
        guess = (hands * local) @ R.mT + shift
        maps = torch.empty(*placed.shape[:3], len(self.numbers), dtype=torch.long)
        maps[..., self.heavy] = heavy
        hydrogens = {owner: torch.tensor(group) for owner, group in self.groups}
        for owner, group in hydrogens.items():
            images = maps[..., owner]  # which atom of the copy carries these hydrogens
            own = torch.zeros(len(self.numbers), len(group), dtype=torch.long)
            for other, theirs in hydrogens.items():
                if len(theirs) == len(group):
                    own[other] = theirs
            there = own[images]  # copies, hands, maps, hydrogens
            orders = torch.tensor(list(permutations(range(len(group)))))
            choice = there[..., orders]  # ..., orders, hydrogens
            position = _take(target, choice)
            far = (position - guess[..., None, group, :]).square().sum((-1, -2))
            best = far.argmin(-1)[..., None, None].expand(*far.shape[:-1], 1, len(group))
            maps[..., group] = torch.gather(choice, -2, best).squeeze(-2)
        return maps


def _take(
    positions: Float[Tensor, "copies atoms 3"], index: Int[Tensor, " copies *more"]
) -> Float[Tensor, "copies *more 3"]:
    """Positions of chosen atoms of each copy."""
    copy = torch.arange(len(positions)).reshape(-1, *[1] * (index.ndim - 1))
    return positions[copy, index]


def _automorphisms(graph: Chem.Mol, most: int) -> Int[Tensor, "maps atoms"]:
    return torch.tensor(graph.GetSubstructMatches(graph, uniquify=False, maxMatches=most))


def _closest_shapes(
    maps: Int[Tensor, "maps atoms"], local: Float[Tensor, "atoms 3"], target: Float[Tensor, "copies atoms 3"]
) -> Int[Tensor, "copies kept atoms"]:
    """For each copy the maps under which its internal distances agree best with the conformer's.

    Distances need no rotation, so thousands of maps cost little; with many, distances to a dozen atoms
    decide.
    """
    if len(maps) <= KEPT_MAPS:
        return maps.expand(len(target), -1, -1)
    n = local.shape[0]
    probes = torch.arange(0, n, max(1, n // 12))
    model = torch.cdist(local, local[probes])
    inside = torch.cdist(target, target)
    kept = []
    for between in inside:  # one copy at a time bounds the memory
        off = (between[maps[:, :, None], maps[:, None, probes]] - model).square().sum((1, 2))
        kept.append(maps[off.topk(KEPT_MAPS, largest=False).indices])
    return torch.stack(kept)


def _maps_by_frames(
    graph: Chem.Mol, local: Float[Tensor, "atoms 3"], target: Float[Tensor, "atoms 3"]
) -> Int[Tensor, "2 kept atoms"]:
    """Maps for molecules with too many automorphisms to list, such as Ru2Cl3(PMe3)6: one copy at a time.

    Three atoms of rare classes fix a frame; every placement of them gives a pose, and the pose gives the
    map by assignment within classes of equivalent atoms. The identity is kept among the maps, so some map
    always fits.
    """
    ranks = torch.tensor(list(Chem.CanonicalRankAtoms(graph, breakTies=False)))
    size = torch.bincount(ranks)[ranks]
    anchors = _frame(local, size)
    classes = [torch.nonzero(ranks == ranks[a]).flatten() for a in anchors]
    triples = torch.cartesian_prod(*classes)
    between = torch.pdist(local[anchors])
    placed = target[triples]
    apart = torch.stack([(placed[:, a] - placed[:, b]).norm(dim=-1) for a, b in ((0, 1), (0, 2), (1, 2))], -1)
    triples = triples[(apart - between).square().sum(-1).topk(min(len(triples), 200), largest=False).indices]
    placed = target[triples]
    unlike = torch.where(ranks[:, None] == ranks, 0.0, 1e6).double()
    maps = []
    for hand in (1, -1):
        model = hand * local
        origin = model[anchors].mean(0)
        middle = placed.mean(1, keepdim=True)
        R = _best_rotation((model[anchors] - origin).expand_as(placed), placed - middle)
        guess = (model - origin) @ R.mT + middle
        far = torch.cdist(guess, target.expand(len(guess), -1, -1)).square() + unlike
        best = far.min(-1).values.sum(-1).topk(min(len(far), KEPT_MAPS), largest=False).indices
        found = [torch.from_numpy(linear_sum_assignment(far[b].numpy())[1]) for b in best.tolist()]
        kept = [m for m in found if _keeps_bonds(graph, m)]
        identity = torch.arange(len(local))
        maps.append(torch.stack((kept + [identity] * (KEPT_MAPS + 1))[: KEPT_MAPS + 1]))
    return torch.stack(maps)


def _frame(local: Float[Tensor, "atoms 3"], size: Int[Tensor, " atoms"]) -> Int[Tensor, "3"]:
    """Three atoms well off a line, of classes as small as possible."""
    order = torch.argsort(size, stable=True)
    first = order[0]
    second = next(a for a in order[1:] if (local[a] - local[first]).norm() > 1.0)
    axis = torch.nn.functional.normalize(local[second] - local[first], dim=0)
    off = torch.linalg.cross(local - local[first], axis.expand_as(local)).norm(dim=-1)
    third = next(a for a in order if off[a] > 0.8)
    return torch.stack([first, second, third])


def _keeps_bonds(graph: Chem.Mol, image: Int[Tensor, " atoms"]) -> bool:
    bonds = ((int(image[b.GetBeginAtomIdx()]), int(image[b.GetEndAtomIdx()])) for b in graph.GetBonds())
    return all(graph.GetBondBetweenAtoms(a, b) is not None for a, b in bonds)


def _hydrogen_groups(numbers: Tensor, bonds: Tensor) -> list[tuple[int, list[int]]]:
    """(heavy atom, its terminal hydrogens), heavy atoms ascending."""
    groups: dict[int, list[int]] = {}
    degree = torch.bincount(bonds.flatten(), minlength=len(numbers))
    for a, b in [*bonds.tolist(), *bonds.flip(1).tolist()]:
        if numbers[a] > 1 and numbers[b] == 1 and degree[b] == 1:
            groups.setdefault(a, []).append(b)
    return [(a, sorted(group)) for a, group in sorted(groups.items()) if len(group) <= 4]


def species_from_crystal(crystal: Crystal, tolerance: float = CONFORMER_TOLERANCE) -> tuple[Molecule, ...]:
    """The distinct molecules of a crystal, each with its distinct conformers as they are there.

    Molecules are told apart by their skeleton; copies (mirrored or not) within `tolerance` Å RMSD share a
    conformer. Conformers lie on their principal axes. Bond orders and charges are the crystal's, stereo
    that of the first conformer. Raises InputError "no bonds" for a crystal without bonds.
    """
    return tuple(species for species, _ in _sorted_copies(crystal, None, tolerance))


def represent_rigid(
    crystal: Crystal,
    species: Sequence[Molecule] | None = None,
    tolerance: float = CONFORMER_TOLERANCE,
    own: bool = False,
) -> tuple[Packings, Float[Tensor, " molecules"]]:
    """A crystal as rigid bodies in P1 (a batch of one), and the residual RMSD (Å) of each molecule.

    Without `species` they are taken from the crystal. With them, every molecule is fitted to its closest
    conformer there, whatever the residual; InputError "other molecule" where the crystal holds one that is
    not among them. Bodies are in the order of the crystal's molecules. With `own` every body keeps the conformer
    that it has, in the frame and with the atom order of the fit: nothing is lost, the residual is rounding.
    """
    grouped = _sorted_copies(crystal, species, tolerance)
    kinds = [molecule for molecule, _ in grouped]
    n = crystal.n_molecules
    kind, conformer = torch.zeros(n, dtype=torch.long), torch.zeros(n, dtype=torch.long)
    rotation, handedness = torch.zeros(n, 3, 3, dtype=torch.float64), torch.ones(n, dtype=torch.long)
    residual = torch.zeros(n, dtype=torch.float64)
    for k, (molecule, copies) in enumerate(grouped):
        if not len(copies.index):
            continue
        best = _best_conformers(molecule, copies.positions)
        if own:
            best |= _own_conformers(copies.positions, best)
            kinds[k] = molecule.with_conformers(best["local"])
        at = copies.index
        kind[at], conformer[at] = k, best["conformer"]
        rotation[at], handedness[at], residual[at] = best["rotation"], best["handedness"], best["rmsd"]
    packing = Packings(
        species=tuple(kinds),
        group=P1,
        kind=kind,
        lattice=crystal.lattice.double()[None],
        centroid=crystal.centroids.double()[None],
        rotation=rotation[None],
        handedness=handedness[None],
        conformer=conformer[None],
    )
    return packing, residual


@overload
def normalise_hydrogens(thing: Molecule) -> Molecule: ...
@overload
def normalise_hydrogens(thing: Crystal) -> Crystal: ...
def normalise_hydrogens(thing: Molecule | Crystal) -> Molecule | Crystal:
    """The same with X-H bonds at neutron lengths, moved along the bond.

    X-rays see hydrogens 0.1 Å too near. Lengths (Å) after Allen & Bruno, Acta Cryst. B66 (2010) 380, by
    element and number of neighbours of X: C 1.089 with four (sp3), else 1.083; N 1.036 with four
    (ammonium), else 1.015; O 0.983; B 1.185. Bonds to other elements stay.
    """
    bonds, numbers = thing.bonds, thing.numbers
    first, second = bonds.T
    hydrogen = torch.cat([first, second])
    owner = torch.cat([second, first])
    degree = torch.bincount(bonds.flatten(), minlength=len(numbers))
    chosen = (numbers[hydrogen] == 1) & (numbers[owner] > 1) & (degree[hydrogen] == 1)
    hydrogen, owner = hydrogen[chosen], owner[chosen]
    length = _neutron_lengths(numbers[owner], degree[owner])
    known = length > 0
    hydrogen, owner, length = hydrogen[known], owner[known], length[known]
    positions = (thing.positions[None] if isinstance(thing, Crystal) else thing.conformers).double().clone()
    arm = positions[:, hydrogen] - positions[:, owner]
    positions[:, hydrogen] = positions[:, owner] + arm / arm.norm(dim=-1, keepdim=True) * length[:, None]
    if isinstance(thing, Crystal):
        return thing.replace(frac=(positions[0] @ torch.linalg.inv(thing.lattice.double())).to(thing.frac))
    return thing.with_conformers(positions)


def _neutron_lengths(
    element: Int[Tensor, " bonds"], degree: Int[Tensor, " bonds"]
) -> Float[Tensor, " bonds"]:
    """X-H lengths (Å) by element and number of neighbours of X; 0 where none is tabulated."""
    length = torch.zeros(len(element), dtype=torch.float64)
    length[element == 6] = 1.083
    length[(element == 6) & (degree == 4)] = 1.089
    length[element == 7] = 1.015
    length[(element == 7) & (degree == 4)] = 1.036
    length[element == 8] = 0.983
    length[element == 5] = 1.185
    return length


@dataclass(frozen=True)
class _Copies:
    """The copies of one species: molecule indices, positions (Å) in the species' atom order, whole-cell
    atoms.
    """

    index: Int[Tensor, " copies"]
    positions: Float[Tensor, "copies atoms 3"]
    atoms: Int[Tensor, "copies atoms"]


def _sorted_copies(
    crystal: Crystal, species: Sequence[Molecule] | None, tolerance: float
) -> list[tuple[Molecule, _Copies]]:
    require_bonds(crystal)
    atoms, local = molecule_atoms(crystal), local_bonds(crystal)
    keys = [canonical(crystal.numbers[a].tolist(), b.tolist()) for a, b in zip(atoms, local)]
    ordered = [a[torch.tensor(order)] for a, (_, order) in zip(atoms, keys)]
    names = [key for key, _ in keys]
    positions = crystal.positions.double()
    references: list[tuple[str, Chem.Mol | Molecule, tuple[int, ...]]]
    if species is None:
        first = {name: names.index(name) for name in dict.fromkeys(names)}
        references = [(name, _graph_of(crystal, atoms[m], m), keys[m][1]) for name, m in first.items()]
    else:
        given = [(m, *canonical(m.numbers.tolist(), m.bonds.tolist())) for m in species]
        references = [(name, molecule, order) for molecule, name, order in given]
        if strange := set(names) - {name for _, name, _ in given}:
            odd = names.index(sorted(strange)[0])
            raise InputError(
                f"expected only the molecules {[m.formula for m in species]}, got another one with "
                f"{len(atoms[odd])} atoms; check protonation, solvent and bonds",
                reason="other molecule",
            )
    result = []
    for name, reference, order in references:
        index = torch.tensor([m for m, other in enumerate(names) if other == name], dtype=torch.long)
        back = torch.argsort(torch.tensor(order))
        rows = [ordered[m][back] for m in index.tolist()]
        whole = torch.stack(rows) if rows else torch.zeros(0, len(order), dtype=torch.long)
        copies = _Copies(index, positions[whole], whole)
        molecule = (
            reference if isinstance(reference, Molecule) else _with_conformers(reference, copies, tolerance)
        )
        result.append((molecule, copies))
    return result


def _graph_of(crystal: Crystal, atoms: Tensor, molecule: int) -> Chem.Mol:
    chosen = molecule_bonds(crystal)[molecule]
    types = [crystal.bond_types[b] for b in chosen.tolist()] if crystal.bond_types else []
    charges = None if crystal.charges is None else crystal.charges[atoms].tolist()
    return build_graph(
        crystal.numbers[atoms].tolist(), local_bonds(crystal)[molecule].tolist(), types, charges
    )


def _with_conformers(graph: Chem.Mol, copies: _Copies, tolerance: float) -> Molecule:
    """Greedy leaders: a copy farther than `tolerance` from all conformers so far becomes a conformer."""
    first = principal_axes(copies.positions[0])
    molecule = Molecule(with_stereo(graph, first), first[None])
    matcher = Matcher(molecule)
    nearest = matcher.fit(first, copies.positions).rmsd
    conformers = [first]
    while (nearest > tolerance).any():
        leader = int(nearest.argmax())
        another = principal_axes(copies.positions[leader])
        conformers.append(another)
        nearest = torch.minimum(nearest, matcher.fit(another, copies.positions).rmsd)
        nearest[leader] = 0.0
    return molecule.with_conformers(torch.stack(conformers))


def _best_conformers(molecule: Molecule, copies: Float[Tensor, "copies atoms 3"]) -> dict[str, Any]:
    if not len(molecule.conformers):
        raise InputError(
            f"expected a conformer of {molecule.formula} to fit, got a molecule without any; generate "
            "conformers "
            "first or let the species come from the crystal",
            reason="no conformer",
        )
    matcher = Matcher(molecule)
    fits = [matcher.fit(conformer, copies) for conformer in molecule.conformers]
    which = torch.stack([fit.rmsd for fit in fits]).argmin(0)
    row = torch.arange(len(copies))
    names = ("rotation", "handedness", "rmsd", "map")
    return {"conformer": which} | {
        name: torch.stack([getattr(f, name) for f in fits])[which, row] for name in names
    }


def _own_conformers(copies: Float[Tensor, "copies atoms 3"], best: dict[str, Any]) -> dict[str, Any]:
    """Body-frame positions of each copy in its fitted frame, the fit x = h l R^T + c solved for l."""
    placed = torch.gather(copies, 1, best["map"][..., None].expand(-1, -1, 3))
    placed = placed - placed.mean(1, keepdim=True)
    return {
        "local": best["handedness"][:, None, None] * placed @ best["rotation"],
        "conformer": torch.arange(len(copies)),
        "rmsd": torch.zeros(len(copies), dtype=torch.float64),
    }
