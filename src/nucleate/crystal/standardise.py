"""Symmetry and standard cells of a crystal: operations, Z and Z', primitive Niggli cell, asymmetric unit.

Operations are found by moyo in the cell as given. Cell changes are kept as `transform`: the rows of the new
lattice are `transform @ lattice`, up to a rotation of the whole crystal where that is said.
"""

from collections import Counter
from dataclasses import dataclass, replace
from functools import reduce
from math import gcd
from typing import Any

import moyopy
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree
from torch import Tensor

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.graph import canonical, local_bonds, molecule_atoms, require_bonds
from nucleate.crystal.packing import Packings
from nucleate.crystal.rigid import represent_rigid
from nucleate.errors import NucleateError
from nucleate.geometry.symmetry import P1, SpaceGroup

SYMPREC = 0.01  # Å
NEAR = 1.5  # Å: atoms of one element are farther apart than this, but for hydrogens
MOST_CENTRINGS = 216  # of a supercell that is looked into; a larger one is written as it is


@dataclass(frozen=True, eq=False)
class Symmetry:
    """Space group of a crystal as given, and how many formula units it holds.

    `group` has the operations that map the crystal's own cell onto itself; a cell that is not primitive has its
    translations among them, and a supercell may lack some of the space group's. `z` counts formula units in the
    conventional cell, `z_prime` is z over the number of operations there.
    """

    number: int
    symbol: str
    group: SpaceGroup
    z: int
    z_prime: float
    symprec: float  # Å, at which it was found


@dataclass(frozen=True, eq=False)
class SymmetricCrystal:
    """Asymmetric unit in the standard setting of the space group, made exactly symmetric.

    `atoms` are indices into the crystal that it came from; together with the operations they give each of its
    atoms once per primitive cell. `shift` (Å) is how far symmetrising moved the farthest atom; `whole` says
    whether the unit consists of whole molecules.
    """

    group: SpaceGroup
    lattice: Float[Tensor, "3 3"]  # Å, conventional
    frac: Float[Tensor, "atoms 3"]
    atoms: Int[Tensor, " atoms"]
    z: int
    z_prime: float
    shift: float
    whole: bool


def find_symmetry(crystal: Crystal, symprec: float = SYMPREC) -> Symmetry:
    """Space group, operations in the given cell, Z and Z'; tolerance in Å.

    Where moyo finds nothing at `symprec` it is tried at 0.3, 0.1, 0.03 of it, then P1 is the answer.
    """
    data, used = _moyo(crystal, symprec)
    if data is None:
        group, number = P1, 1
    else:
        number, group = data.number, _group_of(data)
    standard = SpaceGroup.from_name(number)
    z = round(formula_units(crystal) * _centrings(standard) / _centrings(group))
    return Symmetry(number, standard.symbol, group, z, z / len(standard), used)


def _is_identity(W: Int[Tensor, "ops 3 3"]) -> Bool[Tensor, " ops"]:
    return (torch.eye(3, dtype=W.dtype) == W).all((1, 2))


def _centrings(group: SpaceGroup) -> int:
    """How many of the operations are pure translations, the identity included."""
    return int(_is_identity(group.rotations).sum())


def formula_units(crystal: Crystal) -> int:
    """Formula units in the cell: the greatest common divisor of the counts of its distinct molecules."""
    require_bonds(crystal)
    atoms, local = molecule_atoms(crystal), local_bonds(crystal)
    names = (canonical(crystal.numbers[a].tolist(), b.tolist())[0] for a, b in zip(atoms, local))
    return reduce(gcd, Counter(names).values())


def primitive_niggli(crystal: Crystal, symprec: float = SYMPREC) -> tuple[Crystal, Float[Tensor, "3 3"]]:
    """The same crystal in its primitive Niggli cell, and `transform`: new lattice = transform @ old lattice.

    No atom is rotated or moved: Cartesian positions stay, only the cell changes. Right-handed. Of molecules
    that are translations of each other one remains.
    """
    reduced, transform, _ = _primitive(crystal, find_symmetry(crystal, symprec).group)
    return reduced, transform


