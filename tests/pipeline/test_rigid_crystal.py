"""A user's crystal as rigid molecules: the atoms of its file, both hands, the force field's energy, what is refused."""

from pathlib import Path

import pytest
import torch

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.io import read_crystal, write_cif
from nucleate.crystal.molecule import Molecule
from nucleate.crystal.packing import Packings
from nucleate.crystal.rigid import normalise_hydrogens, represent_rigid
from nucleate.errors import InputError
from nucleate.geometry.lattice import heights
from nucleate.geometry.so3 import quaternion_to_matrix, random_rotation, rotation_exp
from nucleate.geometry.symmetry import P1
from nucleate.physics.forcefield import FINAL, ForceField
from nucleate.physics.rigid_sites import SiteEnergy
from nucleate.pipeline.rigid_crystal import as_published, at_rest, rigid_crystal
from nucleate.pipeline.temperature_ladder import RigidCrystal
from tests.physics.conftest import embedded

DATA = Path(__file__).parent.parent / "data"
ETHYLUREA, BIUREA, ACETYLENE, SALT = (DATA / f"cod_{n}.cif" for n in (1100989, 4110681, 2100840, 2003526))


def energy_of(crystal: RigidCrystal) -> SiteEnergy:
    return SiteEnergy(crystal.molecule, len(crystal.places), crystal.cell, hands=crystal.hands)


def in_a_cell(species: tuple[Molecule, ...], kind: list[int], conformer: list[int]) -> Crystal:
    """Some molecules far apart, turned at random."""
    n = len(kind)
    return Packings(
        species,
        P1,
        torch.tensor(kind),
        torch.diag(torch.tensor([6.0 * n, 7.0, 8.0], dtype=torch.float64))[None],
        torch.tensor([[(k + 0.5) / n, 0.5, 0.5] for k in range(n)], dtype=torch.float64)[None],
        random_rotation(n, generator=torch.Generator().manual_seed(0))[None],
        torch.ones(1, n, dtype=torch.long),
        torch.tensor(conformer)[None],
    ).crystal(0)


@pytest.mark.parametrize(("number", "hands"), [(1100989, (2, 2)), (2002929, (2, 0)), (7100858, (2, 2))])
def test_its_atoms_are_those_of_the_file(number: int, hands: tuple[int, int]) -> None:
    """P2_1/c, P-1 with molecules on the centre (two cells), Pna2_1: each site of the block, of both hands."""
    path = DATA / f"cod_{number}.cif"
    crystal = as_published(path, 3.0 if number != 7100858 else 1.8)
    file = normalise_hydrogens(read_crystal(path))
    found = energy_of(crystal).sites(crystal.places, quaternion_to_matrix(crystal.turns)).flatten(0, 1)
    fractional = (found @ torch.linalg.inv(file.lattice.double())) % 1
    apart = fractional[:, None] - file.frac.double()
    apart = ((apart - apart.round()) @ file.lattice.double()).norm(dim=-1)
    nearest = apart.min(1)
    times = len(found) // len(file)
    assert float(nearest.values.max()) < 0.02
    assert nearest.indices.bincount(minlength=len(file)).tolist() == [times] * len(file)
    masses = crystal.molecule.masses
    torch.testing.assert_close(masses @ crystal.molecule.sites, torch.zeros(3).double(), atol=1e-9, rtol=0)
    signs = torch.ones(len(crystal.places)) if crystal.hands is None else crystal.hands
    assert (int((signs > 0).sum()), int((signs < 0).sum())) == hands


