"""Random crystals: molecules in a space group, from low-discrepancy or pseudo-random numbers.

The recipe: volume (1.0 to 1.25) times the predicted one, cell lengths spread by exp(U(-0.75, 0.75)), angles
free where the space group leaves them free, uniform positions and orientations. Sobol sequences cover this space
more evenly than pseudo-random numbers (Case, Campbell, Bygrave & Day, J. Chem. Theory Comput. 12, 910 (2016)).
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.quasirandom import SobolEngine

from nucleate.crystal.molecule import Molecule
from nucleate.crystal.packing import Packings
from nucleate.data import space_groups
from nucleate.errors import InputError
from nucleate.geometry.lattice import angles_feasible, heights, strained, volume
from nucleate.geometry.so3 import rotation_exp, rotation_from_uniform
from nucleate.geometry.symmetry import SpaceGroup, allowed_cell, strain_bases
from nucleate.physics.parameters import KJ_PER_MOL, predicted_volume

LENGTH_SPREAD = 0.75  # of the logarithms of the cell lengths
VOLUME_RANGE = (1.0, 1.25)  # times the predicted volume
MONOCLINIC_BETA = (90.0, 128.0)
TRICLINIC_ANGLES = (60.0, 120.0)
SMALLEST_HEIGHT = 3.2  # Å between faces: no molecule is thinner
CONFORMER_TEMPERATURE = 8 * KJ_PER_MOL  # eV; how fast the share of starts falls with a conformer's energy

SEARCHABLE = (0.5, 1.0, 2.0)  # formula units in the asymmetric unit

Sequence_ = Literal["sobol", "random"]


@dataclass(frozen=True, eq=False)
class Composition:
    """What a crystal is made of: species, how many of each in a formula unit, and their conformers' energies."""

    species: tuple[Molecule, ...]
    counts: tuple[int, ...]
    conformer_energies: tuple[Float[Tensor, " _"], ...]  # eV, relative within each species
    enantiopure: bool  # a mirror image would be another substance

    @property
    def volume(self) -> float:
        """Predicted Å^3 of one formula unit."""
        return sum(n * predicted_volume(m) for m, n in zip(self.species, self.counts))

    @property
    def molecules(self) -> int:
        """Molecules in one formula unit."""
        return sum(self.counts)

    def kinds(self, formula_units: int) -> list[int]:
        """The species of every body of an asymmetric unit that holds so many formula units."""
        return [s for _ in range(formula_units) for s, n in enumerate(self.counts) for _ in range(n)]

    def is_centrosymmetric(self, tolerance: float = 0.3) -> bool:
        """True where the lowest conformer of the only molecule is its own image under inversion (RMSD in Å)."""
        if len(self.species) > 1 or self.counts[0] > 1 or not len(self.species[0].conformers):
            return False
        molecule = self.species[0]
        local = molecule.conformers[int(self.conformer_energies[0].argmin())]
        mirrored = -local[molecule.automorphisms]
        residual = (mirrored - local).square().sum(-1).mean(-1).sqrt()
        return bool(residual.min() < tolerance)


@dataclass(frozen=True, eq=False)
class Arm:
    """One way to start: a space group and the number of formula units in its asymmetric unit."""

    key: str
    group: SpaceGroup
    formula_units: int
    weight: float = 1.0


def arms(
    composition: Composition,
    space_groups_wanted: str = "common",
    z: Sequence[int] | None = None,
    z_prime: Sequence[float] | None = None,
) -> list[Arm]:
    """The space groups to search and the share of starts for each; weights sum to one.

    `space_groups_wanted` is "common" or a comma-separated list of numbers and symbols. Z' defaults to 1, and for
    centrosymmetric molecules also to 1/2, which is searched as a whole molecule in subgroups of index two. `z`
    keeps the groups in which that many formula units fill the conventional cell, with one of the Z' if both are
    given. Raises InputError for unknown groups, for improper ones where only one enantiomer is there, and where
    nothing is left to search.
    """
    asked = _asked_groups(composition, space_groups_wanted)
    sites = [(g, value, w) for g, w in asked for value in _values_of_z_prime(g, z, z_prime)]
    if space_groups_wanted == "common":  # P1 has no special positions; asked for by name it is refused below
        sites = [(g, value, w) for g, value, w in sites if value >= 1 or g.subgroups_of_index_two()]
    if z is None and z_prime is None and composition.is_centrosymmetric():
        sites = _with_centred_sites(sites)
    if not sites:
        raise InputError(
            f"expected some space group in which Z = {', '.join(map(str, z or ()))} formula units give Z' of 1/2, 1 "
            f"or 2; none of {', '.join(g.symbol for g, _ in asked)} does. Change --z or --space-groups."
        )
    found: dict[str, Arm] = {}
    for arm in (arm for site in sites for arm in _arms_of(composition, *site)):
        before = found.get(arm.key)
        found[arm.key] = replace(arm, weight=arm.weight + (before.weight if before else 0))
    total = sum(a.weight for a in found.values())
    return [replace(a, weight=a.weight / total) for a in found.values()]


