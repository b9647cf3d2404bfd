"""Conformers read back as they were written: graph, stereo, order of atoms, positions, energies, split."""

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet
import pytest
import torch
from rdkit import Chem
from rdkit.Chem import rdDistGeom

from nucleate.crystal.io import read_molecule
from nucleate.crystal.molecule import Molecule
from nucleate.crystal.stereo import right_stereo
from nucleate.data.conformers import (
    KIND,
    ConformerSet,
    boltzmann,
    read_conformer_splits,
    read_conformers,
    to_row,
    write_conformers,
)
from nucleate.data.packed import write_shard
from nucleate.data.splits import split_of
from nucleate.errors import InputError

SOME = {
    "ethanol": "CCO",
    "alanine": "C[C@H](N)C(=O)O",
    "ring": "C[C@H]1CC[C@@H](C)CC1",  # centres without labels of their own
    "butene": "C/C=C\\C",
    "imine": "C/C=N/O",
    "diazene": "[H]/N=N/C",
    "sulphoxide": "CC[S@](=O)C",
    "zwitterion": "C[C@H]([NH3+])C(=O)[O-]",
    "nitro": "C[N+](=O)[O-]",
    "hydrogen": "[H][H]",
}


def embedded(smiles: str, n: int = 3, seed: int = 1) -> Molecule:
    [molecule] = read_molecule(smiles)
    graph = Chem.Mol(molecule.graph)
    ids = list(rdDistGeom.EmbedMultipleConfs(graph, n, randomSeed=seed))
    return molecule.with_conformers(
        torch.stack([torch.from_numpy(graph.GetConformer(i).GetPositions()) for i in ids])
    )


def made(smiles: str, n: int = 3, seed: int = 1, source: str = "test") -> ConformerSet:
    energies = 0.02 * torch.arange(n, dtype=torch.float64)
    return ConformerSet(embedded(smiles, n, seed), energies, boltzmann(energies), source)


def scrambled(own: ConformerSet, seed: int = 0) -> ConformerSet:
    """The same molecule with its atoms in another order."""
    order = torch.randperm(len(own.molecule), generator=torch.Generator().manual_seed(seed)).tolist()
    graph = Chem.RenumberAtoms(own.molecule.graph, order)
    return replace(own, molecule=Molecule(graph, own.molecule.conformers[:, order], own.molecule.name))


@pytest.mark.parametrize("name", SOME)
def test_shards_give_back_what_was_written(name: str, tmp_path: Path) -> None:
    before = scrambled(made(SOME[name]))
    write_conformers([before], tmp_path / "0.parquet", {"split": "val"})
    [after] = read_conformers(tmp_path)
    assert (after.source, after.key, after.molecule.name) == ("test", before.key, before.molecule.name)
    assert after.molecule.smiles == before.molecule.smiles == Chem.CanonSmiles(SOME[name])
    assert after.molecule.charge == before.molecule.charge
    torch.testing.assert_close(after.energies, before.energies)
    torch.testing.assert_close(after.weights, before.weights)
    order = before.molecule.graph.GetSubstructMatch(after.molecule.graph, useChirality=True)
    assert after.molecule.numbers.tolist() == before.molecule.numbers[list(order)].tolist()
    assert right_stereo(after.molecule.graph, after.molecule.conformers).all()
    distances = [
        torch.cdist(x, x).flatten(1).sort(1).values
        for x in (before.molecule.conformers, after.molecule.conformers)
    ]
    torch.testing.assert_close(*distances, atol=2e-6, rtol=0)
    bonds = [
        (m.conformers[:, m.bonds[:, 0]] - m.conformers[:, m.bonds[:, 1]]).norm(dim=-1).amax()
        for m in (before.molecule, after.molecule)
    ]
    torch.testing.assert_close(*bonds, atol=2e-6, rtol=0)


