"""Formulas: what they say, and what is said of those that say nothing."""

import pytest
from ase.data import chemical_symbols
from hypothesis import given
from hypothesis import strategies as st

from nucleate.crystal.formula import cell_contents, parse_formula
from nucleate.errors import InputError


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("TiO2", {8: 2, 22: 1}),
        ("Ti1 O2", {8: 2, 22: 1}),
        ("TiO₂", {8: 2, 22: 1}),
        ("O2Ti", {8: 2, 22: 1}),
        ("Ca(OH)2", {1: 2, 8: 2, 20: 1}),
        ("K4[Fe(CN)6]", {6: 6, 7: 6, 19: 4, 26: 1}),
        ("CaSO4·2H2O", {1: 4, 8: 6, 16: 1, 20: 1}),
        ("CoO", {8: 1, 27: 1}),
        ("COO", {6: 1, 8: 2}),
        ("Pu", {94: 1}),
    ],
)
def test_formulas_are_counted(text: str, counts: dict[int, int]) -> None:
    assert parse_formula(text) == counts
    assert list(parse_formula(text)) == sorted(counts)


@given(st.dictionaries(st.integers(1, 118), st.integers(1, 99), min_size=1, max_size=6))
def test_what_is_written_is_read(counts: dict[int, int]) -> None:
    text = "".join(f"{chemical_symbols[z]}{n}" for z, n in counts.items())
    assert parse_formula(text) == counts


@pytest.mark.parametrize(
    ("text", "says", "reason"),
    [
        ("", "such as TiO2", "bad formula"),
        ("tio2", "capital letter", "bad formula"),
        ("TiO2)", "such as TiO2", "bad formula"),
        ("((", "such as TiO2", "bad formula"),
        ("Na+", "charges", "bad formula"),
        ("O=Ti=O", "such as TiO2", "bad formula"),
        ("Ti0.5O", "whole numbers", "bad formula"),
        ("TiO0", "none of O", "bad formula"),
        ("XxO2", "Xx", "unknown element"),
        ("X", "got X", "unknown element"),
        ("AxB2", "Ax", "unknown element"),
    ],
)
def test_other_texts_are_refused_with_the_reason(text: str, says: str, reason: str) -> None:
    with pytest.raises(InputError, match=says) as refusal:
        parse_formula(text)
    assert refusal.value.reason == reason


def test_a_cell_holds_so_many_units() -> None:
    assert cell_contents("TiO2", 2) == [8, 8, 8, 8, 22, 22]
    assert len(cell_contents("NaCl", 100)) == 200
    for formula, units in (("NaCl", 101), ("Ti999999999999O", 1)):
        with pytest.raises(InputError, match="at most 200 atoms") as refusal:
            cell_contents(formula, units)
        assert refusal.value.reason == "too large"
    with pytest.raises(InputError, match="at least one formula unit"):
        cell_contents("NaCl", 0)
