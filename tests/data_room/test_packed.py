"""Rows and shards hold a crystal completely; what is no shard is refused."""

from dataclasses import replace
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import torch
from rdkit import Chem

from nucleate.crystal.graph import build_graph
from nucleate.crystal.molecule import Molecule
from nucleate.crystal.packing import Packings
from nucleate.data.packed import (
    SCHEMA,
    PackedCrystal,
    about_shard,
    data_sets,
    from_row,
    read_crystals,
    read_keys,
    read_rows,
    shards,
    to_row,
    write_shard,
)
from nucleate.errors import InputError
from nucleate.geometry.so3 import random_rotation
from nucleate.geometry.symmetry import SpaceGroup

METHANE_WITH_FIVE = build_graph(
    [6, 1, 1, 1, 1, 1], [(0, k) for k in range(1, 6)]
)  # RDKit refuses its valence
GRAPHS = {
    "chiral": Chem.AddHs(Chem.MolFromSmiles("C[C@H](N)C(=O)O")),
    "aromatic": Chem.AddHs(Chem.MolFromSmiles("Cc1c[nH]c2ccccc12")),
    "ion": Chem.AddHs(Chem.MolFromSmiles("C[NH3+]")),
    "double bond": Chem.AddHs(Chem.MolFromSmiles("C/C=C/C")),
    "odd valence": METHANE_WITH_FIVE,
    "hydrogen": Chem.MolFromSmiles("[H][H]"),
}


def random_crystal(*graphs: Chem.Mol, bodies: int = 2, group: int = 14, seed: int = 0) -> Packings:
    """Bodies in any pose, of any handedness, no two with the same conformer."""
    g = torch.Generator().manual_seed(seed)
    species = tuple(
        Molecule(graph, 2 * torch.randn(bodies, graph.GetNumAtoms(), 3, dtype=torch.float64, generator=g))
        for graph in graphs
    )
    kind = torch.arange(bodies) % len(graphs)
    lattice = torch.diag(torch.tensor([9.0, 12.0, 15.0], dtype=torch.float64))
    return Packings(
        species=species,
        group=SpaceGroup.from_name(group),
        kind=kind,
        lattice=(lattice + 0.1 * torch.randn(3, 3, dtype=torch.float64, generator=g))[None],
        centroid=torch.rand(1, bodies, 3, dtype=torch.float64, generator=g),
        rotation=random_rotation(1, bodies, generator=g),
        handedness=torch.tensor([[1 if m % 2 else -1 for m in range(bodies)]]),
        conformer=torch.randperm(bodies, generator=g)[None],
    )


def sorted_atoms(packing: Packings) -> tuple[torch.Tensor, torch.Tensor]:
    """Elements and positions of the asymmetric unit by x: whatever the order of the atoms."""
    positions = packing.positions()[0]
    order = positions[:, 0].argsort()
    return packing.numbers[order], positions[order]


def assert_same(back: Packings, packing: Packings) -> None:
    for found, wanted in zip(sorted_atoms(back), sorted_atoms(packing)):
        torch.testing.assert_close(found, wanted, atol=3e-6, rtol=0)
    assert torch.equal(back.group.rotations, packing.group.rotations)
    assert torch.equal(back.group.translations, packing.group.translations)
    assert (back.group.number, back.group.symbol) == (packing.group.number, packing.group.symbol)
    for mine, other in zip(back.species, packing.species):
        assert mine.formula == other.formula
        assert mine.charge == other.charge
        assert Chem.CanonSmiles(mine.smiles) == Chem.CanonSmiles(other.smiles)


@pytest.mark.parametrize("name", GRAPHS)
def test_a_row_holds_the_crystal(name: str) -> None:
    if name == "odd valence":
        packing = random_crystal(GRAPHS[name])
        back = from_row(to_row(PackedCrystal(packing, "a", "test"))).packing
        for found, wanted in zip(sorted_atoms(back), sorted_atoms(packing)):
            torch.testing.assert_close(found, wanted, atol=3e-6, rtol=0)
        return
    packing = random_crystal(GRAPHS[name], bodies=3)
    assert_same(from_row(to_row(PackedCrystal(packing, "a", "test"))).packing, packing)


