"""Which molecule of a predicted cluster is which of the true one? Assignment and superposition together.

Truth x_ia and prediction y_ka (molecule, atom), both about the centre of all their atoms. A complete assignment
p leaves that centre where it is, so only a rotation R is left to find, and it sees the atoms through 3x3 matrices:

    rmsd^2 = (sum |x|^2 + sum |y|^2 - 2 sum_i tr R^T C_{i p(i)}) / atoms,     C_ik = sum_a y_ka x_ia^T

With R fixed, p is a linear assignment (Kuhn, Naval Res. Logist. Q. 2, 83 (1955)); with p fixed, R comes from one
singular value decomposition (Kabsch, Acta Cryst. A32, 922 (1976)). Neither step can make the RMSD larger. Where they
end depends on where they begin, so many starts are tried; the answer is an upper bound of the true minimum, and
the minimum itself wherever one start is near it.

Errors of distances have no R, and their least over assignments is a quadratic problem, G = sum_ij Q_{ij p(i)p(j)}
to be made large (Koopmans & Beckmann, Econometrica 25, 53 (1957)): `largest_overlap` goes on from those ends
by exchanging two molecules as long as that helps.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from scipy.stats import qmc
from torch import Tensor

from nucleate.errors import InputError
from nucleate.geometry.so3 import nearest_rotation, rotation_from_uniform

MAX_MAPS = 500  # automorphisms of a molecule: memory grows with them
SPREAD = 64  # starts that know nothing: rotations spread evenly
TRIPLES = 256  # starts from three centroids
LOOKED_AT = 128  # starts judged atom by atom, the best by centroids of each hand
REFINED = 24  # starts that are refined, of each hand
ROUNDS = 20  # of assigning and superposing; few are needed
EXCHANGED = 4  # assignments that go on by exchanges


@dataclass(frozen=True, eq=False)
class Assignment:
    """Molecule i of the truth is molecule `molecule[i]` of the prediction, its atom a is there atom `atoms[i, a]`.

    Positions of the truth map as `x @ rotation.T + translation`.
    """

    molecule: Int[Tensor, " molecules"]
    atoms: Int[Tensor, "molecules atoms"]
    rotation: Float[Tensor, "3 3"]  # improper where the prediction is the mirror image
    translation: Float[Tensor, "3"]  # Å
    rmsd: float  # Å over all atoms

    @property
    def mirrored(self) -> bool:
        return bool(torch.linalg.det(self.rotation) < 0)

    def ordered(self, predicted: Float[Tensor, "molecules atoms 3"]) -> Float[Tensor, "molecules atoms 3"]:
        """The prediction with molecules and atoms in the order of the truth."""
        return predicted[self.molecule[:, None], self.atoms]


def assignments(
    truth: Float[Tensor, "molecules atoms 3"],
    predicted: Float[Tensor, "_ _ 3"],
    automorphisms: Int[Tensor, "maps atoms"] | None = None,
    mirror: bool = False,
) -> list[Assignment]:
    """Where the refined starts ended, least RMSD first; improper rotations too where `mirror`.

    `automorphisms` are those of one molecule: permutations of its atoms that count as equal, the identity
    first. Without them atom a is atom a. Raises InputError for shapes that differ, more than `MAX_MAPS` maps and
    positions that are not finite.
    """
    _refuse(truth, predicted, automorphisms)
    maps = torch.arange(truth.shape[1])[None] if automorphisms is None else automorphisms
    x, y = (z.double() - z.double().mean((0, 1)) for z in (truth, predicted))
    seen = torch.einsum("kmnd,ine->mikde", y[:, maps], x)  # C_ik under every map
    square = x.square().sum((1, 2))[:, None] + y.square().sum((1, 2))
    hands = [1.0, -1.0] if mirror else [1.0]
    found = [a for hand in hands for a in _refine(x, y, seen, square, maps, hand)]
    middle = [z.double().mean((0, 1)) for z in (truth, predicted)]
    return sorted(
        (Assignment(p, a, R, middle[1] - R @ middle[0], rmsd) for p, a, R, rmsd in found),
        key=lambda a: (round(a.rmsd, 9), a.mirrored),  # of equals the proper one
    )


def largest_overlap(
    overlap: Float[Tensor, "molecules molecules molecules molecules"],
    starts: Int[Tensor, "starts molecules"],
) -> Int[Tensor, " molecules"]:
    """The assignment p of largest sum_ij overlap[i, j, p(i), p(j)] that exchanges of two molecules reach.

    The most promising starts are followed, uphill by the best exchange each time: no start ends lower than it
    began.
    """
    m = overlap.shape[0]
    table, row = overlap.reshape(m * m, m * m), torch.arange(m * m)

    def total(p: Int[Tensor, "*n molecules"]) -> Float[Tensor, "*n"]:
        return table[row, (m * p[..., :, None] + p[..., None, :]).flatten(-2)].sum(-1)

    pairs = torch.combinations(torch.arange(m))
    exchanges = torch.arange(m).repeat(len(pairs), 1)
    exchanges.scatter_(1, pairs, pairs.flip(1))
    starts = torch.unique(starts, dim=0)
    p = starts[torch.argsort(-total(starts), stable=True)[:EXCHANGED]]
    value = total(p)
    while len(pairs):
        beside = p[:, exchanges]
        best, which = total(beside).max(1)
        better = best > value * (1 + 1e-12)
        if not better.any():
            break
        p = torch.where(better[:, None], beside[torch.arange(len(p)), which], p)
        value = torch.where(better, best, value)
    return p[value.argmax()]


def _refuse(truth: Tensor, predicted: Tensor, automorphisms: Tensor | None) -> None:
    if truth.shape != predicted.shape:
        raise InputError(
            f"expected a prediction of the truth's shape {tuple(truth.shape)} (molecules, atoms, 3), got "
            f"{tuple(predicted.shape)}; predict as many copies of the same molecule"
        )
    if not (truth.isfinite().all() and predicted.isfinite().all()):
        raise InputError(
            "expected finite positions, got NaN or inf; count such a sample as a failure", reason="not finite"
        )
    if automorphisms is not None and len(automorphisms) > MAX_MAPS:
        raise InputError(
            f"expected at most {MAX_MAPS} automorphisms, got {len(automorphisms)}; leave the hydrogens out of "
            "positions and automorphisms, or take none"
        )


# ---------------------------------------------------------------- assign, superpose, repeat


def _refine(
    x: Float[Tensor, "molecules atoms 3"],
    y: Float[Tensor, "molecules atoms 3"],
    seen: Float[Tensor, "maps molecules molecules 3 3"],
    square: Float[Tensor, "molecules molecules"],
    maps: Int[Tensor, "maps atoms"],
    hand: float,
) -> list[tuple[Tensor, Tensor, Tensor, float]]:
    """The ends of the best starts of one hand: molecules, atoms, rotation, RMSD (Å)."""
    R = _promising(x, y, seen, square, hand)
    rows = torch.arange(len(x))
    p = torch.full((len(R), len(x)), -1)
    which = torch.zeros_like(p)
    for _ in range(ROUNDS):
        gain, chosen = _gains(seen, R)
        pairs = [linear_sum_assignment(g, maximize=True)[1] for g in gain.numpy()]  # at most REFINED
        new = torch.stack([torch.from_numpy(q) for q in pairs])
        which = chosen.gather(2, new[..., None])[..., 0]
        R = hand * nearest_rotation(hand * seen[which, rows, new].sum(1))
        if (new == p).all():
            break
        p = new
    p = new
    atoms = maps[which]
    gap = torch.einsum("sde,ine->sind", R, x) - y[p[..., None], atoms]
    rmsd = gap.square().sum(-1).mean((1, 2)).sqrt()
    return list(zip(p, atoms, R, rmsd.tolist()))


def _gains(
    seen: Float[Tensor, "maps molecules molecules 3 3"], R: Float[Tensor, "starts 3 3"]
) -> tuple[Float[Tensor, "starts molecules molecules"], Int[Tensor, "starts molecules molecules"]]:
    """tr R^T C_ik under the best map, and which map that is."""
    gain = R.flatten(1) @ seen.flatten(3).flatten(0, 2).T
    best = gain.unflatten(1, seen.shape[:3]).max(1)
    return best.values, best.indices


def _promising(
    x: Float[Tensor, "molecules atoms 3"],
    y: Float[Tensor, "molecules atoms 3"],
    seen: Float[Tensor, "maps molecules molecules 3 3"],
    square: Float[Tensor, "molecules molecules"],
    hand: float,
) -> Float[Tensor, "starts 3 3"]:
    """The best starts of one hand, first by centroids alone, then atom by atom.

    A start is judged by each molecule's squared distance to the nearest one: a lower bound of any assignment. The
    order as given is always among them, so that no end is worse than the superposition without assignment.
    """
    a, b = x.mean(1), y.mean(1)
    rows = torch.arange(len(x))
    given = hand * nearest_rotation(hand * seen[:1, rows, rows].sum(1))
    R = torch.cat([_frames(a, b, seen, x.shape[1], hand), _triples(a, b, hand), hand * _spread()])
    miss = torch.cdist(a @ R.mT, b.expand(len(R), -1, -1)).amin(2).square().sum(1)
    R = R[torch.argsort(miss, stable=True)[:LOOKED_AT]]
    miss = (square - 2 * _gains(seen, R)[0]).amin(2).sum(1)
    return torch.cat([given, R[torch.argsort(miss, stable=True)[:REFINED]]])


# ---------------------------------------------------------------- starts: rotations that lay x on y


def _frames(
    a: Float[Tensor, "molecules 3"],
    b: Float[Tensor, "molecules 3"],
    seen: Float[Tensor, "maps molecules molecules 3 3"],
    atoms: int,
    hand: float,
) -> Float[Tensor, "starts 3 3"]:
    """The central molecule of the truth laid on each one of the prediction, under every map."""
    own = seen[:, 0] - atoms * b[:, :, None] * a[0]  # about the centroids
    return hand * nearest_rotation(hand * own.flatten(0, 1))


def _triples(
    a: Float[Tensor, "molecules 3"], b: Float[Tensor, "molecules 3"], hand: float
) -> Float[Tensor, "starts 3 3"]:
    """Three centroids of the truth (the centre, the farthest one, and the one farthest off their line) laid on
    those threes of the prediction that have most nearly their distances."""
    if len(a) < 3:
        return a.new_zeros(0, 3, 3)
    arms = a - a[0]
    far = arms.norm(dim=1).argmax()
    off = torch.linalg.cross(arms, arms[far].expand_as(arms)).norm(dim=1).argmax()
    index = torch.arange(len(b))
    threes = torch.cartesian_prod(index, index, index)
    i, j, k = threes.T
    threes = threes[(i != j) & (j != k) & (k != i)]
    corners, asked = b[threes], a[torch.stack([torch.tensor(0), far, off])]
    sides, wanted = ((z - z.roll(1, -2)).norm(dim=-1) for z in (corners, asked))
    near = torch.argsort((sides - wanted).square().sum(1), stable=True)[:TRIPLES]
    frame = _frame(asked) * asked.new_tensor([[1.0], [1.0], [hand]])
    return _frame(corners[near]).mT @ frame


def _frame(corners: Float[Tensor, "*n 3 3"]) -> Float[Tensor, "*n 3 3"]:
    """Unit vectors (rows) along a triangle, in its plane and across it; zeros where it has no size."""
    first, second, third = corners.unbind(-2)
    u = _unit(second - first)
    w = _unit(torch.linalg.cross(u, third - first))
    return torch.stack([u, torch.linalg.cross(w, u), w], -2)


def _unit(v: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
    return v / v.norm(dim=-1, keepdim=True).clamp(min=1e-9)


@lru_cache(maxsize=1)
def _spread() -> Float[Tensor, "starts 3 3"]:
    """Rotations that cover SO(3) evenly, always the same."""
    return rotation_from_uniform(torch.from_numpy(qmc.Sobol(3, scramble=False).random(SPREAD)))
