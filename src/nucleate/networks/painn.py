"""PaiNN (Schuett, Unke, Gastegger 2021): scalars and vectors of the atoms of a cluster, told by its neighbours.

    phi = MLP(s_j),  W = (Gaussians of r_ij) A f_cut(r_ij),  (a, b, c) = phi W           message, from j to i
    s_i <- s_i + sum_j a,   v_i <- v_i + sum_j (b x_ij / r_ij + c v_j),   x_ij = x_j - x_i
    (p, q, r) = MLP([s, |V v|]),   s <- s + p + r <U v, V v>,   v <- v + q U v            update

Clusters are complete graphs of some hundred atoms with most pairs inside a cut-off of 20 Å. No filter W of a pair is
ever written down: it is linear in the Gaussians, so that sum_j W_ij phi_j = sum_jk g_ijk (A_k phi_j) is one product of
the matrix g of all pairs, the same in every layer, and the scaled messages of the atoms. No memory is taken for each
edge and channel, and a matrix product is what a CPU does best. The price: a short cut-off costs as much as a long one.

Two changes that move where training starts and hardly what can be learned: sums are divided by a fixed number of
neighbours, since a cut-off of 20 Å has hundreds (a filter could learn that factor), and filters have no bias, since
Gaussians as wide as they are apart nearly add up to a constant.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from nucleate.errors import InputError
from nucleate.geometry.manifold import safe_sqrt
from nucleate.networks.elements import HEAVIEST, refuse_unknown
from nucleate.networks.embed import gaussian_basis, own_precision, smooth_cutoff, time_waves

NEIGHBOURS = 100.0  # by which sums over neighbours are divided
FIRST_STEP = 0.1  # of the head's usual size: training begins near "nothing moves"

Scalars = Float[Tensor, "clusters atoms width"]
Vectors = Float[Tensor, "clusters atoms 3 width"]


@dataclass(frozen=True, eq=False)
class PairBasis:
    """Every two atoms of each cluster as features: g_k(r_ij) f_cut(r_ij), and the same times x_ij / r_ij.

    As matrices from the senders (atom j, Gaussian k) to the receivers (atom i; axis and atom i). They hold 4 times
    atoms^2 basis numbers a cluster: 187 MB for 765 atoms and 20 Gaussians in single precision.
    """

    even: Float[Tensor, "clusters atoms senders"]
    odd: Float[Tensor, "clusters axis_atoms senders"]

    @staticmethod
    def of(
        positions: Float[Tensor, "clusters atoms 3"],
        real: Bool[Tensor, "clusters atoms"],
        centres: Float[Tensor, " basis"],
        cutoff: float,
    ) -> "PairBasis":
        """Positions and centres in Å. Atoms that are not real neither hear nor are heard."""
        atoms = positions.shape[1]
        difference = positions.mT[:, :, None] - positions.mT[..., None]  # (clusters, 3, i, j): x_j - x_i
        distance = safe_sqrt(difference.square().sum(1))
        apart = ~torch.eye(atoms, dtype=torch.bool, device=positions.device)
        weight = smooth_cutoff(distance, cutoff) * (real[:, :, None] & real[:, None] & apart)
        basis = gaussian_basis(distance, centres) * weight[..., None]
        direction = difference / torch.where(distance > 0, distance, 1.0)[:, None]
        odd = basis[:, None] * direction[..., None]
        return PairBasis(basis.flatten(2), odd.flatten(1, 2).flatten(2))


class Message(nn.Module):
    """What atoms hear: sums over neighbours of scalars, directions and vectors (eq. 7 and 8 of the paper).

    With two geometries of the same atoms each has filters and directions of its own and both are heard: the
    filters then are linear in the Gaussians of both distances.
    """

    def __init__(self, width: int, basis: int, geometries: int = 1, neighbours: float = NEIGHBOURS) -> None:
        super().__init__()
        self.neighbours = neighbours
        self.phi = _perceptron(width, width, 3 * width)
        bound = (6 / (basis + 3 * width)) ** 0.5  # Xavier's, of the map from Gaussians to the three filters
        self.filters = nn.Parameter(torch.empty(geometries, 3, basis, width).uniform_(-bound, bound))

    def forward(self, s: Scalars, v: Vectors | None, pairs: Sequence[PairBasis]) -> tuple[Scalars, Vectors]:
        """The steps of s and v; `v` is None where all vectors are still 0."""
        a, b, c = (self.phi(s) / self.neighbours).chunk(3, -1)
        sent = [a[:, :, None]] if v is None else [a[:, :, None], c[:, :, None] * v]
        even = torch.cat(sent, 2)
        ds, dv = torch.zeros_like(s), s.new_zeros(*s.shape[:2], 3, s.shape[2])
        for pair, (A, B, C) in zip(pairs, self.filters):
            mixed = torch.stack([A] if v is None else [A, C, C, C], 1)
            heard = pair.even @ _scaled(even, mixed)
            pushed = pair.odd @ _scaled(b[:, :, None], B[:, None])
            heard = heard.unflatten(2, (-1, s.shape[2]))
            ds = ds + heard[:, :, 0]
            dv = dv + pushed.unflatten(1, (3, -1)).transpose(1, 2)
            dv = dv if v is None else dv + heard[:, :, 1:]
        return ds, dv


class Update(nn.Module):
    """What an atom makes of its own scalars and vectors (eq. 9 and 10 of the paper)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Linear(width, 2 * width, bias=False)
        self.gates = _perceptron(2 * width, width, 3 * width)

    def forward(self, s: Scalars, v: Vectors) -> tuple[Scalars, Vectors]:
        """The steps of s and v."""
        U, V = self.mix(v).chunk(2, -1)
        p, q, r = self.gates(torch.cat([s, _lengths(V)], -1)).chunk(3, -1)
        return p + r * (U * V).sum(2), q[:, :, None] * U


