"""Whoever wrote them: the same crystal comes back, failures are counted, nothing is lost, nothing breaks."""

import gzip
import json
from pathlib import Path

import ase.io
import ase.io.jsonio
import gemmi
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.io import write_cif, write_extxyz
from nucleate.data.predictions import (
    Sample,
    asked_for,
    assign_targets,
    count_asked,
    detect_format,
    in_turn,
    molecules_of,
    read_predictions,
    read_references,
)
from nucleate.data.predictions.molecules import Known, build_crystal
from nucleate.data.predictions.sample import Frame
from nucleate.errors import InputError
from nucleate.metrics.packing import PackingReference
from nucleate.pipeline.landscape import Candidate, write_landscape, write_run
from tests.data_room.peer_files import (
    DATA,
    FOLDER,
    TARGETS,
    WRITERS,
    ase_json,
    atoms_of,
    experiment,
    oxtal_cif,
    p1_cif,
    scaled,
    write_table,
)


@pytest.fixture(scope="module")
def references() -> dict[str, list[Crystal]]:
    return {name: [experiment(name)] for name in TARGETS}


@pytest.fixture(scope="module")
def prepared(references: dict[str, list[Crystal]]) -> dict[str, PackingReference]:
    return {name: PackingReference(forms[0]) for name, forms in references.items()}


def numbers_of(crystal: Crystal) -> np.ndarray:
    return np.array(ase.Atoms(atoms_of(crystal).symbols).numbers)


def frame_of(crystal: Crystal, labelled: bool = False) -> Frame:
    atoms = atoms_of(crystal)
    return Frame(numbers_of(crystal), atoms.positions, atoms.lattice, atoms.molecule if labelled else None)


# ------------------------------------------------------------------ formats


@pytest.mark.parametrize(
    ("program", "samples", "failures", "kinds"),
    [
        ("clari", 6, 2, {"not a number"}),
        ("oxtal", 4, 2, {"unreadable"}),
        ("genarris", 3, 1, {"unreadable"}),
        ("fastcsp", 6, 2, {"unreadable"}),
        ("molcrystalflow", 4, 0, set()),
    ],
)
def test_the_experiment_comes_back_from_each_program(
    program: str,
    samples: int,
    failures: int,
    kinds: set[str],
    references: dict[str, list[Crystal]],
    prepared: dict[str, PackingReference],
) -> None:
    found = read_predictions(FOLDER / program)
    failed = [s for s in found if s.crystal is None]
    assert (len(found), len(failed)) == (samples, failures)
    assert {s.failure_kind for s in failed} == kinds
    assert all(s.failure == "" for s in found if s.crystal is not None)
    assert all(s.periodic is (program != "oxtal") for s in found if s.crystal is not None)
    assigned = assign_targets(found, references)
    assert sum(map(len, assigned.samples.values())) == samples
    for name in TARGETS if program != "genarris" else TARGETS[1:]:
        crystals = [s.crystal for s in assigned.samples[name] if s.crystal is not None]
        *others, same = [prepared[name].compare(c) for c in crystals]  # the experiment is written last
        assert same.n_matched == 15
        assert same.rmsd < 2e-3  # three decimals in the files
        assert all(m.n_matched < 15 for m in others)


def test_the_stored_files_are_those_of_the_writers(tmp_path: Path) -> None:
    for name, write in WRITERS.items():
        write(tmp_path / name)
    stored = sorted(p.relative_to(FOLDER) for p in FOLDER.rglob("*") if p.is_file())
    assert stored == sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
    for path in stored:
        assert (FOLDER / path).stat().st_size < 30_000
        if path.suffix in (".cif", ".csv", ".json") and "genarris" not in path.parts:
            assert (FOLDER / path).read_text() == (tmp_path / path).read_text()


def test_energies_order_the_samples_and_are_per_molecule() -> None:
    clari = read_predictions(FOLDER / "clari")
    assert [s.energy for s in clari] == [-25.0, -26.0, None, -50.0, -52.0, None]  # eV per cell of four
    genarris = read_predictions(FOLDER / "genarris")
    assert [s.energy for s in genarris] == [
        -100.0,
        -103.0,
        None,
    ]  # the last calculation, its failures left out
    fastcsp = read_predictions(FOLDER / "fastcsp")
    assert [s.energy for s in fastcsp[:3]] == [-1000.0, -1001.0, -1002.0]


