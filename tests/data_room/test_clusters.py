"""Clusters are pieces of their crystals, loosening is rigid, and files give back what was written."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rdkit import Chem

from nucleate.crystal.cluster import Cluster, ClusterBatch
from nucleate.crystal.crystal import Crystal
from nucleate.crystal.io import read_crystal
from nucleate.crystal.rigid import species_from_crystal
from nucleate.crystal.standardise import represent_symmetric
from nucleate.data import clusters as module
from nucleate.data.cluster_files import (
    FINAL,
    FINAL_END,
    INITIAL,
    INITIAL_END,
    ClusterRecord,
    about_clusters,
    published_names,
    read_cluster_splits,
    read_clusters,
    read_published,
    write_clusters,
)
from nucleate.data.clusters import (
    Loosening,
    cluster_of,
    cluster_of_packing,
    evaluation_copies,
    loosened,
    nearest_images,
)
from nucleate.data.packed import PackedCrystal, to_row, write_shard
from nucleate.data.splits import split_of
from nucleate.errors import InputError
from nucleate.geometry.so3 import kabsch, random_rotation, rotation_log
from nucleate.metrics.heavy_molecules import molecule_key

DATA = Path(__file__).parents[1] / "data"
URO, SALT = DATA / "cod_1100989.cif", DATA / "cod_2003526.cif"
FIXTURES = sorted(set(DATA.glob("cod_*.cif")) - {SALT})


@pytest.fixture(scope="module")
def crystals() -> dict[str, Crystal]:
    return {path.stem: read_crystal(path) for path in FIXTURES}


@pytest.fixture(scope="module")
def clusters(crystals: dict[str, Crystal]) -> dict[str, Cluster]:
    return {name: cluster_of(crystal) for name, crystal in crystals.items()}


def by_distance(crystal: Crystal, reach: int = 4) -> torch.Tensor:
    """Sorted distances (Å) of all images of centroids within many cells from molecule 0."""
    cells = torch.cartesian_prod(*[torch.arange(-reach, reach + 1).double()] * 3)
    step = (crystal.centroids - crystal.centroids[0])[:, None] + cells
    return (step @ crystal.lattice).norm(dim=-1).flatten().sort().values


def off_lattice(crystal: Crystal, cluster: Cluster) -> torch.Tensor:
    """Å, of each atom of a cluster to the nearest equal atom of the crystal, images included."""
    moved = cluster.positions + crystal.centroids[0] @ crystal.lattice
    frac = moved.flatten(0, 1) @ torch.linalg.inv(crystal.lattice)
    step = frac[:, None] - crystal.frac
    far = ((step - step.round()) @ crystal.lattice).norm(dim=-1)
    unlike = cluster.numbers.repeat(cluster.n_molecules)[:, None] != crystal.numbers
    return (far + 1e3 * unlike).min(1).values


# ---------------------------------------------------------------- crystal -> cluster


@pytest.mark.parametrize("name", [p.stem for p in FIXTURES])
def test_a_cluster_is_the_nearest_molecules_of_its_crystal(
    name: str, crystals: dict[str, Crystal], clusters: dict[str, Cluster]
) -> None:
    crystal, cluster = crystals[name], clusters[name]
    assert cluster.n_molecules == 17
    distance = cluster.centroids.norm(dim=-1)
    torch.testing.assert_close(distance, by_distance(crystal)[:17], atol=2e-4, rtol=0)
    assert float(off_lattice(crystal, cluster).max()) < 1e-6
    assert len(torch.unique(cluster.centroids.mul(1e3).round(), dim=0)) == 17


@pytest.mark.parametrize("name", [p.stem for p in FIXTURES])
def test_copies_correspond_atom_by_atom(name: str, clusters: dict[str, Cluster]) -> None:
    cluster = clusters[name]
    x = cluster.positions
    assert float(kabsch(x, x[:1].expand_as(x), allow_mirror=True).rmsd.max()) < 0.02
    start, end = x[:, cluster.bonds[:, 0]], x[:, cluster.bonds[:, 1]]
    assert float((start - end).norm(dim=-1).max()) < 2.0
    assert len(cluster.bonds) >= len(cluster.numbers) - 1


def test_the_choice_of_cell_does_not_matter(crystals: dict[str, Crystal]) -> None:
    crystal = crystals[URO.stem]
    other = torch.tensor([[1, 0, 0], [3, 1, 0], [-2, 0, 1]], dtype=torch.float64)
    sheared = crystal.replace(lattice=other @ crystal.lattice, frac=crystal.frac @ torch.linalg.inv(other))
    a, b = (torch.cdist(c.centroids, c.centroids) for c in (cluster_of(crystal), cluster_of(sheared)))
    torch.testing.assert_close(b[0], a[0], atol=2e-4, rtol=0)
    torch.testing.assert_close(b.sum(), a.sum(), atol=1e-2, rtol=0)


def test_ties_are_broken_by_number_and_not_by_rounding(crystals: dict[str, Crystal]) -> None:
    """A screw axis and a threefold one bring neighbours equally far; noise far below `TIE` leaves the order alone."""
    for name in (URO.stem, "cod_2000380"):
        crystal = crystals[name]
        noise = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        shaken = crystal.lattice + 1e-9 * noise
        first, again = (
            nearest_images(cell, crystal.centroids @ cell, 17) for cell in (crystal.lattice, shaken)
        )
        assert torch.equal(first[0], again[0])
        assert torch.equal(first[1], again[1])
        far = ((crystal.centroids[first[0]] + first[1] - crystal.centroids[0]) @ shaken).norm(dim=-1)
        assert (far.diff() < 0).any()  # there are ties that rounding would have broken otherwise


@pytest.mark.parametrize("seed", range(12))
def test_no_image_is_overlooked(seed: int) -> None:
    """In skewed and flat cells, with molecules listed many cells away."""
    g = torch.Generator().manual_seed(seed)
    edges = torch.diag(3 + 30 * torch.rand(3, dtype=torch.float64, generator=g) ** 2)
    lattice = edges @ (torch.eye(3) + torch.tril(torch.rand(3, 3, dtype=torch.float64, generator=g), -1))
    frac = torch.rand(1 + seed % 3, 3, dtype=torch.float64, generator=g)
    away = torch.randint(-20, 20, (len(frac), 3), generator=g)
    molecule, shift = nearest_images(lattice, (frac + away) @ lattice, 17)
    found = (((frac + away)[molecule] + shift - frac[0] - away[0]) @ lattice).norm(dim=-1)
    cells = torch.cartesian_prod(*[torch.arange(-12.0, 13.0, dtype=torch.float64)] * 3)
    every = ((frac[:, None] + cells - frac[0]) @ lattice).norm(dim=-1).flatten().sort().values
    torch.testing.assert_close(found, every[:17], atol=1e-4, rtol=0)
    assert (molecule[0], shift[0].tolist()) == (0, [0, 0, 0])


def test_copies_that_are_nearly_alike_keep_their_own_shapes(crystals: dict[str, Crystal]) -> None:
    """Atoms moved by less than the tolerance of the symmetry stay where they are, to the last digit."""
    crystal = crystals[URO.stem]
    noise = torch.randn(crystal.frac.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    shaken = crystal.replace(frac=crystal.frac + 1e-4 * noise @ torch.linalg.inv(crystal.lattice))
    cluster = cluster_of(shaken)
    x = cluster.positions
    assert float(off_lattice(shaken, cluster).max()) < 1e-9
    assert float(kabsch(x, x[:1].expand_as(x), allow_mirror=True).rmsd.max()) > 1e-5


def test_a_flat_cell_is_searched_far_enough() -> None:
    lattice = torch.diag(torch.tensor([3.0, 40.0, 50.0], dtype=torch.float64))
    _, shift = nearest_images(lattice, torch.zeros(1, 3, dtype=torch.float64), 17)
    assert sorted(shift[:, 0].tolist()) == list(range(-8, 9))
    assert (shift[:, 1:] == 0).all()


@pytest.mark.parametrize("name", [p.stem for p in FIXTURES])
def test_a_packing_gives_the_cluster_of_its_crystal(name: str, crystals: dict[str, Crystal]) -> None:
    """Bodies on special positions too; equal up to which of equally far neighbours is taken."""
    packing, _ = represent_symmetric(crystals[name], own=True)
    cluster = cluster_of_packing(packing, "name")
    torch.testing.assert_close(
        cluster.centroids.norm(dim=-1), by_distance(crystals[name])[:17], atol=1e-3, rtol=0
    )
    x = cluster.positions
    assert float(kabsch(x, x[:1].expand_as(x), allow_mirror=True).rmsd.max()) < 0.05
    assert cluster.name == "name"


def argon() -> Crystal:
    return Crystal(
        lattice=5.3 * torch.eye(3, dtype=torch.float64),
        frac=torch.tensor([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]], dtype=torch.float64),
        numbers=torch.full((4,), 18),
        molecule=torch.arange(4),
        bonds=torch.zeros(0, 2, dtype=torch.long),
    )


def one_moved(by: float) -> Crystal:
    """The crystal without its symmetry: one molecule is moved by so many Å."""
    crystal = read_crystal(URO)
    step = by * torch.ones(3, dtype=torch.float64) @ torch.linalg.inv(crystal.lattice)
    return crystal.replace(frac=crystal.frac + (crystal.molecule == 0)[:, None] * step)


def one_bent() -> Crystal:
    """One atom of molecule 0 is far from where it is in the others."""
    crystal = read_crystal(URO)
    step = torch.tensor([1.5, 0, 0], dtype=torch.float64) @ torch.linalg.inv(crystal.lattice)
    atom = torch.nonzero(crystal.molecule == 0)[:1]
    return crystal.replace(frac=crystal.frac.index_add(0, atom.flatten(), step[None]))


@pytest.mark.parametrize(
    ("crystal", "reason"),
    [
        (lambda: read_crystal(SALT), "several kinds"),
        (lambda: one_moved(0.4), "Z' above 1"),
        (argon, "single atoms"),
        (lambda: read_crystal(URO).replace(bonds=torch.zeros(0, 2, dtype=torch.long)), "no bonds"),
    ],
    ids=["salt", "Z'", "argon", "no bonds"],
)
def test_other_crystals_are_refused_by_name(crystal: object, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        cluster_of(crystal())  # type: ignore[operator]
    assert caught.value.reason == reason


def test_copies_of_several_shapes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Symmetry within a tolerance does not make copies congruent."""
    found = module.find_symmetry(read_crystal(URO))
    monkeypatch.setattr(module, "find_symmetry", lambda crystal: found)
    with pytest.raises(InputError, match="one shape") as caught:
        cluster_of(one_bent())
    assert caught.value.reason == "other conformers"