def test_a_shard_holds_crystals_of_several_species_and_everything_else(tmp_path: Path) -> None:
    first = PackedCrystal(
        random_crystal(GRAPHS["chiral"], GRAPHS["aromatic"], bodies=4, group=19), "1", "cod"
    )
    second = PackedCrystal(random_crystal(GRAPHS["ion"], bodies=1, group=61), "2-0", "x", -55.5, 1.25, 7)
    write_shard([to_row(first), to_row(second)], tmp_path / "00000.parquet", {"made": "by hand"})
    back = list(read_crystals(tmp_path))
    for found, wanted in zip(back, (first, second), strict=True):
        assert_same(found.packing, wanted.packing)
        for name in ("id", "source", "energy", "above", "hits", "key"):
            assert getattr(found, name) == getattr(wanted, name), name
    assert about_shard(tmp_path / "00000.parquet") == {"made": "by hand"}
    assert read_keys(tmp_path) == {first.key, second.key}
    assert [row["id"] for row in read_rows(tmp_path, ["id"])] == ["1", "2-0"]


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    row = to_row(PackedCrystal(random_crystal(GRAPHS["chiral"], seed=3), "a", "test"))
    write_shard([row], tmp_path / "0.parquet", {})
    assert (
        next(read_rows(tmp_path)) == row
    )  # positions are rounded to single precision before, not by the file


def test_the_body_frame_is_kept() -> None:
    """Poses mean something only together with the frame that they turn."""
    packing = random_crystal(GRAPHS["chiral"])
    back = from_row(to_row(PackedCrystal(packing, "a", "test"))).packing
    for name in ("lattice", "centroid", "rotation", "handedness", "kind"):
        assert torch.equal(getattr(back, name), getattr(packing, name))
    mirrored = replace(packing, handedness=-packing.handedness)
    again = from_row(to_row(PackedCrystal(mirrored, "a", "test"))).packing
    torch.testing.assert_close(again.local(), -back.local())


def test_keys_know_molecules_without_hydrogens_and_stereo() -> None:
    def key(*smiles: str) -> str:
        graphs = [Chem.AddHs(Chem.MolFromSmiles(s)) for s in smiles]
        return PackedCrystal(random_crystal(*graphs), "a", "test").key

    assert key("C[C@H](N)C(=O)O") == key("C[C@@H]([NH3+])C(=O)[O-]")
    assert key("CC(N)C(=O)O") != key("CC(O)C(=O)O")
    assert key("CO", "O") == key("O", "CO")
    assert key("O") in key("CO", "O").split(".")


def test_columns_stay_as_they_are() -> None:
    """Data sets outlive versions."""
    assert SCHEMA.names == [
        "id", "source", "key", "smiles", "kind", "local", "lattice", "centroid", "rotation", "handedness",
        "number", "symbol", "rotations", "translations", "energy", "above", "hits",
    ]  # fmt: skip


def test_what_is_no_shard_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found none"):
        list(read_rows(tmp_path))
    (tmp_path / "0.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match="expected a shard"):
        list(read_rows(tmp_path))
    pyarrow.parquet.write_table(pyarrow.table({"cif": ["data_x"]}), tmp_path / "0.parquet")
    with pytest.raises(InputError, match="expected a shard"):
        read_keys(tmp_path)
    write_shard(
        [to_row(PackedCrystal(random_crystal(GRAPHS["ion"]), "a", "test"))], tmp_path / "0.parquet", {}
    )
    whole = (tmp_path / "0.parquet").read_bytes()
    (tmp_path / "0.parquet").write_bytes(b"\0" * 600 + whole[600:])  # the index at the end is fine
    with pytest.raises(InputError, match="expected a shard"):
        list(read_rows(tmp_path))


def test_sub_folders_are_data_sets_of_their_own(tmp_path: Path) -> None:
    row = to_row(PackedCrystal(random_crystal(GRAPHS["ion"]), "a", "test"))
    for place in ("train", "test"):
        write_shard([row], tmp_path / place / "0.parquet", {})
    (tmp_path / "notes").mkdir()
    assert shards(tmp_path) == []
    assert data_sets(tmp_path) == [tmp_path / "test", tmp_path / "train"]
    assert data_sets(tmp_path / "train") == [tmp_path / "train"]
    with pytest.raises(InputError, match=r"there is one in .*test or .*train$"):
        read_keys(tmp_path)
