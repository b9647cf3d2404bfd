"""The 18 auxiliary features of a molecule in MolCrystalFlow (arXiv 2602.16020), by name.

Eleven come from the graph (RDKit) and seven from the conformer. A value that cannot be computed is an error here; the
published code wrote 0.
"""

import torch
from jaxtyping import Float
from rdkit import Chem, rdBase
from rdkit.Chem import rdMolDescriptors
from torch import Tensor

from nucleate.crystal.molecule import Molecule
from nucleate.errors import InputError

SHAPE_FEATURES = (
    "principal_variance_1",  # Å^2, largest first: of the plain (unweighted) positions of all atoms
    "principal_variance_2",
    "principal_variance_3",
    "radius_of_gyration",  # Å: root of their sum
    "asphericity",  # Å^2: the first minus the mean of the others
    "eccentricity",  # (first - second) / first; 0 for a single atom
    "planarity",  # 1 - third / first: 1 for flat molecules
)
GRAPH_FEATURES = (
    "num_atoms",
    "num_heavy_atoms",
    "molecular_weight",  # g/mol
    "is_chiral",  # 1 where the mirror image is another compound (`Molecule.is_chiral`)
    "num_hbd",
    "num_hba",
    "num_rotatable_bonds",
    "num_rings",
    "num_aromatic_rings",
    "logp",  # Wildman and Crippen 1999
    "tpsa",  # Å^2; Ertl 2000
)
FEATURES = GRAPH_FEATURES + SHAPE_FEATURES


def molecule_features(molecule: Molecule) -> Float[Tensor, "conformers features"]:
    """The values of `FEATURES`, in that order, float64, for every conformer of a molecule.

    Raises InputError (reason "no features") where the graph has no valid valences, as metal complexes, or an atom
    that the logP of Crippen has no type for (noble gases).
    """
    graph = graph_features(molecule)
    row = torch.tensor([graph[name] for name in GRAPH_FEATURES], dtype=torch.float64)
    shape = shape_features(molecule.conformers)
    return torch.cat([row.expand(len(shape), -1), shape], 1)


def graph_features(molecule: Molecule) -> dict[str, float]:
    """`GRAPH_FEATURES` by name."""
    with rdBase.BlockLogs():
        try:
            # with hydrogens as atoms RDKit would count methyl groups as rotatable
            bare = Chem.RemoveHs(molecule.graph)
        except Chem.MolSanitizeException as error:
            raise InputError(
                f"expected a molecule with ordinary valences, got {molecule.name or molecule.smiles} ({error}); "
                "its features cannot be computed, so leave it out and count it",
                reason="no features",
            ) from error
    values = {
        "num_atoms": len(molecule),
        "num_heavy_atoms": bare.GetNumHeavyAtoms(),
        "molecular_weight": molecule.mass,
        "is_chiral": molecule.is_chiral,
        "num_hbd": rdMolDescriptors.CalcNumHBD(bare),
        "num_hba": rdMolDescriptors.CalcNumHBA(bare),
        "num_rotatable_bonds": rdMolDescriptors.CalcNumRotatableBonds(bare),
        "num_rings": rdMolDescriptors.CalcNumRings(bare),
        "num_aromatic_rings": rdMolDescriptors.CalcNumAromaticRings(bare),
        "logp": _logp(bare),
        "tpsa": rdMolDescriptors.CalcTPSA(bare),
    }
    return {name: float(value) for name, value in values.items()}


def shape_features(
    positions: Float[Tensor, "conformers atoms 3"],
) -> Float[Tensor, "conformers shape"]:
    """`SHAPE_FEATURES` from positions in Å; they do not see how a conformer is turned, shifted or mirrored."""
    centred = positions - positions.mean(1, keepdim=True)
    variance = torch.linalg.eigvalsh(centred.mT @ centred / positions.shape[1]).flip(-1).clamp_min(0)
    first, second, third = variance.unbind(-1)
    scale = torch.where(first > 0, first, 1.0)
    asphericity = first - (second + third) / 2
    parts = [variance.sum(-1).sqrt(), asphericity, (first - second) / scale, 1 - third / scale]
    return torch.cat([variance, torch.stack(parts, -1)], -1)


def _logp(graph: Chem.Mol) -> float:
    """The sum of atomic contributions, refused where an atom has none (RDKit counts it as 0)."""
    whole = Chem.AddHs(graph)
    types, labels = [0] * whole.GetNumAtoms(), [""] * whole.GetNumAtoms()
    contributions = rdMolDescriptors._CalcCrippenContribs(whole, True, types, labels)
    if "" in labels:
        symbol = whole.GetAtomWithIdx(labels.index("")).GetSymbol()
        raise InputError(
            f"expected atoms that Crippen's logP has types for, got {symbol}; leave that molecule out and count it",
            reason="no features",
        )
    return sum(logp for logp, _ in contributions)
