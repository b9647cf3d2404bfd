"""Atoms of many crystals as one list, and every two atoms of a crystal once: i < j.

What is even or odd in the difference x_j - x_i need be computed for i < j alone: the other direction has the same
even part and the odd part with its sign changed.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from nucleate.networks.embed import gaussian_basis, smooth_cutoff


@dataclass(frozen=True, eq=False)
class AtomPairs:
    """Where the atoms of padded crystals are, crystal by crystal, and which belong together."""

    shape: tuple[int, int]  # crystals, atoms of the padded form
    place: Int[Tensor, " atoms"]  # in the padded form, flattened
    crystal: Int[Tensor, " atoms"]
    first: Int[Tensor, " pairs"]  # the atom i of a pair
    second: Int[Tensor, " pairs"]  # the atom j > i
    size: Int[Tensor, " crystals"]  # atoms in each

    @staticmethod
    def of(mask: Bool[Tensor, "crystals atoms"]) -> "AtomPairs":
        place = mask.flatten().nonzero().flatten()
        number = torch.cumsum(mask.flatten(), 0).reshape(mask.shape) - 1
        above = torch.ones(mask.shape[1], mask.shape[1], dtype=torch.bool, device=mask.device).triu(1)
        which, i, j = torch.nonzero(mask[:, :, None] & mask[:, None] & above, as_tuple=True)
        size = mask.sum(1)
        crystal = torch.arange(len(mask), device=mask.device).repeat_interleave(size)
        return AtomPairs(
            (mask.shape[0], mask.shape[1]), place, crystal, number[which, i], number[which, j], size
        )

    def flat(self, padded: Shaped[Tensor, "crystals atoms ..."]) -> Shaped[Tensor, "flat ..."]:
        """The atoms that are there, in one row."""
        return padded.flatten(0, 1).index_select(0, self.place)

    def padded(self, flat: Float[Tensor, "flat ..."]) -> Float[Tensor, "crystals atoms ..."]:
        """Back, with zeros where there is no atom."""
        crystals, atoms = self.shape
        empty = flat.new_zeros(crystals * atoms, *flat.shape[1:])
        return empty.index_copy(0, self.place, flat).unflatten(0, (crystals, atoms))

    def difference(self, frac: Float[Tensor, "flat 3"]) -> Float[Tensor, "pairs 3"]:
        """x_j - x_i, not wrapped."""
        return frac.index_select(0, self.second) - frac.index_select(0, self.first)

    def pair_crystal(self) -> Int[Tensor, " pairs"]:
        """The crystal that each pair is in."""
        return self.crystal.index_select(0, self.first)

    def mean(self, flat: Float[Tensor, "flat width"]) -> Float[Tensor, "crystals width"]:
        """The mean over the atoms of each crystal."""
        total = flat.new_zeros(len(self.size), flat.shape[1]).index_add(0, self.crystal, flat)
        return total / self.size[:, None].clamp(min=1)


def miller_half(highest: int) -> Int[Tensor, "waves 3"]:
    """One of each pair m, -m of integer vectors with |m_i| <= highest, without 0: plane waves of the cell."""
    axis = torch.arange(-highest, highest + 1)
    m = torch.cartesian_prod(axis, axis, axis)
    return m[len(m) // 2 + 1 :]  # the list is antisymmetric about its middle, which is 0


def axis_waves(lowest: int, highest: int) -> Int[Tensor, "waves 3"]:
    """n e_a for n = lowest .. highest and the three axes a."""
    n = torch.arange(lowest, highest + 1)
    return (torch.eye(3, dtype=torch.long)[:, None] * n[None, :, None]).reshape(-1, 3)


def plane_waves(
    difference: Float[Tensor, "pairs 3"], m: Shaped[Tensor, "waves 3"]
) -> tuple[Float[Tensor, "pairs waves"], Float[Tensor, "pairs waves"]]:
    """cos (even) and sin (odd) of 2 pi m.(x_j - x_i): periodic, whatever cell the atoms were written in."""
    angle = 2 * math.pi * (difference @ m.to(difference).T)
    return angle.cos(), angle.sin()


class NearImages:
    """Vectors from an atom to the images of another: the 27 cells about the shortest fractional difference."""

    def __init__(
        self,
        difference: Float[Tensor, "pairs 3"],
        lattice: Float[Tensor, "crystals 3 3"],
        crystal: Int[Tensor, " pairs"],
    ) -> None:
        axis = torch.arange(-1, 2, device=difference.device)
        shifts = torch.cartesian_prod(axis, axis, axis).to(difference)
        self.steps = (difference - difference.round())[:, None] + shifts  # fractional
        metric = lattice @ lattice.mT
        # |s|^2 = s G s^T, written out: six products are quicker than as many 3 x 3 matrices as there are pairs
        g = metric.index_select(0, crystal)[:, None]
        x, y, z = self.steps.unbind(-1)
        squared = x * (g[..., 0, 0] * x + 2 * g[..., 0, 1] * y + 2 * g[..., 0, 2] * z)
        squared = squared + y * (g[..., 1, 1] * y + 2 * g[..., 1, 2] * z) + z * z * g[..., 2, 2]
        self.distance: Float[Tensor, "pairs 27"] = squared.clamp_min(1e-8).sqrt()  # Å

    def shells(
        self, centres: Float[Tensor, " basis"], cutoff: float, less: Float[Tensor, " pairs"] | None = None
    ) -> Float[Tensor, "pairs 27 basis"]:
        """How much of each image lies in each Gaussian shell (Å), fading out at `cutoff` (Å).

        `less` is taken off the distances first: sums of radii, so that a shell means a bond of any two elements.
        """
        away = self.distance if less is None else self.distance - less[:, None]
        return gaussian_basis(away, centres) * smooth_cutoff(self.distance, cutoff)[..., None]


def self_images(
    lattice: Float[Tensor, "crystals 3 3"], centres: Float[Tensor, " basis"], cutoff: float
) -> Float[Tensor, "crystals basis"]:
    """The shells in which an atom has images of itself."""
    zero = lattice.new_zeros(len(lattice), 3)
    images = NearImages(zero, lattice, torch.arange(len(lattice), device=lattice.device))
    others = torch.arange(27, device=lattice.device) != 13  # 13 is the atom itself
    return (images.shells(centres, cutoff) * others[:, None]).sum(1)
