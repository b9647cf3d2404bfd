"""Bond orders and formal charges from a bond graph with distances: Lewis structures as an integer program.

Every atom takes one of its states (valence, charge, penalty); every bond an order 1 to 3. Minimise

    sum of state penalties  +  20 / Å^2 * sum of (d - d_order)^2,    d_order = r_order(A) + r_order(B)

subject to: the orders at an atom sum to its valence, and the cell is neutral. All molecules of the cell are
solved together, so that charges of salts balance; bond lengths only decide between structures of equal
penalty. r_order are the additive radii of Pyykkö & Atsumi, Chem. Eur. J. 15 (2009) 186 and 12770. Bonds to
metals are dative.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int
from rdkit import Chem
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from nucleate.crystal.graph import DATIVE, DOUBLE, SINGLE, TRIPLE
from nucleate.crystal.perceive import NONMETALS, RADII

ORDERS = (SINGLE, DOUBLE, TRIPLE)
LENGTH_WEIGHT = 20.0  # 1/Å^2; a double bond drawn single costs about 0.5, less than any charge
RADICAL, IRREGULAR, UNBALANCED = 6.0, 25.0, 40.0

# element: (valence, charge, penalty)
STATES: dict[int, list[tuple[int, int, float]]] = {
    1: [(1, 0, 0.0), (0, 1, 3.0), (0, -1, 3.0), (2, 0, 8.0)],
    5: [(3, 0, 0.0), (4, -1, 0.0)],
    6: [(4, 0, 0.0), (3, -1, 2.5), (3, 1, 4.0)],
    7: [(3, 0, 0.0), (4, 1, 1.0), (2, -1, 1.5)],
    8: [(2, 0, 0.0), (1, -1, 0.8), (3, 1, 2.5), (0, -2, 3.0)],
    9: [(1, 0, 0.0), (0, -1, 0.3)],
    14: [(4, 0, 0.0), (6, -2, 1.0), (5, -1, 1.0)],
    15: [(3, 0, 0.0), (5, 0, 0.2), (4, 1, 1.0), (6, -1, 0.3), (2, -1, 2.0)],
    16: [(2, 0, 0.0), (4, 0, 0.2), (6, 0, 0.1), (3, 1, 1.5), (1, -1, 1.0), (0, -2, 3.0)],
    17: [(1, 0, 0.0), (0, -1, 0.3), (2, 1, 1.0), (3, 2, 1.0), (4, 3, 1.0)],
    35: [(1, 0, 0.0), (0, -1, 0.3), (2, -1, 1.0), (2, 1, 2.0), (3, 2, 1.0), (4, 3, 1.0)],
    53: [(1, 0, 0.0), (0, -1, 0.3), (2, -1, 1.0), (2, 1, 2.0), (3, 0, 0.5), (5, 0, 0.5), (4, 3, 1.0)],
    33: [(3, 0, 0.0), (5, 0, 0.2), (4, 1, 1.0), (6, -1, 0.3)],
    34: [(2, 0, 0.0), (4, 0, 0.2), (6, 0, 0.1), (3, 1, 1.5), (1, -1, 1.0)],
    52: [(2, 0, 0.0), (4, 0, 0.2), (6, 0, 0.1), (3, 1, 1.5), (1, -1, 1.0), (6, -2, 1.0)],
    32: [(4, 0, 0.0)],
}
STATES |= {z: [(0, 0, 0.0)] for z in (2, 10, 18, 36, 54, 86)}
AT_METAL = {
    1: [(0, -1, 0.3)],
    6: [(3, -1, 0.4), (2, 0, 1.0)],
    7: [(2, -1, 0.8)],
    8: [(3, 1, 0.6), (0, -2, 1.0)],
}
USUAL_CHARGE = {
    3: 1,
    11: 1,
    19: 1,
    37: 1,
    55: 1,
    47: 1,
    79: 1,
    13: 3,
    21: 3,
    24: 3,
    26: 2,
    39: 3,
    22: 4,
    40: 4,
}
USUAL_CHARGE |= dict.fromkeys(range(57, 72), 3) | {72: 4, 45: 1, 50: 4, 31: 3, 49: 3, 83: 3}
MULTIPLE_RADII = {  # Å: single, double, triple
    5: (0.85, 0.78, 0.73),
    6: (0.75, 0.67, 0.60),
    7: (0.71, 0.60, 0.54),
    8: (0.63, 0.57, 0.53),
    14: (1.16, 1.07, 1.02),
    15: (1.11, 1.02, 0.94),
    16: (1.03, 0.94, 0.95),
    33: (1.21, 1.14, 1.06),
    34: (1.16, 1.07, 1.07),
}


@dataclass(frozen=True)
class Skeleton:
    """One distinct molecule of a cell: atomic numbers, bonds, bond lengths (Å), copies in the cell."""

    numbers: Int[np.ndarray, " atoms"]
    bonds: Int[np.ndarray, "bonds 2"]
    lengths: Float[np.ndarray, " bonds"]
    copies: int = 1


@dataclass(frozen=True)
class Lewis:
    """Bond types (dative ones to be read donor -> metal in `bonds`), formal charges, and what was unusual."""

    bonds: Int[np.ndarray, "bonds 2"]
    types: tuple[Chem.BondType, ...]
    charges: Int[np.ndarray, " atoms"]
    warnings: tuple[str, ...]


def lewis_structures(
    species: Sequence[Skeleton], total_charge: int = 0, time_limit: int | float = 10
) -> list[Lewis]:
    """The cheapest Lewis structure of every molecule such that all copies together carry `total_charge`.

    Never fails: where no structure is found in `time_limit` seconds, bonds come back single, charges 0,
    with a warning. Radicals, irregular valences and a cell that cannot be balanced are warned of as well.
    """
    program = _Program()
    blocks = [program.add(s) for s in species]
    program.balance([(b, s.copies) for b, s in zip(blocks, species)], total_charge)
    solution = program.solve(time_limit)
    if solution is None:
        note = f"no Lewis structure within {time_limit:g} s; bonds left single, charges 0"
        return [
            Lewis(s.bonds, (SINGLE,) * len(s.bonds), np.zeros(len(s.numbers), dtype=int), (note,))
            for s in species
        ]
    return [_read_off(s, b, solution) for s, b in zip(species, blocks)]


@dataclass
class _Block:
    """Where one molecule's variables are: the states of each atom, the extra orders of each bond."""

    states: list[list[tuple[int, int, int, float]]] = field(
        default_factory=list
    )  # (column, valence, charge, cost)
    extra: dict[int, tuple[int, int | None]] = field(
        default_factory=dict
    )  # bond -> columns of orders 2 and 3
    bonds: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), dtype=int))
    dative: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))


