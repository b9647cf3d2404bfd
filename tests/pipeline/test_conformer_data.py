"""`nucleate data conformers`: low conformers of one stereoisomer, all molecules accounted for, runs that can be cut."""

import gzip
import json
import pickle
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from nucleate import cli
from nucleate.crystal.bond_graph import bond_graph
from nucleate.crystal.stereo import right_stereo
from nucleate.data.conformers import ConformerSet, boltzmann, read_conformer_splits, to_row
from nucleate.data.packed import data_sets, shards
from nucleate.data.splits import split_of
from nucleate.errors import InputError
from nucleate.metrics.conformer_rmsd import best_rmsds
from nucleate.physics.molecule_energy import optimise_mmff
from nucleate.pipeline import conformer_data as module
from nucleate.pipeline import conformer_shards
from nucleate.pipeline.conformer_data import ConformerDataSettings, conformers_of, make_conformers
from nucleate.pipeline.conformer_import import ConformerImportSettings, import_conformers
from nucleate.pipeline.conformer_shards import DONE, RECORD, ConformersMade
from nucleate.pipeline.folders import hold_folder
from nucleate.pipeline.molecule_lists import Given, excluded_keys
from tests.data_room.test_conformer_sources import geom, rd_mols
from tests.data_room.test_conformers import embedded

STAND_IN = Path(__file__).with_name("stand_in_conformers.py")
SMALL = ConformerDataSettings(embed=20)


def everything(folder: Path) -> dict[str, tuple[str, ConformerSet]]:
    """By name, with the split."""
    found = read_conformer_splits(folder)
    return {own.molecule.name: (split, own) for split, some in found.items() for own in some}


# ---------------------------------------------------------------- one molecule


@pytest.mark.parametrize("smiles", ["CCCCO", "C[C@H](N)C(=O)O", "C/C=C\\CO", "CCB(O)O"])
def test_conformers_are_distinct_low_minima(smiles: str) -> None:
    found = conformers_of(smiles, 3, SMALL)
    own, graph = found.conformers, found.conformers.molecule.graph
    assert own.molecule.smiles == smiles
    assert 2 <= len(own) <= SMALL.keep
    assert float(own.energies[0]) == 0
    assert (own.energies.diff() >= 0).all()
    assert float(own.energies[-1]) <= SMALL.window * 0.0103643
    torch.testing.assert_close(own.weights, boltzmann(own.energies))
    gaps = best_rmsds(graph, own.molecule.conformers, own.molecule.conformers)
    assert float((gaps + 9 * torch.eye(len(gaps))).min()) >= SMALL.distance
    assert right_stereo(graph, own.molecule.conformers).all()
    again = optimise_mmff(graph, own.molecule.conformers)
    torch.testing.assert_close(again.energies - again.energies[0], own.energies, atol=2e-4, rtol=0)
    spent = {k: v for k, v in found.counts.items() if k not in ("asked", "embedded", "kept")}
    mirrored = found.counts["kept"] - (found.counts["embedded"] - sum(spent.values()))
    assert mirrored == 0 or not len(bond_graph(graph).centres)  # nothing is lost uncounted
    assert to_row(conformers_of(smiles, 3, SMALL).conformers) == to_row(own)
    assert to_row(conformers_of(smiles, 4, SMALL).conformers)["positions"] != to_row(own)["positions"]


def test_an_open_smiles_becomes_one_stereoisomer() -> None:
    found = conformers_of("CC(O)C(F)CC=NO", 0, ConformerDataSettings(embed=40, keep=50, window=60))
    graph = found.conformers.molecule.graph
    assert len(bond_graph(graph).centres) == 2
    assert (bond_graph(graph).side > 0).any()
    assert len(found.conformers) >= 5
    assert found.counts["other stereoisomers"] > 0
    assert right_stereo(graph, found.conformers.molecule.conformers).all()


def test_mirror_images_are_there_or_not() -> None:
    both = conformers_of("CCCC", 0, SMALL).conformers
    one = conformers_of("CCCC", 0, SMALL.model_copy(update={"mirrors": False, "embed": 1}))
    assert len(both) == 3  # trans, and gauche of either hand
    assert float(both.energies[2] - both.energies[1]) == pytest.approx(0, abs=1e-4)
    x = both.molecule.conformers
    assert float(best_rmsds(both.molecule.graph, x[1:2], -x[2:])) < 0.02
    assert len(one.conformers) == 1


@pytest.mark.parametrize(
    ("smiles", "reason"),
    [
        ("C1CC", "bad SMILES"),
        ("CCO.O", "several molecules"),
        ("C" * 80, "too large"),
        ("OCC", "excluded"),
        ("[CH3]", "radical"),
    ],
)
def test_molecules_that_have_none(smiles: str, reason: str) -> None:
    with pytest.raises(InputError) as refused:
        conformers_of(smiles, 0, SMALL, frozenset(["[C][C][O]"]))
    assert refused.value.reason == reason