def test_order_within_a_target_is_that_of_the_file() -> None:
    clari = read_predictions(FOLDER / "clari")  # rows are stored backwards, sample_idx says which was first
    assert [(s.target, s.index, s.name) for s in clari[:4]] == [
        ("1100989", 0, "1100989_0"), ("1100989", 1, "1100989_1"), ("1100989", 2, "1100989_2"),
        ("7210454", 0, "7210454_3"),
    ]  # fmt: skip


def test_a_cluster_meets_no_image(references: dict[str, list[Crystal]]) -> None:
    cluster = read_predictions(FOLDER / "oxtal")[0].crystal
    assert cluster is not None
    assert cluster.n_molecules == 30
    assert not (cluster.numbers == 1).any()
    extent = cluster.positions.amax(0) - cluster.positions.amin(0)
    assert (cluster.lattice.diagonal() - extent > 60).all()


def test_a_cluster_of_two_kinds_of_molecules_takes_no_bonds_from_the_shared_list(tmp_path: Path) -> None:
    first, second = (oxtal_cif(experiment(t), "mixed", copies=3) for t in TARGETS)
    rows = [line for line in second.splitlines() if line.startswith("HETATM")]
    moved = [
        " ".join([*r[:4], f"Z{r[4]}", *r[5:8], f"{float(r[8]) + 40:.3f}", *r[9:]])
        for r in map(str.split, rows)
    ]
    lines = first.splitlines()
    last = max(k for k, line in enumerate(lines) if line.startswith("HETATM"))
    bonds = [line for line in second.splitlines() if line.startswith("UNL")]
    path = tmp_path / "mixed_seed0_sample_0.cif"
    path.write_text("\n".join([*lines[: last + 1], *moved, *lines[last + 1 : -1], *bonds, "#"]) + "\n")
    (sample,) = read_predictions(path)
    assert sample.target == "mixed"
    assert sample.crystal is not None
    assert sample.crystal.n_molecules == 6
    bond = sample.crystal.positions[sample.crystal.bonds]
    assert (bond[:, 0] - bond[:, 1]).norm(dim=-1).max() < 1.8


def test_own_folders_are_read_with_what_was_asked(
    tmp_path: Path, references: dict[str, list[Crystal]], prepared: dict[str, PackingReference]
) -> None:
    for name in TARGETS:
        found = experiment(name)
        folder = tmp_path / "list" / f"molecule-{name}"
        folder.mkdir(parents=True)
        candidates = [candidate(scaled(found, 1.15), -80.0), candidate(found, -100.0)]
        write_landscape(folder, candidates, "x", {})
        write_run(folder, {"molecule": {"name": "x"}, "counts": {"asked": 500, "handed_over": 2}})
    rows = [
        {"name": "molecule-bad", "failure": "expected a SMILES"},
        {"name": f"molecule-{TARGETS[0]}", "failure": None},
    ]
    write_table(tmp_path / "list" / "summary.parquet", rows)
    (tmp_path / "list" / "unfinished").mkdir()
    (tmp_path / "list" / "unfinished" / "search.json").write_text("{}")

    alone = read_predictions(tmp_path / "list" / f"molecule-{TARGETS[0]}")
    assert [(s.target, s.name, s.energy) for s in alone] == [("x", "x_0001", 20.0), ("x", "x_0002", 0.0)]
    assert prepared[TARGETS[0]].compare(alone[1].crystal).rmsd < 1e-3  # type: ignore[arg-type]

    samples = read_predictions(tmp_path / "list")
    assert [(s.target, s.failure_kind) for s in samples if s.failure] == [
        ("unfinished", "unfinished"),
        ("molecule-bad", "not predicted"),
    ]
    asked = count_asked(tmp_path / "list", samples)
    assert asked[f"molecule-{TARGETS[0]}"].number == 500
    assert "run.json" in asked[f"molecule-{TARGETS[0]}"].counted
    assert asked["unfinished"].number == 1
    assigned = assign_targets(samples, references)
    assert [len(assigned.samples[t]) for t in TARGETS] == [2, 2]  # by molecules: no reference has these names
    assert asked_for(assigned.samples[TARGETS[1]], asked).number == 500
    assert len(assigned.unassigned) == 2
    assert any("molecule-7210454" in w for w in assigned.warnings)


