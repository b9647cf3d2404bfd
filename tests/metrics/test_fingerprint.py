"""The fingerprint does not see how a crystal is written down, and moves no faster than twice the atoms."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from disguises import disguised, moved, noisy, repeated, seeded, without_hydrogens

from nucleate.crystal.cif_read import read_crystal
from nucleate.crystal.crystal import Crystal
from nucleate.errors import InputError
from nucleate.geometry.lattice import strained
from nucleate.metrics.fingerprint import SHELL, fingerprint

DATA = Path(__file__).parent / "data"
FILES = sorted(path.stem for path in DATA.glob("*.cif"))
DISGUISES = {
    "setting, origin, order": lambda c: disguised(c, seed=1),
    "mirror": lambda c: disguised(c, seed=2, mirror=True),
    "supercell": lambda c: repeated(c, (2, 1, 3)),
    "supercell, disguised": lambda c: disguised(repeated(c, (1, 2, 1)), seed=3),
    "no hydrogens": without_hydrogens,
    "no bonds": lambda c: c.replace(bonds=c.bonds[:0]),
}


@lru_cache(maxsize=16)
def crystal(name):
    return read_crystal(DATA / f"{name}.cif")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("disguise", DISGUISES)
def test_it_depends_on_the_crystal_alone(name, disguise):
    plain, other = fingerprint(crystal(name)), fingerprint(DISGUISES[disguise](crystal(name)))
    assert other.chemistry == plain.chemistry
    assert other.volume == pytest.approx(plain.volume)
    assert plain.distance(other) < 1e-6


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("farthest", [0.01, 0.1, 0.5])
def test_it_moves_at_most_twice_as_far_as_the_atoms(name, farthest):
    """|F(x) - F(y)| <= 2 max |x - y|, the law of the module's docstring."""
    c = crystal(name)
    for seed in range(3):
        step = torch.randn(len(c), 3, dtype=torch.float64, generator=seeded(seed))
        step *= farthest / step.norm(dim=1).max()
        there = moved(c, c.positions.double() + step)
        assert 0 < fingerprint(c).distance(fingerprint(there)) <= 2 * farthest + 1e-9


@pytest.mark.parametrize("name", FILES)
def test_strain_stretches_it_by_no_more_than_its_exponent(name):
    """An affine strain changes every distance by a factor within exp(±|e|), hence sorted means as well."""
    c = crystal(name)
    strain = 0.02 * torch.randn(3, 3, dtype=torch.float64, generator=seeded(5))
    strain = (strain + strain.T) / 2
    limit = float(torch.linalg.eigvalsh(strain).abs().max())
    before, after = fingerprint(c), fingerprint(c.replace(lattice=strained(c.lattice.double(), strain)))
    low, high = np.exp(-limit) * means_of(before), np.exp(limit) * means_of(before)
    assert ((low - 1e-9 <= means_of(after)) & (means_of(after) <= high + 1e-9)).all()
    assert np.abs(means_of(after) - means_of(before)).max() > 0.01
    assert after.volume == pytest.approx(before.volume * np.exp(float(strain.trace())))


def means_of(found):
    """Means over atoms, then as many deviations, which are left out, then a shell of centroids a species."""
    shells = SHELL * len(found.chemistry)
    atoms = (len(found.values) - shells) // 2
    return np.concatenate([found.values[:atoms], found.values[-shells:]])


def test_a_simple_cubic_crystal_by_hand():
    """One neon atom in a cube of 4 Å: six neighbours at 4 Å, then twelve at 4 √2 Å, then eight at 4 √3 Å."""
    cube = Crystal(
        lattice=4 * torch.eye(3, dtype=torch.float64),
        frac=torch.tensor([[0.3, 0.2, 0.1]], dtype=torch.float64),
        numbers=torch.tensor([10]),
        molecule=torch.tensor([0]),
        bonds=torch.zeros(0, 2, dtype=torch.long),
    )
    found = fingerprint(cube)
    assert found.volume == pytest.approx(64)
    assert found.chemistry == (("[Ne]", 1),)
    expected = 4 * np.sqrt([1] * 6 + [2] * 12 + [3] * 8)
    np.testing.assert_allclose(found.values[:8], expected[:8])
    np.testing.assert_allclose(found.values[8:16], 0, atol=1e-9)  # one atom deviates from no mean
    np.testing.assert_allclose(found.values[16:42], expected)


def test_the_formula_unit_is_reduced():
    """Three molecules for one water are chemistry, six for two are a bigger cell."""
    c = crystal(FILES[0])
    key = fingerprint(c).chemistry[0][0]
    assert fingerprint(repeated(c, (1, 1, 2))).chemistry == fingerprint(c).chemistry
    water = Crystal(
        lattice=c.lattice.double() * 1.5,
        frac=torch.cat([c.frac.double() / 1.5, torch.full((1, 3), 0.95, dtype=torch.float64)]),
        numbers=torch.cat([c.numbers, torch.tensor([8])]),
        molecule=torch.cat([c.molecule, torch.tensor([c.n_molecules])]),
        bonds=c.bonds,
    )
    assert dict(fingerprint(water).chemistry) == {key: c.n_molecules, "[O]": 1}
    with pytest.raises(InputError, match="one composition"):
        fingerprint(c).distance(fingerprint(water))


def test_polymorphs_are_far_apart_and_noise_is_near():
    form_1, form_2 = fingerprint(crystal("7121743")), fingerprint(crystal("7121745"))
    assert form_1.chemistry == form_2.chemistry
    assert form_1.distance(form_2) > 1.0
    assert form_1.distance(fingerprint(noisy(crystal("7121743"), 0.02))) < 0.1


def test_a_long_thin_cell_and_a_big_one():
    c = crystal("2100840")
    long = repeated(c, (1, 1, 24))
    assert fingerprint(c).distance(fingerprint(disguised(long, seed=4))) < 1e-6
    big = repeated(c, (5, 5, 5))
    assert int((big.numbers > 1).sum()) > 900
    assert fingerprint(c).distance(fingerprint(big)) < 1e-6


def test_an_empty_cell_is_refused():
    nothing = torch.zeros(0, dtype=torch.long)
    empty = Crystal(
        torch.eye(3, dtype=torch.float64),
        torch.zeros(0, 3, dtype=torch.float64),
        nothing,
        nothing,
        nothing.reshape(0, 2),
    )
    with pytest.raises(InputError, match="empty cell"):
        fingerprint(empty)