Site = tuple[SpaceGroup, float, float]  # a space group, Z', and the weight of both


def _values_of_z_prime(
    group: SpaceGroup, z: Sequence[int] | None, z_prime: Sequence[float] | None
) -> list[float]:
    """Those of 1/2, 1 and 2 that were asked for, by themselves or as formula units in the cell."""
    wanted = (1.0,) if z is None and z_prime is None else z_prime or SEARCHABLE
    filled = SEARCHABLE if z is None else [n / len(group) for n in z]
    return [value for value in SEARCHABLE if value in wanted and value in filled]


def _with_centred_sites(sites: list[Site]) -> list[Site]:
    """Most starts go to inversion centres, in those of the groups that have them and are known for it."""
    names = {g.symbol for g, _, _ in sites}
    centred = {k: v for k, v in space_groups.CENTRED.items() if k in names}
    if not centred:
        return sites
    share, total = space_groups.CENTRED_SHARE, sum(w for _, _, w in sites)
    scale = share / sum(centred.values())
    general = [(g, value, w * (1 - share) / total) for g, value, w in sites]
    return general + [(SpaceGroup.from_name(k), 0.5, v * scale) for k, v in centred.items()]


def _asked_groups(composition: Composition, wanted: str) -> list[tuple[SpaceGroup, float]]:
    if wanted == "common":
        prior = space_groups.ENANTIOPURE if composition.enantiopure else space_groups.RACEMIC
        return [(SpaceGroup.from_name(name), weight) for name, weight in prior.items()]
    try:
        groups = [SpaceGroup.from_name(name) for name in wanted.split(",") if name.strip()]
    except InputError as error:
        raise InputError(f"--space-groups: {error}; or 'common'") from None
    if not groups:
        raise InputError(
            f"--space-groups: expected 'common', or numbers and symbols such as 14,2,P212121; got {wanted!r}"
        )
    improper = [g.symbol for g in groups if not g.is_sohncke]
    if composition.enantiopure and improper:
        raise InputError(
            "--space-groups: expected groups without improper operations for one enantiomer, got "
            f"{', '.join(improper)}, which need its mirror image too. Choose others (P212121, P21, C2, ...), or write "
            "the SMILES without @ for the racemate."
        )
    return [(group, 1.0) for group in groups]


def _arms_of(composition: Composition, group: SpaceGroup, z_prime: float, weight: float) -> list[Arm]:
    """The group itself, or for Z' = 1/2 the subgroups in which a molecule on a special position is a whole one."""
    if z_prime >= 1:
        units = round(z_prime)
        key = group.symbol if units == 1 else f"{group.symbol} Z'={units}"
        return [Arm(key, group, units, weight)]
    # half the rotations, all translations: the site's own element (inversion, twofold axis, mirror) is what goes
    halves = [h for h in group.subgroups_of_index_two() if _rotations(h) < _rotations(group)]
    if not halves:
        raise InputError(
            f"expected a space group with subgroups of index two for Z' = 1/2; {group.symbol} has none"
        )
    if group.is_centrosymmetric and composition.is_centrosymmetric():
        halves = [h for h in halves if h.is_sohncke] or [h for h in halves if not h.is_centrosymmetric]
    unique: dict[int, SpaceGroup] = {}
    for half in halves:
        unique.setdefault(half.number, half)
    return [Arm(f"{group.symbol} Z'=1/2 as {h.symbol}", h, 1, weight / len(unique)) for h in unique.values()]


def _rotations(group: SpaceGroup) -> int:
    """Order of the point group."""
    return len(torch.unique(group.rotations, dim=0))


# ------------------------------------------------------------------ starts


def random_packings(
    composition: Composition,
    arm: Arm,
    first: int,
    count: int,
    seed: int,
    sequence: Sequence_ = "sobol",
) -> Packings:
    """Starts number `first` to `first + count` of this arm; each depends only on its number and the seed."""
    kinds = composition.kinds(arm.formula_units)
    u = uniform_numbers(7 + 8 * len(kinds), first, count, start_seed(seed, arm.key), sequence)
    lattice = _cells(arm, u[:, :7], composition.volume * arm.formula_units * len(arm.group))
    body = u[:, 7:].unflatten(1, (len(kinds), 8))
    return Packings(
        species=composition.species,
        group=arm.group,
        kind=torch.tensor(kinds),
        lattice=lattice,
        centroid=body[..., :3].contiguous(),
        rotation=rotation_from_uniform(body[..., 3:6]),
        handedness=choose_hands(composition, kinds, body[..., 7]),
        conformer=choose_conformers(composition, kinds, body[..., 6]),
    )