def candidate(crystal: Crystal, energy: float) -> Candidate:
    fixed = {
        "space_group": 1,
        "symbol": "P1",
        "z": 4,
        "z_prime": 4.0,
        "generator": "random",
        "conformer": "0",
    }
    return Candidate(crystal, energy, energy, "forcefield", **fixed, start="", seed=0, hits=1, clash=False)  # type: ignore[arg-type]


def test_a_search_that_found_nothing_is_a_failure_not_an_error(tmp_path: Path) -> None:
    write_landscape(tmp_path, [], "x", {})
    write_run(tmp_path, {"molecule": {"name": "x"}, "counts": {"asked": 40}})
    (sample,) = read_predictions(tmp_path)
    assert sample.failure_kind == "no crystals"


def test_folders_of_cifs_name_their_targets(tmp_path: Path, prepared: dict[str, PackingReference]) -> None:
    for name in TARGETS:
        for k in (2, 10):
            path = tmp_path / name / f"sample_{k}.cif"
            path.parent.mkdir(exist_ok=True)
            write_cif(experiment(name), path)  # symmetric, as `generate` writes them
    (tmp_path / TARGETS[0] / "sample_11.cif").write_text("")
    samples = read_predictions(tmp_path)
    assert [(s.target, s.index, s.name) for s in samples[:3]] == [
        (TARGETS[0], 0, "sample_2"), (TARGETS[0], 1, "sample_10"), (TARGETS[0], 2, "sample_11"),
    ]  # fmt: skip
    assert samples[2].failure_kind == "unreadable"
    for s in samples[3:]:
        assert s.target == TARGETS[1]
        assert s.crystal is not None
        assert prepared[TARGETS[1]].compare(s.crystal).rmsd < 1e-3


def test_one_broken_block_costs_only_itself(tmp_path: Path) -> None:
    good = p1_cif(atoms_of(experiment(TARGETS[0])), "one")
    broken = good.replace("data_one", "data_two")[:-200] + "\nloop_\n"
    path = tmp_path / "many.cif"
    path.write_text(
        "data_global\n_journal_name 'x'\n" + good + good.replace("data_one", "data_three") + broken
    )
    samples = read_predictions(path)
    assert [(s.name, s.failure_kind) for s in samples] == [("one", ""), ("three", ""), ("two", "unreadable")]


def test_extended_xyz_keeps_names_targets_and_energies(
    tmp_path: Path, prepared: dict[str, PackingReference]
) -> None:
    found = experiment(TARGETS[0])
    info = {"name": "first", "target": TARGETS[0], "energy": -8.0}
    text = write_extxyz([found.replace(info=info), found.replace(info={})], tmp_path / "two.xyz").read_text()
    (tmp_path / "two.extxyz.gz").write_bytes(gzip.compress(text.encode()))
    for name in ("two.xyz", "two.extxyz.gz"):
        first, second = read_predictions(tmp_path / name)
        assert (first.name, first.target, first.energy) == ("first", TARGETS[0], -2.0)  # eV per molecule
        assert (second.name, second.target, second.energy) == ("two_2", None, None)
        assert second.crystal is not None
        assert prepared[TARGETS[0]].compare(second.crystal).rmsd < 1e-5


def test_xyz_without_a_cell_is_a_cluster(tmp_path: Path) -> None:
    atoms = atoms_of(experiment(TARGETS[0]))
    ase.io.write(tmp_path / "c.xyz", ase.Atoms(atoms.symbols, positions=atoms.positions), format="extxyz")
    (sample,) = read_predictions(tmp_path / "c.xyz")
    assert not sample.periodic
    assert sample.crystal is not None
    assert sample.crystal.n_molecules == 4


