"""Volumes per formula unit: by hand, whatever the cell, with failures kept in the count."""

import math
from functools import lru_cache
from pathlib import Path

import pytest
import torch

from nucleate.crystal.cif_read import read_crystal
from nucleate.crystal.crystal import Crystal
from nucleate.crystal.standardise import select_molecules
from nucleate.errors import InputError
from nucleate.metrics.volume import volume_deviation, volume_error

DATA = Path(__file__).parent / "data"


@lru_cache(maxsize=8)
def crystal(name: str = "7121743") -> Crystal:
    return read_crystal(DATA / f"{name}.cif")


def scaled(c: Crystal, ratio: float) -> Crystal:
    """The volume times `ratio`."""
    return c.replace(lattice=c.lattice * ratio ** (1 / 3))


def doubled(c: Crystal) -> Crystal:
    size = torch.tensor([1.0, 1.0, 2.0], dtype=torch.float64)
    shift = torch.tensor([0.0, 0.0, 0.5], dtype=torch.float64)
    return Crystal(
        lattice=c.lattice * size[:, None],
        frac=torch.cat([c.frac / size, c.frac / size + shift]),
        numbers=c.numbers.repeat(2),
        molecule=torch.cat([c.molecule, c.molecule + c.n_molecules]),
        bonds=torch.cat([c.bonds, c.bonds + len(c)]),
    )


def without_hydrogens(c: Crystal) -> Crystal:
    kept = c.numbers > 1
    return Crystal(
        c.lattice, c.frac[kept], c.numbers[kept], c.molecule[kept], torch.zeros(0, 2, dtype=torch.long)
    )


def test_errors_worked_out_by_hand():
    c = crystal()
    error = volume_error(scaled(c, 1.10), c)
    assert error.relative == pytest.approx(0.10)
    assert error.per_molecule == pytest.approx(0.10 * c.volume / c.n_molecules)
    assert error.relative_density == pytest.approx(1 / 1.10 - 1)
    assert error.density == pytest.approx(scaled(c, 1.10).density - c.density)


@pytest.mark.parametrize("change", [doubled, without_hydrogens])
def test_neither_the_cell_nor_missing_hydrogens_matter(change):
    c = crystal()
    for one, other in ((change(c), c), (c, change(c))):
        assert volume_error(scaled(one, 0.95), other).relative == pytest.approx(-0.05)
        assert volume_error(scaled(one, 0.95), other).relative_density == pytest.approx(1 / 0.95 - 1)


def test_the_deviation_is_a_mean_of_absolute_values():
    c = crystal()
    found = volume_deviation([scaled(c, 1.06), scaled(c, 0.98), scaled(doubled(c), 1.01)], c)
    assert found.rmad == pytest.approx((0.06 + 0.02 + 0.01) / 3)
    assert found.bias == pytest.approx((0.06 - 0.02 + 0.01) / 3)
    assert (found.measured, found.asked, found.failed) == (3, 3, 0)


def test_failures_are_counted_and_not_averaged():
    c = crystal()
    found = volume_deviation([None, scaled(c, 1.04), InputError("unreadable")], c)
    assert found.rmad == pytest.approx(0.04)
    assert (found.measured, found.asked, found.failed) == (1, 3, 2)
    assert str(found) == "RMAD 4.00 %, bias +4.00 % (1 of 3 crystals)"
    nothing = volume_deviation([None, None], c)
    assert math.isnan(nothing.rmad)
    assert nothing.failed == 2
    assert "0 of 2" in str(nothing)


def test_each_crystal_against_its_own_reference():
    one, other = crystal(), crystal("2205937")
    found = volume_deviation([scaled(one, 1.02), None, scaled(other, 0.96)], [one, one, other])
    assert found.rmad == pytest.approx(0.03)
    with pytest.raises(ValueError, match="one for each of 2"):
        volume_deviation([one, other], [one])


def test_another_compound_and_another_stoichiometry_are_refused():
    with pytest.raises(InputError, match="same composition") as error:
        volume_error(crystal(), crystal("2205937"))
    assert error.value.reason == "other composition"
    salt = crystal("2014129")
    with pytest.raises(InputError, match="same composition"):
        volume_error(select_molecules(salt, torch.arange(salt.n_molecules - 1)), salt)
