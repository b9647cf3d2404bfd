"""Rigid molecules in open space: the crystals' force field without the crystal."""

import pytest
import torch

from nucleate.crystal.cluster import Cluster
from nucleate.crystal.io import read_molecule
from nucleate.crystal.molecule import Molecule
from nucleate.crystal.open_space import crystal_of_cluster
from nucleate.crystal.rigid import represent_rigid
from nucleate.errors import InputError
from nucleate.geometry.so3 import kabsch, random_rotation
from nucleate.physics.forcefield import Accuracy, ForceField
from nucleate.physics.open_cluster import OpenField, relax_open
from nucleate.pipeline.conform import ConformSettings, conform


def molecule_of(smiles: str) -> Molecule:
    [molecule] = read_molecule(smiles)
    return conform(molecule, ConformSettings(embed=1)).molecule


def spread(molecule: Molecule, copies: int, apart: float, seed: int = 0) -> torch.Tensor:
    turn = random_rotation(copies, generator=torch.Generator().manual_seed(seed))
    index = torch.arange(copies)
    place = apart * torch.stack([index % 2, index // 2 % 2, index // 4], 1).double()
    return molecule.conformers[0] @ turn.mT + place[:, None]


@pytest.mark.parametrize("smiles", ["NC=O", "CO", "FC(Cl)=O"])
@pytest.mark.parametrize(("apart", "tolerance"), [(1.0, 1e-3), (4.5, 1e-5)], ids=["in each other", "apart"])
def test_the_energy_is_that_of_a_crystal_that_is_all_gap(smiles: str, apart: float, tolerance: float) -> None:
    """Without Ewald sums and with a cutoff beyond the cluster and short of its images.

    There the kernels shift the charges' energy to 0 at the cutoff, but not of pairs that are in each other.
    """
    molecule = molecule_of(smiles)
    x = spread(molecule, 3, apart)
    cluster = Cluster(molecule.numbers, x, "", molecule.bonds)
    crystal = crystal_of_cluster(cluster)
    crystal = crystal.replace(lattice=5 * crystal.lattice, frac=crystal.frac / 5, bond_types=(), charges=None)
    packing, _ = represent_rigid(crystal, [molecule], own=True)
    field = ForceField.for_molecules([molecule])
    field = ForceField(packing.species, (field.charges[0].repeat(len(packing.species[0].conformers), 0),))
    whole = float(field.energy(packing, Accuracy(40.0, 0.0, 0.0)))
    assert float(OpenField.of(molecule).energy(x)) == pytest.approx(whole, rel=tolerance)


def test_the_energy_is_blind_to_motions_and_names() -> None:
    molecule = molecule_of("NC=O")
    x = spread(molecule, 5, 4.5)
    field = OpenField.of(molecule)
    turn = random_rotation(generator=torch.Generator().manual_seed(1))
    moved = x[torch.tensor([3, 1, 4, 0, 2])] @ turn.mT + torch.tensor([1.0, -20.0, 3.0])
    torch.testing.assert_close(field.energy(moved), field.energy(x), atol=1e-10, rtol=0)


def test_relaxation_goes_down_with_rigid_molecules() -> None:
    molecule = molecule_of("NC=O")
    x = spread(molecule, 6, 3.4)
    field = OpenField.of(molecule)
    end = relax_open(field, x, 300)
    assert end.energy < float(field.energy(x)) - 0.1
    assert float(field.energy(end.positions)) == pytest.approx(end.energy, abs=1e-9)
    assert float(kabsch(x, end.positions).rmsd.max()) < 1e-9
    assert end.converged
    again = relax_open(field, end.positions, 300)
    assert again.energy == pytest.approx(end.energy, abs=1e-3)
    assert not relax_open(field, x, 1).converged


def test_elements_without_parameters_are_refused() -> None:
    with pytest.raises(InputError, match="force field knows"):
        OpenField.of(molecule_of("C[Se]C"))
