"""Frames of a crystal of rigid molecules at a temperature: what dynamics writes and flows learn from.

A frame is where each molecule is and how it is turned. Molecules keep their order, and places are continuous: a
molecule that leaves through a face goes on outside, so that displacements from ideal sites can be averaged.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from nucleate.physics.parameters import BOLTZMANN
from nucleate.physics.rigid_sites import RigidSites


@dataclass(frozen=True, eq=False)
class RigidFrames:
    """All of one molecule, in one cell, at one temperature, in the order in which they were sampled (float64)."""

    molecule: RigidSites
    cell: Float[Tensor, "3 3"]  # Å, rows are the vectors
    temperature: float  # K
    places: Float[Tensor, "frames molecules 3"]  # Å
    turns: Float[
        Tensor, "frames molecules 4"
    ]  # unit quaternions (w, x, y, z) from the body frame; either sign
    energies: Float[Tensor, " frames"]  # eV

    def __len__(self) -> int:
        return len(self.places)

    @property
    def kT(self) -> float:
        """eV."""
        return BOLTZMANN * self.temperature
