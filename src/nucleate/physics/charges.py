"""Point charges of a molecule from its graph."""

import warnings
from typing import Any

import numpy as np
from jaxtyping import Float
from rdkit import Chem
from rdkit.Chem import rdForceFieldHelpers, rdPartialCharges


def mmff_charges(graph: Chem.Mol) -> Float[np.ndarray, " atoms"]:
    """MMFF94 bond-increment charges (e), which sum to the formal charge; no geometry needed.

    Where MMFF94 does not describe the molecule (see `mmff_properties`), Gasteiger-Marsili charges, with a
    warning. Halgren, J. Comput. Chem. 17, 520 (1996).
    """
    if graph.GetNumAtoms() == 1:
        return np.array([float(Chem.GetFormalCharge(graph))])
    properties = mmff_properties(graph)
    if properties is not None:
        return _charges_of(properties, graph)
    warnings.warn(
        f"MMFF94 has no types that fit {Chem.MolToSmiles(Chem.RemoveHs(graph, sanitize=False))}: "
        "Gasteiger charges instead",
        stacklevel=2,
    )
    copy = Chem.Mol(graph)
    rdPartialCharges.ComputeGasteigerCharges(copy)
    charges = np.array([a.GetDoubleProp("_GasteigerCharge") for a in copy.GetAtoms()])
    if not np.isfinite(charges).all():
        charges = np.array([float(a.GetFormalCharge()) for a in copy.GetAtoms()])
    return charges + (Chem.GetFormalCharge(graph) - charges.sum()) / len(charges)


def mmff_properties(graph: Chem.Mol) -> Any | None:
    """RDKit's MMFF94 types; None where an atom has none (boron), or where they belong to another molecule.

    RDKit takes the oxygens of CO2 for a carboxylate's and finds no sulphonium: then the charges do not add up to
    the formal charge, a crystal would not be neutral and its bonds would have wrong lengths.
    """
    properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(graph)
    if properties is None:
        return None
    astray = _charges_of(properties, graph).sum() - Chem.GetFormalCharge(graph)
    return properties if abs(astray) < 1e-3 else None


def _charges_of(properties: Any, graph: Chem.Mol) -> Float[np.ndarray, " atoms"]:
    return np.array([properties.GetMMFFPartialCharge(i) for i in range(graph.GetNumAtoms())])