def _primitive(
    crystal: Crystal, group: SpaceGroup
) -> tuple[Crystal, Float[Tensor, "3 3"], Int[Tensor, " kept"]]:
    """As `primitive_niggli`, for operations that are known; and the atoms that remain."""
    pure = group.translations[_is_identity(group.rotations)]
    lattice = crystal.lattice.double()
    primitive = _shortest_basis(torch.cat([lattice, pure @ lattice]), float(crystal.volume) / len(pure))
    reduced = torch.tensor(moyopy.niggli_reduce(primitive.tolist())[0], dtype=torch.float64).reshape(3, 3)
    transform = _rational(reduced @ torch.linalg.inv(lattice), len(pure))
    moved = _in_cell(crystal, transform)
    kept = _first_of_translations(moved) if len(pure) > 1 else torch.arange(crystal.n_molecules)
    atoms = torch.nonzero(torch.isin(crystal.molecule, kept)).flatten()
    return select_molecules(moved, kept), transform, atoms


def represent_symmetric(
    crystal: Crystal, symprec: float = SYMPREC, own: bool = False
) -> tuple[Packings, Float[Tensor, " bodies"]]:
    """A crystal as rigid bodies of the asymmetric unit in its own cell, and their residual RMSD (Å).

    The group is the largest found in which every molecule sits on a general position: the detected group,
    or for molecules on special positions a subgroup reached by halving (P1 where only thirds would do). The
    cell is the crystal's own. With `own` every body keeps the conformer that it has.
    """
    packing, residual = represent_rigid(crystal, own=own)
    group = find_symmetry(crystal, symprec).group
    group, images = _free_group(crystal, group, max(20 * symprec, 0.1))
    kept = torch.unique(images.min(0).values)
    chosen: dict[str, Any] = {
        name: getattr(packing, name)[:, kept] for name in ("centroid", "rotation", "handedness", "conformer")
    }
    return (
        Packings(packing.species, group, packing.kind[kept], packing.lattice, **chosen),
        residual[kept],
    )


def to_symmetric(crystal: Crystal, symprec: float = SYMPREC) -> SymmetricCrystal:
    """Asymmetric unit of whole molecules (their unique part on special positions) in the standard setting.

    Positions and lattice are averaged over the group, so the operations hold exactly. Falls back to P1 in
    the given cell where the averaging would move an atom by more than 5 `symprec`.
    """
    data, _ = _moyo(crystal, symprec)
    if data is not None and _centrings(_group_of(data)) > MOST_CENTRINGS:
        data = None
    if data is not None and _lacks_operations(group := _group_of(data)):
        smaller, _, atoms = _primitive(crystal, group)
        unit = to_symmetric(smaller, symprec)
        return replace(unit, atoms=atoms[unit.atoms])
    answer = None if data is None else _symmetrised(crystal, data)
    if answer is None or answer.shift > 5 * symprec:
        everything = torch.arange(len(crystal))
        z = formula_units(crystal)
        return SymmetricCrystal(
            P1, crystal.lattice.double(), crystal.frac.double(), everything, z, z, 0.0, True
        )
    return answer


def _moyo(crystal: Crystal, symprec: float) -> tuple[Any, float]:
    """moyo's data set at the largest tolerance of the sweep that works, or None."""
    cell = moyopy.Cell(crystal.lattice.tolist(), (crystal.frac % 1.0).tolist(), crystal.numbers.tolist())
    for factor in (1.0, 0.3, 0.1, 0.03):
        try:
            data = moyopy.MoyoDataset(cell, symprec=symprec * factor, setting=moyopy.Setting.spglib())
        except (ValueError, RuntimeError):
            continue  # moyo gives up where tolerances contradict each other; a smaller one may hold
        return data, symprec * factor
    return None, symprec


def _operations(data: Any) -> tuple[Int[Tensor, "ops 3 3"], Float[Tensor, "ops 3"]]:
    """Operations in the given cell, identity first."""
    W = torch.tensor(np.array(data.operations.rotations)).long()
    w = torch.tensor(np.array(data.operations.translations), dtype=torch.float64)
    w = (w + 1e-6) % 1.0 - 1e-6
    plain = _is_identity(W) & (w.abs() < 1e-3).all(1)
    order = torch.argsort(plain.long(), descending=True, stable=True)
    return W[order], w[order]