def test_any_parquet_with_a_column_of_cif(tmp_path: Path) -> None:
    text = p1_cif(atoms_of(experiment(TARGETS[0])), "x")
    rows = [
        {"target": "A", "name": "n1", "cif": text, "energy": 1.5},
        {"target": "A", "name": "n2", "cif": None, "energy": 1.0},
    ]
    write_table(tmp_path / "any.parquet", rows)
    first, second = read_predictions(tmp_path / "any.parquet")
    assert (first.target, first.name, first.energy, first.failure) == ("A", "n1", 1.5, "")
    assert (second.index, second.failure_kind, second.energy) == (1, "unreadable", 1.0)


def test_a_raw_table_of_fastcsp_is_read_before_relaxation_too(tmp_path: Path) -> None:
    text = p1_cif(atoms_of(experiment(TARGETS[0])), "x")
    row = {"mol_id": "M", "conf_id": "c", "structure_id": "s1", "cif_generated": text}
    write_table(tmp_path / "raw_structures" / "M" / "c" / "partition_id=3" / "a.parquet", [row])
    (sample,) = read_predictions(tmp_path / "raw_structures")
    assert (sample.target, sample.name, sample.energy) == ("M", "s1", None)


def test_what_the_libraries_of_the_peers_write_is_read(
    tmp_path: Path, prepared: dict[str, PackingReference]
) -> None:
    atoms = atoms_of(experiment(TARGETS[0]))
    made = ase.Atoms(
        atoms.symbols, positions=atoms.positions, cell=atoms.lattice, pbc=True, info={"uma": -4.0}
    )
    (tmp_path / "structures.json").write_text('{\n"a": ' + ase.io.jsonio.encode(made) + "\n}")  # Genarris
    small = gemmi.SmallStructure()  # Clari
    small.cell = gemmi.UnitCell(*made.cell.cellpar())
    small.spacegroup_hm = "P 1"
    for symbol, x in zip(atoms.symbols, made.get_scaled_positions(wrap=False)):
        site = gemmi.SmallStructure.Site()
        site.label, site.element, site.fract = symbol, gemmi.Element(symbol), gemmi.Fractional(*x)
        small.add_site(site)
    (tmp_path / "clari.cif").write_text(small.make_cif_block().as_string())
    ase.io.write(tmp_path / "ase.cif", made, format="cif")
    made.new_array("bb_indices", atoms.molecule)
    ase.io.write(tmp_path / "flow.xyz", made, format="extxyz")
    for name in ("structures.json", "clari.cif", "ase.cif", "flow.xyz"):
        (sample,) = read_predictions(tmp_path / name)
        assert sample.crystal is not None, (name, sample.failure)
        assert prepared[TARGETS[0]].compare(sample.crystal).rmsd < 1e-3
    assert read_predictions(tmp_path / "structures.json")[0].energy == -1.0


def test_genarris_stages_must_be_chosen(tmp_path: Path) -> None:
    for stage in ("generation", "symm_rigid_press"):
        path = tmp_path / "structures" / stage / "structures.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"a": ase_json(atoms_of(experiment(TARGETS[0])), {})}))
    with pytest.raises(InputError, match="generation, symm_rigid_press"):
        read_predictions(tmp_path)
    assert len(read_predictions(tmp_path / "structures" / "generation")) == 1


# ------------------------------------------------------------------ overlapping molecules


def molecules_by_distance(crystal: Crystal) -> int:
    try:
        return build_crystal(frame_of(crystal)).n_molecules
    except InputError:
        return 0


@pytest.mark.parametrize("name", TARGETS)
def test_overlapping_molecules_are_told_apart_by_blocks_or_labels(
    name: str, references: dict[str, list[Crystal]]
) -> None:
    crushed = scaled(experiment(name), 0.75)
    known = Known.of(molecules_of(references))
    assert molecules_by_distance(crushed) < 4  # glued together, or refused
    for crystal in (build_crystal(frame_of(crushed), known), build_crystal(frame_of(crushed, labelled=True))):
        assert crystal.n_molecules == 4
        far = crystal.positions[crystal.bonds]
        own = experiment(name)
        true = own.positions[own.bonds]
        assert len(crystal.bonds) == len(own.bonds)
        lengths = [(x[:, 0] - x[:, 1]).norm(dim=-1).sort().values for x in (far, true)]
        np.testing.assert_allclose(lengths[0], lengths[1], atol=1e-6)


