"""How far are conformers of one molecule from each other? RMSD (Å) of heavy atoms, equivalent atoms interchangeable.

    rmsd(X, Y)^2 = min over maps m, rotations R of  sum_i |x_i - R y_m(i)|^2 / n             both about their centroids
                 = (sum |x|^2 + sum |y|^2 - 2 max_m (s_1 + s_2 + sign(det C_m) s_3)) / n,    C_m = sum_i y_m(i) x_i^T

with s the singular values of the 3x3 matrix C (Kabsch, Acta Cryst. A34, 827 (1978)). The C of all pairs of conformers
under all maps are nine matrix products, and the s have a closed form in what C^T C leaves invariant. That form
chooses the map; the RMSD under it is then worked out by superposition, exact also for equal conformers. (Of maps that
differ by less than 1e-4 Å rounding may choose the other one where all atoms lie on a line.)

Which atoms are interchangeable is decided as RDKit's GetBestRMS does by default: elements, charges and bond orders
have to agree, but the terminal oxygens (nitrogens) of a nitro group, carboxylic acid, amidine, sulfone ... are equal
among themselves. Mirror images are different conformers unless asked for otherwise.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from rdkit import Chem
from torch import Tensor

from nucleate.errors import InputError
from nucleate.geometry.so3 import kabsch

MAX_MAPS = 5000  # of a molecule; RDKit stops at a million
AT_ONCE = 40_000  # superpositions worked out together: their matrices stay in the processor's cache
CONJUGATED = Chem.MolFromSmarts("[O,N;D1;$(*-*=[O,N;D1]),$(*=*-[O,N;D1])]~*")


@dataclass(frozen=True, eq=False)
class Symmetry:
    """Heavy atoms of a molecule, and in which orders they may be taken.

    `complete` is False where there are more than `MAX_MAPS` orders: then the first ones found are there, and an
    RMSD by them is an upper bound.
    """

    heavy: Int[Tensor, " heavy"]
    maps: Int[Tensor, "maps heavy"]  # places in `heavy`; the identity first
    complete: bool


def symmetry(graph: Chem.Mol, most: int = MAX_MAPS) -> Symmetry:
    """Of a molecule with or without hydrogens; one of hydrogen alone keeps its atoms."""
    heavy = [a.GetIdx() for a in graph.GetAtoms() if a.GetAtomicNum() > 1]
    heavy = heavy or list(range(graph.GetNumAtoms()))
    bare = _interchangeable(graph, heavy)
    found = bare.GetSubstructMatches(bare, uniquify=False, maxMatches=most + 1)
    identity = tuple(range(len(heavy)))
    maps = [identity, *(m for m in found if m != identity)]
    return Symmetry(torch.tensor(heavy), torch.tensor(maps[:most]), len(maps) <= most)


def best_rmsds(
    graph: Chem.Mol | Symmetry,
    references: Float[Tensor, "references atoms 3"],
    generated: Float[Tensor, "generated atoms 3"],
    mirror: bool = False,
) -> Float[Tensor, "references generated"]:
    """The RMSD (Å) of every pair. `mirror` lets the mirror image of a conformer count as the conformer.

    Raises InputError for positions that are not finite.
    """
    known = graph if isinstance(graph, Symmetry) else symmetry(graph)
    for positions in (references, generated):
        if not positions.isfinite().all():
            raise InputError(
                "expected finite positions, got NaN or inf; count such a conformer as not made",
                reason="not finite",
            )
    x, y = (_centred(positions[:, known.heavy]) for positions in (references, generated))
    rows = max(1, AT_ONCE // max(1, len(y)))
    blocks = [_best_rmsds(some, y, known.maps, mirror) for some in x.split(rows)]
    return torch.cat(blocks) if blocks else x.new_zeros(0, len(y))


def _best_rmsds(
    x: Float[Tensor, "references heavy 3"],
    y: Float[Tensor, "generated heavy 3"],
    maps: Int[Tensor, "maps heavy"],
    mirror: bool,
) -> Float[Tensor, "references generated"]:
    if not len(x) or not len(y):
        return x.new_zeros(len(x), len(y))
    overlap = x.new_full((len(x), len(y)), -torch.inf)
    which = torch.zeros(len(x), len(y), dtype=torch.long)
    step = max(1, AT_ONCE // (len(x) * len(y)))
    for first in range(0, len(maps), step):
        some = _overlaps(x, y[:, maps[first : first + step]], mirror)
        best, place = some.max(1)
        better = best > overlap
        overlap, which = torch.where(better, best, overlap), torch.where(better, place + first, which)
    named = y[torch.arange(len(y))[:, None], maps[which]]  # references generated heavy 3
    return kabsch(named, x[:, None].expand_as(named), allow_mirror=mirror).rmsd


def _overlaps(
    x: Float[Tensor, "references heavy 3"], y: Float[Tensor, "generated maps heavy 3"], mirror: bool
) -> Float[Tensor, "references maps generated"]:
    """The largest of tr R^T C over rotations R: s_1 + s_2 + sign(det C) s_3, or + s_3 where `mirror`.

    The squares of s are the roots of l^3 - |C|^2 l^2 + |cof C|^2 l - (det C)^2, all real, and Viète has the largest.
    The other two are wanted only together, (s_2 + s_3)^2 = |C|^2 - s_1^2 + 2 |det C| / s_1: small roots on their own
    would lose half of the digits, and straight molecules with them.
    """
    n = y.shape[2]
    left = x.permute(2, 0, 1).contiguous()
    right = y.permute(3, 2, 1, 0).reshape(3, n, -1)
    (a, b, c), (d, e, f), (g, h, i) = ([row @ column for column in right] for row in left)
    cofactors = (e * i - f * h, f * g - d * i, d * h - e * g)
    det = a * cofactors[0] + b * cofactors[1] + c * cofactors[2]
    rest = (c * h - b * i, a * i - c * g, b * g - a * h, b * f - c * e, c * d - a * f, a * e - b * d)
    first, second = _sum_of_squares(a, b, c, d, e, f, g, h, i), _sum_of_squares(*cofactors, *rest)
    middle = first / 3
    spread = (middle.square() - second / 3).clamp(min=0).sqrt()  # of the roots about their mean
    cosine = (middle.pow(3) - middle * second / 2 + det.square() / 2) / spread.pow(3).clamp(min=1e-300)
    angle = cosine.clamp(-1, 1).acos() / 3
    largest = (middle + 2 * spread * angle.cos()).clamp(min=1e-300)
    s_1 = largest.sqrt()
    others = first - largest + 2 * (det.abs() if mirror else det) / s_1
    total = s_1 + others.clamp(min=0).sqrt()
    return total.reshape(len(x), y.shape[1], len(y))


def _sum_of_squares(*terms: Tensor) -> Tensor:
    total = terms[0].square()
    for term in terms[1:]:
        total.addcmul_(term, term)
    return total


def _centred(positions: Float[Tensor, "conformers heavy 3"]) -> Float[Tensor, "conformers heavy 3"]:
    return positions.double() - positions.double().mean(1, keepdim=True)


def _interchangeable(graph: Chem.Mol, atoms: list[int]) -> Chem.Mol:
    """The graph of these atoms; conjugated terminal oxygens and nitrogens without charge, bonds of one kind."""
    kept = set(atoms)
    bare = Chem.RWMol(graph)
    bare.BeginBatchEdit()
    for atom in graph.GetAtoms():
        if atom.GetIdx() not in kept:
            bare.RemoveAtom(atom.GetIdx())
    bare.CommitBatchEdit()
    for end, neighbour in bare.GetSubstructMatches(CONJUGATED, maxMatches=bare.GetNumAtoms()):
        bare.GetAtomWithIdx(end).SetFormalCharge(0)
        bare.GetBondBetweenAtoms(end, neighbour).SetBondType(Chem.BondType.ONEANDAHALF)
    return bare.GetMol()
