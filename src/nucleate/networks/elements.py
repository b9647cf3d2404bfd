"""What a network is told of an element: its place in the periodic table, as an input or as a code to be generated."""

import torch
from ase.data import covalent_radii
from jaxtyping import Float, Int
from torch import Tensor

from nucleate.errors import InputError

HEAVIEST = 94  # plutonium: beyond it there are hardly any crystals to learn from
ROWS, COLUMNS = 13, 15
NOBLE = (0, 2, 10, 18, 36, 54, 86)  # the last element of each period ends a row


def _cells() -> list[tuple[int, int]]:
    """Row and column of each element: s and p block by period (8 columns), d block (10), f block (15).

    The 13 rows are seven of s and p, four of d (periods 4 to 7), two of f, which begin with La and Ac: the table with
    its blocks put below each other. Hydrogen stands above lithium, helium above neon.
    """
    cells = []
    for z in range(1, HEAVIEST + 1):
        period = next(p for p, last in enumerate((*NOBLE[1:], 118)) if z <= last)
        place = z - NOBLE[period] - 1
        length = (*NOBLE[1:], 118)[period] - NOBLE[period]
        from_end = length - 1 - place
        if place < 2 and z != 2:
            cells.append((period, place))
        elif from_end < 6:
            cells.append((period, 7 - from_end))
        elif length == 32 and place < 17:  # La .. Lu, Ac .. Lr
            cells.append((11 + period - 5, place - 2))
        else:  # Sc .. Zn; Hf .. Hg are written below Ti .. Cd
            cells.append((7 + period - 3, 9 - (from_end - 6)))
    return cells


CELLS: Int[Tensor, "elements 2"] = torch.tensor(_cells())
"""Row and column of the elements H .. Pu; no two share both."""


def two_hot() -> Float[Tensor, "elements 28"]:
    """A one in one of 13 rows and a one in one of 15 columns; row z - 1 is that of element z."""
    code = torch.zeros(HEAVIEST, ROWS + COLUMNS)
    element = torch.arange(HEAVIEST)
    code[element, CELLS[:, 0]] = 1.0
    code[element, ROWS + CELLS[:, 1]] = 1.0
    return code


def element_of(code: Float[Tensor, "*n 28"]) -> Int[Tensor, "*n"]:
    """The element (atomic number) that a code means: the best row, then the best column that this row has.

    So a code that lies between elements still means one of them (Luo et al. 2025).
    """
    there = torch.zeros(ROWS, COLUMNS, dtype=torch.bool, device=code.device)
    number = torch.zeros(ROWS, COLUMNS, dtype=torch.long, device=code.device)
    cells = CELLS.to(code.device)
    there[cells[:, 0], cells[:, 1]] = True
    number[cells[:, 0], cells[:, 1]] = torch.arange(1, HEAVIEST + 1, device=code.device)
    row = code[..., :ROWS].masked_fill(~there.any(1), -torch.inf).argmax(-1)
    column = code[..., ROWS:].masked_fill(~there[row], -torch.inf).argmax(-1)
    return number[row, column]


def radii() -> Float[Tensor, " elements"]:
    """Covalent radii in Å (Cordero et al. 2008), of element z at z - 1."""
    return torch.tensor(covalent_radii[1 : HEAVIEST + 1], dtype=torch.float32)


def refuse_unknown(numbers: Int[Tensor, "*n"]) -> None:
    """Raises InputError, naming them, for atomic numbers outside 0 (padding) to `HEAVIEST`."""
    bad = numbers[(numbers < 0) | (numbers > HEAVIEST)]
    if len(bad):
        raise InputError(
            f"expected elements from hydrogen (1) to plutonium ({HEAVIEST}), got atomic numbers "
            f"{bad.unique().tolist()}; the network has no embedding for them, so leave those out",
            reason="unknown element",
        )
