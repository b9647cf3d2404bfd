"""Everything that takes a file or a text from outside: how to make a good one, and who reads it.

    crystal (CIF) --`Reader.good`--> good file --`mutations`--> hostile file --`Reader.read`--> a result or a refusal

A new reader is one more entry of `READERS`.
"""

import json
import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import torch
from rdkit import Chem

from nucleate.crystal.cif_write import cif_text
from nucleate.crystal.cluster import Cluster
from nucleate.crystal.cluster_xyz import cluster_text, read_cluster_xyz
from nucleate.crystal.crystal import Crystal
from nucleate.crystal.formula import cell_contents
from nucleate.crystal.io import read_crystal, read_extxyz, read_molecule, read_molecule_list, write_extxyz
from nucleate.crystal.rigid import species_from_crystal
from nucleate.crystal.sites import Sites, primitive_niggli_sites, sites_from_cif
from nucleate.crystal.sites_cif import sites_cif_text
from nucleate.crystal.standardise import represent_symmetric
from nucleate.data.cluster_files import (
    FINAL,
    FINAL_END,
    INITIAL,
    INITIAL_END,
    ClusterRecord,
    read_cluster_splits,
    write_clusters,
)
from nucleate.data.clusters import cluster_of
from nucleate.data.conformer_sources import read_source
from nucleate.data.conformers import ConformerSet, boltzmann, read_conformer_splits, write_conformers
from nucleate.data.inorganic import read_table
from nucleate.data.packed import PackedCrystal, from_row, to_row, write_shard
from nucleate.data.predictions import count_asked, molecules_of, read_predictions, read_references
from nucleate.data.rigid_frames import RigidFrames, read_frames, write_frames
from nucleate.data.splits import read_split_rows
from nucleate.generative.checkpoint import write_tensors
from nucleate.generative.train_settings import TrainSettings
from nucleate.generative.training import CHECKPOINT, fit
from nucleate.metrics.powder_similarity import read_pattern
from nucleate.models.molcrystalflow_training import SYSTEM
from nucleate.physics.rigid_sites import TIP4P_EW
from nucleate.pipeline.claims import claim
from nucleate.pipeline.cluster_sources import _published as published_cluster
from nucleate.pipeline.composition import read_subject
from nucleate.pipeline.conform import ConformSettings
from nucleate.pipeline.conformer_shards import RECORD as LEFT_OUT
from nucleate.pipeline.conformer_shards import ConformerShards
from nucleate.pipeline.crystal_files import read_either
from nucleate.pipeline.evaluate import rows_of
from nucleate.pipeline.import_crystals import (
    RECORD,
    ImportSettings,
    _earlier,
    import_crystal,
    read_splits,
)
from nucleate.pipeline.inorganic_tasks import targets_of
from nucleate.pipeline.molecule_lists import excluded_keys
from nucleate.pipeline.predict import _earlier_search
from nucleate.pipeline.train import load_weights, read_settings, settings_text
from nucleate.report import write_any_report
from nucleate.weights import read_weights
from tests.generative.toy import Line, points

Good = Callable[[Path, Path], bytes]  # of a CIF file, in a scratch folder
FEW_SHAPES = ConformSettings(embed=2, time_limit=2.0)
TINY = TrainSettings(steps=4, warm_up=1, log_every=1, validate_every=2, tensorboard=False)


@dataclass(frozen=True)
class Reader:
    """`read` takes the path of a file called `name` in a folder of its own, with the good files of `beside`."""

    kind: str  # its table of mutations
    name: str
    good: Good
    read: Callable[[Path], object]
    beside: tuple[tuple[str, Good], ...] = ()
    few: bool = False  # the good file does not depend on the crystal

    def write(self, content: bytes, cif: Path, folder: Path) -> Path:
        """The file among its neighbours."""
        for name, good in self.beside:
            _put(folder / name, good_file(good, cif))
        return _put(folder / self.name, content)


def _put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@cache
def good_file(good: Good, cif: Path) -> bytes:
    """Made once for each crystal."""
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        return good(cif, Path(scratch))


# ---------------------------------------------------------------- good files: molecules and crystals


@cache
def _crystal(cif: Path) -> Crystal:
    return read_crystal(cif)


def _cif(cif: Path, _: Path) -> bytes:
    return cif.read_bytes()


def _salt() -> Sites:
    """Rock salt in a cell of eight."""
    frac = torch.cartesian_prod(*[torch.tensor([0.0, 0.5], dtype=torch.float64)] * 3)
    numbers = torch.where((2 * frac.sum(1)).long() % 2 == 0, 11, 17)
    return Sites(5.64 * torch.eye(3, dtype=torch.float64), frac, numbers)