def test_energies_are_those_of_the_force_field() -> None:
    """To 0.2 kJ/mol a molecule; changes to 5 %. There dispersion is summed to infinity, here it ends at 7 Å."""
    crystal = as_published(ETHYLUREA)
    energy, n = energy_of(crystal), len(crystal.places)
    assert energy.cutoff > 6
    bodies, _ = represent_rigid(normalise_hydrogens(read_crystal(ETHYLUREA)))
    field, local = ForceField.for_molecules(bodies.species), bodies.species[0].conformers[0]
    centre, hands = crystal.molecule.masses @ local / crystal.molecule.masses.sum(), crystal.hands
    assert hands is not None

    def both(places: torch.Tensor, rotations: torch.Tensor) -> torch.Tensor:
        centroids = places - (rotations @ (hands[:, None] * centre)[..., None])[..., 0]
        packing = Packings(
            bodies.species,
            P1,
            torch.zeros(n, dtype=torch.long),
            crystal.cell[None],
            (centroids @ torch.linalg.inv(crystal.cell))[None],
            rotations[None],
            hands.long()[None],
            torch.zeros(1, n, dtype=torch.long),
        )
        return torch.stack([energy(places, rotations), field.energy(packing, FINAL)[0]])

    generator = torch.Generator().manual_seed(0)
    rotations = quaternion_to_matrix(crystal.turns)
    here = both(crystal.places, rotations)
    assert abs(float(here[0] - here[1])) / n < 0.2 * 0.0103643
    moves = 0.03 * torch.randn(2, n, 3, generator=generator, dtype=torch.float64)
    change = both(crystal.places + moves[0], rotations @ rotation_exp(moves[1])) - here
    assert float(change[1]) > 0.2
    assert float(change[0]) == pytest.approx(float(change[1]), rel=0.05)


def test_it_comes_to_rest() -> None:
    """Biurea in one cell: not far from where it is published, and next to nothing pulls there."""
    published = as_published(BIUREA, 1.7)
    assert len(published.places) == 2
    rest, energy = at_rest(published), energy_of(published)
    x = rest.places.clone().requires_grad_()
    lowest = energy(x, quaternion_to_matrix(rest.turns))
    (slope,) = torch.autograd.grad(lowest, x)
    assert slope.abs().max() < 0.01
    assert lowest.item() < energy(published.places, quaternion_to_matrix(published.turns)).item() - 0.01
    assert ((rest.places - published.places).norm(dim=-1) < 0.5).all()


def test_the_block_has_room_for_the_cut_off() -> None:
    crystal = as_published(ACETYLENE, 4.0)
    assert len(crystal.places) == 32
    assert float(heights(crystal.cell).min()) >= 8.0
    with pytest.raises(
        InputError, match=r"at most 128 molecules, got 500.*5 x 5 x 5 cells.*3\.0 Å fits in one"
    ):
        rigid_crystal(ACETYLENE, 14.0)
    with pytest.raises(InputError, match="positive cut-off"):
        rigid_crystal(ACETYLENE, 0.0)


def test_what_is_not_one_rigid_neutral_molecule_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got ions"):
        rigid_crystal(SALT)
    two = in_a_cell((embedded("O"), embedded("NC=O")), [0, 1], [0, 0])
    write_cif(two, tmp_path / "two.cif")
    with pytest.raises(InputError, match="one kind of molecule"):
        rigid_crystal(tmp_path / "two.cif")
    write_cif(in_a_cell((peroxide(90.0),), [0, 0], [0, 1]), tmp_path / "shapes.cif")
    with pytest.raises(InputError, match="2 shapes of OO"):
        rigid_crystal(tmp_path / "shapes.cif")
    write_cif(in_a_cell((peroxide(5.0),), [0, 0], [0, 1]), tmp_path / "alike.cif")
    assert len(as_published(tmp_path / "alike.cif", 3.0).places) == 2


def peroxide(degrees: float) -> Molecule:
    """Hydrogen peroxide, and the same with one hydrogen turned about the bond."""
    molecule = embedded("OO")
    first, second = molecule.conformers[0], molecule.conformers[0].clone()
    axis = torch.nn.functional.normalize(first[1] - first[0], dim=0)
    turn = rotation_exp(axis * torch.pi * degrees / 180)
    second[3] = first[1] + turn @ (first[3] - first[1])
    return molecule.with_conformers(torch.stack([first, second]))
