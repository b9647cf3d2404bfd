"""Energies of rigid molecules of charged sites in a fixed periodic cell, many configurations at once.

    centroids, rotations --> sites --pairs within the cut-off + waves--> energy of each configuration (differentiable)

    E = sum u(r) S(r) + sum q q erfc(a r)/r                                       pairs of molecules, nearest images
      + 2 pi / V sum_k exp(-k^2 / 4 a^2) / k^2 |sum q exp(i k r)|^2                 waves
      - a / sqrt(pi) sum q^2 - sum_inside q q erf(a r)/r                            what does not change
      + dispersion beyond the cut-off                                               what does not change

u is Lennard-Jones or exp-6 (`pair_potentials`). S takes it smoothly to 0 between the switching distance and the
cut-off, as OpenMM does: S = 1 - 6 x^5 + 15 x^4 - 10 x^3 with x = (r - r_s) / (r_c - r_s). Nothing inside a molecule
counts but its charges' own part of the waves. Waves do not change with the configuration and are found once.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from nucleate.errors import InputError
from nucleate.geometry.lattice import heights
from nucleate.physics.pair_potentials import Exp6Pairs, LennardJonesPairs
from nucleate.physics.parameters import COULOMB, KJ_PER_MOL

WAVES = 1.75  # the shortest wave that counts has exp(-k^2 / 4 a^2) = tolerance^1.75


@dataclass(frozen=True, eq=False)
class RigidSites:
    """A rigid molecule. Sites are in the body frame, about its place: an atom, or a centre.

    With `exp6` sites feel A exp(-B r) - C / r^6, and epsilon and sigma say nothing.
    """

    name: str
    sites: Float[Tensor, "sites 3"]  # Å
    charges: Float[Tensor, " sites"]  # e
    epsilon: Float[Tensor, " sites"]  # eV
    sigma: Float[Tensor, " sites"]  # Å
    masses: Float[Tensor, " sites"]  # g/mol; 0 for what is no atom
    exp6: Float[Tensor, "sites 3"] | None = None  # A (eV), B (1/Å), C (eV Å^6)

    def __len__(self) -> int:
        return len(self.sites)

    @property
    def solid(self) -> Bool[Tensor, " sites"]:
        """Which sites feel more than charges."""
        return self.epsilon > 0 if self.exp6 is None else self.exp6[:, 0] > 0

    @property
    def length(self) -> float:
        """The largest distance between two sites (Å)."""
        return float(torch.cdist(self.sites, self.sites).max())

    def pairs(self, a: Int[Tensor, "*pairs"], b: Int[Tensor, "*pairs"]) -> LennardJonesPairs | Exp6Pairs:
        """What sites a of one molecule and b of another feel."""
        if self.exp6 is None:
            return LennardJonesPairs.of(self.epsilon, self.sigma, a, b)
        return Exp6Pairs.of(self.exp6, a, b)


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
    `tolerance` is that of OpenMM: the screening of charges is sqrt(-ln(2 tolerance)) / cutoff. `hands` are -1 for
    molecules that are mirror images, reflected through their places before they are turned; without it none is.
    """

    molecule: RigidSites
    n: int
    cell: Float[Tensor, "3 3"]
    cutoff: float = 0.0
    tolerance: float = 1e-4
    switch: float = 0.9  # of the cut-off
    hands: Float[Tensor, " n"] | None = None  # +1 or -1

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
        if self.hands is not None and (len(self.hands) != self.n or bool((self.hands.abs() != 1).any())):
            raise InputError(
                f"expected a hand of +1 or -1 for each of {self.n} molecules, got {self.hands.tolist()}"
            )

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
        return self.of_sites(self.sites(places, rotations))

    def sites(
        self, places: Float[Tensor, "*batch molecules 3"], rotations: Float[Tensor, "*batch molecules 3 3"]
    ) -> Float[Tensor, "*batch molecules sites 3"]:
        """Where all sites are (Å)."""
        body = self.molecule.sites
        if self.hands is not None:
            body = self.hands[:, None, None] * body
        return places[..., None, :] + body.to(places) @ rotations.mT

    def of_sites(self, x: Float[Tensor, "*batch molecules sites 3"]) -> Float[Tensor, "*batch"]:
        """The same of where all sites are (Å)."""
        return self._pairs(x) + self._waves(x) + self.constant

    def _pairs(self, x: Float[Tensor, "*batch molecules sites 3"]) -> Float[Tensor, "*batch"]:
        i, j, a, b = self.site_pairs
        away = x[..., j, b, :] - x[..., i, a, :]
        cell = self.cell.to(x)
        hops = torch.round(away @ torch.linalg.inv(cell))
        away = away - hops @ cell
        r = away.norm(dim=-1)
        inside = r < self.cutoff
        if self.meets_itself:
            inside = inside & ((i != j) | hops.detach().any(-1))
        q, screening = self.charge_products.to(x), self.screening
        energy = COULOMB * q * torch.erfc(screening * r) / r
        energy = energy + self.switched(r, self.potential)
        return torch.where(inside, energy, 0.0).sum(-1)

    def switched(
        self, r: Float[Tensor, "*batch pairs"], potential: LennardJonesPairs | Exp6Pairs
    ) -> Float[Tensor, "*batch pairs"]:
        """What pairs feel at distances below the cut-off (eV)."""
        start = self.switch * self.cutoff
        x = ((r - start) / (self.cutoff - start)).clamp(0, 1)
        return potential(r) * (1 + x.pow(3) * (-10 + x * (15 - 6 * x)))

    def _waves(self, x: Float[Tensor, "*batch molecules sites 3"]) -> Float[Tensor, "*batch"]:
        """2 pi / V sum over half of all k, counted twice."""
        k, weight = self.waves
        charged = self.molecule.charges != 0
        q = self.molecule.charges[charged].to(x).repeat(self.n)
        found: Float[Tensor, "*batch"] = WaveEnergy.apply(
            x[..., charged, :].flatten(-3, -2), q, k.to(x), weight.to(x)
        )
        return found

    @cached_property
    def meets_itself(self) -> bool:
        """Whether a site may come within the cut-off of an image of its own molecule."""
        return float(heights(self.cell).min()) - self.molecule.length < self.cutoff

    @cached_property
    def site_pairs(self) -> tuple[Int[Tensor, " pairs"], ...]:
        """Molecules i < j and their sites a, b, where both are charged or both feel more; then i = j and a < b."""
        charged, solid = self.molecule.charges != 0, self.molecule.solid
        felt = (charged[:, None] & charged) | (solid[:, None] & solid)
        others = _every(torch.triu_indices(self.n, self.n, 1), felt.nonzero().mT)
        if not self.meets_itself:
            return others
        own = _every(torch.arange(self.n).expand(2, -1), felt.triu(1).nonzero().mT)
        return tuple(torch.cat(parts) for parts in zip(others, own))

    @cached_property
    def charge_products(self) -> Float[Tensor, " pairs"]:
        _, _, a, b = self.site_pairs
        return self.molecule.charges[a] * self.molecule.charges[b]

    @cached_property
    def potential(self) -> LennardJonesPairs | Exp6Pairs:
        """Of all pairs."""
        _, _, a, b = self.site_pairs
        return self.molecule.pairs(a, b)

    @cached_property
    def waves(self) -> tuple[Float[Tensor, "waves 3"], Float[Tensor, " waves"]]:
        """Half of the wave vectors (1/Å) that count, and their weights 2 x 2 pi / V exp(-k^2 / 4 a^2) / k^2 (eV)."""
        a = self.screening
        longest = 2 * a * math.sqrt(-WAVES * math.log(self.tolerance))
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
        """The energy of Lennard-Jones or exp-6 that switch and cut-off take away, for sites spread evenly (eV).

        As OpenMM has it (after Shirts et al. 2007): the mean over all pairs of sites, each kind of pair with itself
        included, times (number of sites)^2 2 pi / V int (1 - S) u r^2 dr.
        """
        solid = self.molecule.solid.nonzero().flatten()
        total = 0.0
        for p, k in enumerate(solid):
            for m in solid[p:]:
                pairs = self.n * (self.n + 1) / 2 if k == m else self.n * self.n
                total += pairs * self._lost(self.molecule.pairs(k, m))
        all_sites = self.n * len(self.molecule)
        mean = total / (all_sites * (all_sites + 1) / 2)
        return 2 * math.pi * all_sites**2 / self.volume * mean

    def _lost(self, pair: LennardJonesPairs | Exp6Pairs) -> float:
        """int (1 - S) u r^2 dr from the switching distance on: by quadrature to the cut-off, in closed form beyond."""
        r = torch.linspace(self.switch * self.cutoff, self.cutoff, 2001, dtype=torch.float64)
        near = torch.trapezoid((pair(r) - self.switched(r, pair)) * r.square(), r)
        return float(near) + pair.outside(self.cutoff)


