"""Point charges of a molecule from its graph."""

import warnings

import numpy as np
from jaxtyping import Float
from rdkit import Chem
from rdkit.Chem import rdForceFieldHelpers, rdPartialCharges


def mmff_charges(graph: Chem.Mol) -> Float[np.ndarray, " atoms"]:
    """MMFF94 bond-increment charges (e), which sum to the formal charge; no geometry needed.

    Where MMFF94 has no type for an atom (boron, silicon in odd places), Gasteiger-Marsili charges, with a
    warning. Halgren, J. Comput. Chem. 17, 520 (1996).
    """
    properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(graph)
    if properties is not None:
        return np.array([properties.GetMMFFPartialCharge(i) for i in range(graph.GetNumAtoms())])
    warnings.warn(
        f"MMFF94 has no type for some atom of {Chem.MolToSmiles(Chem.RemoveHs(graph, sanitize=False))}: "
        "Gasteiger charges instead",
        stacklevel=2,
    )
    copy = Chem.Mol(graph)
    rdPartialCharges.ComputeGasteigerCharges(copy)
    charges = np.array([a.GetDoubleProp("_GasteigerCharge") for a in copy.GetAtoms()])
    if not np.isfinite(charges).all():
        charges = np.array([float(a.GetFormalCharge()) for a in copy.GetAtoms()])
    return charges + (Chem.GetFormalCharge(graph) - charges.sum()) / len(charges)
