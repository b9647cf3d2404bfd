"""Point charges of a molecule from its graph."""

import warnings

import numpy as np
from jaxtyping import Float
from rdkit.Chem import AllChem, rdForceFieldHelpers

from nucleate.crystal.molecule import Molecule


def mmff_charges(molecule: Molecule) -> Float[np.ndarray, " atoms"]:
    """MMFF94 bond-increment charges (e), which sum to the molecule's charge; no geometry needed.

    Where MMFF94 has no type for an atom (boron, silicon in odd places), Gasteiger-Marsili charges, with a
    warning. Halgren, J. Comput. Chem. 17, 520 (1996).
    """
    properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(molecule.graph)
    if properties is not None:
        return np.array([properties.GetMMFFPartialCharge(i) for i in range(len(molecule))])
    warnings.warn(
        f"MMFF94 has no type for some atom of {molecule.name or molecule.smiles}: Gasteiger charges instead",
        stacklevel=2,
    )
    copy = type(molecule.graph)(molecule.graph)
    AllChem.ComputeGasteigerCharges(copy)
    charges = np.array([a.GetDoubleProp("_GasteigerCharge") for a in copy.GetAtoms()])
    if not np.isfinite(charges).all():
        charges = np.array([float(a.GetFormalCharge()) for a in copy.GetAtoms()])
    return charges + (molecule.charge - charges.sum()) / len(charges)