def test_a_single_atom_has_one_conformer() -> None:
    own = conformers_of("[Na+]", 0, SMALL).conformers
    assert (len(own), float(own.weights[0])) == (1, 1.0)


def test_time_is_limited() -> None:
    """However little there was, something is there."""
    hasty = ConformerDataSettings(time_limit=0.02, embed=200, keep=100)
    counts = conformers_of("CCCCCCCCCCO", 0, hasty).counts
    assert counts["kept"] >= 1
    assert counts["embedded"] - counts["out of time"] < 200


@pytest.mark.extra
def test_minima_of_gfn2() -> None:
    pytest.importorskip("tblite")
    settings = ConformerDataSettings(optimise="gfn2", embed=10, keep=3)
    own = conformers_of("OCC=O", 0, settings).conformers
    assert own.source == "ETKDG, GFN2-xTB"
    assert float(own.energies[0]) == 0
    mmff = conformers_of("OCC=O", 0, settings.model_copy(update={"optimise": "mmff"})).conformers
    assert not torch.equal(mmff.energies, own.energies)


# ---------------------------------------------------------------- runs


def test_a_run_with_its_processes(tmp_path: Path) -> None:
    """The real program, once; molecules by number and seed, not by who computed them."""
    given: list[Given] = ["CCO", InputError("no molecule", "bad SMILES"), "CO", "C[C@H](N)C(=O)O", "CC.O"]
    (tmp_path / "held.smi").write_text("OC\n")
    two = SMALL.model_copy(update={"workers": 2})
    made = make_conformers(given, tmp_path / "out", two, excluded_keys([tmp_path / "held.smi"]))
    assert made.outcomes == {DONE: 2, "bad SMILES": 1, "excluded": 1, "several molecules": 1}
    assert (made.asked, made.interrupted, sum(made.splits.values())) == (5, False, 2)
    found = everything(tmp_path / "out")
    assert found.keys() == {"CCO", "C[C@H](N)C(=O)O"}
    assert made.conformers == sum(len(own) for _, own in found.values())
    assert all(split == split_of(own.key) for split, own in found.values())
    here = to_row(conformers_of("C[C@H](N)C(=O)O", 3, SMALL).conformers)
    torch.testing.assert_close(
        found["C[C@H](N)C(=O)O"][1].molecule.conformers.flatten(),
        torch.tensor(here["positions"]).double(), atol=1e-5, rtol=0,
    )  # fmt: skip
    record = json.loads((tmp_path / "out" / RECORD).read_text())
    assert record["left_out"]["2"] == {
        "given": "CO", "outcome": "excluded", "why": "expected a molecule that is not excluded",
    }  # fmt: skip
    assert record["shapes"]["kept"] == made.conformers


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs whose program answers at once, crashes or hangs; what is tested is the bookkeeping."""
    monkeypatch.setattr(module, "PROGRAM", STAND_IN)
    monkeypatch.setattr(module, "GRACE", 1.0)


def run(
    given: Sequence[Given], folder: Path, resume: bool = False, stop: int = -1, **more: Any
) -> ConformersMade:
    """Interrupted when `stop` molecules are done."""

    def told(done: int, *_: object) -> None:
        if done == stop:
            raise KeyboardInterrupt

    settings = ConformerDataSettings(workers=2, time_limit=0.5)
    return make_conformers(given, folder, settings, resume=resume, progress=told, **more)


@pytest.mark.usefixtures("quick")
def test_a_crash_and_a_hang_cost_one_molecule_each(tmp_path: Path) -> None:
    made = run(["C", "CRASH", "CC", "HANG", "FAIL", "CCC"], tmp_path)
    assert made.outcomes == {DONE: 3, "crashed": 1, "timed out": 1, "failed": 1}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("stop", [0, 1, 5])
def test_an_interruption_keeps_what_is_done(stop: int, tmp_path: Path) -> None:
    given = ["C" * k for k in range(1, 8)] + ["FAIL"]
    cut = run(given, tmp_path, stop=stop)
    assert cut.interrupted
    assert cut.outcomes.total() == stop
    with pytest.raises(InputError, match="--resume"):
        run(given, tmp_path)
    whole = run(given, tmp_path, resume=True)
    assert whole.outcomes == {DONE: 7, "failed": 1}
    assert (whole.conformers, whole.counts["kept"], whole.interrupted) == (7, 7, False)
    assert everything(tmp_path).keys() == set(given[:7])
    longer = run([*given, "CCCCCCCCC"], tmp_path, resume=True)
    assert longer.outcomes == {DONE: 8, "failed": 1}


@pytest.mark.usefixtures("quick")
def test_a_kill_costs_what_was_not_written_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards hold several molecules and are written now and then; whatever is in them is not made again."""
    monkeypatch.setattr(conformer_shards, "SHARD", 3)
    monkeypatch.setattr(conformer_shards, "CHECKPOINT", 2)
    given = ["C" * k for k in range(1, 11)]
    with monkeypatch.context() as killed:
        killed.setattr(conformer_shards.ConformerShards, "finish", finish_that_dies(7))
        with pytest.raises(RuntimeError, match="killed"):
            run(given, tmp_path, split="train")
    before = everything(tmp_path)
    assert 4 <= len(before) <= 8
    whole = run(given, tmp_path, resume=True, split="train")
    assert whole.outcomes == {DONE: 10}
    assert whole.splits == {"train": 10}
    assert everything(tmp_path).keys() == set(given)
    assert sum(1 for _ in shards(tmp_path / "train")) >= 4


