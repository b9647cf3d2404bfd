"""How many experimental crystals does the search find, at which rank, at what cost?

    python benchmarks/recovery.py CIF_FOLDER INDEX.csv --mode given --starts 3000 --out given.jsonl

Modes: `given` (space group of the experiment, rigid molecule from the CIF), `common` (space group unknown, rigid
molecule), `smiles` (space group unknown, RDKit conformers). One line of JSON a crystal, a table at the end.
A crystal counts as found where all 15 molecules match (20 %, 20 degrees) and RMSD_15 < 0.8 Å (or < 0.4 Å).
"""

import argparse
import csv
import json
import re
import time
from pathlib import Path

import numpy as np
import torch
from rdkit import Chem

from nucleate.crystal.cif_read import read_crystal
from nucleate.crystal.crystal import Crystal
from nucleate.crystal.molecule import Molecule
from nucleate.crystal.rigid import normalise_hydrogens, species_from_crystal
from nucleate.crystal.standardise import find_symmetry
from nucleate.errors import NucleateError
from nucleate.physics.forcefield import ForceField
from nucleate.physics.parameters import KJ_PER_MOL
from nucleate.pipeline.conform import conform
from nucleate.pipeline.generate import Composition, arms
from nucleate.pipeline.minima import Minima
from nucleate.pipeline.rank import RankSettings, combined_energies, rerank
from nucleate.pipeline.reference import CLOSE, SAME_PACKING, find_reference, is_same
from nucleate.pipeline.search import search
from nucleate.pipeline.units import SearchSettings

DEEP = 400  # candidates compared, lowest first


def small_crystals(index: Path, splits: list[str], max_atoms: int) -> list[dict]:
    """Rows of the index: one organic species, Z' up to 1, few atoms."""
    rows = []
    for row in csv.DictReader(index.open()):
        alone = row["n_species"] == "1" and row["organic_only"] == "1" and float(row["z_prime"]) <= 1
        if alone and row["split"] in splits and row["cod_id"] and atoms_of(row) <= max_atoms:
            rows.append(row)
    return rows


def atoms_of(row: dict) -> int:
    """Atoms of the formula unit, from an entry such as C9H8O4x4."""
    formula = row["formula_unit"].split("x")[0]
    return sum(int(n or 1) for n in re.findall(r"[A-Z][a-z]?(\d*)", formula))


def composition_of(path: Path, mode: str) -> tuple[Crystal, Composition]:
    crystal = normalise_hydrogens(read_crystal(path))
    species = species_from_crystal(crystal)
    if len(species) > 1:
        raise NucleateError("several species")
    molecule = species[0]
    enantiopure = molecule.is_chiral and find_symmetry(crystal).group.is_sohncke
    if mode == "smiles":
        graph = Chem.AddHs(Chem.MolFromSmiles(molecule.smiles))
        found = conform(Molecule(graph, torch.zeros(0, graph.GetNumAtoms(), 3), molecule.smiles))
        return crystal, Composition((found.molecule,), (1,), (found.energies,), enantiopure)
    return crystal, Composition((molecule,), (1,), (torch.zeros(len(molecule.conformers)),), enantiopure)


def recover(
    path: Path,
    mode: str,
    settings: SearchSettings,
    z_prime: float,
    charges: str,
    energy: str,
    relax_steps: int,
) -> dict:
    started, cpu = time.monotonic(), time.process_time()
    crystal, composition = composition_of(path, mode)
    if charges == "esp":
        from nucleate.physics.esp import esp_charges

        fitted = [
            np.array([esp_charges(m, k).numpy() for k in range(len(m.conformers))])
            for m in composition.species
        ]
        field = ForceField.for_molecules(composition.species, fitted)
    else:
        field = ForceField.for_molecules(composition.species)
    if mode == "given":
        symmetry = find_symmetry(crystal)
        wanted = arms(composition, str(symmetry.group.number), z_prime=[z_prime])
    else:
        wanted = arms(composition)
    prepared = time.process_time() - cpu
    result = search(composition, wanted, settings, field=field)
    minima = result.minima
    depth = min(len(minima), DEEP)
    candidates = (minima.packing(i).crystal(0) for i in range(depth))
    found = find_reference(crystal, candidates)
    energies = minima.energy / KJ_PER_MOL
    judged = {}
    if energy:  # the order of the shortlist by another model, as `predict` would hand it over
        order = judged_order(minima, energy, relax_steps)
        ranks = {i: r for r, i in enumerate(order, start=1)}
        same = [ranks[i] for i, m in enumerate(found.matches) if i in ranks and is_same(m)]
        judged = {"rank_judged": min(same, default=None)}
    rank, close = found.rank(SAME_PACKING), found.rank(CLOSE)
    at = rank - 1 if rank else None
    return {
        "rank": rank,
        "rank_close": close,
        "rmsd": found.matches[at].rmsd if at is not None else None,
        "best_rmsd": min((m.rmsd for m in found.matches if m.is_match), default=None),
        "above_lowest_kj_mol": energies[at] - energies[0] if at is not None else None,
        **judged,
        "hits": int(minima.hits[at]) if at is not None else 0,
        "distinct": len(minima),
        "compared": depth,
        "search_cpu_s": sum(result.seconds.values()),
        "setup_cpu_s": prepared,
        "wall_s": time.monotonic() - started,
        "conformers": len(composition.species[0].conformers),
        "smiles": composition.species[0].smiles,
    }


