"""Molecular graphs: RDKit molecules from atoms and bonds, canonical atom order, equality of skeletons.

The skeleton of a molecule is its elements and which atoms are bonded, hydrogens included, without bond
orders, charges and stereo. Two copies with equal skeletons are the same molecule, whichever oxygen of a
carboxylate a perceived graph gave the charge to.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from rdkit import Chem, rdBase
from torch import Tensor

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.stereo import wrong_centres
from nucleate.errors import InputError

SINGLE, DOUBLE, TRIPLE = Chem.BondType.SINGLE, Chem.BondType.DOUBLE, Chem.BondType.TRIPLE
LARGEST = 3000  # atoms of a molecule: RDKit's canonical order of ten times as many overflows the stack
AROMATIC, DATIVE = Chem.BondType.AROMATIC, Chem.BondType.DATIVE


def build_graph(
    numbers: Sequence[int],
    bonds: Sequence[Sequence[int]],
    types: Sequence[Chem.BondType] = (),
    charges: Sequence[int] | None = None,
) -> Chem.Mol:
    """RDKit molecule with exactly these atoms; sanitised as far as its valences allow.

    Without `types` every bond is single. Dative bonds point from the first atom to the second. A graph that
    RDKit refuses (boron cages, bare skeletons) is returned with rings and neighbours known and nothing else.
    """
    graph = Chem.RWMol()
    for k, z in enumerate(numbers):
        atom = Chem.Atom(int(z))
        atom.SetNoImplicit(True)
        atom.SetFormalCharge(0 if charges is None else int(charges[k]))
        graph.AddAtom(atom)
    for (a, b), kind in zip(bonds, types or [SINGLE] * len(bonds), strict=True):
        graph.AddBond(int(a), int(b), kind)
        if kind == AROMATIC:
            graph.GetBondBetweenAtoms(int(a), int(b)).SetIsAromatic(True)
            for end in (a, b):
                graph.GetAtomWithIdx(int(end)).SetIsAromatic(True)
    return sanitised(graph.GetMol())


def sanitised(graph: Chem.Mol) -> Chem.Mol:
    """A sanitised copy, or a copy with only ring and neighbour counts where RDKit refuses the valences."""
    copy = Chem.Mol(graph)
    with rdBase.BlockLogs():  # a refusal is an ordinary answer here
        try:
            Chem.SanitizeMol(copy)
        except Chem.MolSanitizeException:
            copy = Chem.Mol(graph)
            copy.UpdatePropertyCache(strict=False)
            Chem.FastFindRings(copy)
    return copy


def with_stereo(graph: Chem.Mol, positions: Float[Tensor, "atoms 3"]) -> Chem.Mol:
    """The graph with the stereocentres and double-bond geometry that the positions (Å) show."""
    seen = Chem.Mol(graph)
    conformer = Chem.Conformer(len(positions))
    conformer.SetPositions(np.ascontiguousarray(positions.double().numpy()))
    seen.RemoveAllConformers()
    seen.AddConformer(conformer)
    Chem.AssignStereochemistryFrom3D(seen)
    if len(
        wrong_centres(seen, positions)
    ):  # RDKit looks at three neighbours, which may lie in a plane with the atom
        Chem.AssignAtomChiralTagsFromStructure(seen)
        for centre in wrong_centres(seen, positions):
            seen.GetAtomWithIdx(centre).InvertChirality()
        Chem.AssignStereochemistry(seen, cleanIt=True, force=True)
    seen.RemoveAllConformers()
    return seen


def skeleton(numbers: Iterable[int], bonds: Iterable[Sequence[int]]) -> Chem.Mol:
    """Elements and single bonds only, not sanitised: what isomorphism is decided on."""
    graph = Chem.RWMol()
    for z in numbers:
        atom = Chem.Atom(int(z))
        atom.SetNoImplicit(True)
        graph.AddAtom(atom)
    for a, b in bonds:
        graph.AddBond(int(a), int(b), SINGLE)
    return graph.GetMol()


def canonical(numbers: Iterable[int], bonds: Iterable[Sequence[int]]) -> tuple[str, tuple[int, ...]]:
    """Key of a skeleton, equal for isomorphic skeletons only, and the atoms in canonical order.

    Atoms at the same place in the canonical orders of two molecules with equal keys correspond. Raises InputError for
    molecules of more than `LARGEST` atoms.
    """
    graph = skeleton(numbers, bonds)
    if (n := graph.GetNumAtoms()) > LARGEST:
        raise InputError(f"expected a molecule of at most {LARGEST} atoms, got {n}", reason="too large")
    key = Chem.MolToSmiles(graph, isomericSmiles=False, allHsExplicit=True)
    order = graph.GetPropsAsDict(True, True)["_smilesAtomOutputOrder"]
    return key, tuple(order)


def molecule_atoms(crystal: Crystal) -> list[Int[Tensor, " atoms"]]:
    """Indices of the atoms of each molecule, ascending."""
    order = torch.argsort(crystal.molecule, stable=True)
    return list(torch.split(order, torch.bincount(crystal.molecule).tolist()))


def molecule_bonds(crystal: Crystal) -> list[Int[Tensor, " bonds"]]:
    """Indices into `crystal.bonds` of the bonds of each molecule."""
    owner = crystal.molecule[crystal.bonds[:, 0]]
    order = torch.argsort(owner, stable=True)
    return list(torch.split(order, torch.bincount(owner, minlength=crystal.n_molecules).tolist()))


def local_bonds(crystal: Crystal) -> list[Int[Tensor, "bonds 2"]]:
    """Bonds of each molecule in its own atom numbers (places in `molecule_atoms`)."""
    place = torch.empty(len(crystal), dtype=torch.long)
    for atoms in molecule_atoms(crystal):
        place[atoms] = torch.arange(len(atoms))
    return [place[crystal.bonds[chosen]] for chosen in molecule_bonds(crystal)]


def require_bonds(crystal: Crystal) -> None:
    """Raise InputError where a crystal of several-atom molecules comes without bonds."""
    if len(crystal.bonds) == 0 and len(crystal) > crystal.n_molecules:
        raise InputError(
            "expected a crystal with bonds, got none; read it with read_crystal, or perceive them from "
            "coordinates",
            reason="no bonds",
        )
