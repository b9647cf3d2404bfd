"""A data set of packed crystals as tensors: every molecule once, every group once, crystals as numbers and indices.

Each crystal is brought to the short cells of its setting (several, where axes may be inverted or exchanged) and turned
so that its cell is the symmetric matrix exp(sum of k_i B_i) of its log coordinates.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from rdkit import Chem
from torch import Tensor

from nucleate.crystal.graph import skeleton
from nucleate.crystal.molecule import Molecule
from nucleate.crystal.packing import Packings
from nucleate.crystal.rigid import own_axes
from nucleate.data.packed import PackedCrystal
from nucleate.geometry.lattice import SHAPE_BASIS, family_log, lattice_from_log, log_coordinates
from nucleate.geometry.normaliser import Normaliser, normaliser, short_cells
from nucleate.geometry.so3 import kabsch
from nucleate.geometry.symmetry import SpaceGroup
from nucleate.physics.parameters import atomic_volume, donates_hydrogen_bond

MOST_ANCHORS = 16
SAME_POSE = 0.25  # Å: RMSD up to which an automorphism of the graph is a symmetry of the conformer
MOST_SYMMETRIES = 24
MOST_MAPS = 500  # automorphisms looked at


@dataclass(frozen=True, eq=False)
class Molecules:
    """Unique rigid molecules, padded. Symmetries are orthogonal matrices that lay the conformer on itself."""

    numbers: Int[Tensor, "molecules atoms"]  # 0 where padded
    positions: Float[Tensor, "molecules atoms 3"]  # Å, body frame
    anchor: Int[Tensor, "molecules atoms"]
    anchors: Float[Tensor, "molecules anchors 3"]
    present: Bool[Tensor, "molecules anchors"]
    axes: Float[Tensor, "molecules 3 3"]  # rows are the conformer's own axes, see `own_axes`
    symmetries: Float[Tensor, "molecules symmetries 3 3"]  # proper or improper; identity where padded
    symmetric: Bool[Tensor, "molecules symmetries"]
    volume: Float[Tensor, " molecules"]  # Å^3 by atoms alone
    gyration: Float[Tensor, " molecules"]  # Å, radius of gyration

    @staticmethod
    def of(conformers: Sequence[tuple[Molecule, Tensor]]) -> "Molecules":
        parts = [_one_molecule(molecule, positions) for molecule, positions in conformers]
        return Molecules(**{name: _stacked([p[name] for p in parts]) for name in parts[0]})


@dataclass(frozen=True, eq=False)
class Groups:
    """Unique space groups in their settings, padded; see `geometry.normaliser` for shifts and free axes."""

    rotations: Float[Tensor, "groups ops 3 3"]
    translations: Float[Tensor, "groups ops 3"]
    operations: Bool[Tensor, "groups ops"]
    shifts: Float[Tensor, "groups shifts 3"]
    free: Bool[Tensor, "groups 3"]
    allowed: Float[Tensor, "groups 6 6"]  # k -> allowed k + fixed is the nearest cell that the group allows
    fixed: Float[Tensor, "groups 6"]

    @staticmethod
    def of(groups: Sequence[SpaceGroup], normalised: bool = True) -> "Groups":
        """Without normalisers, which take a tenth of a second each, no origin counts as equal to another."""
        plain = Normaliser(
            torch.zeros(1, 3), torch.zeros(3, dtype=torch.bool), torch.eye(3).long()[None], torch.zeros(1, 3)
        )
        found = [normaliser(g) if normalised else plain for g in groups]
        return Groups(
            rotations=_stacked([g.rotations.float() for g in groups]),
            translations=_stacked([g.translations.float() for g in groups]),
            operations=_stacked([torch.ones(len(g), dtype=torch.bool) for g in groups]),
            shifts=_stacked([n.shifts.float() for n in found]),
            free=torch.stack([n.free for n in found]),
            allowed=torch.stack([_allowed(g)[0] for g in groups]).float(),
            fixed=torch.stack([_allowed(g)[1] for g in groups]).float(),
        )


@dataclass(frozen=True, eq=False)
class Poses:
    """Crystals with one number of bodies in the asymmetric unit."""

    molecules: Molecules
    groups: Groups
    lattice: Float[Tensor, "crystals cells 6"]  # log coordinates of all short cells, the shortest first
    centroid: Float[Tensor, "crystals cells bodies 3"]
    rotation: Float[Tensor, "crystals cells bodies 3 3"]  # in the frame of the symmetric cell
    short: Bool[Tensor, "crystals cells"]  # False where padded
    hand: Float[Tensor, "crystals bodies"]  # +1 or -1
    molecule: Int[Tensor, "crystals bodies"]
    group: Int[Tensor, " crystals"]
    above: Float[Tensor, " crystals"]  # kJ/mol above the lowest of the molecule; 0 for experimental ones
    ids: tuple[str, ...]
    keys: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.lattice)

    def __getitem__(self, index: Tensor) -> "Poses":
        chosen = {
            n: getattr(self, n)[index]
            for n in ("lattice", "centroid", "rotation", "short", "hand", "molecule", "group", "above")
        }
        rows = torch.arange(len(self))[index].tolist()
        ids, keys = tuple(self.ids[i] for i in rows), tuple(self.keys[i] for i in rows)
        return replace(self, **chosen, ids=ids, keys=keys)


def poses_of(crystals: Iterable[PackedCrystal], bodies: int = 1) -> Poses:
    """The crystals with so many bodies; the same conformer of the same molecule is stored once."""
    conformers: dict[bytes, int] = {}
    unique: list[tuple[Molecule, Tensor]] = []
    groups: dict[bytes, int] = {}
    group_list: list[SpaceGroup] = []
    rows: list[tuple[Tensor, Tensor, Tensor, Tensor, list[int], int, float, str, str]] = []
    for crystal in crystals:
        packing = crystal.packing
        if packing.n_bodies != bodies:
            continue
        own = []
        for m, k in enumerate(packing.kind.tolist()):
            molecule = packing.species[k]
            local = molecule.conformers[int(packing.conformer[0, m])]
            name = molecule.numbers.numpy().tobytes() + local.numpy().round(3).tobytes()
            if name not in conformers:
                conformers[name] = len(unique)
                unique.append((molecule, local))
            own.append(conformers[name])
        label = _label(packing.group)
        if label not in groups:
            groups[label] = len(group_list)
            group_list.append(packing.group)
        state = canonical_states(packing)
        names = crystal.above or 0.0, crystal.id, crystal.key
        rows.append((*state, packing.handedness[0].float(), own, groups[label], *names))
    if not rows:
        raise ValueError(f"expected crystals with {bodies} bodies in the asymmetric unit, got none")
    lattice, centroid, rotation, hand, molecule_of, group_of, above, ids, keys = zip(*rows)
    return Poses(
        molecules=Molecules.of(unique),
        groups=Groups.of(group_list),
        lattice=_filled(lattice).float(),
        centroid=_filled(centroid).float(),
        rotation=_filled(rotation).float(),
        short=_stacked([torch.ones(len(k), dtype=torch.bool) for k in lattice]),
        hand=torch.stack(hand),
        molecule=torch.tensor(molecule_of),
        group=torch.tensor(group_of),
        above=torch.tensor(above),
        ids=ids,
        keys=keys,
    )


def canonical_states(
    packing: Packings,
) -> tuple[Float[Tensor, "cells 6"], Float[Tensor, "cells bodies 3"], Float[Tensor, "cells bodies 3 3"]]:
    """Log coordinates, centroids and rotations of the first crystal in each short cell of its setting."""
    bases, origins = short_cells(packing.lattice[0], packing.group)
    cells = bases.double() @ packing.lattice[0].double()
    centroid = packing.centroid[0].double() @ torch.linalg.inv(bases.double()) + origins[:, None]
    k = log_coordinates(cells)
    turn = torch.linalg.solve(lattice_from_log(k), cells)  # cell = symmetric @ turn
    return k, centroid % 1.0, turn[:, None] @ packing.rotation[0].double()


def _filled(parts: Sequence[Tensor]) -> Tensor:
    """Padded to the longest first axis with copies of the first entry: always a crystal."""
    longest = max(map(len, parts))
    return torch.stack([torch.cat([p, p[:1].expand(longest - len(p), *p.shape[1:])]) for p in parts])


def _allowed(group: SpaceGroup) -> tuple[Float[Tensor, "6 6"], Float[Tensor, "6"]]:
    """The affine map of log coordinates onto those of the cells that keep the group.

    Where operations only permute and invert axes it is the mean over them of W^T K W. With a hexagonal axis it is
    that of the family in its standard setting.
    """
    basis, W = SHAPE_BASIS, group.rotations.double()
    if bool(((W != 0).sum(1) == 1).all()):
        turned = torch.einsum("oji,kjl,olm->kim", W, basis, W) / len(W)
        return torch.einsum("nij,kij->nk", basis, turned), torch.zeros(6, dtype=torch.float64)
    fixed = family_log(torch.zeros(6, dtype=torch.float64), group.family)
    columns = family_log(torch.eye(6, dtype=torch.float64), group.family) - fixed
    return columns.T, fixed


def _label(group: SpaceGroup) -> bytes:
    return group.rotations.numpy().tobytes() + (group.translations.double() % 1).numpy().round(6).tobytes()


# ---------------------------------------------------------------- one molecule


def _one_molecule(molecule: Molecule, positions: Float[Tensor, "atoms 3"]) -> dict[str, Tensor]:
    centred = positions.double() - positions.double().mean(0)
    anchors, anchor = anchor_points(molecule, centred)
    symmetries = conformer_symmetries(molecule, centred)
    return {
        "numbers": molecule.numbers,
        "positions": centred.float(),
        "anchor": anchor,
        "anchors": anchors.float(),
        "present": torch.ones(len(anchors), dtype=torch.bool),
        "axes": own_axes(centred).float(),
        "symmetries": symmetries.float(),
        "symmetric": torch.ones(len(symmetries), dtype=torch.bool),
        "volume": torch.tensor(atomic_volume(molecule)),
        "gyration": centred.square().sum(-1).mean().sqrt().float(),
    }


def anchor_points(
    molecule: Molecule, positions: Float[Tensor, "atoms 3"]
) -> tuple[Float[Tensor, "anchors 3"], Int[Tensor, " atoms"]]:
    """Where a molecule touches others: its heavy atoms and polar hydrogens, and to which of them each atom belongs.

    Of more than `MOST_ANCHORS` points those farthest from each other lead groups, and an anchor is the mean of its
    group. Other hydrogens belong to the anchor of their heavy atom.
    """
    atoms = list(molecule.graph.GetAtoms())
    points = [a.GetIdx() for a in atoms if a.GetAtomicNum() > 1 or donates_hydrogen_bond(a)] or [0]
    x = positions[points]
    leaders = [int((x - x.mean(0)).square().sum(-1).argmax())]
    while len(leaders) < min(MOST_ANCHORS, len(points)):
        leaders.append(int(torch.cdist(x, x[leaders]).amin(1).argmax()))
    group = torch.cdist(x, x[leaders]).argmin(1)
    member = torch.nn.functional.one_hot(group, len(leaders)).double()
    anchors = (member.T @ x) / member.sum(0)[:, None]
    place = {atom: int(group[i]) for i, atom in enumerate(points)}
    owner = [place[a.GetIdx()] if a.GetIdx() in place else place.get(_heavy_neighbour(a), 0) for a in atoms]
    return anchors, torch.tensor(owner)


def _heavy_neighbour(atom: Chem.Atom) -> int:
    return next((n.GetIdx() for n in atom.GetNeighbors()), 0)


def conformer_symmetries(
    molecule: Molecule, positions: Float[Tensor, "atoms 3"]
) -> Float[Tensor, "symmetries 3 3"]:
    """Orthogonal matrices A with x_perm(i) = A x_i for an automorphism of the heavy atoms; the identity first."""
    x = positions[molecule.heavy]
    if len(x) < 2:
        return torch.eye(3, dtype=torch.float64)[None]
    bare = skeleton(*molecule.heavy_graph)
    maps = torch.tensor(bare.GetSubstructMatches(bare, uniquify=False, maxMatches=MOST_MAPS))
    found = [torch.eye(3, dtype=torch.float64)]
    for hand in (1.0, -1.0):
        fit = kabsch((hand * x).expand(len(maps), -1, -1), x[maps])
        for rotation, rmsd in zip(hand * fit.rotation, fit.rmsd):
            if rmsd < SAME_POSE and all((rotation - A).square().sum() > 0.3 for A in found):
                found.append(rotation)
    return torch.stack(found[:MOST_SYMMETRIES])


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    """Padded with zeros (False) to the longest first axis; matrices with identities."""
    longest = max(len(p) if p.ndim else 0 for p in parts)
    if parts[0].ndim == 0:
        return torch.stack(list(parts))
    if all(p.shape == parts[0].shape for p in parts):
        return torch.stack(list(parts))
    if parts[0].ndim == 3:
        eye = torch.eye(3, dtype=parts[0].dtype)
        return torch.stack([torch.cat([p, eye.expand(longest - len(p), 3, 3)]) for p in parts])
    return torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True)