def _group_of(data: Any) -> SpaceGroup:
    W, w = _operations(data)
    w = w.clone()
    w[0] = 0.0
    return SpaceGroup(data.number, SpaceGroup.from_name(data.number).symbol, W, w % 1.0)


def _lacks_operations(group: SpaceGroup) -> bool:
    """True where the cell is a supercell that some operation of the crystal does not map onto itself."""
    standard = SpaceGroup.from_name(group.number)
    fewer = len(group) // _centrings(group) < len(standard) // _centrings(standard)
    return fewer and _centrings(group) > 1


def _permutations(
    crystal: Crystal, W: Int[Tensor, "ops 3 3"], w: Float[Tensor, "ops 3"]
) -> tuple[Int[Tensor, "ops atoms"], Float[Tensor, "ops atoms 3"], float]:
    """Which atom each operation sends each atom to, the lattice shift, and the largest misfit (Å)."""
    frac, like = crystal.frac.double(), _LikeAtoms(crystal)
    target, shifts, worst = [], [], 0.0
    for rotation, translation in zip(W.double(), w):
        image = frac @ rotation.T + translation
        nearest, far = like.nearest(image)
        target.append(nearest)
        shifts.append((image - frac[nearest]).round())
        worst = max(worst, float(far.max()))
    return torch.stack(target), torch.stack(shifts), worst


class _LikeAtoms:
    """Finds the atom of a crystal that is nearest to where one of its element is expected.

    A tree of the atoms and their images beyond the faces of the cell answers at once where something is within `NEAR`;
    elements are a fourth coordinate, too far apart to be mistaken. Otherwise every atom is looked at.
    """

    def __init__(self, crystal: Crystal) -> None:
        self.frac, self.lattice = crystal.frac.double(), crystal.lattice.double()
        self.unlike = 1e3 * crystal.numbers.double()
        margin = NEAR * torch.linalg.inv(self.lattice).norm(dim=0)
        cells = torch.cartesian_prod(*[torch.arange(-1.0, 2.0, dtype=torch.float64)] * 3)
        images = (self.frac % 1.0) + cells[:, None]
        cell, self.atom = torch.nonzero(((images > -margin) & (images < 1 + margin)).all(-1), as_tuple=True)
        self.tree = None
        if bool((margin < 1).all()):
            self.tree = cKDTree(self._points(images[cell, self.atom], self.unlike[self.atom]))

    def nearest(
        self, image: Float[Tensor, "atoms 3"]
    ) -> tuple[Int[Tensor, " atoms"], Float[Tensor, " atoms"]]:
        """The atom of its own element nearest to where each atom is expected, and how far it is (Å)."""
        if self.tree is not None:
            far, found = self.tree.query(self._points(image % 1.0, self.unlike), distance_upper_bound=NEAR)
            if np.isfinite(far).all():
                return self.atom[torch.from_numpy(found)], torch.from_numpy(far)
        step = image[:, None] - self.frac
        away = ((step - step.round()) @ self.lattice).norm(dim=-1)
        near = (away + (self.unlike[:, None] - self.unlike).abs()).min(1)
        return near.indices, near.values

    def _points(self, frac: Float[Tensor, "n 3"], unlike: Float[Tensor, " n"]) -> Float[np.ndarray, "n 4"]:
        return torch.cat([frac @ self.lattice, unlike[:, None]], 1).numpy()


def _averaged(crystal: Crystal, W: Tensor, w: Tensor, target: Tensor, shifts: Tensor) -> tuple[Tensor, float]:
    """Positions averaged over the group, x_i = mean_g g^-1 (x_g(i) + t), and the largest move (Å)."""
    frac = crystal.frac.double()
    pulled = torch.einsum("oij,oaj->oai", torch.linalg.inv(W.double()), frac[target] + shifts - w[:, None])
    mean = pulled.mean(0)
    return mean, float(((mean - frac) @ crystal.lattice.double()).norm(dim=-1).max())