def test_blocks_wrapped_into_the_cell_are_made_whole(references: dict[str, list[Crystal]]) -> None:
    name = TARGETS[1]
    frame = frame_of(scaled(experiment(name), 0.75))
    assert frame.lattice is not None
    frac = np.linalg.solve(frame.lattice.T, frame.positions.T).T
    wrapped = Frame(frame.numbers, (frac % 1) @ frame.lattice, frame.lattice)
    crystal = build_crystal(wrapped, Known.of(molecules_of(references)))
    bond = crystal.positions[crystal.bonds]
    assert crystal.n_molecules == 4
    assert (bond[:, 0] - bond[:, 1]).norm(dim=-1).max() < 1.6


def test_overlap_that_nothing_explains_is_a_failure(
    tmp_path: Path, references: dict[str, list[Crystal]]
) -> None:
    crushed = scaled(experiment(TARGETS[0]), 0.75)
    atoms = atoms_of(crushed)
    order = np.argsort(atoms.symbols, kind="stable")  # by element: no blocks
    shuffled = type(atoms)(
        [atoms.symbols[k] for k in order], atoms.positions[order], atoms.lattice, atoms.molecule
    )
    path = tmp_path / "x.cif"
    path.write_text(p1_cif(shuffled, "x"))
    (sample,) = read_predictions(path, molecules=molecules_of(references))
    assert sample.crystal is None
    assert sample.failure_kind in ("molecules overlap", "clash", "polymeric")
    assigned = assign_targets([sample], references)  # its atoms still say whose it is
    assert assigned.samples[TARGETS[0]] == [sample]
    assert len(assigned.warnings) == 1


def test_a_symmetric_cif_whose_molecules_overlap(
    tmp_path: Path, references: dict[str, list[Crystal]]
) -> None:
    path = tmp_path / "x.cif"
    write_cif(scaled(experiment(TARGETS[1]), 0.75), path)
    assert read_predictions(path)[0].crystal is None
    (sample,) = read_predictions(path, molecules=molecules_of(references))
    assert sample.crystal is not None
    assert sample.crystal.n_molecules == 4


# ------------------------------------------------------------------ references and targets


def test_references_by_file_and_by_folder(tmp_path: Path) -> None:
    found = read_references(DATA / f"cod_{TARGETS[0]}.cif")
    assert list(found) == [f"cod_{TARGETS[0]}"]
    for k, name in enumerate(TARGETS):
        (tmp_path / "forms").mkdir(exist_ok=True)
        (tmp_path / "forms" / f"{k}.cif").write_bytes((DATA / f"cod_{name}.cif").read_bytes())
    (tmp_path / "single.cif").write_bytes((DATA / "cod_2002929.cif").read_bytes())
    found = read_references(tmp_path)
    assert {name: len(forms) for name, forms in found.items()} == {"single": 1, "forms": 2}
    flow = read_references(FOLDER / "molcrystalflow" / "gt_predictions_2.xyz")
    assert [len(forms) for forms in flow.values()] == [1, 1]
    write_table(tmp_path / "t.parquet", [{"name": "Q", "cif": p1_cif(atoms_of(experiment(TARGETS[0])), "x")}])
    assert list(read_references(tmp_path / "t.parquet")) == ["Q"]


def test_every_bad_reference_is_named(tmp_path: Path) -> None:
    (tmp_path / "good.cif").write_bytes((DATA / f"cod_{TARGETS[0]}.cif").read_bytes())
    (tmp_path / "empty.cif").write_text("")
    (tmp_path / "cut.cif").write_text((DATA / f"cod_{TARGETS[0]}.cif").read_text()[:900])
    with pytest.raises(InputError, match=r"cut.*empty"):
        read_references(tmp_path)
    with pytest.raises(InputError, match="none in"):
        read_references(make(tmp_path / "nothing"))
    with pytest.raises(InputError, match="existing"):
        read_references(tmp_path / "absent")


def test_frames_in_turn_of_the_references(references: dict[str, list[Crystal]]) -> None:
    samples = in_turn(read_predictions(FOLDER / "molcrystalflow"), references)
    assert [(s.target, s.index) for s in samples] == [(t, k) for k in (0, 1) for t in TARGETS]
    with pytest.raises(InputError, match="as many samples"):
        in_turn(samples[:3], references)


