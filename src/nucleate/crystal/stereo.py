"""Does a shape have the stereo that the graph gives? Told by signs, so that no labels are needed.

A stereocentre is right where the volume that its neighbours span has the sign of the graph (`signed_volumes`), a double
bond where its named neighbours are on the side that the graph says. That includes centres that have no R or S, such as
those of cis-1,4-dimethylcyclohexane.
"""

import torch
from jaxtyping import Bool, Float, Int
from rdkit import Chem
from torch import Tensor

from nucleate.crystal.bond_graph import CIS, SIDES, bond_graph, signed_volumes

FLAT = 0.1  # `signed_volumes` of unit arms below which it is neither hand; 0.77 in a tetrahedron


def right_stereo(
    graph: Chem.Mol, positions: Float[Tensor, "conformers atoms 3"]
) -> Bool[Tensor, " conformers"]:
    """True for each shape (Å) with all stereocentres and double bonds that the graph gives; what it leaves open may be
    anything.
    """
    return right_centres(graph, positions) & _right_sides(graph, positions)


def right_centres(
    graph: Chem.Mol, positions: Float[Tensor, "conformers atoms 3"]
) -> Bool[Tensor, " conformers"]:
    """The same of stereocentres alone. The mirror image of a shape has the opposite of each."""
    return (_volumes(bond_graph(graph).centres, positions) > FLAT).all(1)


def wrong_centres(graph: Chem.Mol, positions: Float[Tensor, "atoms 3"]) -> list[int]:
    """The stereocentres that the graph gives and that are of the other hand in this shape (Å)."""
    centres = bond_graph(graph).centres
    return centres[_volumes(centres, positions[None])[0] < 0, 0].tolist()


def _volumes(
    centres: Int[Tensor, "centres 5"], positions: Float[Tensor, "conformers atoms 3"]
) -> Float[Tensor, "conformers centres"]:
    """`signed_volumes` of unit arms: the directions of bonds decide, not their lengths."""
    arms = positions[:, centres[:, 1:].clamp(min=0)] - positions[:, centres[:, :1]]
    unit = torch.nn.functional.normalize(arms, dim=-1)
    local = torch.cat([torch.zeros_like(unit[:, :, :1]), unit], 2).flatten(0, 1)
    own = torch.where(centres >= 0, torch.arange(5), -1).repeat(len(positions), 1)[:, None]
    return signed_volumes(own, local).reshape(len(positions), len(centres))


def _right_sides(
    graph: Chem.Mol, positions: Float[Tensor, "conformers atoms 3"]
) -> Bool[Tensor, " conformers"]:
    ends, same = _double_bonds(graph)
    before, begin, end, after = positions[:, ends].unbind(2)
    axis = torch.nn.functional.normalize(end - begin, dim=-1)
    one, other = (v - (v * axis).sum(-1, keepdim=True) * axis for v in (before - begin, after - end))
    return (((one * other).sum(-1) > 0) == same).all(1)


def _double_bonds(graph: Chem.Mol) -> tuple[Int[Tensor, "bonds 4"], Bool[Tensor, " bonds"]]:
    """Neighbour, atom, atom, neighbour of each double bond with given stereo, and whether they are on one side."""
    given = [b for b in graph.GetBonds() if b.GetStereo() in SIDES and len(b.GetStereoAtoms()) == 2]
    atoms = [
        (b.GetStereoAtoms()[0], b.GetBeginAtomIdx(), b.GetEndAtomIdx(), b.GetStereoAtoms()[1]) for b in given
    ]
    sides = [SIDES[b.GetStereo()] == CIS for b in given]
    return torch.tensor(atoms, dtype=torch.long).reshape(-1, 4), torch.tensor(sides, dtype=torch.bool)
