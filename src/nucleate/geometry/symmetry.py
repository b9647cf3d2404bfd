"""Space groups: their operations on fractional coordinates, subgroups of index two, allowed strains.

An operation takes a fractional column x to W x + w; for rows of positions, `frac @ W.T + w`.
Tables come from gemmi, which holds all settings of the 230 groups.
"""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import product

import gemmi
import spglib
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nucleate.errors import InputError
from nucleate.geometry.lattice import call_spglib, lattice_from_metric, lattice_from_parameters

FAMILIES = ("triclinic", "monoclinic", "orthorhombic", "tetragonal", "trigonal", "hexagonal", "cubic")


@dataclass(frozen=True, eq=False)
class SpaceGroup:
    """A set of symmetry operations that is closed modulo lattice translations.

    `rotations` act on fractional columns in the cell's own basis, `translations` are fractions in [0, 1).
    The identity comes first. Centring translations are operations like any other, so the order of the group
    is the number of copies of a general position in the (conventional) cell.
    """

    number: int
    symbol: str
    rotations: Int[Tensor, "ops 3 3"]
    translations: Float[Tensor, "ops 3"]

    def __post_init__(self) -> None:
        if not torch.equal(self.rotations[0], torch.eye(3, dtype=self.rotations.dtype)):
            raise ValueError("expected the identity as the first operation of a space group")

    def __len__(self) -> int:
        """Number of operations, centring included."""
        return len(self.rotations)

    def __repr__(self) -> str:
        return f"SpaceGroup({self.number}, {self.symbol!r}, {len(self)} operations)"

    @property
    def determinants(self) -> Int[Tensor, " ops"]:
        """+1 for proper, -1 for improper operations (which turn a molecule into its mirror image)."""
        return torch.linalg.det(self.rotations.double()).round().to(self.rotations.dtype)

    @property
    def is_sohncke(self) -> bool:
        """True where no operation inverts handedness: the 65 groups open to one enantiomer alone."""
        return bool((self.determinants > 0).all())

    @property
    def is_centrosymmetric(self) -> bool:
        return bool((self.rotations == -torch.eye(3, dtype=self.rotations.dtype)).all((1, 2)).any())

    @cached_property
    def family(self) -> str:
        """Lattice system of the conventional cell; rhombohedral settings count as `trigonal`."""
        return gemmi.SpaceGroup(self.number).crystal_system_str()

    def expand(self, frac: Float[Tensor, "*n 3"]) -> Float[Tensor, "ops *n 3"]:
        """All images of the positions, not wrapped."""
        rotated = torch.einsum("oij,...j->o...i", self.rotations.to(frac), frac)
        return rotated + self.translations.to(frac).reshape(-1, *[1] * (frac.ndim - 1), 3)

    @cached_property
    def inverses(self) -> tuple[int, ...]:
        """For each operation the index of its inverse modulo lattice translations."""
        lookup = {key: i for i, key in enumerate(_keys(self.rotations, self.translations))}
        inverse_rotations = torch.linalg.inv(self.rotations.double()).round().long()
        shifts = -torch.einsum("oij,oj->oi", inverse_rotations.double(), self.translations.double())
        return tuple(lookup[key] for key in _keys(inverse_rotations, shifts))

    def subgroups_of_index_two(self) -> list["SpaceGroup"]:
        """Every subgroup with half the operations in the same cell, up to duplicates (homomorphisms onto ±1).

        A molecule on a special position of order two in the full group is one whole molecule in the general
        position of such a subgroup. The number and symbol are those of the subgroup's own type.
        """
        table = _multiplication_table(self)
        generators = _generators(table)
        found: dict[tuple[int, ...], SpaceGroup] = {}
        for signs in product((1, -1), repeat=len(generators)):
            character = _extend_character(table, dict(zip(generators, signs)))
            if character is None or all(s == 1 for s in character):
                continue
            kept = tuple(i for i, s in enumerate(character) if s == 1)
            found[kept] = SpaceGroup.from_operations(
                self.rotations[list(kept)], self.translations[list(kept)]
            )
        return list(found.values())

    @staticmethod
    def from_name(name: str | int) -> "SpaceGroup":
        """Look a group up by number (standard setting) or Hermann-Mauguin symbol (any setting).

        Raises InputError with the accepted forms for anything else.
        """
        return _from_name(str(name).strip())

    @staticmethod
    def from_operations(
        rotations: Int[Tensor, "ops 3 3"], translations: Float[Tensor, "ops 3"]
    ) -> "SpaceGroup":
        """Name a closed list of operations by its space-group type (spglib); number 0 if it has none."""
        group = SpaceGroup(0, "?", rotations.long(), translations.double() % 1.0)
        kind = call_spglib(
            spglib.get_spacegroup_type_from_symmetry,
            group.rotations.numpy(),
            group.translations.numpy(),
            lattice=lattice_from_metric(averaged_metric(group, torch.eye(3, dtype=torch.float64))).numpy(),
        )
        if kind is None:
            return group
        return replace(group, number=kind.number, symbol=kind.international_short.replace("_", ""))


