"""How many neighbours there are at a distance, against a gas of the same density: g(r) of a crystal's places."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from nucleate.geometry.lattice import image_shifts

FRAMES = 64  # at once


class Radial(NamedTuple):
    """g at the middle of each shell."""

    r: Float[Tensor, " shells"]  # Å
    g: Float[Tensor, " shells"]


def radial_distribution(
    places: Float[Tensor, "frames n 3"],
    cell: Float[Tensor, "3 3"],
    weights: Float[Tensor, " frames"] | None = None,
    least: float = 2.0,
    most: float = 7.0,
    shells: int = 200,
) -> Radial:
    """Mean over frames (by their weights, if given, which need not add up to 1) of pairs in shells of equal width (Å).

    g = pairs / (n density 4/3 pi (r_out^3 - r_in^3)), all images counted. The published figures have these limits.
    """
    weights = torch.ones(len(places), dtype=torch.float64) if weights is None else weights.double()
    shares = weights / weights.sum()
    wrapped = places @ torch.linalg.inv(cell) % 1.0 @ cell
    shifts, _ = image_shifts(cell[None], most)
    counts = torch.zeros(shells, dtype=torch.float64)
    for some, share in zip(wrapped.split(FRAMES), shares.split(FRAMES)):
        images = some[:, None] + (shifts.to(cell) @ cell)[None, :, None]  # frames images n 3
        r = torch.cdist(some, images.flatten(1, 2))
        number = torch.floor((r - least) / (most - least) * shells).long()
        there = (number >= 0) & (number < shells) & (r > 1e-6)
        by = share[:, None, None].expand(r.shape)[there]
        counts = counts.index_add(0, number[there], by)
    edges = torch.linspace(least, most, shells + 1, dtype=torch.float64)
    volume = 4 / 3 * torch.pi * (edges[1:].pow(3) - edges[:-1].pow(3))
    n = places.shape[1]
    density = n / float(torch.linalg.det(cell).abs())
    return Radial((edges[1:] + edges[:-1]) / 2, counts / (n * density * volume))