def sample_of(crystal: Crystal | None, name: str = "s", target: str | None = None) -> Sample:
    return Sample(target, 0, name, crystal, failure="" if crystal is not None else "unreadable: x")


def test_samples_go_by_name_then_by_molecules(references: dict[str, list[Crystal]]) -> None:
    first, second = (experiment(t) for t in TARGETS)
    other = experiment("2002929")
    named = {"Alpha": [first], "beta": [second]}
    samples = [
        sample_of(first, "a", "ALPHA"),
        sample_of(second, "b"),
        sample_of(None, "c", "beta"),
        sample_of(None, "alpha"),  # the name of a sample without target counts
        sample_of(first, "d", "unknown"),
        sample_of(other, "e"),
        sample_of(second, "f", "alpha"),  # the name decides, and the warning says what is odd
    ]
    assigned = assign_targets(samples, named)
    assert [s.name for s in assigned.samples["Alpha"]] == ["a", "alpha", "d", "f"]
    assert [s.name for s in assigned.samples["beta"]] == ["b", "c"]
    assert [s.name for s in assigned.unassigned] == ["e"]
    assert len(assigned.warnings) == 3
    assert all(
        any(w in warning for warning in assigned.warnings) for w in ("unknown", "first: e", "other molecules")
    )


def test_one_reference_gets_everything_and_polymorphs_share(references: dict[str, list[Crystal]]) -> None:
    first, second = (experiment(t) for t in TARGETS)
    samples = [sample_of(first), sample_of(second), sample_of(None)]
    assigned = assign_targets(samples, {"only": [first]})
    assert len(assigned.samples["only"]) == 3
    assert len(assigned.warnings) == 1
    forms = {"one": [first], "two": [scaled(first, 1.1)]}
    shared = assign_targets([sample_of(first)], forms)
    assert [len(v) for v in shared.samples.values()] == [1, 1]
    assert "one, two" in shared.warnings[0]


def test_asked_for_counts_failures_and_what_was_requested(references: dict[str, list[Crystal]]) -> None:
    samples = read_predictions(FOLDER / "clari")
    asked = count_asked(FOLDER / "clari", samples)
    assigned = assign_targets(samples, references)
    answer = asked_for(assigned.samples[TARGETS[0]], asked)
    assert (answer.number, answer.listed) == (4, 3)  # four requested, three in the file
    assert "config.json" in answer.counted
    part = asked_for(assigned.samples[TARGETS[0]][:2], asked)
    assert part.number == 2
    assert asked_for([], asked).number == 0
    nothing = count_asked(FOLDER / "clari", [s for s in samples if s.target == TARGETS[0]])[TARGETS[1]]
    assert (nothing.number, nothing.listed, nothing.undelivered) == (4, 0, 4)  # a request without any answer


# ------------------------------------------------------------------ garbage


