"""A molecule: the graph that chemistry knows, and the conformers that geometry knows."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from rdkit import Chem
from rdkit.Chem import rdMolDescriptors
from torch import Tensor

from nucleate.crystal.graph import skeleton

MAX_AUTOMORPHISMS = 5000


@dataclass(frozen=True, eq=False)
class Molecule:
    """An RDKit graph with every hydrogen explicit, and any number of conformers of it.

    The graph carries bond orders, formal charges and stereo as they were given; nothing downstream perceives
    them again. Each conformer is centred: the plain mean of its atoms is the origin, which is what `centroid`
    means everywhere in nucleate.
    """

    graph: Chem.Mol
    conformers: Float[Tensor, "conformers atoms 3"]  # Å
    name: str = ""

    def __post_init__(self) -> None:
        if self.graph.GetNumAtoms() != self.conformers.shape[1]:
            raise ValueError(
                f"expected one position for each of the {self.graph.GetNumAtoms()} atoms of the graph, got "
                f"{self.conformers.shape[1]}. Are the hydrogens explicit (Chem.AddHs)?"
            )
        centred = self.conformers.double() - self.conformers.double().mean(1, keepdim=True)
        object.__setattr__(self, "conformers", centred)

    def __len__(self) -> int:
        """Number of atoms, hydrogens included."""
        return self.graph.GetNumAtoms()

    def __repr__(self) -> str:
        return f"Molecule({self.name or self.smiles!r}, {self.formula}, {len(self.conformers)} conformers)"

    @cached_property
    def numbers(self) -> Int[Tensor, " atoms"]:
        """Atomic numbers."""
        return torch.tensor([a.GetAtomicNum() for a in self.graph.GetAtoms()])

    @cached_property
    def bonds(self) -> Int[Tensor, "bonds 2"]:
        pairs = [(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in self.graph.GetBonds()]
        return torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)

    @cached_property
    def heavy(self) -> Int[Tensor, " heavy"]:
        """Indices of the atoms that are not hydrogen (all atoms for H2)."""
        index = torch.nonzero(self.numbers > 1).flatten()
        return index if len(index) else torch.arange(len(self))

    @property
    def heavy_graph(self) -> tuple[list[int], list[list[int]]]:
        """Atomic numbers and bonds of the `heavy` atoms, numbered among themselves."""
        place = {atom: i for i, atom in enumerate(self.heavy.tolist())}
        bonds = [[place[i], place[j]] for i, j in self.bonds.tolist() if i in place and j in place]
        return self.numbers[self.heavy].tolist(), bonds

    @cached_property
    def smiles(self) -> str:
        """Canonical SMILES with stereo, hydrogens implicit."""
        return Chem.MolToSmiles(Chem.RemoveHs(self.graph, sanitize=False))

    @cached_property
    def formula(self) -> str:
        return rdMolDescriptors.CalcMolFormula(self.graph)

    @property
    def charge(self) -> int:
        return Chem.GetFormalCharge(self.graph)

    @cached_property
    def mass(self) -> float:
        """g/mol"""
        table = Chem.GetPeriodicTable()
        return sum(table.GetAtomicWeight(int(z)) for z in self.numbers)

    @cached_property
    def automorphisms(self) -> Int[Tensor, "maps atoms"]:
        """Permutations of the atoms that keep elements and bonds, identity first; at most
        `MAX_AUTOMORPHISMS`.

        Bond orders and charges are not looked at: the oxygens of a nitro group or carboxylate are equal, and
        tautomers differ in where the hydrogens are. Hydrogens count as atoms, so a methyl group brings a
        factor of six. Stereo is not looked at: whether a map is a rotation or a reflection is decided by
        the conformer it is applied to.
        """
        bare = skeleton(self.numbers.tolist(), self.bonds.tolist())
        maps = bare.GetSubstructMatches(bare, uniquify=False, maxMatches=MAX_AUTOMORPHISMS)
        identity = tuple(range(len(self)))
        return torch.tensor([identity, *(m for m in maps if m != identity)])

    @property
    def is_chiral(self) -> bool:
        """True where the graph has a stereocentre (given or not) that is not matched by a mirror partner.

        What matters to a space group is whether the mirror image is another compound; that is so when the
        canonical SMILES of the mirror image differs.
        """
        mirrored = Chem.RWMol(self.graph)
        flip = {
            Chem.ChiralType.CHI_TETRAHEDRAL_CW: Chem.ChiralType.CHI_TETRAHEDRAL_CCW,
            Chem.ChiralType.CHI_TETRAHEDRAL_CCW: Chem.ChiralType.CHI_TETRAHEDRAL_CW,
        }
        for atom in mirrored.GetAtoms():
            atom.SetChiralTag(flip.get(atom.GetChiralTag(), atom.GetChiralTag()))
        return Chem.MolToSmiles(Chem.RemoveHs(mirrored, sanitize=False)) != self.smiles

    def with_conformers(self, conformers: Float[Tensor, "conformers atoms 3"]) -> "Molecule":
        return replace(self, conformers=conformers)