class PaiNN(nn.Module):
    """Elements and positions (Å) of the atoms of clusters -> scalars (invariant) and vectors (equivariant) of each.

    What comes out turns, and is mirrored, with the cluster; its place in space is not seen. `told_time` adds a time
    to the scalars. `conditional` networks see a second geometry of the same atoms in the same frame (the cluster that
    is to be put in order), its distances and directions beside those of the first, and begin with the vector
    from each atom to where it is in the second.
    """

    def __init__(
        self,
        width: int = 128,
        layers: int = 3,
        basis: int = 20,
        cutoff: float = 20.0,  # Å
        told_time: bool = True,
        conditional: bool = False,
        neighbours: float = NEIGHBOURS,
    ) -> None:
        super().__init__()
        if not (cutoff > 0 and neighbours > 0 and basis >= 2):
            raise InputError(
                "expected a positive cut-off (Å), a positive number of neighbours and at least two Gaussians, got "
                f"{cutoff}, {neighbours} and {basis}"
            )
        self.width, self.cutoff, self.conditional = width, cutoff, conditional
        self.register_buffer("centres", torch.linspace(0, cutoff, basis))
        self.centres: Tensor
        self.element = nn.Embedding(HEAVIEST + 1, width, padding_idx=0)
        self.time = _perceptron(width, width, width) if told_time else None
        self.away = nn.Linear(1, width, bias=False) if conditional else None
        geometries = 2 if conditional else 1
        self.messages = nn.ModuleList(Message(width, basis, geometries, neighbours) for _ in range(layers))
        self.updates = nn.ModuleList(Update(width) for _ in range(layers))

    def forward(
        self,
        numbers: Int[Tensor, "clusters atoms"],
        positions: Float[Tensor, "clusters atoms 3"],
        t: Float[Tensor, " clusters"] | None = None,
        other: Float[Tensor, "clusters atoms 3"] | None = None,
    ) -> tuple[Scalars, Vectors]:
        """Scalars and vectors, 0 at padding (where `numbers` is 0; positions are finite there).

        Raises InputError for elements beyond plutonium, ValueError for a time or second geometry that the network
        was not made for or lacks.
        """
        self._check(numbers, t, other)
        real = numbers > 0
        with own_precision(positions):
            seen = [positions] if other is None else [positions, other]
            pairs = [PairBasis.of(x, real, self.centres.to(x), self.cutoff) for x in seen]
        s = self.element(numbers)
        if self.time is not None and t is not None:
            s = s + self.time(time_waves(t.to(s.dtype), self.width))[:, None]
        v = None
        if self.away is not None and other is not None:
            v = self.away(_shortened(other - positions)[..., None])
        for message, update in zip(self.messages, self.updates):
            ds, dv = message(s, v, pairs)
            s, v = s + ds, dv if v is None else v + dv
            ds, dv = update(s, v)
            s, v = s + ds, v + dv
        v = s.new_zeros(*s.shape[:2], 3, self.width) if v is None else v
        return s * real[..., None], v * real[..., None, None]

    def _check(self, numbers: Tensor, t: Tensor | None, other: Tensor | None) -> None:
        if (t is None) != (self.time is None):
            raise ValueError(f"expected {'no time' if self.time is None else 'one time for each cluster'}")
        if (other is None) == self.conditional:
            raise ValueError(
                f"expected {'two geometries' if self.conditional else 'one geometry'} of the atoms"
            )
        refuse_unknown(numbers)


