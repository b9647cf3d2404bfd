"""Clusters as XYZ: what is written is read; molecules are told apart, put in one order, or refused by name."""

from pathlib import Path

import pytest
import torch

from nucleate.crystal.cluster import Cluster
from nucleate.crystal.cluster_xyz import cluster_text, read_cluster_xyz, read_trajectory
from nucleate.crystal.open_space import crystal_of_cluster, open_bonds
from nucleate.errors import InputError
from nucleate.geometry.so3 import kabsch, random_rotation

SYMBOLS = {1: "H", 6: "C", 8: "O", 10: "Ne"}
METHANOL = (
    [6, 8, 1, 1, 1, 1],
    [
        *([-0.748, -0.015, 0.024], [0.558, 0.420, -0.278], [-1.293, -0.202, -0.901]),
        *([-1.263, 0.754, 0.600], [-0.699, -0.934, 0.609], [0.983, -0.305, -0.812]),
    ],
)
ETHANE = (
    [6, 1, 1, 1, 6, 1, 1, 1],
    [
        *([0.0, 0.0, 0.0], [-0.36, 1.03, 0.0], [-0.36, -0.51, 0.89], [-0.36, -0.51, -0.89]),
        *([1.53, 0.0, 0.0], [1.89, -1.03, 0.0], [1.89, 0.51, -0.89], [1.89, 0.51, 0.89]),
    ],
)


