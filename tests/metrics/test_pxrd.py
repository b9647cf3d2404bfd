"""Powder patterns: known salts, an independent structure-factor program, and freedom of the cell."""

import math

import gemmi
import pytest
import torch

from nucleate.crystal.crystal import Crystal
from nucleate.errors import InputError
from nucleate.metrics.pxrd import CU_K_ALPHA, powder_pattern, reflections

FACE = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]


def crystal_of(lattice, frac, numbers) -> Crystal:
    frac = torch.as_tensor(frac, dtype=torch.float64)
    return Crystal(
        lattice=torch.as_tensor(lattice, dtype=torch.float64),
        frac=frac,
        numbers=torch.as_tensor(numbers),
        molecule=torch.arange(len(frac)),
        bonds=torch.zeros(0, 2, dtype=torch.long),
    )


def rock_salt() -> Crystal:
    sodium = torch.tensor(FACE, dtype=torch.float64)
    return crystal_of(5.6402 * torch.eye(3), torch.cat([sodium, sodium + 0.5]), [11] * 4 + [17] * 4)


def diamond() -> Crystal:
    first = torch.tensor(FACE, dtype=torch.float64)
    return crystal_of(3.567 * torch.eye(3), torch.cat([first, first + 0.25]), [6] * 8)


def triclinic(n_atoms: int = 24) -> Crystal:
    generator = torch.Generator().manual_seed(3)
    frac = torch.rand(n_atoms, 3, generator=generator, dtype=torch.float64)
    numbers = torch.tensor([1, 6, 7, 8])[torch.randint(4, (n_atoms,), generator=generator)]
    return crystal_of([[6.1, 0.2, -0.4], [1.3, 7.9, 0.1], [-2.0, 1.1, 9.3]], frac, numbers)


def total(crystal: Crystal, centre: float, **settings) -> float:
    """Sum of intensities within 0.1 degrees of a Bragg angle."""
    peaks = reflections(crystal, **settings)
    return float(peaks.intensity[(peaks.two_theta - centre).abs() < 0.1].sum())


def test_rock_salt_has_the_lines_of_the_powder_file():
    # PDF 5-628: 2θ 27.37 (I 13), 31.69 (100), 45.45 (55)
    strong = total(rock_salt(), 31.70)
    assert 0.05 < total(rock_salt(), 27.37) / strong < 0.15
    assert 0.45 < total(rock_salt(), 45.45) / strong < 0.70
    pattern = powder_pattern(rock_salt())
    assert pattern.two_theta[pattern.intensity.argmax()].item() == pytest.approx(31.70, abs=0.021)
    assert pattern.intensity.max().item() == pytest.approx(100)


def test_centring_and_glide_extinguish():
    peaks = reflections(rock_salt(), (5.0, 120.0))
    mixed = (peaks.hkl % 2).sum(1).remainder(3) != 0
    assert mixed.any()
    assert peaks.intensity[mixed].max() < 1e-12 * peaks.intensity.max()
    diamond_peaks = reflections(diamond(), (5.0, 150.0))
    even = (diamond_peaks.hkl % 2 == 0).all(1) & (diamond_peaks.hkl.sum(1) % 4 == 2)
    assert even.any()
    assert diamond_peaks.intensity[even].max() < 1e-12 * diamond_peaks.intensity.max()
    seen = diamond_peaks.two_theta[diamond_peaks.intensity > 1e-9 * diamond_peaks.intensity.max()]
    assert seen.min().item() == pytest.approx(43.93, abs=0.02)  # (111)