def garbage() -> dict[str, bytes]:
    text = p1_cif(atoms_of(experiment(TARGETS[0])), "x")
    lines = text.splitlines()
    xyz = (FOLDER / "molcrystalflow" / "pred_predictions_2.xyz").read_text()
    rows = xyz.splitlines()
    table = (FOLDER / "clari" / "predictions.parquet").read_bytes()
    number = lines[-1].split()[2]
    return {
        "empty.cif": b"",
        "spaces.cif": b" \n\n",
        "binary.cif": bytes(range(256)) * 20,
        "latin.cif": text.replace("data_x", "data_x\n_publ_author 'M\xfcller'").encode("latin-1"),
        "utf16.cif": text.encode("utf-16"),
        "cut.cif": text[:-300].encode(),
        "no_atoms.cif": "\n".join(lines[:8]).encode(),
        "nan.cif": text.replace(number, "nan").encode(),
        "flat.cif": text.replace(lines[4], "_cell_length_c 0.01").encode(),
        "zero.cif": text.replace(lines[4], "_cell_length_c 0").encode(),
        "angle.cif": text.replace(lines[5], "_cell_angle_alpha 0").encode(),
        "huge.cif": text.replace(lines[4], "_cell_length_c 9e9").encode(),
        "dummy.cif": text.replace(" C ", " Xx ").encode(),
        "operations.cif": text.replace("'x, y, z'", "'x, q, z'").encode(),
        "empty.xyz": b"",
        "cut.xyz": xyz[:1500].encode(),
        "count.xyz": ("seven\n" + "\n".join(rows[1:])).encode(),
        "many.xyz": ("99999\n" + "\n".join(rows[1:])).encode(),
        "nan.xyz": xyz.replace(rows[2].split()[1], "nan").encode(),
        "far.xyz": xyz.replace(rows[2].split()[1], "1e300").encode(),
        "singular.xyz": xyz.replace('Lattice="', 'Lattice="0 0 0 0 0 0 0 0 0" Old="').encode(),
        "word.xyz": xyz.replace(rows[2].split()[1], "word").encode(),
        "negative.xyz": ("-3\n" + "\n".join(rows[1:])).encode(),
        "packed.xyz.gz": gzip.compress(xyz.encode())[:200],
        "cut.parquet": table[: len(table) // 2],
        "text.parquet": b"PAR1 and then nothing",
        "list.json": b"[1, 2, 3]",
        "cut.json": (FOLDER / "genarris/structures/symm_rigid_press/structures.json").read_bytes()[:3000],
        "deep.json": b'{"a": ' + b"[" * 100_000,
        "large.json": b'{"a": {"numbers": [1e30], "positions": [[0, 0, 0]], "cell": [[5,0,0],[0,5,0],[0,0,5]]}}',
        "null.json": b'{"a": null, "b": {"numbers": {"__ndarray__": 3}}}',
        "nan.json": b'{"a": {"numbers": [6], "positions": [[0, NaN, 0]], "cell": [[5,0,0],[0,5,0],[0,0,5]]}}',
        "predictions.pt": b"\x80\x04\x95",
    }


def read_or_refusal(path: Path) -> tuple[list[Sample], InputError | None]:
    try:
        return read_predictions(path), None
    except InputError as error:
        return [], error


@pytest.mark.parametrize("name", sorted(garbage()))
def test_garbage_is_a_failure_or_an_input_error(name: str, tmp_path: Path) -> None:
    content = garbage()[name]
    (tmp_path / name).write_bytes(content)
    samples, refusal = read_or_refusal(tmp_path / name)
    if refusal is not None:
        assert name in str(refusal)
    for sample in samples:
        assert (sample.crystal is None) == bool(sample.failure)
        assert sample.failure_kind != "bad input"
    if name not in ("latin.cif", "cut.cif"):  # a letter of a name; a list of atoms cut between two rows
        assert refusal is not None or any(s.crystal is None for s in samples)


def test_a_bad_file_in_a_folder_is_one_failed_sample(tmp_path: Path) -> None:
    for name, content in garbage().items():
        (tmp_path / name).write_bytes(content)
    write_cif(experiment(TARGETS[0]), tmp_path / "zz_good.cif")
    samples = read_predictions(tmp_path)
    assert samples[-1].crystal is not None
    assert samples[-1].name == "zz_good"
    named = {s.name.split("_")[0] for s in samples}
    assert {"empty", "binary", "utf16", "cut", "nan", "flat", "text"} <= named


def make(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_what_cannot_be_asked_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="existing file or folder"):
        read_predictions(tmp_path / "absent")
    with pytest.raises(InputError, match="found none"):
        read_predictions(make(tmp_path / "empty"))
    with pytest.raises(InputError, match="expected a format among"):
        read_predictions(tmp_path, format="word")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match="none of them"):
        detect_format(tmp_path / "notes.txt")
    pyarrow.parquet.write_table(pyarrow.table({"x": [1]}), tmp_path / "x.parquet")
    with pytest.raises(InputError, match="column with CIF text"):
        read_predictions(tmp_path / "x.parquet")


def test_a_given_format_wins_over_the_content(tmp_path: Path) -> None:
    path = tmp_path / "structures.txt"
    path.write_text((FOLDER / "molcrystalflow" / "pred_predictions_2.xyz").read_text())
    assert len(read_predictions(path, format="molcrystalflow")) == 4
    assert read_predictions(path, format="cif")[0].failure_kind == "unreadable"
    with pytest.raises(InputError, match="sample_idx"):
        read_predictions(FOLDER / "fastcsp" / "filtered_structures" / f"{TARGETS[0]}.parquet", format="clari")