def test_a_cluster_of_nothing_is_refused(crystals: dict[str, Crystal]) -> None:
    with pytest.raises(InputError, match="size of 0"):
        cluster_of(crystals[URO.stem], size=0)


# ---------------------------------------------------------------- loosening


@pytest.fixture(scope="module")
def batch(clusters: dict[str, Cluster]) -> ClusterBatch:
    return ClusterBatch.from_list(list(clusters.values()))


def shake(batch: ClusterBatch, how: Loosening, seed: int = 0) -> torch.Tensor:
    return loosened(batch.positions, batch.mask, torch.Generator().manual_seed(seed), how)


@pytest.mark.parametrize("inversion", [False, True])
def test_loosening_is_rigid_and_leaves_padding_alone(batch: ClusterBatch, inversion: bool) -> None:
    loose = shake(batch, Loosening(inversion=inversion))
    assert (loose.transpose(1, 2)[~batch.mask] == 0).all()
    pairs = (batch.mask[:, None, :, None] & batch.mask[:, None, None, :]).expand(-1, 17, -1, -1)
    before, after = torch.cdist(batch.positions, batch.positions), torch.cdist(loose, loose)
    torch.testing.assert_close(after[pairs], before[pairs], atol=1e-5, rtol=0)
    assert float((loose - batch.positions).norm(dim=-1).mean()) > 1.0


