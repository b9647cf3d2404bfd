"""Atomic charges fitted to the quantum-mechanical electrostatic potential around a molecule (Merz-Kollman).

    conformer --HF/6-31G*--> density --potential--> V on four shells --constrained least squares--> charges

    minimise  sum_g (V_g - sum_j q_j / |r_g - r_j|)^2     with  sum_j q_j = Q  and equal q on equal atoms

Singh & Kollman, J. Comput. Chem. 1984, 5, 129; Besler, Merz & Kollman, J. Comput. Chem. 1990, 11, 431.
Needs pyscf (the `esp` extra).
"""

import importlib.util
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from rdkit import Chem
from torch import Tensor

from nucleate.crystal.molecule import Molecule
from nucleate.errors import EnergyModelError, InputError

BOHR = 0.529177210903  # Å
SHELLS = (1.4, 1.6, 1.8, 2.0)  # times the radius
DENSITY = 1.0  # points per Å^2 on each shell
# Å. H to Cl: Singh & Kollman 1984 (F, S, P, Cl as in their later parameter sets); others: Bondi, J. Phys.
# Chem. 1964, 68, 441, and Mantina et al., J. Phys. Chem. A 2009, 113, 5806 (B).
RADII = {1: 1.20, 5: 1.92, 6: 1.50, 7: 1.50, 8: 1.40, 9: 1.35, 14: 2.10, 15: 1.80, 16: 1.75, 17: 1.70}
RADII |= {33: 1.85, 34: 1.90, 35: 1.85, 52: 2.06, 53: 1.98}
HEAVY_BASIS = "def2-svp"  # with its effective core potential, for what 6-31G* does not cover (beyond Kr)
CHUNK = 256  # grid points at a time: the integrals take CHUNK * functions^2 numbers


@dataclass(frozen=True, eq=False)
class EspFit:
    """Charges and how well they say what the wave function says."""

    charges: Float[Tensor, " atoms"]  # e
    points: Float[Tensor, "points 3"]  # Å
    potential: Float[Tensor, " points"]  # Hartree/e, of the wave function
    residual: float  # rms of the difference, Hartree/e
    relative: float  # the same over the rms of the potential
    dipole: Float[Tensor, "3"]  # e Å, of the wave function (about the origin)


def esp_charges(molecule: Molecule, conformer: int = 0, *, average: bool = True) -> Float[Tensor, " atoms"]:
    """Merz-Kollman charges (e) of one conformer at HF/6-31G*; see `esp_fit`."""
    return esp_fit(molecule, conformer, average=average).charges


def esp_fit(molecule: Molecule, conformer: int = 0, *, average: bool = True) -> EspFit:
    """Merz-Kollman charges with their fit. A second for methanol, minutes beyond 40 atoms, on one core.

    With `average`, atoms that are equivalent in the graph get one charge: the hydrogens of a methyl group,
    but also the two of an amide, which differ in a rigid crystal; `average=False` keeps them apart.
    Elements beyond Kr take def2-SVP with its effective core potential. Raises InputError where pyscf is
    missing, for open shells and unknown elements, and EnergyModelError where the SCF does not converge.
    """
    _check(molecule)
    x = molecule.conformers[conformer].double()
    wave = _hartree_fock(molecule, x)
    points = mk_grid(x, molecule.numbers)
    potential = _potential(wave, points)
    classes = equivalent_atoms(molecule) if average else torch.arange(len(molecule))
    charges = fit_charges(x, points, potential, molecule.charge, classes)
    misfit = potential - coulomb(x, points) @ charges
    rms = float(misfit.square().mean().sqrt())
    dipole = torch.tensor(wave.dip_moment(unit="AU", verbose=0), dtype=torch.float64) * BOHR
    return EspFit(charges, points, potential, rms, rms / float(potential.square().mean().sqrt()), dipole)


def fit_charges(
    positions: Float[Tensor, "atoms 3"],
    points: Float[Tensor, "points 3"],
    potential: Float[Tensor, " points"],
    total: int | float,
    classes: Int[Tensor, " atoms"],
) -> Float[Tensor, " atoms"]:
    """Charges (e) that reproduce a potential (Hartree/e) with the given total, equal within each class.

    The total is kept exactly: q = total / n + N z, where N spans the charges that sum to zero. Combinations
    that the potential does not see (singular values below 1e-6 of the largest) stay as even as they can.
    """
    n = len(positions)
    share = torch.nn.functional.one_hot(classes.unique(return_inverse=True)[1]).double()  # atoms x classes
    counts = share.sum(0)
    null = torch.linalg.svd(counts[None])[2][1:].T  # class charges that sum to zero
    design = coulomb(positions, points) @ share
    even = torch.full((len(counts),), float(total) / n, dtype=torch.float64)
    if null.shape[1] == 0:
        return share @ even
    z = torch.linalg.lstsq(design @ null, potential - design @ even, rcond=1e-6, driver="gelsd").solution
    return share @ (even + null @ z)


def coulomb(
    positions: Float[Tensor, "atoms 3"], points: Float[Tensor, "points 3"]
) -> Float[Tensor, "points atoms"]:
    """1/r in atomic units from positions in Å."""
    return BOHR / torch.cdist(points, positions, compute_mode="donot_use_mm_for_euclid_dist")


