"""Energies of rigid molecules of charged Lennard-Jones sites in a fixed periodic cell, many configurations at once.

    centroids, rotations --> sites --pairs within the cut-off + waves--> energy of each configuration (differentiable)

    E = sum 4 eps ((s/r)^12 - (s/r)^6) S(r) + sum q q erfc(a r)/r               pairs of molecules, nearest images
      + 2 pi / V sum_k exp(-k^2 / 4 a^2) / k^2 |sum q exp(i k r)|^2                 waves
      - a / sqrt(pi) sum q^2 - sum_inside q q erf(a r)/r                            what does not change
      + dispersion beyond the cut-off                                               what does not change

S takes the Lennard-Jones energy smoothly to 0 between the switching distance and the cut-off, as OpenMM does:
S = 1 - 6 x^5 + 15 x^4 - 10 x^3 with x = (r - r_s) / (r_c - r_s). Nothing inside a molecule counts but its charges' own
part of the waves. Waves do not change with the configuration and are found once.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nucleate.errors import InputError
from nucleate.geometry.lattice import heights
from nucleate.physics.parameters import COULOMB, KJ_PER_MOL

WAVE_TOLERANCE = 1e-8  # exp(-k^2 / 4 a^2) of the shortest wave that counts


@dataclass(frozen=True, eq=False)
class RigidSites:
    """A rigid molecule. Sites are in the body frame, about its place: an atom, or the centroid."""

    name: str
    sites: Float[Tensor, "sites 3"]  # Å
    charges: Float[Tensor, " sites"]  # e
    epsilon: Float[Tensor, " sites"]  # eV
    sigma: Float[Tensor, " sites"]  # Å
    masses: Float[Tensor, " sites"]  # g/mol; 0 for what is no atom

    def __len__(self) -> int:
        return len(self.sites)


def water(
    name: str, sigma: float, epsilon: float, hydrogen: float, bond: float, angle: float, out: float
) -> RigidSites:
    """O, H, H and the site M that carries the charge of O, `out` Å from it on the bisector; O is the place.

    sigma and bond in Å, epsilon in kJ/mol, the charge of a hydrogen in e, the angle in degrees.
    """
    half = math.radians(angle) / 2
    x, y = bond * math.sin(half), bond * math.cos(half)
    sites = torch.tensor([[0, 0, 0], [x, 0, y], [-x, 0, y], [0, 0, out]], dtype=torch.float64)
    only_first = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    return RigidSites(
        name,
        sites,
        torch.tensor([0.0, hydrogen, hydrogen, -2 * hydrogen], dtype=torch.float64),
        epsilon * KJ_PER_MOL * only_first,
        sigma * only_first,
        torch.tensor([15.99943, 1.007947, 1.007947, 0.0], dtype=torch.float64),
    )


TIP4P_EW = water("TIP4P-Ew", 3.16435, 0.680946, 0.52422, 0.9572, 104.52, 0.125)
"""Horn et al., J. Chem. Phys. 120, 9665 (2004)."""
TIP4P_ICE = water("TIP4P/Ice", 3.1668, 0.88215456, 0.5897, 0.9572, 104.52, 0.1577)
"""Abascal et al., J. Chem. Phys. 122, 234511 (2005)."""


@dataclass(frozen=True, eq=False)
class SiteEnergy:
    """The energy of `n` copies of a molecule in a cell (rows are its vectors, Å).

    Without `cutoff` it is 10 Å or just below half of the least distance between faces of the cell, where that is less.
    `tolerance` is that of OpenMM: the screening of charges is sqrt(-ln(2 tolerance)) / cutoff.
    """

    molecule: RigidSites
    n: int
    cell: Float[Tensor, "3 3"]
    cutoff: float = 0.0
    tolerance: float = 1e-4
    switch: float = 0.9  # of the cut-off

    def __post_init__(self) -> None:
        most = float(heights(self.cell).min()) / 2
        if self.cutoff == 0:
            object.__setattr__(self, "cutoff", min(10.0, most - 1e-4))
        if not 0 < self.cutoff <= most:
            raise InputError(
                f"expected a cut-off of at most half the least height of the cell, {most:.3f} Å, got {self.cutoff} Å; "
                "repeat the cell"
            )
        if abs(float(self.molecule.charges.sum())) > 1e-6:
            raise InputError(f"expected a neutral molecule, got {float(self.molecule.charges.sum()):.4f} e")

    @property
    def screening(self) -> float:
        """a, 1/Å."""
        return math.sqrt(-math.log(2 * self.tolerance)) / self.cutoff

    @property
    def volume(self) -> float:
        return float(torch.linalg.det(self.cell).abs())

    def __call__(
        self, places: Float[Tensor, "*batch molecules 3"], rotations: Float[Tensor, "*batch molecules 3 3"]
    ) -> Float[Tensor, "*batch"]:
        """eV. Places in Å, anywhere; rotations take the body frame to the cell's."""
        sites = places[..., None, :] + self.molecule.sites.to(places) @ rotations.mT
        return self.of_sites(sites)

    def of_sites(self, x: Float[Tensor, "*batch molecules sites 3"]) -> Float[Tensor, "*batch"]:
        """The same of where all sites are (Å)."""
        return self._pairs(x) + self._waves(x) + self.constant

    def _pairs(self, x: Float[Tensor, "*batch molecules sites 3"]) -> Float[Tensor, "*batch"]:
        i, j, a, b = self.site_pairs
        away = x[..., j, b, :] - x[..., i, a, :]
        cell = self.cell.to(x)
        away = away - torch.round(away @ torch.linalg.inv(cell)) @ cell
        r = away.norm(dim=-1)
        inside = r < self.cutoff
        q, screening = self.charge_products.to(x), self.screening
        energy = COULOMB * q * torch.erfc(screening * r) / r
        energy = energy + self.lennard_jones(r, self.pair_epsilon.to(x), self.pair_sigma.to(x))
        return torch.where(inside, energy, 0.0).sum(-1)

    def lennard_jones(self, r: Tensor, epsilon: Tensor | float, sigma: Tensor | float) -> Tensor:
        """Of pairs at distances below the cut-off, switched (eV)."""
        start = self.switch * self.cutoff
        x = ((r - start) / (self.cutoff - start)).clamp(0, 1)
        s6 = (sigma / r).pow(6)
        return 4 * epsilon * (s6.square() - s6) * (1 + x.pow(3) * (-10 + x * (15 - 6 * x)))

    def _waves(self, x: Float[Tensor, "*batch molecules sites 3"]) -> Float[Tensor, "*batch"]:
        """2 pi / V sum over half of all k, counted twice."""
        k, weight = self.waves
        phase = x.flatten(-3, -2) @ k.to(x).mT  # batch all_sites waves
        q = self.molecule.charges.to(x).repeat(self.n)
        squared = (q @ phase.cos()).square() + (q @ phase.sin()).square()
        return squared @ weight.to(x)

    @cached_property
    def site_pairs(self) -> tuple[Int[Tensor, " pairs"], ...]:
        """Molecules i < j and their sites a, b, where both are charged or both have a Lennard-Jones energy."""
        charged, round_ = self.molecule.charges != 0, self.molecule.epsilon > 0
        felt = (charged[:, None] & charged) | (round_[:, None] & round_)
        a, b = felt.nonzero(as_tuple=True)
        i, j = torch.triu_indices(self.n, self.n, 1)
        many, few = len(i), len(a)
        return i.repeat_interleave(few), j.repeat_interleave(few), a.repeat(many), b.repeat(many)

    @cached_property
    def charge_products(self) -> Float[Tensor, " pairs"]:
        _, _, a, b = self.site_pairs
        return self.molecule.charges[a] * self.molecule.charges[b]

    @cached_property
    def pair_epsilon(self) -> Float[Tensor, " pairs"]:
        _, _, a, b = self.site_pairs
        return (self.molecule.epsilon[a] * self.molecule.epsilon[b]).sqrt()

    @cached_property
    def pair_sigma(self) -> Float[Tensor, " pairs"]:
        _, _, a, b = self.site_pairs
        return (self.molecule.sigma[a] + self.molecule.sigma[b]) / 2

    @cached_property
    def waves(self) -> tuple[Float[Tensor, "waves 3"], Float[Tensor, " waves"]]:
        """Half of the wave vectors (1/Å) that count, and their weights 2 x 2 pi / V exp(-k^2 / 4 a^2) / k^2 (eV)."""
        a = self.screening
        longest = 2 * a * math.sqrt(-math.log(WAVE_TOLERANCE))
        most = torch.ceil(longest * self.cell.norm(dim=1) / (2 * math.pi)).long().tolist()
        axes = [torch.arange(-m, m + 1) for m in most]
        n = torch.cartesian_prod(*axes)
        # one of k and -k: the first number that is not 0 is positive
        order = n[:, 0] * 10**6 + n[:, 1] * 10**3 + n[:, 2]
        k = 2 * math.pi * n[order > 0].to(self.cell) @ torch.linalg.inv(self.cell).mT
        squared = k.square().sum(-1)
        k, squared = k[squared < longest**2], squared[squared < longest**2]
        return k, COULOMB * 4 * math.pi / self.volume * torch.exp(-squared / (4 * a * a)) / squared

    @cached_property
    def constant(self) -> float:
        """Charges with their own screens, and the dispersion beyond the cut-off (eV)."""
        q, x, a = self.molecule.charges, self.molecule.sites, self.screening
        own = a / math.sqrt(math.pi) * float(q.square().sum())
        i, j = torch.triu_indices(len(q), len(q), 1)
        r = (x[i] - x[j]).norm(dim=-1)
        within = float((q[i] * q[j] * torch.erf(a * r) / r).sum())
        return -COULOMB * self.n * (own + within) + self.beyond

    @cached_property
    def beyond(self) -> float:
        """The Lennard-Jones energy that switch and cut-off take away, for sites spread evenly (eV).

        As OpenMM has it (after Shirts et al. 2007): the mean over all pairs of sites, each kind of pair with itself
        included, times (number of sites)^2 2 pi / V int (1 - S) u r^2 dr.
        """
        round_ = (self.molecule.epsilon > 0).nonzero().flatten().tolist()
        total = 0.0
        kinds = [(round_[k], round_[m]) for k in range(len(round_)) for m in range(k, len(round_))]
        for k, m in kinds:
            epsilon = float((self.molecule.epsilon[k] * self.molecule.epsilon[m]).sqrt())
            sigma = float((self.molecule.sigma[k] + self.molecule.sigma[m]) / 2)
            pairs = self.n * (self.n + 1) / 2 if k == m else self.n * self.n
            total += pairs * self._lost(epsilon, sigma)
        all_sites = self.n * len(self.molecule)
        mean = total / (all_sites * (all_sites + 1) / 2)
        return 2 * math.pi * all_sites**2 / self.volume * mean

    def _lost(self, epsilon: float, sigma: float) -> float:
        """int (1 - S) u r^2 dr from the switching distance on: by quadrature to the cut-off, in closed form beyond."""
        r = torch.linspace(self.switch * self.cutoff, self.cutoff, 2001, dtype=torch.float64)
        s6 = (sigma / r).pow(6)
        whole = 4 * epsilon * (s6.square() - s6)
        near = torch.trapezoid((whole - self.lennard_jones(r, epsilon, sigma)) * r.square(), r)
        far = 4 * epsilon * (sigma**12 / (9 * self.cutoff**9) - sigma**6 / (3 * self.cutoff**3))
        return float(near) + far