def _symmetrised(crystal: Crystal, data: Any) -> SymmetricCrystal | None:
    W, w = _operations(data)
    target, shifts, _ = _permutations(crystal, W, w)
    if not all(len(torch.unique(row)) == len(crystal) for row in target):
        return None
    frac, moved = _averaged(crystal, W, w, target, shifts)
    metric = crystal.lattice.double() @ crystal.lattice.double().T
    metric = torch.einsum("oji,jk,okl->il", W.double(), metric, W.double()) / len(W)
    kept = _asymmetric_atoms(crystal, target)
    linear = torch.tensor(np.array(data.std_linear), dtype=torch.float64)
    origin = torch.tensor(np.array(data.std_origin_shift), dtype=torch.float64)
    group = SpaceGroup.from_name(data.number)
    inverse = torch.linalg.inv(linear)
    new_frac = (frac[kept] - origin) @ inverse.T
    new_metric = _snapped(linear.T @ metric @ linear, group)
    lattice = torch.linalg.cholesky(new_metric)
    if not _same_operations(group, W, w, inverse, linear, origin):
        return None
    z = round(formula_units(crystal) * _centrings(group) / int(_is_identity(W).sum()))
    molecules = torch.unique(crystal.molecule[kept])
    whole = int(torch.isin(crystal.molecule, molecules).sum()) == len(kept)
    new_frac = _near_cell(new_frac, crystal.molecule[kept])
    return SymmetricCrystal(group, lattice, new_frac, kept, z, z / len(group), moved, whole)


def _snapped(metric: Float[Tensor, "3 3"], group: SpaceGroup) -> Float[Tensor, "3 3"]:
    """The metric averaged over the standard operations, so that right angles are exactly right."""
    W = group.rotations.double()
    return torch.einsum("oji,jk,okl->il", W, metric, W) / len(W)


def _same_operations(
    group: SpaceGroup, W: Tensor, w: Tensor, inverse: Tensor, linear: Tensor, origin: Tensor
) -> bool:
    """Whether the detected operations become operations of the tabulated group under the change of basis."""
    rotations = inverse @ W.double() @ linear
    translations = (w + torch.einsum("oij,j->oi", W.double(), origin) - origin) @ inverse.T
    near = (rotations[:, None] - group.rotations.double()).abs().amax((2, 3)) < 1e-3
    step = translations[:, None] - group.translations
    near &= (step - step.round()).abs().amax(-1) < 1e-2
    return bool(near.any(1).all())


def _asymmetric_atoms(crystal: Crystal, target: Int[Tensor, "ops atoms"]) -> Int[Tensor, " kept"]:
    """One atom of each orbit, those of one molecule together; molecules chosen in their order."""
    orbit = target.min(0).values  # orbits by their lowest atom, whichever molecule that is in
    done: set[int] = set()
    kept = []
    for atoms in molecule_atoms(crystal):
        for atom in atoms.tolist():
            if (name := int(orbit[atom])) not in done:
                done.add(name)
                kept.append(atom)
    return torch.tensor(kept)


def _near_cell(frac: Float[Tensor, "atoms 3"], molecule: Int[Tensor, " atoms"]) -> Float[Tensor, "atoms 3"]:
    """Each molecule (or its part) shifted so that its mean lies in [0, 1)."""
    _, place = torch.unique(molecule, return_inverse=True)
    n = int(place.max()) + 1
    mean = torch.zeros(n, 3, dtype=frac.dtype).index_add(0, place, frac) / torch.bincount(place)[:, None]
    return frac - torch.floor(mean + 1e-9)[place]


def _free_group(crystal: Crystal, group: SpaceGroup, tolerance: float) -> tuple[SpaceGroup, Tensor]:
    """A subgroup that moves every molecule, and the molecule that each operation sends each molecule to."""
    images = _molecule_images(crystal, group, tolerance)
    own = torch.arange(crystal.n_molecules)
    if images is not None and not (images[1:] == own).any():
        return group, images
    level, seen = [group], {_name(group)}
    while level:
        halves = [half for parent in level for half in parent.subgroups_of_index_two()]
        level = []
        for half in halves:
            if (name := _name(half)) in seen:
                continue
            seen.add(name)
            images = _molecule_images(crystal, half, tolerance)
            if images is not None and not (images[1:] == own).any():
                return half, images
            level.append(half)
    return P1, own[None]


