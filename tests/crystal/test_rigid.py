"""Rigid representation: exact round trips, handedness, symmetric molecules, hydrogens."""

import pytest
import torch
from rdkit import Chem

from nucleate.crystal.cif_read import read_crystal
from nucleate.crystal.crystal import Crystal
from nucleate.crystal.molecule import Molecule
from nucleate.crystal.rigid import (
    Matcher,
    normalise_hydrogens,
    principal_axes,
    represent_rigid,
    species_from_crystal,
)
from nucleate.crystal.standardise import represent_symmetric
from nucleate.errors import InputError
from nucleate.geometry.so3 import kabsch
from tests.crystal.conftest import DATA, EXPECTED, farthest


def rotation(seed: int) -> torch.Tensor:
    q, r = torch.linalg.qr(
        torch.randn(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    )
    q = q * r.diagonal().sign()
    return q * torch.linalg.det(q)


def neopentane() -> Molecule:
    """24 heavy maps and 6^4 hydrogen maps: too many to list, few to guide."""
    from rdkit.Chem import AllChem

    mol = Chem.AddHs(Chem.MolFromSmiles("CC(C)(C)C(=O)O"))
    AllChem.EmbedMolecule(mol, randomSeed=1)
    return Molecule(mol, torch.tensor(mol.GetConformer().GetPositions())[None])


@pytest.mark.parametrize("name", EXPECTED)
def test_rigid_bodies_rebuild_the_crystal(name: str, crystals: dict[str, Crystal]) -> None:
    packing, residual = represent_rigid(crystals[name])
    assert residual.max() < 1e-6
    assert farthest(packing.crystal(0), crystals[name]) < 1e-6
    assert torch.linalg.det(packing.rotation).sub(1).abs().max() < 1e-9
    assert len(packing.species[0].conformers) == 1


@pytest.mark.parametrize("name", EXPECTED)
def test_the_asymmetric_unit_rebuilds_the_crystal(name: str, crystals: dict[str, Crystal]) -> None:
    packing, residual = represent_symmetric(crystals[name])
    assert residual.max() < 1e-6
    assert farthest(packing.crystal(0), crystals[name]) < 1e-4
    _, z, z_prime, formulae, _ = EXPECTED[name]
    if z_prime >= 1:
        assert packing.n_bodies == round(z_prime) * len(formulae.split())
        assert len(packing.group) == z / z_prime
    elif z_prime == 0.5:  # one whole molecule in half the operations
        assert packing.n_bodies == 1
        assert len(packing.group) == z


def test_mirror_images_share_a_conformer_with_handedness(crystals: dict[str, Crystal]) -> None:
    packing, _ = represent_rigid(crystals["1100994"])
    assert sorted(packing.handedness[0].unique().tolist()) in ([-1, 1], [1])
    flack, _ = represent_rigid(crystals["2003630"])  # P21 has no operation that mirrors
    assert len(flack.handedness[0].unique()) == 1


def test_a_turned_mirrored_and_renumbered_copy_is_fitted_exactly() -> None:
    molecule = neopentane()
    local = molecule.conformers[0]
    maps = molecule.automorphisms
    copies = torch.stack([(-1) ** k * local[maps[7 * k]] @ rotation(k).T + k for k in range(6)])
    poses = Matcher(molecule).fit(local, copies)
    assert poses.rmsd.max() < 1e-9
    assert poses.handedness.tolist() == [1, -1, 1, -1, 1, -1]
    for k in range(6):
        image = copies[k, poses.map[k]] - copies[k].mean(0)
        assert (poses.handedness[k] * local @ poses.rotation[k].T - image).abs().max() < 1e-8


def test_a_planar_molecule_counts_as_unmirrored() -> None:
    crystal = read_crystal(DATA / "cod_2100840.cif")
    packing, _ = represent_rigid(crystal)
    assert packing.handedness.eq(1).all()


def test_different_conformers_are_told_apart_and_equal_ones_merged(crystals: dict[str, Crystal]) -> None:
    crystal = crystals["7100858"]
    assert len(species_from_crystal(crystal)[0].conformers) == 1
    bent = crystal.positions.clone()
    atom = int(torch.nonzero(crystal.molecule == 1)[0])
    bent[atom] += 1.5
    changed = crystal.replace(frac=bent @ torch.linalg.inv(crystal.lattice))
    assert len(species_from_crystal(changed)[0].conformers) == 2
    assert len(species_from_crystal(changed, tolerance=5.0)[0].conformers) == 1


def test_given_species_are_used_and_strangers_refused(crystals: dict[str, Crystal]) -> None:
    (species,) = species_from_crystal(crystals["7210454"])
    bigger = species.with_conformers(species.conformers * 1.01)
    packing, residual = represent_rigid(crystals["7210454"], [bigger])
    assert 0.005 < residual.max() < 0.05
    assert packing.species[0] is bigger
    with pytest.raises(InputError, match="another one"):
        represent_rigid(crystals["1100989"], [species])
    with pytest.raises(InputError, match="conformer"):
        represent_rigid(crystals["7210454"], [species.with_conformers(species.conformers[:0])])


def test_a_crystal_without_bonds_says_so(crystals: dict[str, Crystal]) -> None:
    bare = crystals["7210454"].replace(bonds=torch.zeros(0, 2, dtype=torch.long), bond_types=())
    with pytest.raises(InputError, match="bonds"):
        species_from_crystal(bare)


def test_principal_axes_are_a_rotation_with_the_long_axis_first() -> None:
    x = neopentane().conformers[0]
    y = principal_axes(x @ rotation(3).T)
    torch.testing.assert_close(torch.pdist(x), torch.pdist(y))
    spread = y.square().sum(0)
    assert spread[0] > spread[1] > spread[2]
    assert kabsch(x, y).rmsd < 1e-6  # proper: no mirror image


def test_hydrogens_go_to_neutron_lengths_along_the_bond(crystals: dict[str, Crystal]) -> None:
    crystal = crystals["7210454"]
    moved = normalise_hydrogens(crystal)
    ends, old = moved.positions[moved.bonds], crystal.positions[crystal.bonds]
    arm, before = ends[:, 1] - ends[:, 0], old[:, 1] - old[:, 0]
    z = moved.numbers[moved.bonds].sort(1).values
    for element, length in ((6, 1.083), (8, 0.983)):
        chosen = (z[:, 0] == 1) & (z[:, 1] == element)
        assert chosen.any()
        torch.testing.assert_close(arm[chosen].norm(dim=1), torch.full((int(chosen.sum()),), length).double())
    cosine = torch.nn.functional.cosine_similarity(arm, before)
    assert cosine.min() > 1 - 1e-9
    (molecule,) = species_from_crystal(crystal)
    assert normalise_hydrogens(molecule).conformers.shape == molecule.conformers.shape