def test_structure_factors_agree_with_gemmi():
    crystal = triclinic()
    lengths = torch.linalg.norm(crystal.lattice, dim=1)
    unit = crystal.lattice / lengths[:, None]
    angles = [math.degrees(math.acos(float(unit[i] @ unit[j]))) for i, j in ((1, 2), (0, 2), (0, 1))]
    small = gemmi.SmallStructure()
    small.cell = gemmi.UnitCell(*lengths.tolist(), *angles)
    small.spacegroup_hm = "P 1"
    for number, position in zip(crystal.numbers.tolist(), crystal.frac.tolist()):
        site = gemmi.SmallStructure.Site()
        site.element, site.fract, site.occ, site.u_iso = (
            gemmi.Element(number),
            gemmi.Fractional(*position),
            1.0,
            0.03,
        )
        site.type_symbol = site.element.name
        small.add_site(site)
    calculator = gemmi.StructureFactorCalculatorX(small.cell)
    peaks = reflections(crystal)
    expected = torch.tensor(
        [abs(calculator.calculate_sf_from_small_structure(small, h)) for h in peaks.hkl.tolist()]
    )
    theta = (peaks.two_theta / 2).deg2rad()
    factor = (1 + (2 * theta).cos() ** 2) / (theta.sin() ** 2 * theta.cos()) / crystal.volume**2
    torch.testing.assert_close((peaks.intensity / factor).sqrt(), expected.double(), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(2 * peaks.d * theta.sin(), torch.full_like(theta, CU_K_ALPHA))


def test_every_reflection_is_there_once():
    peaks = reflections(triclinic())
    box = torch.cartesian_prod(*[torch.arange(-12, 13)] * 3)
    q = torch.linalg.norm(box.double() @ torch.linalg.inv(triclinic().lattice).T, dim=1)
    low, high = (2 / CU_K_ALPHA * math.sin(math.radians(x / 2)) for x in (5, 50))
    assert 2 * len(peaks.hkl) == int(((q >= low) & (q <= high)).sum())
    both = torch.cat([peaks.hkl, -peaks.hkl])
    assert len(torch.unique(both, dim=0)) == len(both)


def _supercell(c: Crystal) -> Crystal:
    shifts = torch.cartesian_prod(torch.arange(2), torch.arange(1), torch.arange(3)).double()
    size = torch.tensor([2.0, 1.0, 3.0], dtype=torch.float64)
    frac = ((c.frac[None] + shifts[:, None]) / size).flatten(0, 1)
    return crystal_of(c.lattice * size[:, None], frac, c.numbers.repeat(6))


def _other_basis(c: Crystal) -> Crystal:
    change = torch.tensor([[1.0, 2, 0], [0, 1, 0], [1, -1, 1]], dtype=torch.float64)
    return crystal_of(change @ c.lattice, c.frac @ torch.linalg.inv(change), c.numbers)


def _turned(c: Crystal) -> Crystal:
    turn = torch.linalg.qr(
        torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    )[0]
    return crystal_of(c.lattice @ (turn * torch.linalg.det(turn)), c.frac, c.numbers)


def _shifted(c: Crystal) -> Crystal:
    return crystal_of(c.lattice, c.frac + torch.tensor([0.31, -0.17, 0.55]), c.numbers)


def _unwrapped(c: Crystal) -> Crystal:
    steps = torch.randint(-2, 3, c.frac.shape, generator=torch.Generator().manual_seed(2))
    return crystal_of(c.lattice, c.frac + steps, c.numbers)


def _inverted(c: Crystal) -> Crystal:
    return crystal_of(c.lattice, -c.frac, c.numbers)


@pytest.mark.parametrize("change", [_supercell, _other_basis, _turned, _shifted, _unwrapped, _inverted])
def test_the_description_of_the_crystal_does_not_matter(change):
    before, after = powder_pattern(triclinic()), powder_pattern(change(triclinic()))
    torch.testing.assert_close(after.intensity, before.intensity, atol=1e-6, rtol=0)
    low, high = (reflections(c).intensity.sum() for c in (triclinic(), change(triclinic())))
    torch.testing.assert_close(low, high)


def test_moving_one_atom_does_matter():
    moved = triclinic()
    frac = moved.frac.clone()
    frac[0, 0] += 0.1
    difference = powder_pattern(moved).intensity - powder_pattern(moved.replace(frac=frac)).intensity
    assert difference.abs().max() > 1


@pytest.mark.parametrize("lorentzian", [0.0, 0.5, 1.0])
def test_the_drawn_peak_has_the_asked_width(lorentzian):
    pattern = powder_pattern(diamond(), (40.0, 48.0), step=0.002, fwhm=0.2, lorentzian=lorentzian)
    above = pattern.two_theta[pattern.intensity > 50]
    assert float(above.max() - above.min()) == pytest.approx(0.2, abs=0.005)


def test_displacement_weakens_high_angles_only():
    calm, hot = (reflections(rock_salt(), u_iso=u).intensity for u in (0.0, 0.05))
    seen = calm > 1e-9 * calm.max()
    ratio = hot[seen] / calm[seen]
    assert (ratio < 1).all()
    assert ratio[0] > ratio[-1]


def test_nothing_in_range_gives_a_flat_line():
    pattern = powder_pattern(diamond(), (5.0, 20.0))
    assert pattern.intensity.abs().max() == 0


@pytest.mark.parametrize("two_theta", [(0.0, 50.0), (50.0, 5.0), (5.0, 180.0)])
def test_a_bad_range_is_refused(two_theta):
    with pytest.raises(InputError, match="2theta"):
        powder_pattern(diamond(), two_theta)


def test_an_element_without_form_factor_is_refused():
    with pytest.raises(InputError, match="form factors"):
        reflections(crystal_of(5.0 * torch.eye(3), [[0.0, 0, 0]], [110]))