def perturbed_packings(
    parents: Packings,
    count: int,
    seed: int,
    key: str,
    strain: float = 0.08,
    shift: float = 1.0,
    turn: float = 0.6,
) -> Packings:
    """Children of low minima: parent i mod n with its cell strained, its molecules shifted (Å) and turned (rad).

    The amplitudes are standard deviations; each child scales all three by its own factor between 0.3 and 1.3, so
    that some look nearby and some farther off. Strains keep the space group.
    """
    generator = torch.Generator().manual_seed(start_seed(seed, key))
    chosen = parents[torch.arange(count) % len(parents)]
    normal = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    scale = 0.3 + torch.rand(count, generator=generator, dtype=torch.float64)
    bodies = chosen.n_bodies
    amounts = normal(count, 6) * strain * scale[:, None]
    strains = torch.zeros(count, 3, 3, dtype=torch.float64)
    for basis, cells in strain_bases(chosen.group, chosen.lattice):
        strains[cells] = torch.einsum("bm,mij->bij", amounts[cells, : len(basis)], basis)
    lattice = strained(chosen.lattice, strains)
    shifts = normal(count, bodies, 3) * shift * scale[:, None, None]
    turns = normal(count, bodies, 3) * turn * scale[:, None, None]
    return Packings(
        species=chosen.species,
        group=chosen.group,
        kind=chosen.kind,
        lattice=lattice,
        centroid=(chosen.centroid + shifts @ torch.linalg.inv(lattice)) % 1.0,
        rotation=rotation_exp(turns) @ chosen.rotation,
        handedness=chosen.handedness,
        conformer=chosen.conformer,
    )


def start_seed(seed: int, key: str) -> int:
    """One seed for each use, the same on every machine."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{key}".encode()).digest()[:6], "big")


def uniform_numbers(
    dimensions: int, first: int, count: int, seed: int, sequence: Sequence_
) -> Float[Tensor, "count dimensions"]:
    """Rows `first` to `first + count` of a sequence in [0, 1); each depends only on its number and the seed."""
    if sequence == "sobol":
        engine = SobolEngine(dimensions, scramble=True, seed=seed)
        return engine.fast_forward(first).draw(count, dtype=torch.float64).clamp(max=1 - 1e-12)
    blocks = -(-dimensions // 4)  # Philox makes four numbers at a time, and can begin anywhere
    numbers = np.random.Generator(np.random.Philox(key=seed).advance(first * blocks)).random(
        (count, 4 * blocks)
    )
    return torch.from_numpy(numbers[:, :dimensions])


def _cells(arm: Arm, u: Float[Tensor, "count 7"], target: float) -> Float[Tensor, "count 3 3"]:
    """Cells of the group's family with volume U(VOLUME_RANGE) times `target` Å^3.

    A cell that would be flatter than a molecule is drawn towards a cube until it is not.
    """
    low, high = MONOCLINIC_BETA if arm.group.family == "monoclinic" else TRICLINIC_ANGLES
    logs = (2 * u[:, :3] - 1) * LENGTH_SPREAD
    tilt = torch.deg2rad(low + (high - low) * u[:, 3:6] - 90.0)
    wanted = target * (VOLUME_RANGE[0] + (VOLUME_RANGE[1] - VOLUME_RANGE[0]) * u[:, 6])
    for _ in range(12):
        angles = math.pi / 2 + tilt
        tilt = torch.where(angles_feasible(angles)[:, None], tilt, tilt / 2)
        cells = allowed_cell(arm.group, logs.exp(), _feasible(math.pi / 2 + tilt))
        # numpy's root, since torch's differs in the last bit by the place in a batch
        cells = cells * torch.from_numpy(np.cbrt((wanted / volume(cells)).numpy()))[:, None, None]
        flat = (heights(cells).amin(-1) < SMALLEST_HEIGHT)[:, None]
        if not flat.any():
            break
        logs, tilt = torch.where(flat, logs * 0.7, logs), torch.where(flat, tilt * 0.7, tilt)
    return cells


def _feasible(angles: Float[Tensor, "count 3"]) -> Float[Tensor, "count 3"]:
    """Right angles in place of triples that close to no cell."""
    return torch.where(angles_feasible(angles)[:, None], angles, torch.full_like(angles, math.pi / 2))


def choose_hands(composition: Composition, kinds: Sequence[int], u: Float[Tensor, "count bodies"]) -> Tensor:
    """+1 or -1 alike, except where the hand says nothing new or makes another substance.

    The hand of the first molecule only chooses between a crystal and its mirror image. Where that is another
    substance, chiral molecules stay as they are and all others, which a conformer alone makes chiral, are free.
    """
    if composition.enantiopure:
        free = torch.tensor([not composition.species[k].is_chiral for k in kinds])
    else:
        free = torch.arange(len(kinds)) > 0
    return torch.where(free & (u >= 0.5), -1, 1)


def choose_conformers(
    composition: Composition, kinds: Sequence[int], u: Float[Tensor, "count bodies"]
) -> Tensor:
    """Conformers in proportion to exp(-energy / CONFORMER_TEMPERATURE)."""
    chosen = []
    for m, k in enumerate(kinds):
        share = torch.softmax(-composition.conformer_energies[k].double() / CONFORMER_TEMPERATURE, 0)
        chosen.append(torch.searchsorted(share.cumsum(0), u[:, m].contiguous()).clamp(max=len(share) - 1))
    return torch.stack(chosen, 1)
