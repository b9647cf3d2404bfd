"""The cluster of a crystal gives the crystal back, noise or not; a cluster without order gives a reason."""

import math
from functools import cache

import pytest
import torch

from nucleate.crystal.assemble import with_lewis_structures
from nucleate.crystal.cluster import Cluster
from nucleate.crystal.crystal import Crystal
from nucleate.crystal.io import read_crystal
from nucleate.crystal.molecule import Molecule
from nucleate.crystal.open_space import crystal_of_cluster
from nucleate.crystal.rigid import species_from_crystal
from nucleate.data.clusters import Loosening, cluster_of, evaluation_copies
from nucleate.errors import InputError
from nucleate.geometry.so3 import random_rotation
from nucleate.metrics.clusters import shuffled
from nucleate.metrics.packing import compare_packing
from nucleate.pipeline.cluster_cell import find_cell
from nucleate.pipeline.cluster_translations import beyond_lattice, same_orientation
from tests.pipeline.conftest import DATA

# P21/c, Pccn, R3, P-1 (on a centre), P21, P21/c (on a centre), Pna21
CRYSTALS = (1100989, 1100994, 2000380, 2002929, 2003630, 4110681, 7100858)


@cache
def known(number: int) -> tuple[Crystal, Cluster, Molecule]:
    crystal = read_crystal(DATA / f"cod_{number}.cif")
    cluster = cluster_of(crystal)
    one = crystal_of_cluster(cluster.with_positions(cluster.positions[:1]))
    [molecule] = species_from_crystal(with_lewis_structures(one))
    return crystal, cluster, molecule


@pytest.mark.parametrize("number", CRYSTALS)
@pytest.mark.parametrize("noise", [0.0, 1.0], ids=["exact", "noisy"])
def test_the_cluster_of_a_crystal_gives_the_crystal_back(number: int, noise: float) -> None:
    """Noise: 0.1 Å along each axis, 3 degrees."""
    crystal, cluster, molecule = known(number)
    how = Loosening(translation=0.1 * noise, rotation=math.radians(3.0) * noise)
    [given] = evaluation_copies([cluster], how, 1)
    found = find_cell(given, molecule)
    each = found.crystal.volume / found.crystal.n_molecules
    assert each == pytest.approx(crystal.volume / crystal.n_molecules, rel=1e-6 if not noise else 0.05)
    match = compare_packing(crystal, found.crystal)
    assert match.is_match
    assert match.rmsd < (1e-5 if not noise else 0.25)
    assert found.explained >= 15


@pytest.mark.parametrize("number", CRYSTALS[:3])
def test_order_and_place_of_molecules_do_not_matter(number: int) -> None:
    crystal, cluster, molecule = known(number)
    moved = shuffled(cluster.positions, torch.Generator().manual_seed(2)) + torch.tensor([3.0, -50.0, 7.0])
    found = find_cell(cluster.with_positions(moved), molecule).crystal
    assert found.volume / found.n_molecules == pytest.approx(crystal.volume / crystal.n_molecules, rel=1e-6)
    assert compare_packing(crystal, found).is_match


@pytest.mark.parametrize(
    ("keep", "how"),
    [(17, Loosening(translation=2.0, rotation=2.0)), (3, Loosening(translation=0.0, rotation=0.0))],
    ids=["no order", "too few"],
)
def test_without_a_lattice_the_reason_is_counted(keep: int, how: Loosening) -> None:
    _, cluster, molecule = known(CRYSTALS[0])
    [given] = evaluation_copies([cluster.with_positions(cluster.positions[:keep])], how, 0)
    with pytest.raises(InputError, match=rf"expected .*found \d+.*{keep}") as error:
        find_cell(given, molecule)
    assert error.value.reason == "no lattice"


def test_orientations_are_compared_up_to_symmetry_and_within_a_hand() -> None:
    generator = torch.Generator().manual_seed(0)
    frame = random_rotation(1, generator=generator)
    half_turn = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))
    eye = torch.eye(3, dtype=torch.float64)
    turned = frame @ half_turn
    assert not same_orientation(frame, turned, eye[None])
    assert same_orientation(frame, turned, torch.stack([eye, half_turn]))
    assert not same_orientation(frame, -frame, eye[None])
    assert same_orientation(-frame, -frame, eye[None])


def test_what_is_beyond_a_lattice() -> None:
    lattice = torch.tensor([[5.0, 0, 0], [1.0, 6.0, 0], [0, 1.0, 7.0]], dtype=torch.float64)
    whole = torch.tensor([[2.0, -1.0, 3.0], [0.0, 0.0, 0.0]], dtype=torch.float64) @ lattice
    step = whole[:, None] + torch.tensor([[0.0, 0.3, 0.4], [0.0, 0.0, 0.0]], dtype=torch.float64)
    expected = torch.tensor([[[0.5, 0.0], [0.5, 0.0]]], dtype=torch.float64)
    torch.testing.assert_close(beyond_lattice(step, lattice[None]), expected)