def _salt_cif(_: Path, __: Path) -> bytes:
    return sites_cif_text(_salt(), "salt").encode()


def _graph(cif: Path) -> Chem.Mol:
    """The first molecule, with its coordinates."""
    molecule = species_from_crystal(_crystal(cif))[0]
    graph = Chem.Mol(molecule.graph)
    conformer = Chem.Conformer(len(molecule))
    conformer.SetPositions(molecule.conformers[0].numpy())
    conformer.Set3D(True)
    graph.AddConformer(conformer)
    graph.SetProp("_Name", cif.stem)
    graph.SetProp("energy_kj_mol", "1.5")
    return graph


def _mol(cif: Path, _: Path) -> bytes:
    return Chem.MolToMolBlock(_graph(cif)).encode()


def _sdf(cif: Path, scratch: Path) -> bytes:
    path = scratch / "x.sdf"
    with Chem.SDWriter(str(path)) as writer:
        writer.write(_graph(cif))
        writer.write(_graph(cif))
    return path.read_bytes()


def _smiles(cif: Path, _: Path) -> bytes:
    return ".".join(m.smiles for m in species_from_crystal(_crystal(cif))).encode()


def _smi(cif: Path, scratch: Path) -> bytes:
    return b"CCO ethanol\n# a comment\n" + _smiles(cif, scratch) + b" " + cif.stem.encode() + b"\nc1ccccc1\n"


def _csv(cif: Path, scratch: Path) -> bytes:
    return b'name,smiles\nethanol,CCO\n"a, b",' + _smiles(cif, scratch) + b"\n"


def _xyz(cif: Path, _: Path) -> bytes:
    return Chem.MolToXYZBlock(_graph(cif)).encode()


def _extxyz(cif: Path, scratch: Path) -> bytes:
    crystal = _crystal(cif)
    return write_extxyz([crystal, crystal.replace(info={"energy": -1.0})], scratch / "x.xyz").read_bytes()


@cache
def _cluster(cif: Path) -> Cluster:
    return cluster_of(_crystal(cif), 5)


def _cluster_xyz(cif: Path, _: Path) -> bytes:
    cluster = _cluster(cif)
    return cluster_text(cluster, [cluster.positions], [{"energy": 0.5}]).encode()


def _cluster_csv(cif: Path, _: Path) -> bytes:
    cluster, table = _cluster(cif), Chem.GetPeriodicTable()
    lines = ["mol_idx,element,x,y,z"]
    for m, copy in enumerate(cluster.positions.tolist()):
        for z, (a, b, c) in zip(cluster.numbers.tolist(), copy):
            lines.append(f"{m},{table.GetElementSymbol(z)},{a:.5f},{b:.5f},{c:.5f}")
    return ("\n".join(lines) + "\n").encode()


def _genarris(cif: Path, _: Path) -> bytes:
    crystal = _crystal(cif)
    atoms = {
        "numbers": {"__ndarray__": [[len(crystal)], "int64", crystal.numbers.tolist()]},
        "positions": crystal.positions.tolist(),
        "cell": {"array": crystal.lattice.tolist()},
        "pbc": [True] * 3,
        "info": {"uma": -3.5},
    }
    return ("{\n" + f'"a": {json.dumps(atoms)},\n"b": {json.dumps(atoms)}' + "\n}\n").encode()


def _pattern(_: Path, __: Path) -> bytes:
    return "\n".join(f"{5 + k / 10:.1f} {100 * (k % 7):.1f}" for k in range(60)).encode()


# ---------------------------------------------------------------- good files: tables


def _parquet(rows: list[dict[str, Any]], scratch: Path) -> bytes:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), scratch / "x.parquet")
    return (scratch / "x.parquet").read_bytes()


def _crystals_parquet(cif: Path, scratch: Path) -> bytes:
    text = cif_text(_crystal(cif))
    rows = [
        {"id": f"{cif.stem}-{k}", "rank": k, "energy_kj_mol": float(k), "lattice_energy_kj_mol": -90.0, "cif": text,
         "density_g_cm3": 1.3, "space_group": 14, "space_group_symbol": "P2_1/c", "z": 4, "z_prime": 1.0, "seed": 0,
         "match_reference": k == 1, "rmsd_n": 0.2}
        for k in (1, 2)
    ]  # fmt: skip
    return _parquet(rows, scratch)


def _clari_parquet(cif: Path, scratch: Path) -> bytes:
    text = cif_text(_crystal(cif))
    return _parquet([{"id": cif.stem, "sample_idx": k, "cif": text} for k in range(2)], scratch)