P1 = SpaceGroup(1, "P1", torch.eye(3, dtype=torch.long)[None], torch.zeros(1, 3, dtype=torch.float64))


@lru_cache(maxsize=1024)
def _from_name(name: str) -> SpaceGroup:
    number = int(name) if name.isdigit() else None
    if number is not None and not 1 <= number <= 230:
        raise InputError(f"expected a space-group number from 1 to 230, got {number}")
    entry = gemmi.find_spacegroup_by_number(number) if number else gemmi.find_spacegroup_by_name(name)
    if entry is None:
        raise InputError(
            "expected a space group by number (1-230) or Hermann-Mauguin symbol such as 'P21/c', "
            f"got {name!r}"
        )
    operations = sorted(entry.operations(), key=lambda op: op.triplet() != "x,y,z")
    den = gemmi.Op.DEN
    rotations = torch.tensor([op.rot for op in operations]) // den
    translations = torch.tensor([op.tran for op in operations], dtype=torch.float64) / den % 1.0
    symbol = entry.short_name()
    symbol = "R" + symbol[1:] if symbol.startswith("H") else symbol  # gemmi marks hexagonal axes with H
    return SpaceGroup(entry.number, symbol, rotations, translations)


def obeys(group: SpaceGroup, lattice: Float[Tensor, "*n 3 3"], tolerance: float = 1e-4) -> Bool[Tensor, "*n"]:
    """True where every operation keeps the cell's metric: |W^T G W - G| <= tolerance |G|, with G = L L^T."""
    metric = (lattice @ lattice.mT)[..., None, :, :]
    W = group.rotations.to(lattice)
    change = (W.mT @ metric @ W - metric).flatten(-2).norm(dim=-1).amax(-1)
    return change <= tolerance * metric.flatten(-3).norm(dim=-1)


def allowed_cell(
    group: SpaceGroup | str, lengths: Float[Tensor, "*n 3"], angles: Float[Tensor, "*n 3"]
) -> Float[Tensor, "*n 3 3"]:
    """The cell, in standard orientation, that obeys the group and is near to free lengths (Å), angles (rad).

    The metric tensor is averaged over the group, the mean of W^T G W. Free lengths and angles pass
    unchanged, tied lengths become their quadratic mean, and fixed angles come out right in any setting:
    unique axis b or c, hexagonal or rhombohedral axes. A family name instead of a group means its standard
    setting (monoclinic: unique axis b; trigonal: hexagonal axes). Differentiable. Raises InputError for
    lengths and angles that no cell has (see `lattice_from_parameters`) and for unknown families.
    """
    if isinstance(group, str):
        group = _smallest_of_family(group)
    free = lattice_from_parameters(lengths, angles)
    return lattice_from_metric(averaged_metric(group, free @ free.mT))


def averaged_metric(group: SpaceGroup, metric: Float[Tensor, "*n 3 3"]) -> Float[Tensor, "*n 3 3"]:
    """The metric tensors nearest to the given ones that every operation keeps."""
    W = group.rotations.to(metric)
    averaged = torch.einsum("oji,...jk,okl->...il", W, metric, W) / len(group)
    return (averaged + averaged.mT) / 2


def _smallest_of_family(family: str) -> SpaceGroup:
    """The first space group of a family: any group of it leaves the same cells."""
    if family not in FAMILIES:
        raise InputError(f"expected a crystal family out of {', '.join(FAMILIES)}; got {family!r}")
    first = (1, 3, 16, 75, 143, 168, 195)
    return SpaceGroup.from_name(first[FAMILIES.index(family)])


