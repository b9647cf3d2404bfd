"""What the atoms of a molecule tell without its bonds, for many molecules at once: padded with number 0 at the origin.

Positions are in Å about the centroid.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nucleate.geometry.so3 import nearest_rotation

SAME_SHAPE = 0.25  # Å: RMSD of heavy atoms up to which a shape laid on itself counts as the same
FLAT = 0.3  # Å: heavy atoms nearer than this to a line do not fix an orientation
MOST_MAPS = 24  # of each hand: the rotations of a cube; of prisms with more than 12 sides not all are found
CARRIED = 1.5  # Å: a hydrogen farther from every heavy atom belongs to none
DONORS = (7, 8, 9, 16)


def hydrogen_bonding(
    numbers: Int[Tensor, "batch atoms"], local: Float[Tensor, "batch atoms 3"]
) -> tuple[Bool[Tensor, "batch atoms"], Bool[Tensor, "batch atoms"]]:
    """Which atoms are hydrogens on N, O, F or S, the heavy atoms nearest to them, and which are such donors.

    Where a molecule is written without hydrogens all its N, O, F and S may be donors.
    """
    away = torch.cdist(local, local).masked_fill((numbers <= 1)[:, None], torch.inf)
    length, carrier = away.min(-1)
    able = torch.isin(numbers, torch.tensor(DONORS, device=numbers.device))
    hydrogen = numbers == 1
    polar = hydrogen & (length < CARRIED) & able.gather(1, carrier)
    carries = torch.zeros_like(numbers).scatter_add(1, carrier, polar.long()) > 0
    return polar, carries | (able & ~hydrogen.any(1, keepdim=True))


def anchor_points(
    numbers: Int[Tensor, "batch atoms"], local: Float[Tensor, "batch atoms 3"], most: int
) -> tuple[Float[Tensor, "batch anchors 3"], Int[Tensor, "batch atoms"], Bool[Tensor, "batch anchors"]]:
    """Where a molecule touches others: at most so many points, which of them each atom belongs to, and what is there.

    Heavy atoms and polar hydrogens, all atoms where there are none. Those farthest from each other lead groups of the
    atoms nearest to them, and an anchor is the mean of its group.
    """
    points = (numbers > 1) | hydrogen_bonding(numbers, local)[0]
    points = torch.where(points.any(1, keepdim=True), points, numbers > 0)
    row = torch.arange(len(local), device=local.device)
    apart = torch.cdist(local, local)
    leaders = [torch.where(points, local.norm(dim=-1), -1.0).argmax(1)]
    gap = torch.where(points, apart[row, leaders[0]], 0.0)
    present = [gap.amax(1) >= 0]
    for _ in range(min(most, local.shape[1]) - 1):
        farthest = gap.max(1)
        leaders.append(farthest.indices)
        present.append(farthest.values > 0)
        gap = torch.minimum(gap, apart[row, leaders[-1]])
    there = torch.stack(present, 1)
    away = apart.gather(2, torch.stack(leaders, 1)[:, None].expand(-1, apart.shape[1], -1))
    group = away.masked_fill(~there[:, None], torch.inf).argmin(-1)
    member = torch.nn.functional.one_hot(group, there.shape[1]).to(local) * points[..., None]
    anchors = (member.mT @ local) / member.sum(1).clamp(min=1)[..., None]
    return anchors, group, there


def fixing_atoms(
    numbers: Int[Tensor, "batch atoms"], local: Float[Tensor, "batch atoms 3"]
) -> Bool[Tensor, "batch atoms"]:
    """The heavy atoms, or all atoms where the heavy ones lie on a line."""
    heavy = numbers > 1
    weight = heavy[..., None].to(local)
    arms = weight * (local - (weight * local).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1))
    spread = torch.linalg.svdvals(arms)
    if spread.shape[-1] < 2:
        return numbers > 0
    return torch.where(spread[:, 1:2] > FLAT, heavy, numbers > 0)


def shape_symmetries(
    numbers: Int[Tensor, "batch atoms"], local: Float[Tensor, "batch atoms 3"]
) -> tuple[Float[Tensor, "batch maps 3 3"], Bool[Tensor, "batch maps"]]:
    """Orthogonal matrices A, proper and improper, and whether l -> A l lays the shape on itself (to `SAME_SHAPE`).

    A symmetry takes two atoms that are off a line with the centroid to two others with equal distances, and is known by
    them up to its hand; so such pairs are tried. The first matrix is the identity. The second is the mirror image
    across the thinnest direction, symmetry or not: of all improper ones it moves atoms least. Repeats are possible.
    """
    counted = fixing_atoms(numbers, local)
    maps = _maps_by_pairs(numbers, local, counted)
    for _ in range(2):  # the first map may have been a bad one of good partners
        maps = _polished(local, counted, maps, _partners(numbers, local, counted, maps)[1])
    known = torch.stack([torch.ones(3), torch.tensor([1.0, 1.0, -1.0])]).to(local).diag_embed()
    maps = torch.cat([known.expand(len(local), 2, 3, 3), maps], 1)
    return maps, _partners(numbers, local, counted, maps)[0] < SAME_SHAPE


def _maps_by_pairs(
    numbers: Int[Tensor, "batch atoms"],
    local: Float[Tensor, "batch atoms 3"],
    counted: Bool[Tensor, "batch atoms"],
) -> Float[Tensor, "batch maps 3 3"]:
    """Orthogonal matrices that take two chosen atoms to the pairs of atoms most like them."""
    row = torch.arange(len(local), device=local.device)
    radius = local.norm(dim=-1)
    first = torch.where(counted, radius, -1.0).argmax(1)
    axis = torch.nn.functional.normalize(local[row, first], dim=-1)
    off = torch.linalg.cross(local, axis[:, None].expand_as(local)).norm(dim=-1)
    second = torch.where(counted, off, -1.0).argmax(1)
    apart = torch.cdist(local, local)

    def unlike(atom: Int[Tensor, " batch"]) -> Float[Tensor, "batch atoms"]:
        same = counted & (numbers == numbers[row, atom][:, None])
        return torch.where(same, (radius - radius[row, atom][:, None]).square(), torch.inf)

    miss = (apart - apart[row, first, second][:, None, None]).square()
    miss = (miss + unlike(first)[:, :, None] + unlike(second)[:, None]).flatten(1)
    pair = miss.topk(min(MOST_MAPS, miss.shape[1]), largest=False).indices
    i, j = pair // local.shape[1], pair % local.shape[1]
    here, there = (
        _frame(local[row, first], local[row, second]),
        _frame(local[row[:, None], i], local[row[:, None], j]),
    )
    mirrored = there * there.new_tensor([1.0, 1.0, -1.0])
    return torch.cat([there, mirrored], 1) @ here.mT[:, None]


def _frame(a: Float[Tensor, "*n 3"], b: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3 3"]:
    """Right-handed unit columns along a, across the plane of a and b, and across both."""
    u = torch.nn.functional.normalize(a, dim=-1)
    w = torch.nn.functional.normalize(torch.linalg.cross(a, b), dim=-1)
    return torch.stack([u, w, torch.linalg.cross(u, w)], -1)


def _partners(
    numbers: Int[Tensor, "batch atoms"],
    local: Float[Tensor, "batch atoms 3"],
    counted: Bool[Tensor, "batch atoms"],
    maps: Float[Tensor, "batch maps 3 3"],
) -> tuple[Float[Tensor, "batch maps"], Int[Tensor, "batch maps atoms"]]:
    """RMSD (Å) of each mapped atom to the nearest of its element, and which one that is."""
    image = local[:, None] @ maps.mT
    away = torch.cdist(image, local[:, None].expand_as(image))
    alike = (numbers[:, :, None] == numbers[:, None]) & counted[:, None]
    least, nearest = away.masked_fill(~alike[:, None], torch.inf).min(-1)
    weight = counted[:, None].to(local)
    square = torch.where(counted[:, None], least, 0.0).square()
    return ((weight * square).sum(-1) / weight.sum(-1)).sqrt(), nearest


def _polished(
    local: Float[Tensor, "batch atoms 3"],
    counted: Bool[Tensor, "batch atoms"],
    maps: Float[Tensor, "batch maps 3 3"],
    partner: Int[Tensor, "batch maps atoms"],
) -> Float[Tensor, "batch maps 3 3"]:
    """The best map, of the same hand, of atoms onto their partners."""
    row = torch.arange(len(local), device=local.device)[:, None, None]
    target = local[row, partner] * counted[:, None, :, None]
    hand = torch.where(torch.linalg.det(maps) < 0, -1.0, 1.0)[..., None, None]
    return hand * nearest_rotation(hand * target.mT @ local[:, None])
