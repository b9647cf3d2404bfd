"""A user's crystal as rigid molecules in the built-in force field, to sample it at a temperature.

    CIF --read, hydrogens at neutron lengths--> rigid bodies --repeat the cell, move to a minimum--> RigidCrystal

The cell stays as the file has it. A molecule's place is its centre of mass. Mirror images have the same sites,
reflected (`hands`), so that crystals with a centre of symmetry or a glide plane are of one molecule.
"""

import math
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from rdkit import Chem
from torch import Tensor

from nucleate.crystal.io import read_crystal
from nucleate.crystal.molecule import Molecule
from nucleate.crystal.packing import Packings
from nucleate.crystal.rigid import normalise_hydrogens, represent_rigid
from nucleate.errors import InputError
from nucleate.geometry.lattice import heights
from nucleate.geometry.so3 import matrix_to_quaternion
from nucleate.physics.charges import mmff_charges
from nucleate.physics.parameters import EXP6, atom_types
from nucleate.physics.rigid_minimum import nearest_minimum
from nucleate.physics.rigid_sites import RigidSites
from nucleate.pipeline.temperature_ladder import RigidCrystal

CUTOFF = 6.0  # Å: hydrogen bonds and first neighbours; what lies beyond is a constant of the cell
MOST = 128  # molecules
ONE_SHAPE = 0.1  # Å RMSD, all atoms


def rigid_crystal(path: Path, cutoff: float = CUTOFF, most: int = MOST) -> RigidCrystal:
    """The crystal of a CIF at rest, in the smallest block of its cells that leaves room for a cut-off of `cutoff` Å.

    Raises InputError for what `read_crystal` refuses, and for salts, several kinds or shapes of molecules, elements
    that the force field does not know, and more than `most` molecules.
    """
    return at_rest(as_published(path, cutoff, most))


def as_published(path: Path, cutoff: float = CUTOFF, most: int = MOST) -> RigidCrystal:
    """The same where the file has the molecules."""
    if cutoff <= 0:
        raise InputError(f"expected a positive cut-off, got {cutoff} Å")
    bodies, _ = represent_rigid(normalise_hydrogens(read_crystal(path)), tolerance=ONE_SHAPE)
    molecule = _only_molecule(bodies, path.name)
    sites, centre = _sites(molecule)
    hands = bodies.handedness[0].double()
    turned = (bodies.rotation[0] @ (hands[:, None] * centre)[..., None])[..., 0]
    places = bodies.centroid[0] @ bodies.lattice[0] + turned
    one = RigidCrystal(sites, bodies.lattice[0], places, matrix_to_quaternion(bodies.rotation[0]), hands)
    crystal = repeated(one, _block(one.cell, len(places), cutoff, most, path.name))
    return crystal if bool((hands < 0).any()) else replace(crystal, hands=None)


def at_rest(crystal: RigidCrystal) -> RigidCrystal:
    """Places and turns at the nearest minimum; the cell stays."""
    energy = crystal.potential
    places, turns = nearest_minimum(energy, crystal.places, crystal.turns)
    return replace(crystal, places=places, turns=turns)


def repeated(crystal: RigidCrystal, times: tuple[int, int, int]) -> RigidCrystal:
    """A block of so many cells along a, b and c, cell after cell."""
    steps = torch.cartesian_prod(*(torch.arange(m, dtype=torch.float64) for m in times))
    places = ((steps @ crystal.cell)[:, None] + crystal.places).flatten(0, 1)
    hands = None if crystal.hands is None else crystal.hands.repeat(len(steps))
    cell = torch.tensor(times, dtype=torch.float64)[:, None] * crystal.cell
    return RigidCrystal(crystal.molecule, cell, places, crystal.turns.repeat(len(steps), 1), hands)


def _only_molecule(bodies: Packings, name: str) -> Molecule:
    """The one molecule of the crystal, with its one shape."""
    charged = [m.smiles for m in bodies.species if m.charge]
    if charged:
        raise InputError(
            f"expected neutral molecules in {name}, got ions ({', '.join(charged)}); salts have no free energy here",
            reason="salt",
        )
    if len(bodies.species) > 1:
        raise InputError(
            f"expected one kind of molecule in {name}, got {', '.join(m.smiles for m in bodies.species)}; co-crystals "
            "and solvates have no free energy here",
            reason="several molecules",
        )
    molecule = bodies.species[0]
    if (shapes := len(molecule.conformers)) > 1:
        raise InputError(
            f"expected all molecules of {name} to have one shape within {ONE_SHAPE} Å, got {shapes} shapes of "
            f"{molecule.smiles}; molecules are rigid and alike here",
            reason="several conformers",
        )
    return molecule


def _sites(molecule: Molecule) -> tuple[RigidSites, Float[Tensor, "3"]]:
    """Atoms about their centre of mass as the force field sees them, and that centre from the plain mean (Å)."""
    table, local = Chem.GetPeriodicTable(), molecule.conformers[0]
    masses = torch.tensor([table.GetAtomicWeight(z) for z in molecule.numbers.tolist()], dtype=torch.float64)
    centre = masses @ local / masses.sum()
    charges = torch.from_numpy(mmff_charges(molecule.graph))
    exp6 = torch.tensor([tuple(EXP6[t]) for t in atom_types(molecule.graph)], dtype=torch.float64)
    nothing = torch.zeros(len(molecule), dtype=torch.float64)
    sites = RigidSites(
        molecule.smiles, local - centre, charges - charges.mean(), nothing, nothing + 1, masses, exp6
    )
    return sites, centre


def _block(
    cell: Float[Tensor, "3 3"], molecules: int, cutoff: float, most: int, name: str
) -> tuple[int, int, int]:
    """How often to repeat each axis, so that twice the cut-off fits between opposite faces."""
    room = heights(cell).tolist()
    a, b, c = (math.ceil(2 * cutoff / height - 1e-9) for height in room)
    if (n := a * b * c * molecules) > most:
        widest = min(room) / 2
        raise InputError(
            f"expected at most {most} molecules, got {n}: a cut-off of {cutoff} Å needs {a} x {b} x {c} cells of "
            f"{molecules} of {name}. Allow {n} molecules (energies take time as their square), or shorten the cut-off "
            f"({widest:.1f} Å fits in one cell)",
            reason="too large",
        )
    return a, b, c