def test_no_loosening_changes_nothing(batch: ClusterBatch) -> None:
    torch.testing.assert_close(shake(batch, Loosening(translation=0, rotation=0)), batch.positions)


def test_padding_does_not_change_what_is_drawn(clusters: dict[str, Cluster], batch: ClusterBatch) -> None:
    """The first cluster alone, unpadded: the same motions, as they are drawn cluster by cluster."""
    alone = ClusterBatch.from_list(list(clusters.values())[:1])
    padded = batch[:1]
    assert padded.numbers.shape > alone.numbers.shape
    how = Loosening(inversion=True)
    torch.testing.assert_close(shake(padded, how)[:, :, : alone.numbers.shape[1]], shake(alone, how))


def test_sizes_are_those_asked_for() -> None:
    g = torch.Generator().manual_seed(1)
    positions = torch.randn(1, 1, 6, 3, dtype=torch.float64, generator=g).expand(1, 4000, 6, 3)
    mask = torch.ones(1, 6, dtype=torch.bool)
    how = Loosening(translation=1.5, rotation=0.4, inversion=True)
    loose = loosened(positions, mask, g, how)
    fit = kabsch(positions[0], loose[0], allow_mirror=True)
    assert float(fit.rmsd.max()) < 1e-6
    step = loose[0].mean(1) - positions[0].mean(1)
    torch.testing.assert_close(step.std(0), torch.full((3,), 1.5, dtype=torch.float64), rtol=0.06, atol=0)
    assert abs(float(fit.mirrored.double().mean()) - 0.5) < 0.04
    vector = rotation_log(torch.where(fit.mirrored[:, None, None], -fit.rotation, fit.rotation))
    assert float(vector.square().sum(-1).mean().sqrt()) == pytest.approx(0.4, rel=0.06)
    axis = torch.nn.functional.normalize(vector, dim=-1)
    torch.testing.assert_close(
        axis.mT @ axis / len(axis), torch.eye(3, dtype=torch.float64) / 3, atol=0.03, rtol=0
    )


