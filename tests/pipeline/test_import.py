"""CIF files -> data sets: what is rebuilt is what was read, and nothing is left out without a reason."""

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.io import read_crystal, write_cif
from nucleate.crystal.packing import Packings
from nucleate.crystal.rigid import normalise_hydrogens
from nucleate.crystal.standardise import represent_symmetric
from nucleate.data.packed import from_row, read_crystals, read_rows, shards
from nucleate.data.splits import assign_splits, main_molecule, split_of
from nucleate.errors import InputError
from nucleate.metrics.heavy_molecules import heavy_keys
from nucleate.metrics.packing import PackingReference
from nucleate.pipeline import import_crystals as module
from nucleate.pipeline.import_crystals import (
    EXACT,
    RECORD,
    ImportSettings,
    farthest_atom,
    import_crystal,
    import_crystals,
    read_splits,
    represent_exactly,
)

DATA = Path(__file__).parents[1] / "data"
FIXTURES = sorted(DATA.glob("cod_*.cif"))
URO, SPECIAL, TWO = (DATA / f"cod_{n}.cif" for n in (1100989, 2000380, 2003526))
PROGRAM = Path(__file__).with_name("stand_in_import.py")


def crystal_of(path: Path) -> Crystal:
    return normalise_hydrogens(read_crystal(path))


def shaken(path: Path, by: float) -> Crystal:
    """Every atom moved by a normal distribution of this width in Å."""
    crystal = crystal_of(path)
    noise = torch.randn(len(crystal), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return crystal.replace(frac=crystal.frac + by * noise @ torch.linalg.inv(crystal.lattice))


# ------------------------------------------------------------------ one crystal


@pytest.mark.parametrize("path", FIXTURES, ids=lambda p: p.stem)
def test_build_of_represent_is_the_crystal(path: Path) -> None:
    crystal = crystal_of(path)
    imported = import_crystal(path, ImportSettings())
    packed = from_row(imported.row)
    rebuilt = packed.packing.crystal(0)
    assert farthest_atom(crystal, rebuilt) == imported.error < EXACT
    assert Counter(heavy_keys(rebuilt)) == Counter(heavy_keys(crystal))
    assert len(packed.packing.numbers) * len(packed.packing.group) == len(crystal)
    assert (packed.id, packed.source, packed.energy, packed.hits) == (path.stem, "cod", None, 0)


def test_another_judge_agrees() -> None:
    rebuilt = from_row(import_crystal(URO, ImportSettings()).row).packing.crystal(0)
    match = PackingReference(crystal_of(URO)).compare(rebuilt)
    assert match.is_match
    assert match.rmsd < EXACT


def test_symmetry_is_used() -> None:
    """A molecule on a threefold axis of a centred cell, and a cell of four copies."""
    assert (represent_exactly(crystal_of(URO)).n_bodies, len(represent_exactly(crystal_of(URO)).group)) == (
        1,
        4,
    )
    assert len(represent_exactly(crystal_of(SPECIAL)).group) == 9


def test_bodies_keep_conformers_that_are_nearly_equal() -> None:
    """Copies within 0.15 Å share a conformer elsewhere; here that would move atoms."""
    crystal = shaken(URO, 0.02)
    shared, residual = represent_symmetric(crystal)
    own, none = represent_symmetric(crystal, own=True)
    assert shared.n_bodies == own.n_bodies == 4
    assert len(shared.species[0].conformers) == 1
    assert residual.max() > 0.01
    assert farthest_atom(crystal, shared.crystal(0)) > 0.02
    assert float(none.max()) == 0
    assert farthest_atom(crystal, own.crystal(0)) < 1e-9
    for name in ("rotation", "handedness", "centroid"):
        assert torch.equal(getattr(own, name), getattr(shared, name))
    apart = own.species[0].conformers - shared.species[0].conformers
    assert apart.norm(dim=-1).max() < 0.2  # in the frame and the order of the shared conformer


def test_a_crystal_that_is_nearly_symmetric_stays_as_it_is() -> None:
    crystal = shaken(URO, 0.0005)
    lenient, _ = represent_symmetric(crystal, own=True)
    assert len(lenient.group) == 4
    assert farthest_atom(crystal, lenient.crystal(0)) > EXACT  # symmetry was found, and is not exact
    assert farthest_atom(crystal, represent_exactly(crystal).crystal(0)) < 0.1 * EXACT


def test_the_farthest_atom() -> None:
    crystal = crystal_of(URO)
    step = torch.zeros_like(crystal.frac)
    step[3] = torch.tensor([0.0, 0.03, 0.0], dtype=torch.float64) @ torch.linalg.inv(crystal.lattice)
    shifted = crystal.frac + torch.tensor([2.0, -1.0, 0.0], dtype=torch.float64)
    assert farthest_atom(crystal, crystal.replace(frac=shifted + step)) == pytest.approx(0.03, abs=1e-9)
    assert farthest_atom(crystal, crystal.replace(frac=shifted)) < 1e-9
    assert farthest_atom(crystal, crystal.replace(lattice=crystal.lattice * 1.01)) > 0.04
    other = crystal.numbers.clone()
    other[0] = 9
    assert farthest_atom(crystal, crystal.replace(numbers=other)) == math.inf
    doubled = crystal.frac.clone()
    carbons = torch.nonzero(crystal.numbers == 6).flatten()
    doubled[carbons[0]] = doubled[carbons[1]]
    assert farthest_atom(crystal, crystal.replace(frac=doubled)) == math.inf


@pytest.mark.parametrize(
    ("settings", "reason"), [({"largest": 13}, "too many atoms"), ({"bodies": 1}, "too many molecules")]
)
def test_limits(settings: dict[str, int], reason: str) -> None:
    with pytest.raises(InputError, match="asymmetric unit") as refused:
        import_crystal(TWO, ImportSettings(**settings))
    assert refused.value.reason == reason


def test_what_cannot_be_rebuilt_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(crystal: Crystal) -> Packings:
        packing = represent_exactly(crystal)
        return replace(packing, centroid=packing.centroid + 1e-4)

    monkeypatch.setattr(module, "represent_exactly", careless)
    with pytest.raises(InputError) as refused:
        import_crystal(TWO, ImportSettings())
    assert refused.value.reason == "not reproduced"


# ------------------------------------------------------------------ splits


def test_splits_by_hash_are_of_the_molecule_and_in_proportion() -> None:
    keys = [f"[C]{'[C]' * (k % 40)}[O]{'[N]' * (k // 40)}" for k in range(2000)]
    counts = Counter(map(split_of, keys))
    for name, share in (("train", 0.8), ("val", 0.1), ("test", 0.1)):
        assert counts[name] / 2000 == pytest.approx(share, abs=0.025)
    assert all(
        split_of(f"[O].{key}") == split_of(key) for key in keys[:200]
    )  # a hydrate goes with its molecule
    assert main_molecule("[C][O].[C][C][O].[O]") == "[C][C][O]"
    assert [split_of("[C]" * k) for k in range(1, 6)] == ["train", "test", "train", "train", "val"]


def test_a_table_is_obeyed_unless_it_puts_a_molecule_on_both_sides() -> None:
    keys = {"a": "[C][C]", "b": "[C][C].[O]", "c": "[N][N]", "d": "[N][N]", "e": "[F]"}
    table = {"a": "train", "b": "val", "c": "test", "d": "train", "e": "train"}
    split, moved = assign_splits(keys, table)
    assert split == {"a": "val", "b": "val", "c": "test", "d": "test", "e": "train"}
    assert moved == ["a", "d"]
    assert assign_splits({}, table) == ({}, [])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("id,split\na,train\n", "columns cod_id and split"),
        ("cod_id,split\na,../up\n", "splits name folders"),
        ("cod_id,split\na\n", "splits name folders"),
        ("", "got none"),
    ],
)
def test_tables_that_are_none(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "splits.csv").write_text(text)
    with pytest.raises(InputError, match=says):
        read_splits(tmp_path / "splits.csv")


