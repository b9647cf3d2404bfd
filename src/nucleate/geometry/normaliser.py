"""Descriptions of one crystal that a space group leaves open: its origin and the axes of its cell.

The Euclidean normaliser of a group (International Tables A, section 3.5) maps the group onto itself. Its translations
are other origins; its changes of basis, other cells in the same setting. A generator must treat all of them as one
target, so they are listed here once for each group.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nucleate.geometry.symmetry import SpaceGroup

GRID = 24  # origins are looked for at multiples of 1/24: quarters, sixths and eighths
TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class Normaliser:
    """`shifts` are other origins (the first is zero), continuous along `free` axes.

    `bases` are changes of axes: rows of the new cell are `bases @ lattice`, columns become
    `inv(bases).T @ x + origins`. The first is the identity; all have determinant +1.
    """

    shifts: Float[Tensor, "shifts 3"]
    free: Bool[Tensor, "3"]
    bases: Int[Tensor, "bases 3 3"]
    origins: Float[Tensor, "bases 3"]


def normaliser(group: SpaceGroup) -> Normaliser:
    """The normaliser of a group in its own setting. Listed once for each group."""
    return _normaliser(
        tuple(group.rotations.flatten().tolist()),
        tuple((group.translations.double() % 1).mul(1e6).round().div(1e6).flatten().tolist()),
        group.family,
    )


def short_cells(
    lattice: Float[Tensor, "3 3"], group: SpaceGroup, spare: float = 0.02, most: int = 24
) -> tuple[Int[Tensor, "cells 3 3"], Float[Tensor, "cells 3"]]:
    """Axes and origins of all cells of the setting that are as short as the shortest one, which comes first.

    Short is the sum of squared lengths, up to a share `spare`. Of cells that operations of the group lead to from one
    another one is listed. So P2_1/c has a cell with an acute and one with an obtuse angle, and a polar group as Pna2_1
    the same cell twice: with its polar axis up and down.
    """
    basis, origin = shortest_cell(lattice, group)
    found = normaliser(group)
    short = basis.double() @ lattice.double()
    cells = found.bases.double() @ short
    size = cells.square().sum((-1, -2))
    columns = torch.linalg.inv(found.bases.double()).mT  # what coordinates become
    kept: list[int] = []
    for i in torch.argsort(size, stable=True).tolist():
        if size[i] > size.min() * (1 + spare) or len(kept) == most:
            break
        # what leads to this cell from each of those kept
        steps = (columns[i] @ found.bases[kept].double().mT).round().long()
        if not (steps[:, None] == group.rotations).flatten(2).all(-1).any():
            kept.append(i)
    turns = found.bases[kept]
    origins = torch.linalg.inv(turns.double()).mT @ origin + found.origins[kept]
    return turns @ basis, origins % 1.0


def shortest_cell(
    lattice: Float[Tensor, "3 3"], group: SpaceGroup
) -> tuple[Int[Tensor, "3 3"], Float[Tensor, "3"]]:
    """Basis change and origin that give the cell of the same setting with the least sum of squared lengths.

    Applied again and again until nothing is gained, so the answer need not be among `bases` itself.
    """
    found = normaliser(group)
    basis, origin = torch.eye(3, dtype=torch.long), torch.zeros(3, dtype=torch.float64)
    while True:
        now = basis.double() @ lattice.double()
        size = (found.bases.double() @ now).square().sum((-1, -2))
        best = int(size.argmin())
        if size[best] > size[0] * (1 - 1e-9):
            return basis, origin % 1.0
        turn = found.bases[best]
        origin = torch.linalg.inv(turn.double()).T @ origin + found.origins[best]
        basis = turn @ basis


@lru_cache(maxsize=512)
def _normaliser(rotations: tuple[int, ...], translations: tuple[float, ...], family: str) -> Normaliser:
    W = np.array(rotations).reshape(-1, 3, 3)
    w = np.array(translations).reshape(-1, 3)
    free = np.array([(W[:, :, k] == np.eye(3, dtype=int)[k]).all() for k in range(3)])
    steps = [np.zeros(1) if free[k] else np.arange(GRID) / GRID for k in range(3)]
    grid = np.stack(np.meshgrid(*steps, indexing="ij"), -1).reshape(-1, 3)
    shifts = grid[_same_group(W, w, W, w, grid)]
    bases, origins = [], []
    for P in _candidates(family):
        inverse = np.rint(np.linalg.inv(P)).astype(int)
        turned = inverse.T @ W @ P.T
        if set(map(bytes, turned.astype(np.int8))) != set(map(bytes, W.astype(np.int8))):
            continue
        for some in (grid[:1], grid):  # mostly the origin can stay
            good = np.flatnonzero(_same_group(turned, w @ inverse, W, w, some))
            if len(good):
                bases.append(P)
                origins.append(some[good[0]])
                break
    order = sorted(range(len(bases)), key=lambda i: not (bases[i] == np.eye(3)).all())
    return Normaliser(
        shifts=torch.from_numpy(_without_group_translations(shifts, W, w)),
        free=torch.from_numpy(free),
        bases=torch.from_numpy(np.stack([bases[i] for i in order])).long(),
        origins=torch.from_numpy(np.stack([origins[i] for i in order])),
    )


def _same_group(
    W: np.ndarray, w: np.ndarray, into: np.ndarray, onto: np.ndarray, shifts: np.ndarray
) -> np.ndarray:
    """For each shift p: is {(W, w + (1 - W) p)} the group {(into, onto)} modulo lattice translations?"""
    moved = w + np.einsum("oij,sj->soi", np.eye(3, dtype=int) - W, shifts)  # shifts ops 3
    good = np.ones(len(shifts), bool)
    for o in range(len(W)):
        same = (into == W[o]).all((1, 2))
        away = moved[:, o, None] - onto[same]
        good &= (np.abs(away - np.rint(away)) < TOLERANCE).all(-1).any(-1)
    return good


def _without_group_translations(shifts: np.ndarray, W: np.ndarray, w: np.ndarray) -> np.ndarray:
    """One of each set of shifts that differ by a centring translation of the group."""
    centrings = w[(np.eye(3, dtype=int) == W).all((1, 2))]
    kept: list[np.ndarray] = []
    for shift in shifts:
        away = [shift - k - c for k in kept for c in centrings]
        if not any((np.abs(a - np.rint(a)) < TOLERANCE).all() for a in away):
            kept.append(shift)
    return np.stack(kept)


def _candidates(family: str) -> np.ndarray:
    """Integer matrices of determinant +1 that may lead from one cell of a setting to another."""
    small = np.array(np.meshgrid(*[[-1, 0, 1]] * 9, indexing="ij")).reshape(9, -1).T.reshape(-1, 3, 3)
    if family == "triclinic":
        chosen = small
    elif family == "monoclinic":
        a, b, c, d, e = np.array(np.meshgrid(*[[-2, -1, 0, 1, 2]] * 4, [-1, 1], indexing="ij")).reshape(5, -1)
        o = np.zeros_like(a)
        planes = ([a, o, b, o, e, o, c, o, d], [e, o, o, o, a, b, o, c, d], [a, b, o, c, d, o, o, o, e])
        chosen = np.concatenate([np.stack(rows, -1).reshape(-1, 3, 3) for rows in planes])
    else:
        chosen = small[(np.abs(small).sum(1) == 1).all(-1) & (np.abs(small).sum(2) == 1).all(-1)]
    chosen = np.unique(chosen.reshape(-1, 9), axis=0).reshape(-1, 3, 3)
    return chosen[np.rint(np.linalg.det(chosen)) == 1]