def _run_json(cif: Path, _: Path) -> bytes:
    run = {
        "nucleate": "0.1", "command": "nucleate predict", "seed": 0, "settings": {"n": 3, "energy": None},
        "notes": ["a note"],
        "molecule": {"name": cif.stem, "smiles": "CCO", "formula": "C2H6O", "n_atoms": 9,
        "species": [{"smiles": "CCO", "count": 1}]},
        "counts": {"asked": 4, "generated": 3}, "failures": {"clash": 1}, "timings": {"search": 1.0},
        "wall_seconds": 1.0,
        "space_groups": {"14": {"symbol": "P2_1/c", "starts": 4, "distinct": 2}}, "stopped": "", "interrupted": False,
        "convergence": {"points": [[1, 2], [3, 4]]}, "energy_model": "forcefield", "cpu_seconds": 1.0,
        "reference": {"file": "x.cif", "found": True, "rank": 1, "rmsd": 0.2, "n_matched": 15,
        "cif": cif_text(_crystal(cif))},
    }  # fmt: skip
    return json.dumps(run).encode()


def _inorganic_parquet(_: Path, scratch: Path) -> bytes:
    text = sites_cif_text(_salt(), "salt")
    rows = [{"material_id": f"m{k}", "cif": text, "pressure": 0.5 * k, "formula": "NaCl"} for k in range(3)]
    return _parquet(rows, scratch)


def _inorganic_csv(_: Path, __: Path) -> bytes:
    text = sites_cif_text(_salt(), "salt").replace('"', '""')
    return f'material_id,formula,cif,gap\na,NaCl,"{text}",1.0\nb,TiO2,"{text}",\n'.encode()


def _formulas(_: Path, __: Path) -> bytes:
    return b"material_id,formula,formula_units\na,TiO2,2\nb,Ca(OH)2,1\n,CaSO4,\n"


def _shard(cif: Path, scratch: Path) -> bytes:
    packing, _ = represent_symmetric(_crystal(cif))
    rows = [to_row(PackedCrystal(packing, f"{cif.stem}{k}", "cod", -1.0, 0.0, 3)) for k in range(2)]
    write_shard(rows, scratch / "x.parquet", {"settings": {}, "split": "train"})
    return (scratch / "x.parquet").read_bytes()


def _conformer_shard(cif: Path, scratch: Path) -> bytes:
    molecule = species_from_crystal(_crystal(cif))[0]
    energies = torch.zeros(len(molecule.conformers), dtype=torch.float64)
    own = ConformerSet(molecule, energies, boltzmann(energies), "read")
    write_conformers([own], scratch / "x.parquet", {"split": "train"})
    return (scratch / "x.parquet").read_bytes()


def _cluster_shard(cif: Path, scratch: Path) -> bytes:
    write_clusters([ClusterRecord(_cluster(cif))], scratch / "x.parquet", {"split": "train"})
    return (scratch / "x.parquet").read_bytes()


def _splits(cif: Path, _: Path) -> bytes:
    return f"cod_id,split\n{cif.stem},train\n123,test\n".encode()


def _evaluation(cif: Path, scratch: Path) -> bytes:
    table = pyarrow.Table.from_pylist([{"target": cif.stem, "index": 0, "failure": ""}])
    pyarrow.parquet.write_table(table.replace_schema_metadata({"nucleate": "{}"}), scratch / "x.parquet")
    return (scratch / "x.parquet").read_bytes()


def _samples(_: Path, scratch: Path) -> bytes:
    return _parquet(
        [{"id": "0001", "target": None, "failure": ""}, {"id": "0002", "target": None, "failure": "x"}],
        scratch,
    )


def _import_record(cif: Path, _: Path) -> bytes:
    settings = ImportSettings().model_dump(mode="json", exclude={"workers"})
    return json.dumps(
        {"settings": settings, "files": {cif.stem: {"outcome": "clash", "why": "too close"}}}
    ).encode()


def _left_out(_: Path, __: Path) -> bytes:
    return json.dumps(
        {"left_out": {"3": {"given": "CCO", "outcome": "radical", "why": "a radical"}}}
    ).encode()


# ---------------------------------------------------------------- good files: tensors, pickles, settings


def _weights(_: Path, scratch: Path) -> bytes:
    about = {"system": "line", "model": {"width": 8}}
    write_tensors(scratch / "w.safetensors", Line().network.state_dict(), about)
    return (scratch / "w.safetensors").read_bytes()


def _card(_: Path, __: Path) -> bytes:
    return json.dumps({"system": "line", "model": {"width": 8}, "metrics": {"rmse": 0.1}}).encode()