def cluster_of(
    molecule: tuple[list[int], list[list[float]]], copies: int, apart: float, seed: int = 0
) -> Cluster:
    """Copies turned at random at the corners of a grid with an edge of `apart` Å."""
    generator = torch.Generator().manual_seed(seed)
    numbers, local = torch.tensor(molecule[0]), torch.tensor(molecule[1], dtype=torch.float64)
    index = torch.arange(copies)
    place = apart * torch.stack([index % 3, index // 3 % 3, index // 9], 1).double()
    turn = random_rotation(copies, generator=generator)
    return Cluster(numbers, local @ turn.mT + place[:, None], "x", open_bonds(numbers, local))


def plain_xyz(numbers: torch.Tensor, positions: torch.Tensor) -> str:
    lines = [f"{SYMBOLS[z]} {x} {y} {w}" for z, (x, y, w) in zip(numbers.tolist(), positions.tolist())]
    return "\n".join([str(len(lines)), "", *lines, ""])


@pytest.mark.parametrize("molecule", [METHANOL, ETHANE], ids=["methanol", "ethane"])
@pytest.mark.parametrize("apart", [6.0, 1.2], ids=["apart", "in each other"])
def test_what_is_written_is_read(molecule, apart: float, tmp_path: Path) -> None:
    """With the column of molecules, and without it where the copies are listed in a row."""
    cluster = cluster_of(molecule, 7, apart)
    path = tmp_path / "x.xyz"
    bonds = {tuple(sorted(b)) for b in cluster.bonds.tolist()}
    for text in (
        cluster_text(cluster, [cluster.positions], [{"time": 1.0}]),
        plain_xyz(cluster.numbers.repeat(7), cluster.positions.flatten(0, 1)),
    ):
        path.write_text(text)
        found = read_cluster_xyz(path, 7)
        torch.testing.assert_close(found.positions, cluster.positions, atol=1e-6, rtol=0)
        assert torch.equal(found.numbers, cluster.numbers)
        assert {tuple(sorted(b)) for b in found.bonds.tolist()} == bonds


def test_atoms_in_any_order_make_congruent_copies(tmp_path: Path) -> None:
    cluster = cluster_of(METHANOL, 5, 7.0)
    generator = torch.Generator().manual_seed(3)
    order = torch.randperm(30, generator=generator)
    path = tmp_path / "mixed.xyz"
    path.write_text(plain_xyz(cluster.numbers.repeat(5)[order], cluster.positions.flatten(0, 1)[order]))
    found = read_cluster_xyz(path, 17)
    assert found.positions.shape == cluster.positions.shape
    first = found.positions[:1].expand_as(found.positions)
    assert float(kabsch(first, found.positions, allow_mirror=True).rmsd.max()) < 1e-6
    atoms = torch.cdist(found.positions.flatten(0, 1), cluster.positions.flatten(0, 1)).amin(0)
    assert float(atoms.max()) < 1e-6  # every atom is where it was


def test_frames_of_a_trajectory(tmp_path: Path) -> None:
    cluster = cluster_of(METHANOL, 3, 6.0)
    frames = [cluster.positions + k for k in range(4)]
    path = tmp_path / "t.xyz"
    path.write_text(cluster_text(cluster, frames, [{"time": k / 3} for k in range(4)]))
    numbers, found = read_trajectory(path, 3)
    assert torch.equal(numbers, cluster.numbers)
    torch.testing.assert_close(found, torch.stack(frames), atol=1e-6, rtol=0)


def test_a_cluster_is_a_crystal_that_is_all_gap() -> None:
    cluster = cluster_of(ETHANE, 4, 6.0)
    crystal = crystal_of_cluster(cluster)
    assert crystal.n_molecules == 4
    assert len(crystal.bonds) == 4 * len(cluster.bonds)
    torch.testing.assert_close(torch.pdist(crystal.positions), torch.pdist(cluster.positions.flatten(0, 1)))


def several_kinds() -> str:
    a, b = cluster_of(METHANOL, 2, 9.0), cluster_of(ETHANE, 2, 9.0)
    numbers = torch.cat([a.numbers.repeat(2), b.numbers.repeat(2)])
    return plain_xyz(numbers, torch.cat([a.positions.flatten(0, 1), b.positions.flatten(0, 1) + 30]))


def isomers() -> str:
    """Dimethyl ether among ethanols: equal formulas, other bonds."""
    numbers = torch.tensor([8, 6, 6, 1, 1, 1, 1, 1, 1])
    ether = [[0, 0, 0], [1.2, 0.75, 0], [-1.2, 0.75, 0], [2.0, 0, 0], [1.2, 1.4, 0.9], [1.2, 1.4, -0.9]]
    ether += [[-2.0, 0, 0], [-1.2, 1.4, 0.9], [-1.2, 1.4, -0.9]]
    ethanol = [[0, 0, 0], [1.2, 0.75, 0], [2.5, 0, 0], [-0.8, 0.6, 0], [1.2, 1.4, 0.9], [1.2, 1.4, -0.9]]
    ethanol += [[3.3, 0.75, 0], [2.6, -0.65, 0.9], [2.6, -0.65, -0.9]]
    both = torch.tensor([ether, ethanol], dtype=torch.float64)
    both[1, :, 0] += 15
    return plain_xyz(numbers.repeat(2), both.flatten(0, 1))


REFUSED = {
    "several kinds": (several_kinds, "2 of CH4O, 2 of C2H6"),
    "isomers": (isomers, "1 of C2H6O, 1 of C2H6O"),
    "one molecule": (lambda: plain_xyz(torch.tensor(METHANOL[0]), torch.tensor(METHANOL[1])), "got one molecule"),
    "single atoms": (lambda: plain_xyz(torch.tensor([10, 10]), torch.eye(2, 3) * 5), "2 single atoms"),
    "not a number": (lambda: plain_xyz(torch.tensor([6, 8]), torch.tensor([[0.0, 0, 0], [1, torch.nan, 0]])), "NaN"),
    "empty": (lambda: "\n \n", "empty file"),
    "no XYZ": (lambda: "nonsense\nx\ny\n", "cannot be read"),
    "cut off": (lambda: "9\n\nC 0 0 0\n", "cannot be read"),
    "clash": (
        lambda: plain_xyz(
            torch.tensor(METHANOL[0]).repeat(3), cluster_of(METHANOL, 3, 0.3).positions.flatten(0, 1)
        ),
        "--molecules",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_cluster_is_refused_by_name(name: str, tmp_path: Path) -> None:
    make, says = REFUSED[name]
    path = tmp_path / "given.xyz"
    path.write_text(make())
    with pytest.raises(InputError, match="expected") as error:
        read_cluster_xyz(path, 17)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="existing file"):
        read_cluster_xyz(tmp_path / "none.xyz", 17)