class WaveEnergy(torch.autograd.Function):
    """sum_k weight |sum_i q_i exp(i k x_i)|^2, with its slope in closed form: sines and cosines are found once.

    d/dx_i = 2 q_i sum_k weight k (S cos(k x_i) - C sin(k x_i)), where C + iS is the sum over sites.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "*batch sites 3"],
        q: Float[Tensor, " sites"],
        k: Float[Tensor, "waves 3"],
        weight: Float[Tensor, " waves"],
    ) -> Float[Tensor, "*batch"]:
        phase = x @ k.mT
        cosine, sine = phase.cos(), phase.sin_()
        C, S = q @ cosine, q @ sine
        ctx.save_for_backward(cosine, sine, C * weight, S * weight, q, k)
        return (C.square() + S.square()) @ weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grown: Float[Tensor, "*batch"]) -> tuple[Tensor, None, None, None]:
        cosine, sine, C, S, q, k = ctx.saved_tensors
        slope = (cosine * S[..., None, :]).addcmul_(sine, C[..., None, :], value=-1) @ k
        return 2 * grown[..., None, None] * q[:, None] * slope, None, None, None


def _every(
    molecules: Int[Tensor, "2 many"], sites: Int[Tensor, "2 few"]
) -> tuple[Int[Tensor, " pairs"], ...]:
    """Each pair of molecules with each pair of sites."""
    (i, j), (a, b) = molecules, sites
    many, few = len(i), len(a)
    return i.repeat_interleave(few), j.repeat_interleave(few), a.repeat(many), b.repeat(many)
