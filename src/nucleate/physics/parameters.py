"""exp-6 parameters and radii, each with its source.

    U(r) = A exp(-B r) - C / r^6        A in eV, B in 1/Å, C in eV Å^6

The FIT set is that of Coombes, Price, Willock & Leslie, J. Phys. Chem. 100, 7352 (1996) (C, H on C, N, O; Cl from
Hsu & Williams, Acta Cryst. A36, 277 (1980)), H on N or O of Beyer & Price, CrystEngComm 2, 183 (2000), and F as
used with it (Williams & Houpt, Acta Cryst. B42, 286 (1986)). Elements that FIT lacks (S, P, Si, B, Br, I) take the
exp-6 form of DREIDING: Mayo, Olafson & Goddard, J. Phys. Chem. 94, 8897 (1990), table II. Unlike pairs: geometric
mean of A and C, arithmetic mean of B. The geometric mean of C is what lets dispersion be summed by Ewald's method.
"""

from collections import Counter
from typing import NamedTuple

import numpy as np
from rdkit import Chem

from nucleate.crystal.molecule import Molecule
from nucleate.errors import InputError

KCAL_PER_MOL = 0.0433641  # eV
KJ_PER_MOL = 0.010364270  # eV
HARTREE = 27.211386245988  # eV
BOLTZMANN = 8.617333262e-5  # eV/K
COULOMB = 14.3996454  # eV Å / e^2


class Exp6(NamedTuple):
    A: float  # eV
    B: float  # 1/Å
    C: float  # eV Å^6


def dreiding(radius: float, depth: float, zeta: float) -> Exp6:
    """DREIDING's exp-6 from its minimum (Å), depth (kcal/mol) and shape zeta."""
    depth *= KCAL_PER_MOL
    return Exp6(
        A=6 * depth / (zeta - 6) * np.exp(zeta), B=zeta / radius, C=depth * zeta / (zeta - 6) * radius**6
    )


EXP6: dict[str, Exp6] = {
    "C": Exp6(3832.147, 3.60, 25.286949),
    "H": Exp6(124.07167, 3.74, 1.413698),
    "H(polar)": Exp6(52.12899, 1 / 0.214592, 0.222819),
    "N": Exp6(2638.0285, 3.78, 14.286224),
    "O": Exp6(2384.4658, 3.96, 11.645288),
    "F": Exp6(3761.006673, 1 / 0.240385, 7.1445),
    "Cl": Exp6(9583.327, 3.51, 80.222339),
    "B": dreiding(4.02, 0.095, 14.23),
    "Si": dreiding(4.27, 0.31, 12.0),
    "P": dreiding(4.15, 0.32, 12.0),
    "S": dreiding(4.03, 0.344, 12.0),
    "Br": dreiding(3.95, 0.37, 12.0),
    "I": dreiding(4.15, 0.51, 12.0),
}
TYPES = tuple(EXP6)

VDW_RADII = {  # Å: Bondi, J. Phys. Chem. 68, 441 (1964); H after Rowland & Taylor (1996); B after Mantina (2009)
    **{"H": 1.10, "B": 1.92, "C": 1.70, "N": 1.55, "O": 1.52, "F": 1.47, "Si": 2.10, "P": 1.80},
    **{"S": 1.80, "Cl": 1.75, "Br": 1.85, "I": 1.98},
}

ATOM_VOLUMES = {  # Å^3 in organic crystals, least squares over 240 COD crystals (docs/physics.md)
    **{"H": 5.5, "C": 13.2, "N": 11.9, "O": 10.1, "F": 13.0, "S": 24.2, "Cl": 24.2, "Br": 32.4, "I": 40.3},
    # too rare there; Hofmann, Acta Cryst. B58, 489 (2002)
    **{"P": 29.5, "B": 13.2, "Si": 37.3},
}
VOLUMES = {  # Å^3: robust ridge fit to the training part of the COD, towards Hofmann 2002 (benchmarks/volumes.py)
    **{"H": 5.33, "B": 13.33, "C": 14.37, "N": 13.75, "O": 10.59, "F": 12.52, "Si": 37.35, "P": 29.24},
    **{"S": 25.44, "Cl": 24.70, "Br": 32.56, "I": 45.99, "polar hydrogen": -1.98, "ring": -7.00},
}

HEAVY_VOLUME = 18.0  # Å^3 of a heavy atom and its hydrogens in organic crystals


def atom_types(graph: Chem.Mol) -> list[str]:
    """The row of `EXP6` for each atom. Raises InputError for an element without parameters."""
    names = []
    for atom in graph.GetAtoms():
        symbol = "H(polar)" if donates_hydrogen_bond(atom) else atom.GetSymbol()
        if symbol not in EXP6:
            smiles = Chem.MolToSmiles(Chem.RemoveHs(graph, sanitize=False))
            raise InputError(
                f"the built-in force field knows {', '.join(VDW_RADII)}; {smiles} contains {symbol}. Leave it out "
                "or relax with another --energy model.",
                reason="unknown element",
            )
        names.append(symbol)
    return names


def volume_parts(molecule: Molecule) -> Counter[str]:
    """How often a molecule has each of the parts that `VOLUMES` names: its atoms, polar hydrogens and rings.

    Rings are those of a smallest set; of cages at most one for two heavy atoms counts.
    """
    atoms = list(molecule.graph.GetAtoms())
    heavy = sum(a.GetAtomicNum() > 1 for a in atoms)
    rings = max(0, min(molecule.graph.GetNumBonds() - len(atoms) + 1, heavy // 2))
    polar = sum(map(donates_hydrogen_bond, atoms))
    return Counter(a.GetSymbol() for a in atoms) + Counter({"polar hydrogen": polar, "ring": rings})


def predicted_volume(molecule: Molecule) -> float:
    """Å^3 that one molecule takes in its crystal: a sum over `volume_parts` (mean error 2.7 % on crystals not fitted).

    Atoms alone overestimate rings, and molecules that hydrogen bonds pull together.
    """
    return _sum_of(VOLUMES, volume_parts(molecule))


def atomic_volume(molecule: Molecule) -> float:
    """Å^3 by atoms alone, the plainer estimate that the weights of MolCrystalFlow have learnt with (3.8 %)."""
    return _sum_of(ATOM_VOLUMES, Counter(a.GetSymbol() for a in molecule.graph.GetAtoms()))


def _sum_of(volumes: dict[str, float], parts: Counter[str]) -> float:
    if unknown := parts.keys() - volumes.keys():
        raise InputError(
            f"expected elements among {', '.join(ATOM_VOLUMES)}; no volume is known for {', '.join(sorted(unknown))}",
            reason="unknown element",
        )
    return sum(volumes[name] * count for name, count in parts.items())


def has_volume(molecule: Molecule) -> bool:
    """Is a volume known for every element?"""
    return all(a.GetSymbol() in ATOM_VOLUMES for a in molecule.graph.GetAtoms())


def estimated_volume(molecule: Molecule) -> float:
    """`predicted_volume`, or a rougher guess where an element has no volume (Å^3)."""
    return predicted_volume(molecule) if has_volume(molecule) else HEAVY_VOLUME * len(molecule.heavy)


def donates_hydrogen_bond(atom: Chem.Atom) -> bool:
    """True for a hydrogen on N or O."""
    return atom.GetSymbol() == "H" and any(n.GetSymbol() in ("N", "O") for n in atom.GetNeighbors())
