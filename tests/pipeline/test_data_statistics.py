"""Statistics of data sets, with numbers that can be worked out by hand."""

from pathlib import Path

import pytest

from nucleate.data.packed import write_shard
from nucleate.errors import InputError
from nucleate.pipeline.data_statistics import comparison, data_statistics, table
from tests.pipeline.stand_in_import import ROW

WATER = ROW | {"smiles": ["[H][O][H]"], "key": "[O]", "id": "w"}
INVERSION = {
    "number": 2, "symbol": "P-1", "rotations": [1, 0, 0, 0, 1, 0, 0, 0, 1, -1, 0, 0, 0, -1, 0, 0, 0, -1],
    "translations": [0.0] * 6,
}  # fmt: skip


@pytest.fixture
def waters(tmp_path: Path) -> Path:
    """Water in a cube of 4 Å, alone and (P-1) twice, the second one higher; and with methane."""
    mixed = WATER | {"smiles": ["[H][O][H]", "[H][C]([H])([H])[H]"], "kind": [0, 1], "key": "[C].[O]"}
    rows = [WATER | {"above": 0.0, "hits": 3}, WATER | INVERSION | {"above": 5.0, "hits": 1}, mixed]
    write_shard([row | {"id": str(k)} for k, row in enumerate(rows)], tmp_path / "a" / "0.parquet", {})
    return tmp_path


def test_numbers_worked_out_by_hand(waters: Path) -> None:
    found = data_statistics(waters / "a")
    assert (found.crystals, found.molecules) == (3, 2)
    assert found.space_groups == {1: 2, 2: 1}
    assert found.bodies == {1: 2, 2: 1}
    assert found.species == {1: 2, 2: 1}
    assert found.atoms.tolist() == [3, 3, 8]
    assert found.volume.tolist() == pytest.approx([64, 32, 32])  # Å^3 per non-hydrogen atom
    water, methane = 18.015, 16.043
    densities = [m * 1.66054 / 64 for m in (water, 2 * water, water + methane)]
    assert found.density.tolist() == pytest.approx(densities, rel=1e-4)
    assert found.above.tolist() == [0, 5]
    assert found.hits.tolist() == [3, 1]
    assert data_statistics(waters).as_json() == found.as_json()
    assert found.as_json()["volume"]["p50"] == pytest.approx(32)


def test_only_the_lowest(waters: Path) -> None:
    found = data_statistics(waters / "a", lowest=True)
    assert found.crystals == 2  # the one above is left out, the one of unknown energy is not
    assert found.above.tolist() == [0]


def test_side_by_side(waters: Path) -> None:
    mine = data_statistics(waters)
    assert set(comparison(mine, mine).values()) == {0.0}
    write_shard(
        [WATER | INVERSION | {"kind": [0] * 3, "number": 61, "id": "x"}], waters / "b" / "0.parquet", {}
    )
    other = data_statistics(waters / "b")
    apart = comparison(mine, other)
    assert apart["space_groups"] == apart["bodies"] == 1.0
    assert apart["atoms"] == apart["density"] == 1.0
    rows = {row[""]: row for row in table({"mine": mine, "other": other})}
    assert rows["Pbca (61)"] == {"": "Pbca (61)", "mine": "0 (0.0 %)", "other": "1 (100.0 %)"}
    assert rows["above the lowest, kJ/mol"]["other"] == "unknown"
    assert rows["several kinds of molecules"]["mine"] == "1 (33.3 %)"


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found none"):
        data_statistics(tmp_path)
    write_shard([], tmp_path / "0.parquet", {})
    with pytest.raises(InputError, match="no crystal"):
        data_statistics(tmp_path)
