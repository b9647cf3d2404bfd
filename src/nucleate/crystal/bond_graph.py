"""What is known of a molecule before it has coordinates: elements, bonds, how many bonds apart atoms are, and stereo.

    RDKit graph --read once--> BondGraph --padded--> BondGraphs, what networks of conformers read

Atoms within three bonds of each other are what ConfGF calls the extended graph: distances along one bond, two (angles)
and three (torsions).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from rdkit import Chem
from torch import Tensor

BOND_TYPES = 22  # of RDKit, codes 1 to 22; kinds of pairs farther apart are counted on from there
FAR = 99  # bonds: atoms of separate parts, and whatever is farther
CIS, TRANS = 1, 2
CCW, CW = Chem.ChiralType.CHI_TETRAHEDRAL_CCW, Chem.ChiralType.CHI_TETRAHEDRAL_CW
SIDES = {
    Chem.BondStereo.STEREOCIS: CIS,
    Chem.BondStereo.STEREOZ: CIS,
    Chem.BondStereo.STEREOTRANS: TRANS,
    Chem.BondStereo.STEREOE: TRANS,
}


@dataclass(frozen=True, eq=False)
class BondGraph:
    """One molecule with every hydrogen."""

    numbers: Int[Tensor, " atoms"]
    bond: Int[Tensor, "atoms atoms"]  # RDKit's code of the bond type where bonded, 0 elsewhere
    hops: Int[Tensor, "atoms atoms"]  # bonds of the shortest way
    side: Int[Tensor, "atoms atoms"]  # CIS or TRANS across a double bond whose stereo is given, 0 elsewhere
    centres: Int[Tensor, "centres 5"]  # given stereocentres and their neighbours: see `signed_volumes`

    def __len__(self) -> int:
        return len(self.numbers)


@dataclass(frozen=True, eq=False)
class BondGraphs:
    """Several, padded: numbers are 0, hops FAR, and centres and neighbours -1 where there is nothing."""

    numbers: Int[Tensor, "batch atoms"]
    bond: Int[Tensor, "batch atoms atoms"]
    hops: Int[Tensor, "batch atoms atoms"]
    side: Int[Tensor, "batch atoms atoms"]
    centres: Int[Tensor, "batch centres 5"]

    @staticmethod
    def from_list(graphs: Sequence[BondGraph]) -> "BondGraphs":
        padding = {"numbers": 0, "bond": 0, "hops": FAR, "side": 0, "centres": -1}
        return BondGraphs(**{k: _padded([getattr(g, k) for g in graphs], v) for k, v in padding.items()})

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def mask(self) -> Bool[Tensor, "batch atoms"]:
        return self.numbers > 0

    def repeated(self, times: int) -> "BondGraphs":
        """Each molecule `times` times, copies side by side."""
        return BondGraphs(**{f.name: getattr(self, f.name).repeat_interleave(times, 0) for f in fields(self)})

    def pairs(self, order: int = 3) -> "Pairs":
        """Every pair of atoms at most `order` bonds apart, once: the extended graph of ConfGF."""
        near = (self.hops <= order) & torch.ones_like(self.hops, dtype=torch.bool).triu(1)
        batch, i, j = near.nonzero(as_tuple=True)
        place = (self.mask.flatten().cumsum(0) - 1).reshape(self.mask.shape)
        return Pairs(batch, place[batch, i], place[batch, j], self.bond[batch, i, j], self.hops[batch, i, j])


class Pairs(NamedTuple):
    """Pairs of atoms i < j, numbered among all atoms of the batch without padding: the rows of `x[mask]`."""

    molecule: Int[Tensor, " pairs"]
    i: Int[Tensor, " pairs"]
    j: Int[Tensor, " pairs"]
    bond: Int[Tensor, " pairs"]
    hops: Int[Tensor, " pairs"]


def bond_graph(graph: Chem.Mol) -> BondGraph:
    """The graph with the stereo that it gives; what is left open there stays open."""
    atoms = graph.GetNumAtoms()
    bond, side = torch.zeros(2, atoms, atoms, dtype=torch.long)
    for b in graph.GetBonds():
        i, j = b.GetBeginAtomIdx(), b.GetEndAtomIdx()
        bond[i, j] = bond[j, i] = int(b.GetBondType())
        for k, m, which in _sides(b):
            side[k, m] = side[m, k] = which
    ways = torch.from_numpy(Chem.GetDistanceMatrix(graph)).clamp(max=FAR).long()
    centres = [c for atom in graph.GetAtoms() if (c := _centre(atom))]
    return BondGraph(
        torch.tensor([a.GetAtomicNum() for a in graph.GetAtoms()]),
        bond,
        ways,
        side,
        torch.tensor(centres, dtype=torch.long).reshape(-1, 5),
    )


def signed_volumes(
    centres: Int[Tensor, "batch centres 5"], positions: Float[Tensor, "batch atoms 3"]
) -> Float[Tensor, "batch centres"]:
    """(a - c) . (b - c) x (d - c) of each centre c and three of its neighbours, the mean over all threes (Å^3); 0 for
    padding.

    Neighbours are in such an order that this is positive where the stereo is the one that the graph gives. One three
    is not enough: in fused small rings the bonds within the rings lie in a plane, and their sign means nothing.
    """
    row = torch.arange(len(positions), device=positions.device)[:, None, None]
    found = positions[row, centres.clamp(min=0)]  # batch centres 5 3
    four = centres[..., 4:] >= 0
    base = torch.where(four, found[:, :, 4], found[:, :, 0])  # the four threes add up to this tetrahedron
    arm = found[:, :, 1:4] - base[:, :, None]
    volume = (arm[:, :, 0] * torch.linalg.cross(arm[:, :, 1], arm[:, :, 2])).sum(-1)
    volume = torch.where(four[..., 0], volume / 4, volume)
    return torch.where(centres[..., 0] >= 0, volume, 0.0)


def _centre(atom: Chem.Atom) -> list[int] | None:
    """The centre and its neighbours; a lone pair, where there are three, is -1 and comes last.

    Seen from the first neighbour the others turn counterclockwise (RDKit's CCW): the volume of the first three is
    then positive.
    """
    if atom.GetChiralTag() not in (CCW, CW):
        return None
    around = [b.GetOtherAtomIdx(atom.GetIdx()) for b in atom.GetBonds()]
    if len(around) not in (3, 4):
        return None
    if atom.GetChiralTag() == CW:
        around[0], around[1] = around[1], around[0]
    return [atom.GetIdx(), *around, *[-1] * (4 - len(around))]


def _sides(bond: Chem.Bond) -> list[tuple[int, int, int]]:
    """Pairs of neighbours across a double bond with given stereo, and on which side of it they are."""
    which = SIDES.get(bond.GetStereo())
    named = list(bond.GetStereoAtoms())
    if which is None or len(named) != 2:
        return []
    begin, end = bond.GetBeginAtom(), bond.GetEndAtom()
    ends = [
        [n.GetIdx() for n in atom.GetNeighbors() if n.GetIdx() != other.GetIdx()]
        for atom, other in ((begin, end), (end, begin))
    ]
    swap = {CIS: TRANS, TRANS: CIS}
    return [
        (k, m, which if (k == named[0]) == (m == named[1]) else swap[which]) for k in ends[0] for m in ends[1]
    ]


def _padded(tensors: Sequence[Tensor], value: int) -> Tensor:
    """Stacked, each filled with `value` up to the largest along each axis."""
    shape = [max(sizes) for sizes in zip(*(t.shape for t in tensors))]
    result = tensors[0].new_full((len(tensors), *shape), value)
    for row, tensor in zip(result, tensors):
        row[tuple(slice(n) for n in tensor.shape)] = tensor
    return result
