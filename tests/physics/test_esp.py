"""Charges from the electrostatic potential: the fit is exact where it can be; pyscf where it is installed."""

import pytest
import torch
from rdkit import Chem
from rdkit.Chem import AllChem

from nucleate.crystal.molecule import Molecule
from nucleate.errors import InputError
from nucleate.physics.esp import (
    RADII,
    SHELLS,
    coulomb,
    equivalent_atoms,
    esp_charges,
    esp_fit,
    fit_charges,
    mk_grid,
)

DEBYE = 0.20819433  # e Å


def molecule(smiles: str) -> Molecule:
    graph = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert AllChem.EmbedMolecule(graph, randomSeed=1) == 0
    AllChem.MMFFOptimizeMolecule(graph)
    return Molecule(graph, torch.tensor(graph.GetConformer().GetPositions())[None])


def water() -> Molecule:
    """0.9572 Å, 104.52 degrees."""
    return molecule("O").with_conformers(
        torch.tensor([[[0, 0, 0], [0.9572, 0, 0], [-0.2400, 0.9266, 0]]], dtype=torch.float64)
    )


def test_grid_points_lie_on_the_shells_and_outside_every_atom():
    one = molecule("CO")
    x, radii = one.conformers[0], torch.tensor([RADII[z] for z in one.numbers.tolist()])
    points = mk_grid(x, one.numbers)
    nearest = (torch.cdist(points, x) / radii).min(1).values
    assert len(points) > 300
    assert {round(float(v), 6) for v in nearest} == set(SHELLS)


@pytest.mark.parametrize("smiles", ["CO", "C[NH3+]", "[NH3+]CC(=O)[O-]"])
def test_a_potential_of_point_charges_gives_those_charges(smiles):
    one = molecule(smiles)
    classes, generator = equivalent_atoms(one), torch.Generator().manual_seed(0)
    true = torch.randn(int(classes.max()) + 1, dtype=torch.float64, generator=generator)[classes]
    true += (one.charge - true.sum()) / len(one)
    x = one.conformers[0]
    points = mk_grid(x, one.numbers)
    found = fit_charges(x, points, coulomb(x, points) @ true, one.charge, classes)
    torch.testing.assert_close(found, true, atol=1e-8, rtol=0)


def test_total_charge_is_exact_and_classes_are_equal_whatever_the_potential():
    one = molecule("CC(=O)[O-]")
    x = one.conformers[0]
    points = mk_grid(x, one.numbers)
    noise = torch.randn(len(points), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    classes = equivalent_atoms(one)
    charges = fit_charges(x, points, noise, -1, classes)
    assert float(charges.sum()) == pytest.approx(-1, abs=1e-10)
    for c in classes.unique():
        assert float(charges[classes == c].std(correction=0)) == pytest.approx(0, abs=1e-12)


def test_one_class_gets_even_charges():
    x = torch.tensor([[0.0, 0, 0], [0, 0, 1.4]], dtype=torch.float64)
    points = mk_grid(x, torch.tensor([7, 7]))
    classes = torch.zeros(2, dtype=torch.long)
    assert fit_charges(x, points, torch.ones(len(points), dtype=torch.float64), 0, classes).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("smiles", "groups"),
    [
        ("CC(=O)[O-]", [1, 1, 2, 3]),  # carboxylate oxygens drawn differently, methyl hydrogens
        ("CC(=O)O", [1, 1, 1, 1, 1, 3]),
        ("C[N+](=O)[O-]", [1, 1, 2, 3]),
        ("c1ccccc1", [6, 6]),
    ],
)
def test_equivalent_atoms(smiles, groups):
    one = Molecule(
        Chem.AddHs(Chem.MolFromSmiles(smiles)),
        torch.zeros(1, Chem.AddHs(Chem.MolFromSmiles(smiles)).GetNumAtoms(), 3),
    )
    assert sorted(torch.bincount(equivalent_atoms(one)).tolist())[-len(groups) :] == groups


@pytest.mark.parametrize(
    ("smiles", "reason"),
    [("[Na]Cl", "element without parameters"), ("[CH3]", "open shell"), ("O", "missing package")],
)
def test_refusals(smiles, reason, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    graph = Chem.AddHs(Chem.MolFromSmiles(smiles))
    one = Molecule(graph, torch.rand(1, graph.GetNumAtoms(), 3, dtype=torch.float64))
    with pytest.raises(InputError) as caught:
        esp_charges(one)
    assert caught.value.reason == reason


@pytest.mark.extra
@pytest.mark.filterwarnings("ignore")
def test_water_as_published():
    """HF/6-31G* Merz-Kollman charges of water: q(O) about -0.80 e, dipole about 2.2 D."""
    pytest.importorskip("pyscf")
    fit = esp_fit(water())
    dipole = (fit.charges[:, None] * water().conformers[0]).sum(0)
    assert float(fit.charges[0]) == pytest.approx(-0.80, abs=0.03)
    assert float(fit.charges.sum()) == pytest.approx(0, abs=1e-12)
    assert float(fit.dipole.norm()) / DEBYE == pytest.approx(2.2, abs=0.1)
    torch.testing.assert_close(dipole, fit.dipole, atol=0.03 * float(fit.dipole.norm()), rtol=0)
    assert fit.relative < 0.15


@pytest.mark.extra
@pytest.mark.filterwarnings("ignore")
def test_averaging_costs_fit_and_methanol_keeps_its_dipole():
    pytest.importorskip("pyscf")
    methanol = molecule("CO")
    averaged, free = esp_fit(methanol), esp_fit(methanol, average=False)
    dipoles = [(fit.charges[:, None] * methanol.conformers[0]).sum(0).norm() for fit in (averaged, free)]
    assert free.residual < averaged.residual < 1.5 * free.residual
    assert averaged.charges[2] == averaged.charges[3] == averaged.charges[4]
    for dipole in dipoles:
        assert float(dipole) == pytest.approx(float(averaged.dipole.norm()), rel=0.08)


@pytest.mark.extra
@pytest.mark.filterwarnings("ignore")
def test_iodine_takes_the_heavy_basis():
    pytest.importorskip("pyscf")
    charges = esp_charges(molecule("CI"))
    assert float(charges[1]) < 0
    assert float(charges.sum()) == pytest.approx(0, abs=1e-12)