def test_inversion_adds_mirrors_and_moves_nothing_else(batch: ClusterBatch) -> None:
    plain, mirrored = (shake(batch, Loosening(inversion=i)) for i in (False, True))
    arms = [x - ClusterBatch(batch.numbers, x).centroids[:, :, None] for x in (plain, mirrored)]
    arms = [torch.where(batch.mask[:, None, :, None], a, 0.0) for a in arms]
    same, opposite = ((arms[1] - s * arms[0]).abs().amax((2, 3)) < 1e-9 for s in (1, -1))
    assert (same ^ opposite).all()
    assert 0.3 < float(opposite.double().mean()) < 0.7


def test_evaluation_copies_are_those_of_a_name_and_a_seed(clusters: dict[str, Cluster]) -> None:
    some = list(clusters.values())
    how = Loosening()
    once, again = evaluation_copies(some, how, 3), evaluation_copies(some[::-1], how, 3)[::-1]
    assert all(torch.equal(a.positions, b.positions) for a, b in zip(once, again))
    other = evaluation_copies(some[:1], how, 4)[0]
    renamed = evaluation_copies([replace(some[0], name="another")], how, 3)[0]
    assert not torch.equal(once[0].positions, other.positions)
    assert not torch.equal(once[0].positions, renamed.positions)


# ---------------------------------------------------------------- parquet


def test_shards_give_back_what_was_written(clusters: dict[str, Cluster], tmp_path: Path) -> None:
    some = list(clusters.values())
    loose = evaluation_copies(some, Loosening(), 0)
    records = [ClusterRecord(c, x if i % 2 else None) for i, (c, x) in enumerate(zip(some, loose))]
    write_clusters(records, tmp_path / "0.parquet", {"split": "val"})
    back = list(read_clusters(tmp_path))
    assert len(back) == len(records)
    for before, after in zip(records, back):
        assert after.cluster.name == before.cluster.name
        assert torch.equal(after.cluster.numbers, before.cluster.numbers)
        assert torch.equal(after.cluster.bonds, before.cluster.bonds)
        torch.testing.assert_close(after.cluster.positions, before.cluster.positions, atol=1e-5, rtol=0)
        assert (after.loose is None) == (before.loose is None)
        if after.loose is not None and before.loose is not None:
            torch.testing.assert_close(after.loose.positions, before.loose.positions, atol=1e-5, rtol=0)
    assert {split: len(own) for split, own in read_cluster_splits(tmp_path).items()} == {"val": len(back)}
    assert about_clusters(tmp_path / "0.parquet") == {"split": "val"}


def test_without_a_split_the_molecule_decides(clusters: dict[str, Cluster], tmp_path: Path) -> None:
    records = [ClusterRecord(c) for c in clusters.values()]
    write_clusters(records, tmp_path / "0.parquet", {})
    found = {r.key: split for split, own in read_cluster_splits(tmp_path).items() for r in own}
    assert found == {r.key: split_of(r.key) for r in records}