class _Program:
    """A 0-1 linear program built row by row; one column a state or an extra bond order."""

    def __init__(self) -> None:
        self.cost: list[float] = []
        self.upper: list[float] = []
        self.entries: list[tuple[int, int, float]] = []
        self.low: list[float] = []
        self.high: list[float] = []

    def column(self, cost: int | float, upper: int | float = 1) -> int:
        self.cost.append(cost)
        self.upper.append(upper)
        return len(self.cost) - 1

    def row(self, terms: Sequence[tuple[int, int | float]], low: int | float, high: int | float) -> None:
        self.entries += [(len(self.low), column, value) for column, value in terms]
        self.low.append(low)
        self.high.append(high)

    def add(self, s: Skeleton) -> _Block:
        metal = np.array([z not in NONMETALS for z in s.numbers.tolist()])
        metal = metal & (s.numbers != 32)
        flip = metal[s.bonds[:, 0]] & ~metal[s.bonds[:, 1]]  # dative bonds run donor -> metal
        bonds = np.where(flip[:, None], s.bonds[:, ::-1], s.bonds)
        dative = metal[bonds[:, 1]]
        block = _Block(bonds=bonds, dative=dative)
        covalent = bonds[~dative]
        degree = np.bincount(covalent.ravel(), minlength=len(s.numbers))
        at_metal = np.zeros(len(s.numbers), dtype=bool)
        at_metal[bonds[dative, 0]] = True
        for z, n, bound in zip(s.numbers.tolist(), degree.tolist(), at_metal.tolist()):
            block.states.append([(self.column(p), v, q, p) for v, q, p in _states(z, n, bound)])
        self._orders(s, block)
        self._valences(block, degree)
        return block

    def _orders(self, s: Skeleton, block: _Block) -> None:
        """Columns for second and third orders where both ends can take them, priced by the bond length."""
        spare = [max(v for _, v, _, _ in states) for states in block.states]
        count = np.bincount(block.bonds[~block.dative].ravel(), minlength=len(s.numbers))
        for k, (a, b) in enumerate(block.bonds.tolist()):
            room = min(spare[a] - count[a], spare[b] - count[b])
            if block.dative[k] or room < 1:
                continue
            one, two, three = _order_costs(int(s.numbers[a]), int(s.numbers[b]), float(s.lengths[k]))
            double = self.column(two - one)
            triple = self.column(three - two) if room >= 2 else None
            if triple is not None:
                self.row([(double, 1), (triple, -1)], 0, np.inf)
            block.extra[k] = (double, triple)

    def _valences(self, block: _Block, degree: np.ndarray) -> None:
        """One state an atom; the bond orders at the atom sum to its valence."""
        at: list[list[int]] = [[] for _ in block.states]
        for k, columns in block.extra.items():
            for atom in block.bonds[k]:
                at[atom] += [c for c in columns if c is not None]
        for states, orders, n in zip(block.states, at, degree.tolist()):
            self.row([(c, 1) for c, *_ in states], 1, 1)
            self.row([(c, 1) for c in orders] + [(c, -v) for c, v, *_ in states], -n, -n)

    def balance(self, blocks: Sequence[tuple[_Block, int]], total: int) -> None:
        terms = [(c, float(n * q)) for b, n in blocks for states in b.states for c, _, q, _ in states if q]
        terms += [(self.column(UNBALANCED, 100), 1.0), (self.column(UNBALANCED, 100), -1.0)]
        self.row(terms, total, total)

    def solve(self, time_limit: int | float) -> np.ndarray | None:
        row, column, value = (np.array(x) for x in zip(*self.entries))
        matrix = coo_array((value, (row, column)), shape=(len(self.low), len(self.cost))).tocsc()
        result = milp(
            np.array(self.cost),
            integrality=np.ones(len(self.cost)),
            bounds=Bounds(0, np.array(self.upper)),
            constraints=LinearConstraint(matrix, np.array(self.low), np.array(self.high)),
            options={"time_limit": time_limit, "mip_rel_gap": 1e-6},
        )
        return None if result.x is None else result.x.round().astype(int)