def finish_that_dies(after: int) -> Any:
    """`finish`, until so many molecules are known."""
    real = conformer_shards.ConformerShards.finish

    def finish(self: conformer_shards.ConformerShards, asked: int, interrupted: bool) -> ConformersMade:
        if len(self.known) > after:
            raise RuntimeError("killed")
        return real(self, asked, interrupted)

    return finish


@pytest.mark.usefixtures("quick")
def test_resuming_something_else_is_refused(tmp_path: Path) -> None:
    run(["C", "CC"], tmp_path)
    with pytest.raises(InputError, match="the molecules that"):
        run(["CC", "C"], tmp_path, resume=True)
    with pytest.raises(InputError, match="same settings"):
        make_conformers(["C", "CC"], tmp_path, ConformerDataSettings(keep=7), resume=True)
    with pytest.raises(InputError, match="same settings"):
        run(["C", "CC"], tmp_path, resume=True, split="test")
    with pytest.raises(InputError, match="same settings"):
        run(["C", "CC"], tmp_path, resume=True, exclude=["[C]"])
    with hold_folder(tmp_path), pytest.raises(InputError, match="another run"):
        run(["C", "CC"], tmp_path, resume=True)
    (tmp_path / RECORD).write_text("rubbish")
    with pytest.raises(InputError, match="expected the record"):
        run(["C", "CC"], tmp_path, resume=True)


@pytest.mark.usefixtures("quick")
def test_one_split_for_all(tmp_path: Path) -> None:
    made = run(["C" * k for k in range(1, 12)], tmp_path, split="test")
    assert made.splits == {"test": 11}
    assert [place.name for place in data_sets(tmp_path)] == ["test"]


def test_tblite_is_asked_for_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nucleate.physics.energy._installed", lambda _: False)
    with pytest.raises(InputError, match=r"nucleate\[xtb\]"):
        make_conformers(["C"], tmp_path / "out", ConformerDataSettings(optimise="gfn2"))
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- what users have


def test_pickles_are_converted(tmp_path: Path) -> None:
    source = tmp_path / "rdkit_folder"
    source.mkdir()
    for name, smiles in (("alanine", "C[C@H](N)C(=O)O"), ("ethanol", "CCO")):
        (source / f"{name}.pickle").write_bytes(pickle.dumps(geom(smiles)))
    (source / "evil.pickle").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    made = import_conformers(source, tmp_path / "out", ConformerImportSettings(keep=2), ["[C][C][O]"], "test")
    assert made.outcomes == {DONE: 1, "excluded": 1, "unsafe pickle": 1}
    assert (made.splits, made.conformers) == ({"test": 1}, 2)
    [own] = [own for _, own in everything(tmp_path / "out").values()]
    assert own.weights.tolist() == pytest.approx([7 / 9, 2 / 9])
    with pytest.raises(InputError, match="empty folder"):
        import_conformers(source, tmp_path / "out")


# ---------------------------------------------------------------- the command


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    """Exit code, output and complaints of the program, run inside this process in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # the program sets its own

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["nucleate", *arguments])
        with pytest.raises(SystemExit) as left:
            cli.main()
        printed = capsys.readouterr()
        return int(left.value.code or 0), printed.out, printed.err

    return call


def test_the_command(program: Any) -> None:
    Path("list.csv.gz").write_bytes(gzip.compress(b"smiles\nCCO\nCCCO\nC1CC\n"))
    arguments = ["data", "conformers", "list.csv.gz", "-o", "out", "--workers", "1"]
    code, out, err = program(*arguments, "--keep", "2", "--embed", "5", "--json")
    assert (code, err) == (0, "")
    said = json.loads(out)
    assert said["outcomes"] == {DONE: 2, "bad SMILES": 1}
    assert said["conformers"] == sum(len(own) for _, own in everything(Path("out")).values())
    code, _, err = program(*arguments, "--optimise", "pm3")
    assert (code, "optimise" in err) == (2, True)
    Path("mine.pkl").write_bytes(pickle.dumps(rd_mols(embedded("CCO", 2))))
    code, out, _ = program("data", "conformers", "mine.pkl", "-o", "b")
    assert (code, "2 conformers of 1 molecules" in out) == (0, True)
    code, _, err = program("data", "conformers", "mine.pkl", "-o", "d", "--optimise", "gfn2")
    assert (code, "for lists of SMILES" in err) == (2, True)
    assert program("data", "conformers", "no.sdf", "-o", "c")[0] == 2