def _checkpoint(_: Path, scratch: Path) -> bytes:
    fit(Line(), points(), TINY, scratch)
    return (scratch / CHECKPOINT).read_bytes()


def _frames(_: Path, scratch: Path) -> bytes:
    chance = torch.Generator().manual_seed(0)
    places = 9 * torch.rand(3, 2, 3, generator=chance, dtype=torch.float64)
    turns = torch.nn.functional.normalize(torch.randn(3, 2, 4, generator=chance, dtype=torch.float64), dim=-1)
    cell = 9 * torch.eye(3, dtype=torch.float64)
    frames = RigidFrames(TIP4P_EW, cell, 250.0, places, turns, torch.zeros(3, dtype=torch.float64))
    write_frames(frames, scratch / "f.safetensors", {"sampler": "own"})
    return (scratch / "f.safetensors").read_bytes()


def _geom(cif: Path, _: Path) -> bytes:
    one = {"rd_mol": _graph(cif), "totalenergy": -1.0, "boltzmannweight": 0.5}
    return pickle.dumps({"conformers": [one, one], "smiles": "CCO"})


def _toml(_: Path, __: Path) -> bytes:
    return settings_text(SYSTEM).encode()


def _free_energy(_: Path, __: Path) -> bytes:
    estimate = {"method": "flow", "difference_kT": -1.0, "error_kT": 0.1, "per_molecule_kT": -0.1,
    "effective_share": 0.5,
                "gap_kT": 0.1, "frames": 3}  # fmt: skip
    record = {
        "base_K": 250,
        "target_K": 100,
        "crystal": {"molecules": 16},
        "estimates": [estimate],
        "notes": [],
        "settings": {},
    }
    return json.dumps(record).encode()


# ---------------------------------------------------------------- readers


def _all(found: Iterable[Any]) -> list[Any]:
    return list(found)


def _text(read: Callable[[str], object]) -> Callable[[Path], object]:
    """A reader of what is typed: what a command line can hand on has no NUL."""
    return lambda path: read(path.read_bytes().decode("utf-8", "replace").replace("\x00", " "))


def _predictions(path: Path) -> object:
    samples = read_predictions(path)
    return count_asked(path, samples)


def _predictions_of(path: Path) -> object:
    return read_predictions(path, molecules=molecules_of(read_references(path.parent / "known.cif")))


def _go_on(path: Path) -> object:
    return fit(Line(), points(), TINY, path.parent, resume=True)


def _import_again(path: Path) -> object:
    return _earlier(path.parent, ImportSettings(), resume=True)


def _claimed(path: Path) -> object:
    return claim(
        path.parent / "run.json", path.parent / "samples.parquet", {"a": 1}, {"0001", "0002"}, resume=True
    )


RESULT = (("run.json", _run_json), ("crystals.parquet", _crystals_parquet))

