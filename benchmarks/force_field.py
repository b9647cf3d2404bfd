"""Are experimental crystals minima of the built-in force field?

    python benchmarks/force_field.py CIF_FOLDER INDEX.csv [--charges mmff|esp] [--splits train,val,test]

Every organic crystal of one to three species is relaxed from its experimental structure (molecules rigid, space group
kept). Kept: all 15 molecules still match with RMSD_15 < 0.8 Å. Also the change of the cell lengths and of the volume.
"""

import argparse
import csv
import json
from pathlib import Path

import numpy as np

from nucleate.crystal.io import read_crystal
from nucleate.crystal.rigid import normalise_hydrogens
from nucleate.crystal.standardise import represent_symmetric
from nucleate.errors import NucleateError
from nucleate.geometry.lattice import parameters_from_lattice
from nucleate.metrics.packing import compare_packing
from nucleate.physics.forcefield import ForceField
from nucleate.physics.minimise import TIGHT, minimise
from nucleate.pipeline.reference import CLOSE, SAME_PACKING, is_same


def relax_experimental(path: Path, charges: str = "mmff") -> dict:
    crystal = normalise_hydrogens(read_crystal(path))
    packing, _ = represent_symmetric(crystal)
    fitted = None
    if charges == "esp":
        from nucleate.physics.esp import esp_charges

        fitted = [
            np.array([esp_charges(m, k).numpy() for k in range(len(m.conformers))]) for m in packing.species
        ]
    field = ForceField.for_molecules(packing.species, fitted)
    result = minimise(packing, field, TIGHT._replace(max_steps=500))
    relaxed = result.packings.crystal(0)
    match = compare_packing(crystal, relaxed)
    before, after = (parameters_from_lattice(c.lattice)[0] for c in (crystal, relaxed))
    return {
        "kept": is_same(match, SAME_PACKING) and not bool(result.collapsed[0]),
        "close": is_same(match, CLOSE),
        "rmsd": match.rmsd,
        "length_change": float(((after / before - 1) ** 2).mean().sqrt()),
        "volume_change": relaxed.volume / crystal.volume - 1,
        "elements": sorted({a.GetSymbol() for m in packing.species for a in m.graph.GetAtoms()}),
    }


def report(lines: list[dict], name: str) -> None:
    """Failures stay in the denominator of the rates."""
    good = [x for x in lines if "rmsd" in x]
    if not lines:
        return
    kept, close = (sum(x.get(k, False) for x in lines) for k in ("kept", "close"))
    lengths, volumes = (np.array([x[k] for x in good]) for k in ("length_change", "volume_change"))
    print(
        f"{name:16s} kept {kept}/{len(lines)} ({100 * kept / len(lines):.0f} %), below {CLOSE} Å {close}/{len(lines)}; "
        f"median RMS length change {100 * np.median(lengths):.1f} %, volume change {100 * np.median(volumes):+.1f} %"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cifs", type=Path)
    parser.add_argument("index", type=Path)
    parser.add_argument("--charges", choices=["mmff", "esp"], default="mmff")
    parser.add_argument("--splits", default="train,val,test")
    parser.add_argument("--max-atoms", type=int, default=400, help="in the cell")
    parser.add_argument("--only", default="", help="elements that must be present, as in S,Br")
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    lines = []
    for row in csv.DictReader(options.index.open()):
        if row["split"] not in options.splits.split(",") or row["organic_only"] != "1" or not row["cod_id"]:
            continue
        if int(row["n_atoms_cell"]) > options.max_atoms or int(row["n_species"]) > 3:
            continue
        wanted = [e for e in options.only.split(",") if e]
        if wanted and not any(e in row["formula_unit"] for e in wanted):
            continue
        line: dict = {"id": row["cod_id"], "species": int(row["n_species"])}
        try:
            line |= relax_experimental(options.cifs / f"{row['cod_id']}.cif", options.charges)
        except NucleateError as error:
            line["error"] = str(error)
        lines.append(line)
        if options.out:
            with options.out.open("a") as file:
                file.write(json.dumps(line) + "\n")
    refused = [x for x in lines if "error" in x]
    lines = [x for x in lines if "error" not in x]
    print(f"{len(refused)} not read (see benchmarks/cod_import.py)")
    report(lines, "all")
    report([x for x in lines if x["species"] == 1], "one species")
    report([x for x in lines if x["species"] > 1], "several species")
    for element in ("S", "Br", "Cl", "F", "I", "P", "Si", "B"):
        report([x for x in lines if element in x["elements"]], f"with {element}")
    report([x for x in lines if set(x["elements"]) <= {"C", "H", "N", "O"}], "C, H, N, O only")


if __name__ == "__main__":
    main()
