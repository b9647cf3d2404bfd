"""`nucleate data clusters`: every crystal is in one split or counted with its reason, from each kind of source."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nucleate import cli
from nucleate.data.cluster_files import (
    FINAL,
    INITIAL,
    ClusterRecord,
    read_cluster_splits,
    read_clusters,
)
from nucleate.data.clusters import Loosening, evaluation_copies
from nucleate.data.packed import write_shard
from nucleate.data.splits import split_of
from nucleate.errors import InputError
from nucleate.pipeline import cluster_data as module
from nucleate.pipeline.cluster_data import CUT, RECORD, ClusterSettings, make_clusters
from nucleate.pipeline.import_crystals import ImportSettings, import_crystal
from tests.data_room.test_clusters import write_csv

DATA = Path(__file__).parents[1] / "data"
NAMES = ("1100989", "2003526", "2100840", "2003630")  # the second is a salt


@pytest.fixture
def cifs(tmp_path: Path) -> Path:
    folder = tmp_path / "cifs"
    folder.mkdir()
    for name in NAMES:
        shutil.copy(DATA / f"cod_{name}.cif", folder)
    (folder / "broken.cif").write_text("data_nothing\n")
    return folder


def everything(folder: Path) -> dict[str, tuple[str, ClusterRecord]]:
    """By name, with the split."""
    found = read_cluster_splits(folder)
    return {r.cluster.name: (split, r) for split, own in found.items() for r in own}


def test_cifs_become_clusters_or_reasons(cifs: Path, tmp_path: Path) -> None:
    made = make_clusters(cifs, tmp_path / "out")
    assert made.outcomes == {CUT: 3, "several kinds": 1, "no atoms": 1}
    assert (made.asked, made.clusters, sum(made.splits.values())) == (5, 3, 3)
    found = everything(tmp_path / "out")
    assert found.keys() == {"cod_1100989", "cod_2100840", "cod_2003630"}
    for split, record in found.values():
        assert record.cluster.n_molecules == 17
        assert record.loose is None
        assert split == split_of(record.key)
    record = json.loads((tmp_path / "out" / RECORD).read_text())
    assert record["left_out"]["cod_2003526"]["outcome"] == "several kinds"
    assert "Cl-" in record["left_out"]["cod_2003526"]["why"]
    with pytest.raises(InputError, match="empty folder"):
        make_clusters(cifs, tmp_path / "out")


def test_the_same_clusters_come_from_a_data_set(cifs: Path, tmp_path: Path) -> None:
    """And its splits are believed; of one molecule only the lowest crystal is taken where that is asked for."""
    row = import_crystal(cifs / "cod_1100989.cif", ImportSettings()).row
    rows = [row | {"id": "low", "above": 0.0}, row | {"id": "high", "above": 3.0}]
    write_shard(rows, tmp_path / "set" / "test" / "0.parquet", {"split": "test"})
    make_clusters(cifs / "cod_1100989.cif", tmp_path / "a")
    both = make_clusters(tmp_path / "set", tmp_path / "b")
    lowest = make_clusters(tmp_path / "set", tmp_path / "c", ClusterSettings(lowest=True))
    assert (both.splits, lowest.splits) == ({"test": 2}, {"test": 1})
    assert everything(tmp_path / "c").keys() == {"low"}
    (_, here), (_, there) = everything(tmp_path / "a")["cod_1100989"], everything(tmp_path / "c")["low"]
    assert here.key == there.key
    distances = [r.cluster.centroids.norm(dim=-1) for r in (here, there)]
    torch.testing.assert_close(*distances, atol=1e-3, rtol=0)


def test_published_clusters_keep_their_initial_positions(cifs: Path, tmp_path: Path) -> None:
    make_clusters(cifs, tmp_path / "a")
    final = everything(tmp_path / "a")["cod_1100989"][1].cluster
    loose = evaluation_copies([final], Loosening(), 0)[0]
    for name, molecules in (("7", 17), ("8", 16)):
        for where, end, cluster in ((FINAL, "", final), (INITIAL, "_noised", loose)):
            part = cluster.with_positions(cluster.positions[:molecules])
            path = tmp_path / "published" / where / f"{name}_cluster16{end}.csv"
            write_csv(path, part, list(range(molecules)))
    made = make_clusters(tmp_path / "published", tmp_path / "b")
    assert made.outcomes == {CUT: 1, "size": 1}
    record = everything(tmp_path / "b")["7"][1]
    assert record.loose is not None
    torch.testing.assert_close(record.loose.positions, loose.positions, atol=1e-4, rtol=0)


def test_a_draw_is_that_of_its_seed(cifs: Path, tmp_path: Path) -> None:
    names = []
    for out, seed in (("a", 0), ("b", 0), ("c", 1), ("d", 2), ("e", 3)):
        made = make_clusters(cifs, tmp_path / out, ClusterSettings(n=2, seed=seed))
        assert made.asked == 2
        left = json.loads((tmp_path / out / RECORD).read_text())["left_out"]
        names.append(frozenset({*left, *(everything(tmp_path / out) if made.clusters else ())}))
    assert names[0] == names[1]
    assert len(set(names)) > 1


def test_an_interrupted_run_keeps_what_is_done(
    cifs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(done: int, total: int, note: str) -> None:
        if done == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "SHARD", 1)
    made = make_clusters(cifs, tmp_path / "out", None, stop)
    assert made.interrupted
    assert made.outcomes.total() == 3
    assert len(everything(tmp_path / "out")) == made.clusters > 0
    assert json.loads((tmp_path / "out" / RECORD).read_text())["interrupted"]


def test_shards_follow_one_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = import_crystal(DATA / "cod_1100989.cif", ImportSettings()).row
    rows = [row | {"id": str(i)} for i in range(5)]
    write_shard(rows, tmp_path / "set" / "0.parquet", {"split": "train"})
    monkeypatch.setattr(module, "SHARD", 2)
    make_clusters(tmp_path / "set", tmp_path / "out")
    assert [p.name for p in sorted((tmp_path / "out" / "train").iterdir())] == [
        f"{i:05d}.parquet" for i in range(3)
    ]
    names = [r.cluster.name for r in read_clusters(tmp_path / "out" / "train")]
    assert names == [str(i) for i in range(5)]


@pytest.mark.parametrize("source", ["missing", "."])
def test_sources_of_nothing_are_refused(source: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected"):
        make_clusters(tmp_path / source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- the command

Program = Callable[..., tuple[int, str, str]]


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Program:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["nucleate", "data", "clusters", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        printed = capsys.readouterr()
        return int(left.value.code or 0), printed.out, printed.err

    return call


def test_the_command_counts_what_it_leaves_out(program: Program, cifs: Path) -> None:
    code, out, err = program(cifs, "-o", "out", "--size", "9")
    assert (code, err) == (0, "")
    assert "3 clusters in out" in out
    assert "1 several kinds" in out
    assert all(r.cluster.n_molecules == 9 for _, r in everything(Path("out")).values())
    code, out, err = program(cifs, "-o", "more", "--json")
    assert (code, json.loads(out)["outcomes"]["cluster"]) == (0, 3)
    assert program(cifs, "-o", "more")[0] == 2
    assert "Example: nucleate data clusters" in program("--help")[1]


def test_no_cluster_at_all_is_a_failure(program: Program) -> None:
    code, out, _ = program(DATA / "cod_2003526.cif", "-o", "out")
    assert code == 1
    assert "0 clusters" in out
    code, _, err = program("missing", "-o", "out2")
    assert code == 2
    assert "expected a CIF" in err
