"""`nucleate conform`: a molecule in, its conformers out, as one SDF file, or as a folder with a report.

source --read--> molecules --ensemble, one by one--> conformers.sdf, run.json, report.html
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rdkit import Chem

from nucleate import __version__
from nucleate.crystal.io import read_stoichiometry
from nucleate.crystal.molecule import Molecule
from nucleate.data.conformers import ROOM
from nucleate.errors import InputError
from nucleate.files import write_atomically
from nucleate.physics.parameters import KJ_PER_MOL
from nucleate.pipeline.composition import default_name, folder_name
from nucleate.pipeline.conformer_shapes import bare, with_positions
from nucleate.pipeline.ensemble import (
    Ensemble,
    EnsembleSettings,
    Progress,
    ensemble,
    refuse_complexes,
    source_of,
)
from nucleate.pipeline.folders import hold_file, hold_folder, make_folder
from nucleate.pipeline.landscape import write_run
from nucleate.pipeline.predict import Stopwatch
from nucleate.pipeline.provenance import provenance
from nucleate.report.conformer_page import write_conformer_report
from nucleate.report.folder import CONFORMERS, CRYSTALS, SAMPLES, finite

Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Conformed:
    """What was written: the SDF file, one row a conformer as its records have them, and the record of the run."""

    sdf: Path
    rows: list[Row]
    run: dict[str, Any]
    report: Path | None  # only in a folder


def conform_files(
    source: str,
    output: Path | None = None,
    settings: EnsembleSettings | None = None,
    name: str | None = None,
    progress: Progress | None = None,
) -> Conformed:
    """Conformers of every species of a SMILES or molecule file.

    `output` is a folder, by default results/<name>-conformers, or an SDF file, which is then all that is written.
    Raises InputError for what cannot be read or where another run is under way, and NucleateError where a molecule has
    no conformer that can be used; no file is written then.
    """
    settings = settings or EnsembleSettings()
    clock = Stopwatch()
    given = read_stoichiometry(source)
    for molecule, _ in given:
        refuse_complexes(molecule)
    shapes = source_of(settings)
    smiles = ".".join(m.smiles for m, n in given for _ in range(n))
    called = folder_name(name) if name else default_name(source, smiles)
    alone = output is not None and output.suffix.lower() == ".sdf"
    sdf = output if output and alone else (output or Path("results") / f"{called}-conformers") / CONFORMERS
    folder = make_folder(sdf.parent)
    with hold_file(sdf) if alone else hold_folder(folder):
        if not alone:
            _refuse_other_results(folder)
        found = []
        for molecule, _ in given:
            found.append(ensemble(molecule, settings, progress, shapes))
            clock.lap(molecule.smiles)
        records = [
            record for k, one in enumerate(found) for record in _records(one, k, len(found), called, settings)
        ]
        run = _run(source, called, smiles, given, found, settings, clock)
        write_atomically(sdf, "".join(_text(graph, row) for graph, row in records))
        rows = [finite(row) for _, row in records]
        if alone:
            return Conformed(sdf, rows, finite(run), None)
        plain = write_run(folder, run)
        return Conformed(sdf, rows, plain, write_conformer_report(folder))


def _refuse_other_results(folder: Path) -> None:
    """Their report and run.json would be lost."""
    if other := next((name for name in (CRYSTALS, SAMPLES) if (folder / name).is_file()), None):
        raise InputError(
            f"expected a folder without other results, got {folder} with {other}; choose another with -o"
        )


def _records(
    found: Ensemble, k: int, species: int, name: str, settings: EnsembleSettings
) -> list[tuple[Chem.Mol, Row]]:
    """Graph with coordinates, and its properties, of each conformer."""
    full = with_positions(bare(found.molecule), found.positions)
    own = f"{name}_{k + 1}" if species > 1 else name
    records = []
    for i in range(len(found.energies)):
        row = {
            "id": f"{own}_{i + 1:04d}",
            "smiles": found.molecule.smiles,
            "rank": i + 1,
            "energy_kj_mol": round(float(found.energies[i]) / KJ_PER_MOL, 4),
            "boltzmann_weight": round(float(found.weights[i]), 6),
            "mirror_images": int(found.images[i]),
            "rmsd_A": round(float(found.distances[i]), 4),
            "energy_model": found.energy_model,
            "method": settings.method if settings.method == "etkdg" else f"confgf {settings.sampler}",
            "seed": settings.seed,
            "nucleate": __version__,
        }
        records.append((Chem.Mol(full, confId=i), finite(row)))
    return records


def _text(graph: Chem.Mol, row: Row) -> str:
    """One record of an SDF file; what is not known is left out."""
    record = Chem.Mol(graph)
    record.SetProp("_Name", str(row["id"]))
    properties = "".join(f">  <{key}>\n{value}\n\n" for key, value in row.items() if value is not None)
    return f"{Chem.MolToMolBlock(record)}{properties}$$$$\n"


def _run(
    source: str,
    name: str,
    smiles: str,
    given: list[tuple[Molecule, int]],
    found: list[Ensemble],
    settings: EnsembleSettings,
    clock: Stopwatch,
) -> dict[str, Any]:
    """run.json: what was asked, what became of every shape, and what must be known to do it again."""
    species = [
        {
            "smiles": m.smiles,
            "formula": m.formula,
            "n_atoms": len(m),
            "charge": m.charge,
            "count": n,
            "conformers": len(one.energies),
            "energy_model": one.energy_model,
            "counts": one.counts,
        }
        for (m, n), one in zip(given, found)
    ]
    names = dict.fromkeys(key for one in found for key in one.counts)
    return {
        **provenance("torch", "numpy", "rdkit"),
        "source": source,
        "molecule": {
            "name": name,
            "smiles": smiles,
            "formula": ".".join(m.formula for m, _ in given),
            "n_atoms": sum(n * len(m) for m, n in given),
            "species": species,
        },
        "seed": settings.seed,
        "settings": settings.model_dump(mode="json"),
        "temperature_K": ROOM,
        "counts": {key: sum(one.counts.get(key, 0) for one in found) for key in names},
        "notes": [note for (m, _), one in zip(given, found) for note in _notes(m, one)],
        "started": clock.began,
        "timings": clock.laps,
        "wall_seconds": clock.total,
        "cpu_seconds": round(clock.cpu, 3),
    }


def _notes(molecule: Molecule, found: Ensemble) -> list[str]:
    """What one should know before using the conformers."""
    notes = []
    labels = Chem.FindMolChiralCenters(molecule.graph, includeUnassigned=True, useLegacyImplementation=False)
    if any(label == "?" for _, label in labels):
        notes.append(
            "the hand of some stereocentre is not given: these are conformers of one diastereomer, the one of the "
            "lowest shape. Write @ or @@ in the SMILES to choose."
        )
    if late := found.counts.get("out_of_time", 0):
        notes.append(f"the time limit left {late} shapes unoptimised, and they are not among the conformers")
    if found.energy_model.startswith("UFF"):
        notes.append("MMFF94 does not describe this molecule; energies are those of UFF, which are rough")
    if not found.energies.isfinite().all():
        notes.append(
            "no force field knows this molecule: conformers are in the order in which they were made"
        )
    return [f"{molecule.smiles}: {note}" for note in notes]