class VectorHead(nn.Module):
    """One vector for each atom: sum_c gate_c (U v)_c with gates from MLP([s, |V v|])."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Linear(width, 2 * width, bias=False)
        self.gate = _perceptron(2 * width, width, width)
        with torch.no_grad():
            self.mix.weight.mul_(FIRST_STEP)

    def forward(self, s: Scalars, v: Vectors) -> Float[Tensor, "clusters atoms 3"]:
        U, V = self.mix(v).chunk(2, -1)
        return (self.gate(torch.cat([s, _lengths(V)], -1))[:, :, None] * U).sum(-1)


class PaiNNVectors(nn.Module):
    """`PaiNN` with a `VectorHead`: a velocity, a score or a step of each atom, 0 at padding. Settings are PaiNN's."""

    def __init__(
        self,
        width: int = 128,
        layers: int = 3,
        basis: int = 20,
        cutoff: float = 20.0,  # Å
        told_time: bool = True,
        conditional: bool = False,
        neighbours: float = NEIGHBOURS,
    ) -> None:
        super().__init__()
        self.atoms = PaiNN(width, layers, basis, cutoff, told_time, conditional, neighbours)
        self.head = VectorHead(width)

    def forward(
        self,
        numbers: Int[Tensor, "clusters atoms"],
        positions: Float[Tensor, "clusters atoms 3"],
        t: Float[Tensor, " clusters"] | None = None,
        other: Float[Tensor, "clusters atoms 3"] | None = None,
    ) -> Float[Tensor, "clusters atoms 3"]:
        return self.head(*self.atoms(numbers, positions, t, other))


def _perceptron(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    first, last = nn.Linear(inputs, hidden), nn.Linear(hidden, outputs)
    for linear in (first, last):
        nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(linear.bias)
    return nn.Sequential(first, nn.SiLU(), last)


def _scaled(
    sent: Float[Tensor, "clusters atoms parts width"], filters: Float[Tensor, "basis parts width"]
) -> Float[Tensor, "clusters senders parts_width"]:
    """A_k phi_j for all senders (j, k)."""
    return (sent[:, :, None] * filters).flatten(1, 2).flatten(2)


def _lengths(v: Vectors) -> Scalars:
    return (v.square().sum(2) + 1e-8).sqrt()


def _shortened(x: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
    """x / (1 + |x|): the same direction, shorter than 1."""
    return x / (1 + safe_sqrt(x.square().sum(-1, keepdim=True)))