READERS: dict[str, Reader] = {
    "SMILES": Reader("smiles", "x.txt", _smiles, _text(read_molecule)),
    "SMILES, shapes": Reader("smiles", "x.txt", _smiles, _text(lambda s: read_subject(s, FEW_SHAPES))),
    "formula": Reader("smiles", "x.txt", lambda *_: b"Ca(OH)2", _text(lambda s: cell_contents(s, 2)), few=True),
    "list .smi": Reader("list", "x.smi", _smi, read_molecule_list),
    "list .csv": Reader("csv", "x.csv", _csv, read_molecule_list),
    "list to exclude": Reader("list", "x.smi", _smi, lambda p: excluded_keys([p])),
    "MOL": Reader("sdf", "x.mol", _mol, read_molecule),
    "SDF": Reader("sdf", "x.sdf", _sdf, read_molecule),
    "SDF of conformers": Reader("sdf", "x.sdf", _sdf, lambda p: _all(read_source(p))),
    "pickle of conformers": Reader("pickle", "x.pkl", _geom, lambda p: _all(read_source(p))),
    "XYZ": Reader("xyz", "x.xyz", _xyz, read_molecule),
    "extended XYZ": Reader("xyz", "x.xyz", _extxyz, read_extxyz),
    "XYZ of a cluster": Reader("xyz", "x.xyz", _cluster_xyz, lambda p: read_cluster_xyz(p, 5)),
    "XYZ predictions": Reader("xyz", "x.xyz", _extxyz, _predictions_of, (("known.cif", _cif),)),
    "CIF": Reader("cif", "x.cif", _cif, read_crystal),
    "CIF, major component": Reader("cif", "x.cif", _cif, lambda p: read_crystal(p, disorder="major",
    check_contents=False)),
    "CIF, molecules": Reader("cif", "x.cif", _cif, read_molecule),
    "CIF, imported": Reader("cif", "x.cif", _cif, lambda p: import_crystal(p, ImportSettings())),
    "CIF, atoms": Reader("cif", "x.cif", _cif, lambda p: primitive_niggli_sites(sites_from_cif(p))),
    "CIF, inorganic": Reader("cif", "x.cif", _salt_cif, lambda p: primitive_niggli_sites(sites_from_cif(p)),
    few=True),
    "CIF, to relax": Reader("cif", "x.cif", _cif, read_either),
    "CIF predictions": Reader("cif", "x.cif", _cif, _predictions_of, (("known.cif", _cif),)),
    "CIF references": Reader("cif", "x.cif", _cif, read_references),
    "Genarris": Reader("json", "structures.json", _genarris, _predictions),
    "crystals.parquet": Reader("parquet", "crystals.parquet", _crystals_parquet, _predictions, RESULT[:1]),
    "Clari's parquet": Reader("parquet", "predictions.parquet", _clari_parquet, _predictions),
    "run.json": Reader("json", "run.json", _run_json, lambda p: _predictions(p.parent), RESULT[1:]),
    "report, crystals.parquet": Reader("parquet", "crystals.parquet", _crystals_parquet,
    lambda p: write_any_report(p.parent), RESULT[:1]),
    "report, run.json": Reader("json", "run.json", _run_json, lambda p: write_any_report(p.parent), RESULT[1:]),
    "report, conformers.sdf": Reader("sdf", "conformers.sdf", _sdf, lambda p: write_any_report(p.parent)),
    "report, free_energy.json": Reader("json", "free_energy.json", _free_energy,
    lambda p: write_any_report(p.parent), few=True),
    "table of crystals": Reader("parquet", "x.parquet", _inorganic_parquet, read_table, few=True),
    "table of crystals .csv": Reader("csv", "x.csv", _inorganic_csv, read_table, few=True),
    "list of formulas": Reader("csv", "x.csv", _formulas, lambda p: targets_of(None, 1, p), few=True),
    "data set of crystals": Reader(
        "parquet", "d/x.parquet", _shard,
        lambda p: [from_row(r) for rows in read_split_rows(p.parent).values() for r in rows]
    ),
    "data set of conformers": Reader("parquet", "d/x.parquet", _conformer_shard,
    lambda p: read_conformer_splits(p.parent)),
    "data set of clusters": Reader("parquet", "d/x.parquet", _cluster_shard, lambda p: read_cluster_splits(p.parent)),
    "data set to exclude": Reader("parquet", "d/x.parquet", _shard, lambda p: excluded_keys([p.parent])),
    "COD-Cluster17": Reader(
        "csv", f"{FINAL}/x{FINAL_END}", _cluster_csv, published_cluster, ((f"{INITIAL}/x{INITIAL_END}",
        _cluster_csv),)
    ),
    "splits": Reader("csv", "x.csv", _splits, read_splits),
    "settings": Reader("toml", "x.toml", _toml, lambda p: read_settings(p, SYSTEM), few=True),
    "weights": Reader("safetensors", "weights.safetensors", _weights, lambda p: read_weights(p, "line"), few=True),
    "weights to begin with": Reader("safetensors", "w.safetensors", _weights,
    lambda p: load_weights(Line().network, p), few=True),
    "model card": Reader(
        "json", "weights.json", _card, lambda p: read_weights(p.with_suffix(".safetensors"), "line"),
        (("weights.safetensors", _weights),), few=True,
    ),
    "checkpoint": Reader("safetensors", CHECKPOINT, _checkpoint, _go_on, few=True),
    "frames": Reader("safetensors", "f.safetensors", _frames, read_frames, few=True),
    "resumed evaluation": Reader("parquet", "x.parquet", _evaluation, lambda p: rows_of(p, {})),
    "resumed samples": Reader("parquet", "samples.parquet", _samples, _claimed, (("run.json",
    lambda *_: b'{"a": 1}'),), few=True),
    "resumed samples, settings": Reader("json", "run.json", lambda *_: b'{"a": 1}', _claimed, (("samples.parquet",
    _samples),), few=True),
    "resumed import": Reader("json", RECORD, _import_record, _import_again),
    "resumed conformers": Reader("json", LEFT_OUT, _left_out, lambda p: ConformerShards(p.parent, {}).resume(),
    few=True),
    "resumed search": Reader("json", "search.json", lambda *_: b'{"n": 5, "seed": 0}', _earlier_search, few=True),
    "powder pattern": Reader("text", "x.xy", _pattern, read_pattern, few=True),
}  # fmt: skip