def _name(group: SpaceGroup) -> tuple[tuple[int, ...], ...]:
    shifts = (group.translations * 48).round().long() % 48
    return tuple(sorted(tuple(r) for r in torch.cat([group.rotations.flatten(1), shifts], 1).tolist()))


def _molecule_images(crystal: Crystal, group: SpaceGroup, tolerance: float) -> Tensor | None:
    """molecule -> molecule for each operation; None where an atom has no image within `tolerance` Å."""
    target, _, worst = _permutations(crystal, group.rotations, group.translations)
    if worst > tolerance:
        return None
    first = torch.tensor([int(atoms[0]) for atoms in molecule_atoms(crystal)])
    return crystal.molecule[target[:, first]]


def _shortest_basis(vectors: Float[Tensor, "n 3"], volume: float) -> Float[Tensor, "3 3"]:
    """Three of the vectors (Å) that span a cell of this volume (Å^3), right-handed."""
    triples = torch.combinations(torch.arange(len(vectors)), 3)
    spanned = torch.linalg.det(vectors[triples])
    fits = (spanned.abs() - volume).abs() < 0.01 * volume
    if not fits.any():
        raise NucleateError(
            "expected lattice translations that span a primitive cell, got none; lower symprec"
        )
    best = int(torch.where(fits, vectors[triples].norm(dim=-1).sum(-1), torch.inf).argmin())
    basis = vectors[triples[best]]
    return basis if spanned[best] > 0 else -basis


def _rational(transform: Float[Tensor, "3 3"], denominator: int) -> Float[Tensor, "3 3"]:
    """Entries rounded to the fractions they must be."""
    return (transform * denominator).round() / denominator


def _in_cell(crystal: Crystal, transform: Float[Tensor, "3 3"]) -> Crystal:
    """The molecules in the cell `transform @ lattice`, centroids in [0, 1); they overlap where it is smaller."""
    lattice = transform @ crystal.lattice.double()
    frac = crystal.frac.double() @ torch.linalg.inv(transform)
    moved = crystal.replace(lattice=lattice, frac=frac)
    centres = moved.centroids
    return moved.replace(frac=frac - torch.floor(centres + 1e-9)[crystal.molecule])


def _first_of_translations(crystal: Crystal) -> Int[Tensor, " kept"]:
    """The first of molecules that are lattice translations of each other."""
    atoms = molecule_atoms(crystal)
    sizes = torch.tensor([len(a) for a in atoms])
    first = torch.tensor([int(a[0]) for a in atoms])
    step = crystal.frac[:, None] - crystal.frac[first]
    far = ((step - step.round()) @ crystal.lattice.double()).norm(dim=-1)
    same = (far < 0.3) & (crystal.numbers[:, None] == crystal.numbers[first])
    hit = (
        torch.zeros(len(atoms), len(atoms), dtype=torch.long).index_add(0, crystal.molecule, same.long()) > 0
    )
    hit &= sizes[:, None] == sizes
    return torch.nonzero(~torch.tril(hit, -1).any(1)).flatten()


def select_molecules(crystal: Crystal, molecules: Int[Tensor, " kept"]) -> Crystal:
    """A crystal of some of the molecules in the same cell."""
    place = torch.full((crystal.n_molecules,), -1, dtype=torch.long)
    place[molecules] = torch.arange(len(molecules))
    stays = place[crystal.molecule] >= 0
    renumber = torch.cumsum(stays.long(), 0) - 1
    bonded = stays[crystal.bonds[:, 0]]
    types = tuple(t for t, b in zip(crystal.bond_types, bonded.tolist()) if b)
    return crystal.replace(
        frac=crystal.frac[stays],
        numbers=crystal.numbers[stays],
        molecule=place[crystal.molecule[stays]],
        bonds=renumber[crystal.bonds[bonded]],
        bond_types=types,
        charges=None if crystal.charges is None else crystal.charges[stays],
    )