def _states(z: int, degree: int, at_metal: bool) -> list[tuple[int, int, float]]:
    """States an atom with that many covalent neighbours can take, with costly ones so that some always
    fits.
    """
    if z not in STATES:
        usual = USUAL_CHARGE.get(z, 2)
        return [(degree, q, 0.2 * abs(q - usual)) for q in range(-1, 8)]
    states = [(v, q, p) for v, q, p in STATES[z] if degree <= v <= 3 * degree or v == degree]
    if at_metal:
        states += [(v, q, p) for v, q, p in AT_METAL.get(z, []) if degree <= v <= 3 * degree]
    reachable = {v for v, _, _ in states}
    lowest = min((v for v, q, _ in STATES[z] if q == 0), default=degree)
    if z not in (1, 9) and degree <= lowest - 1 and lowest - 1 <= 3 * degree:
        states.append((lowest - 1, 0, RADICAL))
    if degree not in reachable or degree > 4:
        states.append((degree, 0, IRREGULAR))
    return states


def _order_costs(z_a: int, z_b: int, length: float) -> tuple[float, float, float]:
    def radii(z: int) -> tuple[float, float, float]:
        one = float(RADII[z])
        return MULTIPLE_RADII.get(z, (one, one - 0.09, one - 0.15))

    ideal = [a + b for a, b in zip(radii(z_a), radii(z_b))]
    one, two, three = (LENGTH_WEIGHT * min(abs(length - d), 0.2) ** 2 for d in ideal)
    return one, two, three


def _read_off(s: Skeleton, block: _Block, solution: np.ndarray) -> Lewis:
    types = [DATIVE if d else SINGLE for d in block.dative]
    for k, columns in block.extra.items():
        types[k] = ORDERS[sum(solution[c] for c in columns if c is not None)]
    chosen = [next(state for state in states if solution[state[0]]) for states in block.states]
    notes = []
    if n := sum(state[3] == RADICAL for state in chosen):
        notes.append(f"{n} atoms with an unpaired electron")
    if n := sum(state[3] == IRREGULAR for state in chosen):
        notes.append(f"{n} atoms of irregular valence")
    return Lewis(block.bonds, tuple(types), np.array([q for _, _, q, _ in chosen], dtype=int), tuple(notes))