@pytest.mark.parametrize("name", ["alanine", "ring", "butene", "imine", "diazene", "sulphoxide"])
def test_other_stereo_is_noticed(name: str, tmp_path: Path) -> None:
    """The mirror image of a centre, or the other side of a double bond, whatever the order of atoms."""
    other = {
        "alanine": "C[C@@H](N)C(=O)O", "ring": "C[C@H]1CC[C@H](C)CC1", "butene": "C/C=C/C", "imine": "C/C=N\\O",
        "diazene": "[H]/N=N\\C", "sulphoxide": "CC[S@@](=O)C",
    }[name]  # fmt: skip
    right, wrong = made(SOME[name]), made(other)
    assert right_stereo(right.molecule.graph, right.molecule.conformers).all()
    assert not right_stereo(right.molecule.graph, wrong.molecule.conformers).any()
    mixed = scrambled(replace(right, molecule=right.molecule.with_conformers(wrong.molecule.conformers)))
    with pytest.raises(InputError) as refused:
        to_row(mixed)
    assert refused.value.reason == "lost stereo"


def test_what_is_not_known_stays_so(tmp_path: Path) -> None:
    energies = torch.full((3,), torch.nan, dtype=torch.float64)
    write_conformers([replace(made("CCO"), energies=energies)], tmp_path / "0.parquet", {})
    assert next(read_conformers(tmp_path)).energies.isnan().all()


def test_weights_are_those_of_boltzmann() -> None:
    kt = 0.025692579  # eV at 298.15 K
    weights = boltzmann(kt * torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64))
    assert float(weights.sum()) == pytest.approx(1)
    torch.testing.assert_close((weights[:2] / weights[1:]).log(), torch.ones(2).double(), atol=1e-6, rtol=0)
    assert boltzmann(torch.tensor([0.0, torch.nan]).double()).tolist() == [0.5, 0.5]


def test_splits_are_those_of_the_shards_or_of_the_key(tmp_path: Path) -> None:
    sets = [made(smiles) for smiles in SOME.values()]
    write_conformers(sets, tmp_path / "plain" / "0.parquet", {})
    found = {
        own.key: split for split, some in read_conformer_splits(tmp_path / "plain").items() for own in some
    }
    assert found == {own.key: split_of(own.key) for own in sets}
    write_conformers(sets[:4], tmp_path / "named" / "train" / "0.parquet", {"split": "train"})
    held = made("CCO", seed=5)  # as sets[0]
    write_conformers([held, sets[4]], tmp_path / "named" / "test" / "0.parquet", {"split": "test"})
    counts = {split: len(some) for split, some in read_conformer_splits(tmp_path / "named").items()}
    assert counts == {"train": 3, "test": 3}
    write_conformers(sets[:1], tmp_path / "named" / "test" / "1.parquet", {"split": "val"})
    with pytest.raises(InputError, match="one split"):
        read_conformer_splits(tmp_path / "named")


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found none"):
        next(read_conformers(tmp_path))
    write_shard([], tmp_path / "0.parquet", {})
    with pytest.raises(InputError, match="other columns"):
        next(read_conformers(tmp_path))
    (tmp_path / "0.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="expected a shard of conformers"):
        next(read_conformers(tmp_path))
    write_conformers([made("CCO")], tmp_path / "0.parquet", {})
    whole = (tmp_path / "0.parquet").read_bytes()
    (tmp_path / "0.parquet").write_bytes(whole[:100] + bytes(200) + whole[300:])
    with pytest.raises(InputError, match="expected a shard of conformers"):
        list(read_conformers(tmp_path))


def test_rows_that_contradict_themselves_are_refused(tmp_path: Path) -> None:
    row = to_row(made("CCO"))
    for name, value in (("positions", row["positions"][:-3]), ("weights", [0.9, 0.9, 0.9])):
        table = pyarrow.Table.from_pylist([row | {name: value}], schema=KIND.schema)
        KIND.write(table, tmp_path / "0.parquet", {})
        with pytest.raises(InputError, match="contradicts itself"):
            next(read_conformers(tmp_path))


def test_a_set_needs_conformers_energies_and_weights() -> None:
    own = made("CCO")
    with pytest.raises(ValueError, match="at least one"):
        replace(own, molecule=own.molecule.with_conformers(own.molecule.conformers[:2]))
    with pytest.raises(ValueError, match="add up to 1"):
        replace(own, weights=torch.ones(3).double())