@pytest.mark.parametrize("name", [p.stem for p in FIXTURES])
def test_keys_are_those_of_data_sets_of_crystals(
    name: str, crystals: dict[str, Crystal], clusters: dict[str, Cluster]
) -> None:
    assert ClusterRecord(clusters[name]).key == molecule_key(species_from_crystal(crystals[name])[0])


def test_hydrogen_has_a_key() -> None:
    pair = Cluster(torch.tensor([1, 1]), torch.rand(3, 2, 3), bonds=torch.tensor([[0, 1]]))
    assert Chem.MolFromSmiles(ClusterRecord(pair).key, sanitize=False).GetNumAtoms() == 2


def test_files_of_another_kind_are_refused(crystals: dict[str, Crystal], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found none"):
        next(read_clusters(tmp_path))
    packing, _ = represent_symmetric(crystals[URO.stem], own=True)
    write_shard([to_row(PackedCrystal(packing, "a", "cod"))], tmp_path / "0.parquet", {})
    with pytest.raises(InputError, match="other columns"):
        next(read_clusters(tmp_path))
    (tmp_path / "0.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="expected a shard of clusters"):
        next(read_clusters(tmp_path))


# ---------------------------------------------------------------- COD-Cluster17


def write_csv(path: Path, cluster: Cluster, numbers: list[int]) -> None:
    """As published: molecules under the numbers given, one after the other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    symbols = [Chem.GetPeriodicTable().GetElementSymbol(int(z)) for z in cluster.numbers]
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["mol_idx", "element", "x", "y", "z"])
        for number, molecule in zip(numbers, cluster.positions.tolist()):
            table.writerows([number, s, *x] for s, x in zip(symbols, molecule))


@pytest.fixture
def published(clusters: dict[str, Cluster], tmp_path: Path) -> tuple[Path, Cluster, Cluster]:
    """A cluster turned, away from the origin and with its central molecule in the middle of the file."""
    order = torch.roll(torch.arange(17), 5)
    turn = random_rotation(generator=torch.Generator().manual_seed(0))
    final = clusters[URO.stem]
    final = final.with_positions((final.positions @ turn.mT + 7.0)[order])
    loose = evaluation_copies([final], Loosening(), 0)[0]
    write_csv(tmp_path / FINAL / f"100{FINAL_END}", final, list(range(17, 0, -1)))
    write_csv(tmp_path / INITIAL / f"100{INITIAL_END}", loose, list(range(17, 0, -1)))
    return tmp_path, final, loose


def test_published_folders_are_read(
    published: tuple[Path, Cluster, Cluster], clusters: dict[str, Cluster]
) -> None:
    folder, final, loose = published
    assert published_names(folder) == ["100"]
    record = read_published(folder, "100")
    order = torch.tensor([5, *range(5), *range(6, 17)])
    origin = final.centroids[5]
    torch.testing.assert_close(record.cluster.positions, final.positions[order] - origin)
    assert record.loose is not None
    torch.testing.assert_close(record.loose.positions, loose.positions[order] - origin)
    assert torch.equal(record.cluster.numbers, final.numbers)
    assert record.key == ClusterRecord(clusters[URO.stem]).key


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_published_files_that_disagree_are_refused(published: tuple[Path, Cluster, Cluster]) -> None:
    folder, _, _ = published
    final, noised = folder / FINAL / f"100{FINAL_END}", folder / INITIAL / f"100{INITIAL_END}"
    good = lines_of(final)

    def reason() -> str:
        with pytest.raises(InputError) as caught:
            read_published(folder, "100")
        return caught.value.reason

    for bad, why in (
        ([], "unreadable"),
        (good[:1], "unreadable"),
        ([*good[:-1], "1,Xx,0,0,0"], "unreadable"),
        ([*good[:-1], "1,H,nan,0,0"], "unreadable"),
        ([*good[:-1], "1,H,0,0"], "unreadable"),
        (good[:-1], "other molecules"),
        ([*good[:2], good[3], good[2], *good[4:]], "other molecules"),
        (good[: 1 + 16 * 14], "other molecules"),
    ):
        final.write_text("\n".join(bad))
        assert reason() == why, bad[-1:]
    final.write_text("\n".join(good))
    noised.unlink()
    assert reason() == "no partner"
    with pytest.raises(InputError, match="found no FinalPositions"):
        published_names(folder / FINAL)
