"""Energies of molecules: minima are minima, a mirror image is as low, charges are what was said."""

import time

import pytest
import torch
from rdkit import Chem
from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

from nucleate.crystal.io import read_molecule
from nucleate.crystal.molecule import Molecule
from nucleate.errors import InputError
from nucleate.physics.molecule_energy import gfn2, optimise_mmff


def embedded(smiles: str, n: int = 1) -> Molecule:
    [molecule] = read_molecule(smiles)
    graph = Chem.Mol(molecule.graph)
    ids = list(rdDistGeom.EmbedMultipleConfs(graph, n, randomSeed=7))
    return molecule.with_conformers(
        torch.stack([torch.from_numpy(graph.GetConformer(i).GetPositions()) for i in ids])
    )


def rattled(positions: torch.Tensor, by: float = 0.05) -> torch.Tensor:
    noise = torch.randn(positions.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return positions + by * noise


# ---------------------------------------------------------------- force field


@pytest.mark.parametrize(("smiles", "method"), [("CCO", "MMFF94"), ("OB(O)CC", "UFF")])
def test_minima_of_the_force_field(smiles: str, method: str) -> None:
    molecule = embedded(smiles, 3)
    before = optimise_mmff(molecule.graph, molecule.conformers, steps=0)
    after = optimise_mmff(molecule.graph, molecule.conformers)
    assert (before.method, after.method) == (method, method)
    torch.testing.assert_close(before.positions, molecule.conformers)
    assert after.converged.all()
    assert (after.energies < before.energies - 0.01).all()
    moved = [optimise_mmff(molecule.graph, rattled(after.positions, 0.01), steps=0) for _ in range(3)]
    assert all((m.energies > after.energies).all() for m in moved)
    assert molecule.graph.GetNumConformers() == 0  # what was given is left alone


def test_a_mirror_image_is_as_low() -> None:
    molecule = embedded("C[C@H](N)C(=O)O", 2)
    here, there = (
        optimise_mmff(molecule.graph, x, steps=0) for x in (molecule.conformers, -molecule.conformers)
    )
    torch.testing.assert_close(here.energies, there.energies, atol=1e-6, rtol=0)


def test_energies_are_those_of_rdkit_in_ev() -> None:
    molecule = embedded("CCO")
    graph = Chem.AddHs(Chem.MolFromSmiles("CCO"))
    conformer = Chem.Conformer(9)
    conformer.SetPositions(molecule.conformers[0].numpy())
    graph.AddConformer(conformer)
    properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(graph)
    kcal = rdForceFieldHelpers.MMFFGetMoleculeForceField(graph, properties).CalcEnergy()
    found = optimise_mmff(molecule.graph, molecule.conformers, steps=0)
    assert float(found.energies[0]) == pytest.approx(kcal * 0.0433641, abs=1e-6)


def test_a_dielectric_screens_the_charges() -> None:
    molecule = embedded("[NH3+]CCC(=O)[O-]")
    vacuum, screened = (optimise_mmff(molecule.graph, molecule.conformers, d, 0) for d in (1.0, 80.0))
    assert float((vacuum.energies - screened.energies).abs()) > 0.5


def test_too_few_steps_are_said_so() -> None:
    molecule = embedded("CCCCCO")
    assert not optimise_mmff(molecule.graph, molecule.conformers, steps=1).converged.any()


def test_nothing_in_nothing_out() -> None:
    molecule = embedded("CCO")
    assert optimise_mmff(molecule.graph, molecule.conformers[:0]).positions.shape == (0, 9, 3)


def test_elements_that_no_force_field_knows() -> None:
    graph = Chem.RWMol()
    graph.AddAtom(Chem.Atom(118))
    graph.AddAtom(Chem.Atom(118))
    graph.AddBond(0, 1, Chem.BondType.SINGLE)
    graph.UpdatePropertyCache(strict=False)
    Chem.FastFindRings(graph)
    places = torch.tensor([[[0.0, 0, 0], [2.0, 0, 0]]], dtype=torch.float64)
    with pytest.raises(InputError) as refused:
        optimise_mmff(graph.GetMol(), places)
    assert refused.value.reason == "unknown element"


# ---------------------------------------------------------------- GFN2-xTB


@pytest.fixture(scope="module")
def water() -> Molecule:
    pytest.importorskip("tblite")
    return embedded("O")


@pytest.mark.extra
def test_a_minimum_of_gfn2(water: Molecule) -> None:
    start = rattled(water.conformers[0], 0.1)
    before, after = gfn2(water.numbers, start), gfn2(water.numbers, start, optimise=True)
    assert before.converged
    assert after.converged
    torch.testing.assert_close(before.positions, start)
    assert after.energy < before.energy - 0.01
    assert after.force <= 0.05 < before.force
    bonds = (after.positions[1:] - after.positions[0]).norm(dim=-1)
    torch.testing.assert_close(bonds, torch.full((2,), 0.959, dtype=torch.float64), atol=0.01, rtol=0)
    assert after.energy == pytest.approx(-137.97, abs=0.01)  # eV, from tblite's manual
    assert 10 < after.gap < 20


@pytest.mark.extra
def test_forces_are_minus_the_slope(water: Molecule) -> None:
    x, step = rattled(water.conformers[0]), 1e-3
    slope = torch.zeros_like(x)
    for i in range(3):
        for k in range(3):
            move = torch.zeros_like(x)
            move[i, k] = step
            up, down = (gfn2(water.numbers, x + s * move).energy for s in (1, -1))
            slope[i, k] = (up - down) / (2 * step)
    assert float(slope.norm(dim=-1).max()) == pytest.approx(gfn2(water.numbers, x).force, abs=1e-3)


@pytest.mark.extra
def test_the_hand_does_not_matter_to_gfn2(water: Molecule) -> None:
    alanine = embedded("C[C@H](N)C(=O)O")
    here, there = (gfn2(alanine.numbers, x) for x in (alanine.conformers[0], -alanine.conformers[0]))
    assert here.energy == pytest.approx(there.energy, abs=1e-5)
    assert here.gap == pytest.approx(there.gap, abs=1e-4)
    butadiene = gfn2(*(lambda m: (m.numbers, m.conformers[0]))(embedded("C=CC=C")))
    assert 0 < butadiene.gap < here.gap + 3


@pytest.mark.extra
def test_charges_are_respected(water: Molecule) -> None:
    """The proton affinity of ammonia is 8.8 eV (NIST 853.6 kJ/mol); GFN2 has H+ at its own small energy."""
    ammonia, ammonium = embedded("N"), embedded("[NH4+]")
    neutral = gfn2(ammonia.numbers, ammonia.conformers[0], optimise=True)
    charged = gfn2(ammonium.numbers, ammonium.conformers[0], ammonium.charge, optimise=True)
    assert charged.energy < neutral.energy
    with pytest.raises(InputError, match="unpaired"):
        gfn2(ammonium.numbers, ammonium.conformers[0], 0)
    radical = gfn2(ammonium.numbers, ammonium.conformers[0], 0, unpaired=1)
    assert radical.energy < charged.energy - 1


@pytest.mark.extra
def test_steps_and_time_end_a_minimisation(water: Molecule) -> None:
    start = rattled(water.conformers[0], 0.1)
    few = gfn2(water.numbers, start, optimise=True, steps=1)
    late = gfn2(water.numbers, start, optimise=True, deadline=time.monotonic() - 1)
    assert not few.converged
    assert not late.converged
    assert few.energy == few.energy  # a number
    assert late.force > 0.05


@pytest.mark.extra
def test_atoms_on_top_of_each_other_have_no_energy(water: Molecule) -> None:
    state = gfn2(water.numbers, torch.zeros(3, 3, dtype=torch.float64), optimise=True)
    assert not state.converged


def test_what_gfn2_cannot_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nucleate.physics.energy._installed", lambda _: True)
    with pytest.raises(InputError) as refused:
        gfn2(torch.tensor([92]), torch.zeros(1, 3))
    assert refused.value.reason == "unknown element"
    monkeypatch.setattr("nucleate.physics.energy._installed", lambda _: False)
    with pytest.raises(InputError, match=r"pip install .*nucleate\[xtb\]"):
        gfn2(torch.tensor([2]), torch.zeros(1, 3))