def strain_basis(group: SpaceGroup, lattice: Float[Tensor, "3 3"]) -> Float[Tensor, "modes 3 3"]:
    """Orthonormal basis of the symmetric strains that keep the group a symmetry of the lattice.

    A strain e is allowed when it commutes with every Cartesian rotation R = L^T W L^-T; the projector onto
    such strains is the group average of R e R^T, and its range is the basis: 6, 4, 3, 2, 2, 2 and 1 modes
    from triclinic to cubic. Raises InputError where the cell does not have the group's symmetry.
    """
    if not obeys(group, lattice, 1e-2):
        raise InputError(
            f"expected a cell that obeys {group.symbol} ({group.family}), got rows {lattice.tolist()}; make "
            "one with allowed_cell, or choose the setting of the space group that fits the cell's axes"
        )
    dtype = lattice.dtype
    columns = lattice.T.double()
    rotations = columns @ group.rotations.to(columns) @ torch.linalg.inv(columns)
    full = _symmetric_basis().to(columns).flatten(1)
    averaged = torch.einsum("oij,mjk,olk->mil", rotations, full.unflatten(1, (3, 3)), rotations) / len(group)
    projector = full @ averaged.flatten(1).T
    kept = _range_of_projector((projector + projector.T) / 2)
    return (kept @ full).unflatten(1, (3, 3)).to(dtype)


def strain_bases(
    group: SpaceGroup, lattices: Float[Tensor, "batch 3 3"]
) -> list[tuple[Float[Tensor, "modes 3 3"], Int[Tensor, " cells"]]]:
    """`strain_basis` of many cells: each basis with the cells it holds for; one entry where all are set up alike.

    The basis depends on a cell only through the Cartesian rotations of the group, which allowed strains leave alone.
    """
    columns = lattices.double().mT[:, None]
    rotations = columns @ group.rotations.double() @ torch.linalg.inv(columns)
    alike = (rotations - rotations[:1]).abs().amax((1, 2, 3)) < 1e-8
    sets = [torch.nonzero(alike).flatten(), *torch.nonzero(~alike)]
    return [(strain_basis(group, lattices[cells[0]]), cells) for cells in sets if len(cells)]


def _range_of_projector(projector: Float[Tensor, "n n"]) -> Float[Tensor, "rank n"]:
    """Orthonormal rows that span its range: Gram-Schmidt on its columns, the first ones first.

    Unlike eigenvectors of a degenerate eigenvalue they do not turn with rounding errors; hence also the
    rounding.
    """
    kept: list[Tensor] = []
    for column in projector.T:
        rest = column - sum((row * (row @ column) for row in kept), torch.zeros_like(column))
        if rest.norm() > 1e-3:
            kept.append(rest / rest.norm())
    return torch.stack(kept).round(decimals=12)


def _symmetric_basis() -> Float[Tensor, "6 3 3"]:
    """Orthonormal (Frobenius) basis of the symmetric 3x3 matrices."""
    basis = torch.zeros(6, 3, 3, dtype=torch.float64)
    for m, (i, j) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        basis[m, i, j] = basis[m, j, i] = 1.0 if i == j else 0.5**0.5
    return basis


def _keys(rotations: Tensor, translations: Tensor) -> list[tuple[int, ...]]:
    """Hashable form of operations; translations in 48ths, which all groups' fractions divide."""
    shifts = (translations.double() * 48).round().long() % 48
    return [tuple(row) for row in torch.cat([rotations.long().flatten(1), shifts], 1).tolist()]


def _multiplication_table(group: SpaceGroup) -> list[list[int]]:
    lookup = {key: i for i, key in enumerate(_keys(group.rotations, group.translations))}
    W, w = group.rotations, group.translations
    rotations = torch.einsum("aij,bjk->abik", W, W)
    shifts = torch.einsum("aij,bj->abi", W.double(), w) + w[:, None]
    n = len(group)
    keys = _keys(rotations.flatten(0, 1), shifts.flatten(0, 1))
    return [[lookup[keys[a * n + b]] for b in range(n)] for a in range(n)]


def _generators(table: list[list[int]]) -> list[int]:
    """A small generating set: take the first element that the ones so far do not reach."""
    reached, generators = {0}, []
    while len(reached) < len(table):
        generators.append(next(i for i in range(len(table)) if i not in reached))
        frontier = list(reached | set(generators))
        reached |= set(generators)
        while frontier:
            a = frontier.pop()
            for g in generators:
                if (c := table[a][g]) not in reached:
                    reached.add(c)
                    frontier.append(c)
    return generators


def _extend_character(table: list[list[int]], signs: dict[int, int]) -> list[int] | None:
    """The homomorphism onto ±1 with these values on the generators, or None where they contradict."""
    value, frontier = {0: 1}, [0]
    while frontier:
        a = frontier.pop()
        for g, sign in signs.items():
            c = table[a][g]
            if c not in value:
                value[c] = value[a] * sign
                frontier.append(c)
            elif value[c] != value[a] * sign:
                return None
    return [value[i] for i in range(len(table))]