def judged_order(minima: Minima, energy: str, relax_steps: int) -> list[int]:
    """Rows of the minima in the order that `predict --energy` gives them (the first hundred)."""
    crystals = [minima.packing(i).crystal(0) for i in range(min(len(minima), 100))]
    answers = rerank(crystals, energy, RankSettings(relax_steps=relax_steps))
    combined = combined_energies(minima.energy[: len(crystals)], answers.energy)
    return [int(i) for i in np.argsort(combined)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cifs", type=Path)
    parser.add_argument("index", type=Path)
    parser.add_argument("--mode", choices=["given", "common", "smiles"], default="given")
    parser.add_argument("--charges", choices=["mmff", "esp"], default="mmff")
    parser.add_argument("--energy", default="", help="also rank the twenty lowest with this model")
    parser.add_argument("--relax-steps", type=int, default=0)
    parser.add_argument("--starts", type=int, default=3000)
    parser.add_argument("--perturb", type=float, default=SearchSettings().perturb)
    parser.add_argument("--sequence", choices=["sobol", "random"], default="sobol")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--splits", default="test,val")
    parser.add_argument("--max-atoms", type=int, default=30)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", default="")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    settings = SearchSettings(
        n=options.starts, seed=options.seed, perturb=options.perturb, workers=options.workers,
        sequence=options.sequence,
    )  # fmt: skip
    lines = (
        [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    )
    done = {line["id"] for line in lines}
    for row in small_crystals(options.index, options.splits.split(","), options.max_atoms):
        if row["cod_id"] in done or (options.only and row["cod_id"] not in options.only.split(",")):
            continue
        line = {"id": row["cod_id"], "formula": row["formula_unit"], "group": int(row["space_group"])}
        line |= {"z_prime": float(row["z_prime"]), "atoms": atoms_of(row)}
        try:
            path = options.cifs / f"{row['cod_id']}.cif"
            line |= recover(
                path,
                options.mode,
                settings,
                float(row["z_prime"]),
                options.charges,
                options.energy,
                options.relax_steps,
            )
        except NucleateError as error:
            line |= {"error": str(error), "rank": None, "rank_close": None}
        lines.append(line)
        with options.out.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print({k: (round(v, 2) if isinstance(v, float) else v) for k, v in line.items()}, flush=True)
    summary(lines)


def summary(lines: list[dict]) -> None:
    """Failures stay in the denominator."""
    asked = len(lines)
    ranks = [line["rank"] for line in lines if line["rank"]]
    close = [line["rank_close"] for line in lines if line["rank_close"]]
    print(
        f"found (RMSD_15 < {SAME_PACKING} Å): {len(ranks)} of {asked}; (< {CLOSE} Å): {len(close)} of {asked}"
    )
    for limit in (1, 5, 10):
        print(f"  among the {limit} lowest: {sum(r <= limit for r in ranks)} of {asked}")
    judged = [line["rank_judged"] for line in lines if line.get("rank_judged")]
    if judged:
        for limit in (1, 5, 10):
            print(
                f"  after the energy model, among the {limit} lowest: {sum(r <= limit for r in judged)} of {asked}"
            )
    cpu = [line["search_cpu_s"] for line in lines if "search_cpu_s" in line]
    if cpu:
        print(f"CPU-seconds a crystal: median {np.median(cpu):.1f}, total {sum(cpu):.0f}")
    for line in lines:
        if not line["rank"]:
            print(
                "  missed:",
                line["id"],
                line["formula"],
                line["group"],
                line.get("error", line.get("best_rmsd")),
            )


if __name__ == "__main__":
    main()
