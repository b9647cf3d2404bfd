"""The force field of rigid molecules in open space: every pair of atoms counts, nothing repeats.

    E = sum over pairs of molecules i < j, atoms a of i and b of j:   A exp(-B r) - C / r^6 + q_a q_b / r

with the parameters, charges and soft ends (`exp6_tables`, `SOFT_COULOMB`) of the crystals' force field. Molecules move
as in `rigid_body`: shifts, and turns times the radius of gyration, so that all variables are in Å.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize
from torch import Tensor

from nucleate.crystal.molecule import Molecule
from nucleate.geometry.so3 import rotation_exp
from nucleate.physics.charges import mmff_charges
from nucleate.physics.forcefield import atom_parameters, exp6_tables
from nucleate.physics.kernels import SOFT_COULOMB
from nucleate.physics.parameters import COULOMB

TOLERANCE = 0.005  # eV/Å, largest component of the gradient


@dataclass(frozen=True, eq=False)
class OpenField:
    """Pair parameters of all atoms of one molecule with all atoms of another copy of it."""

    A: Float[Tensor, "atoms atoms"]  # eV
    B: Float[Tensor, "atoms atoms"]  # 1/Å
    C: Float[Tensor, "atoms atoms"]  # eV Å^6
    soft: Float[Tensor, "atoms atoms"]  # Å; a straight line inside
    qq: Float[Tensor, "atoms atoms"]  # eV Å

    @staticmethod
    def of(molecule: Molecule) -> "OpenField":
        """Raises InputError "unknown element" where the force field lacks one."""
        _, types, _ = atom_parameters((molecule.graph,))
        q = mmff_charges(molecule.graph)
        pairs = (table[np.ix_(types, types)] for table in exp6_tables())
        return OpenField(*(torch.from_numpy(x) for x in (*pairs, COULOMB * np.outer(q, q))))

    def energy(self, positions: Float[Tensor, "molecules atoms 3"]) -> Float[Tensor, ""]:
        """eV of the cluster less its molecules far apart."""
        i, j = torch.triu_indices(len(positions), len(positions), 1)
        step = positions[i][:, :, None] - positions[j][:, None]
        r = (step.square().sum(-1) + 1e-12).sqrt()
        outside = torch.maximum(r, self.soft)
        repulsion, attraction = self.A * torch.exp(-self.B * outside), self.C / outside**6
        slope = 6 * attraction / outside - self.B * repulsion
        charge = torch.where(r < SOFT_COULOMB, (2 - r / SOFT_COULOMB) / SOFT_COULOMB, 1 / r)
        return (repulsion - attraction + slope * (r - outside) + self.qq * charge).sum()


@dataclass(frozen=True, eq=False)
class OpenRelaxed:
    """A cluster after relaxation."""

    positions: Float[Tensor, "molecules atoms 3"]  # Å
    energy: float  # eV
    converged: bool


def relax_open(
    field: OpenField, positions: Float[Tensor, "molecules atoms 3"], max_steps: int = 100
) -> OpenRelaxed:
    """Molecules shifted and turned, each in its own shape, to lower the energy (L-BFGS)."""
    start = positions.double()
    centre = start.mean(1, keepdim=True)
    arms = start - centre
    gyration = arms.square().sum(-1).mean(1).sqrt().clamp(min=0.5)[:, None]

    def placed(x: Float[Tensor, "molecules 6"]) -> Float[Tensor, "molecules atoms 3"]:
        return arms @ rotation_exp(x[:, 3:] / gyration).mT + centre + x[:, None, :3]

    end = minimize(
        _with_gradient(lambda x: field.energy(placed(x))),
        np.zeros(6 * len(start)),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": max_steps, "gtol": TOLERANCE, "ftol": 0.0},
    )
    with torch.no_grad():
        found = placed(torch.from_numpy(end.x).unflatten(0, (-1, 6)))
    return OpenRelaxed(found, float(end.fun), bool(np.abs(end.jac).max() <= TOLERANCE))


def _with_gradient(
    energy: Callable[[Tensor], Tensor],
) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    def value(x: np.ndarray) -> tuple[float, np.ndarray]:
        variables = torch.from_numpy(x).unflatten(0, (-1, 6)).requires_grad_()
        total = energy(variables)
        [gradient] = torch.autograd.grad(total, variables)
        return float(total.detach()), gradient.flatten().numpy()

    return value