def mk_grid(positions: Float[Tensor, "atoms 3"], numbers: Int[Tensor, " atoms"]) -> Float[Tensor, "points 3"]:
    """Points on the surfaces of overlapping spheres of 1.4, 1.6, 1.8 and 2.0 times the radius of each atom.

    Each sphere carries a Fibonacci lattice of about `DENSITY` points per Å^2; points inside another atom's
    sphere of the same shell go.
    """
    radii = torch.tensor([RADII[z] for z in numbers.tolist()], dtype=torch.float64)
    return torch.cat([_shell(positions, factor * radii) for factor in SHELLS])


def _shell(positions: Float[Tensor, "atoms 3"], radii: Float[Tensor, " atoms"]) -> Float[Tensor, "points 3"]:
    counts = (4 * torch.pi * radii**2 * DENSITY).round().long()
    owner = torch.repeat_interleave(torch.arange(len(radii)), counts)
    spheres = torch.cat([_fibonacci(c) for c in counts.tolist()])
    points = positions[owner] + radii[owner, None] * spheres
    distance = torch.cdist(points, positions, compute_mode="donot_use_mm_for_euclid_dist")
    return points[(distance > radii - 1e-9).all(1)]


def _fibonacci(count: int) -> Float[Tensor, "count 3"]:
    """Evenly spread unit vectors along a golden-angle spiral."""
    k = torch.arange(count, dtype=torch.float64) + 0.5
    z = 1 - 2 * k / count
    angle = torch.pi * (1 + 5**0.5) * k
    rho = (1 - z**2).sqrt()
    return torch.stack([rho * angle.cos(), rho * angle.sin(), z], 1)


def equivalent_atoms(molecule: Molecule) -> Int[Tensor, " atoms"]:
    """A class for each atom; equal where the skeletons seen from the atoms are equal.

    Bond orders and formal charges are left out, so that the oxygens of a carboxylate or a nitro group, drawn
    differently, count as what they are. With all hydrogens explicit the skeleton still tells C=O from C-OH.
    """
    skeleton = Chem.RWMol(Chem.Mol(molecule.graph))
    Chem.RemoveStereochemistry(skeleton)
    for atom in skeleton.GetAtoms():
        atom.SetFormalCharge(0)
        atom.SetIsAromatic(False)
        atom.SetNoImplicit(True)
        atom.SetAtomMapNum(0)
    for bond in skeleton.GetBonds():
        bond.SetBondType(Chem.BondType.SINGLE)
        bond.SetIsAromatic(False)
    ranks = Chem.CanonicalRankAtoms(skeleton, breakTies=False, includeChirality=False)
    return torch.tensor(list(ranks), dtype=torch.long)


def _check(molecule: Molecule) -> None:
    table = Chem.GetPeriodicTable()
    unknown = sorted(set(molecule.numbers.tolist()) - set(RADII))
    if unknown:
        names = ", ".join(table.GetElementSymbol(z) for z in unknown)
        raise InputError(
            f"expected elements with a van der Waals radius for the charge fit, got {names}. "
            "Use MMFF94 charges",
            reason="element without parameters",
        )
    electrons = int(molecule.numbers.sum()) - molecule.charge
    if electrons % 2:
        raise InputError(
            f"expected a closed shell for the charge fit, got {electrons} electrons. Is the charge of "
            f"{molecule.name or molecule.smiles} right ({molecule.charge:+d})?",
            reason="open shell",
        )
    if importlib.util.find_spec("pyscf") is None:
        raise InputError(
            "charges from the electrostatic potential need the package 'pyscf', which is not installed. "
            "Type: pip install 'nucleate[esp]', or use MMFF94 charges",
            reason="missing package",
        )


def _hartree_fock(molecule: Molecule, positions: Float[Tensor, "atoms 3"]) -> Any:
    """A converged restricted Hartree-Fock calculation (a pyscf object)."""
    from pyscf import gto, scf

    numbers, symbol = molecule.numbers.tolist(), Chem.GetPeriodicTable().GetElementSymbol
    heavy = {symbol(z): HEAVY_BASIS for z in set(numbers) if z > 36}
    mol = gto.M(
        atom=[(symbol(z), tuple(x)) for z, x in zip(numbers, positions.tolist())],
        basis={symbol(z): "6-31g*" for z in set(numbers) if z <= 36} | heavy,
        ecp=heavy,
        charge=molecule.charge,
        cart=not heavy,  # 6-31G* has six d functions; def2 has five
        verbose=0,
    )
    wave = scf.RHF(mol).density_fit()  # 3.5 times faster on aspirin; charges move by at most 4e-4 e
    wave.kernel()
    if not wave.converged:
        wave = wave.newton()
        wave.kernel()
    if not wave.converged:
        raise EnergyModelError(
            f"Hartree-Fock did not converge for {molecule.name or molecule.smiles}. Is the geometry sound?"
        )
    return wave


def _potential(wave: Any, points: Float[Tensor, "points 3"]) -> Float[Tensor, " points"]:
    """V (Hartree/e) of nuclei and electrons at points in Å."""
    mol, density = wave.mol, wave.make_rdm1()
    grid = points.numpy() / BOHR
    nuclei = mol.atom_charges() / np.linalg.norm(grid[:, None] - mol.atom_coords()[None], axis=2)
    suffix = "_cart" if mol.cart else "_sph"
    electrons = [
        np.einsum("gij,ij->g", mol.intor("int1e_grids" + suffix, hermi=1, grids=chunk), density)
        for chunk in np.array_split(grid, max(1, -(-len(grid) // CHUNK)))
    ]
    return torch.tensor(nuclei.sum(1) - np.concatenate(electrons), dtype=torch.float64)