# ------------------------------------------------------------------ folders


def test_every_file_is_accounted_for(tmp_path: Path) -> None:
    given = tmp_path / "cif"
    given.mkdir()
    text = URO.read_text()
    for name, content in {
        "good": text,
        "empty": "",
        "rubbish": "what is this",
        "bare": "\n".join(line for line in text.splitlines() if not line.startswith("H")),
        "unnamed": text,
    }.items():
        (given / f"{name}.cif").write_text(content)
    write_cif(read_crystal(SPECIAL), given / "special.cif")
    table = tmp_path / "splits.csv"
    rows = ["good,train", "empty,train", "rubbish,test", "bare,test", "special,test"]
    table.write_text("\n".join(["cod_id,split", *rows]))
    told: list[int] = []
    result = import_crystals(
        [given], tmp_path / "out", splits=table, progress=lambda done, total, _: told.append(done / total)
    )
    assert result.outcomes["imported"] == 2
    assert result.outcomes["no split"] == 1
    assert result.outcomes.total() == 6
    assert result.splits == {"test": 1, "train": 1}
    assert told[-1] == 1.0
    assert [c.id for c in read_crystals(tmp_path / "out" / "train")] == ["good"]
    record = json.loads((tmp_path / "out" / RECORD).read_text())
    assert record["counts"] == dict(result.outcomes)
    assert record["files"]["empty"]["outcome"] == "empty file"
    assert "why" in record["files"]["bare"]
    assert record["files"]["good"]["split"] == "train"
    with pytest.raises(InputError, match="--resume"):
        import_crystals([given], tmp_path / "out", splits=table)


def test_interrupted_imports_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a program that answers at once, so that what is tested is the bookkeeping."""
    monkeypatch.setattr(module, "PROGRAM", PROGRAM)
    given = tmp_path / "cif"
    given.mkdir()
    for k in range(6):
        (given / f"{k}.cif").write_text("crystal")
    (given / "5.cif").write_text("crash")

    def stop_after_two(done: int, *_: object) -> None:
        if done == 2:
            raise KeyboardInterrupt

    cut = import_crystals([given], tmp_path / "out", progress=stop_after_two)
    assert cut.interrupted
    assert cut.outcomes == {"imported": 2}
    whole = import_crystals([given], tmp_path / "out", resume=True)
    assert whole.outcomes == {"imported": 5, "crashed": 1}
    assert not whole.interrupted
    ids = sorted(row["id"] for place in (tmp_path / "out").glob("*/") for row in read_rows(place))
    assert ids == ["0", "1", "2", "3", "4"]
    table = tmp_path / "splits.csv"
    table.write_text("cod_id,split\n0,fold\n1,fold\n2,fold\n3,fold\n")
    moved = import_crystals([given], tmp_path / "out", splits=table, resume=True)
    assert moved.splits == {"fold": 4}
    assert moved.outcomes["no split"] == 2
    assert [place.name for place in (tmp_path / "out").glob("*/") if shards(place)] == ["fold"]
    with pytest.raises(InputError, match="same settings"):
        import_crystals([given], tmp_path / "out", ImportSettings(largest=7), resume=True)
