"""What a chemical formula says: how many atoms of each element."""

import re

from ase.data import atomic_numbers
from ase.formula import Formula

from nucleate.errors import InputError

MOST_ATOMS = 200  # in a cell: more is surely a slip of the keyboard, and no learned model has seen it
TIDY = str.maketrans("₀₁₂₃₄₅₆₇₈₉[]{}•*", "0123456789()()··")
GRAMMAR = re.compile(r"[A-Za-z0-9()·]{1,200}")


def parse_formula(text: str) -> dict[int, int]:
    """Atomic number -> atoms of a formula unit, ascending: TiO2, Ca(OH)2, Ti1 O2, CaSO4·2H2O.

    Raises InputError with `reason` "bad formula" or "unknown element".
    """
    tidy = "".join(text.split()).translate(TIDY)
    if re.search(r"[0-9][.,][0-9]", tidy):
        raise InputError(
            f"expected whole numbers of atoms, got the formula {text!r}; multiply it until all are whole, as in TiO2 "
            "for Ti0.5O",
            reason="bad formula",
        )
    counts = _counts(tidy)
    if not counts:
        raise InputError(
            f"expected a formula such as TiO2 or Ca(OH)2, got {text!r}; elements begin with a capital letter, and "
            "charges are left out",
            reason="bad formula",
        )
    if unknown := [symbol for symbol in counts if atomic_numbers.get(symbol, 0) < 1]:
        raise InputError(
            f"expected chemical elements, got {', '.join(unknown)} in the formula {text!r}; check the capitals",
            reason="unknown element",
        )
    if missing := [symbol for symbol, count in counts.items() if count == 0]:
        raise InputError(
            f"expected at least one atom of each element, got none of {', '.join(missing)} in the formula {text!r}; "
            "leave it out",
            reason="bad formula",
        )
    return dict(sorted((atomic_numbers[symbol], count) for symbol, count in counts.items()))


def _counts(tidy: str) -> dict[str, int]:
    """Symbol -> count; empty where the text is no formula."""
    if not GRAMMAR.fullmatch(tidy):
        return {}
    try:
        return Formula(tidy.replace("·", "+")).count()
    except ValueError:
        return {}


def cell_contents(formula: str, units: int = 1, most: int = MOST_ATOMS) -> list[int]:
    """Atomic numbers of all atoms in a cell of `units` formula units, ascending.

    Raises InputError as `parse_formula` does, and with `reason` "too large" beyond `most` atoms.
    """
    counts = parse_formula(formula)
    if units < 1:
        raise InputError(f"expected at least one formula unit in the cell, got {units}", reason="bad formula")
    total = units * sum(counts.values())
    if total > most:
        raise InputError(
            f"expected at most {most} atoms in the cell, got {total} ({units} x {formula}); ask for fewer",
            reason="too large",
        )
    return [number for number, count in counts.items() for _ in range(units * count)]
