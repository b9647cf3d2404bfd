"""How two energies of the same crystals agree, on three published landscapes, and where the experimental forms stand.

    python benchmarks/landscapes.py --folder FOLDER [--relax] [--powder]

FOLDER holds NAME.csv (columns id and two energies, eV per cell) and NAME_pbe_mbd.extxyz.gz, NAME_mace.extxyz.gz
(the crystals relaxed by each model, `ident` in the comment line) for aspirin, HMX and target XXII: the case studies
of Genarris 3. Molecules per cell are worked out by perceiving molecules. Printed: PBE+MBD against MACE-OFF23(L), and
against the built-in force field on the PBE+MBD geometries; `--relax` relaxes in the force field first (rigid
molecules, minutes); `--powder` says how well powder patterns recognise one crystal relaxed by two models.
"""

import argparse
import csv
import time
from pathlib import Path

import ase
import ase.io
import numpy as np
import torch

from nucleate.crystal.assemble import assemble_crystal
from nucleate.crystal.crystal import Crystal
from nucleate.errors import InputError
from nucleate.metrics.energy_agreement import compare_energies
from nucleate.metrics.powder_similarity import powder_similarity, variable_cell_similarity
from nucleate.metrics.volume import volume_deviation
from nucleate.physics.forcefield_model import ForceFieldModel
from nucleate.physics.parameters import KJ_PER_MOL
from nucleate.pipeline.relax import relax

EXPERIMENTAL = {
    "aspirin": {"20ce6e221825ca0": "form I", "98f018e9b2a7d8d": "form II"},
    "hmx": {"187ac946e2806d2": "experimental"},
    "target_xxii": {"e23175197bfb2f6": "experimental"},
}


def read_frames(path: Path) -> dict[str, Crystal | InputError]:
    """Each structure by id, or why it is none (a few have atoms listed twice)."""
    found: dict[str, Crystal | InputError] = {}
    for frame in ase.io.iread(path, index=":", format="extxyz"):
        name = frame.info["ident"]
        try:
            found[name] = as_crystal(frame)
        except InputError as error:
            found[name] = error
    return found


def as_crystal(frame: ase.Atoms) -> Crystal:
    lattice = torch.from_numpy(np.array(frame.cell))
    if torch.linalg.det(lattice) < 0:
        lattice = -lattice
    frac = torch.from_numpy(frame.positions) @ torch.linalg.inv(lattice)
    return assemble_crystal(lattice, frac, torch.from_numpy(frame.numbers).long(), check_hydrogens=False)


def good(found: dict[str, Crystal | InputError]) -> dict[str, Crystal]:
    return {name: c for name, c in found.items() if isinstance(c, Crystal)}


def force_field(found: dict[str, Crystal | InputError], names: list[str], relaxed: bool) -> np.ndarray:
    """eV per cell; NaN where the structure or the force field failed."""
    crystals = good(found)
    known = [n for n in names if n in crystals]
    if relaxed:
        results = relax([crystals[n] for n in known])
        value = {n: r.energy * KJ_PER_MOL * crystals[n].n_molecules for n, r in zip(known, results)}
    else:
        answers = ForceFieldModel().evaluate([crystals[n] for n in known])
        value = {n: a.energy for n, a in zip(known, answers) if a.energy is not None}
    return np.array([value.get(n, np.nan) for n in names])


def print_powder(pbe: dict[str, Crystal], mace: dict[str, Crystal], pairs: int = 100) -> None:
    """Similarity of one crystal relaxed by two models, and of different crystals."""
    names = sorted(pbe.keys() & mace.keys())
    start = time.process_time()
    same = [variable_cell_similarity(pbe[n], mace[n]) for n in names]
    order = np.random.default_rng(0).integers(len(names), size=(pairs, 2))
    other = [variable_cell_similarity(pbe[names[i]], pbe[names[j]]) for i, j in order if i != j]
    seconds = (time.process_time() - start) / (len(same) + len(other))
    for title, matches in (("one crystal, two models", same), ("two crystals", other)):
        for kind, values in (
            ("as it is", [m.plain for m in matches]),
            ("cell free", [m.similarity for m in matches]),
        ):
            q = np.quantile(values, [0.05, 0.5, 0.95])
            print(
                f"    {title:24} {kind:9} 5 % {q[0]:.3f}  median {q[1]:.3f}  95 % {q[2]:.3f}  ({len(values)})"
            )
        strain = np.median([m.largest_strain for m in matches])
        print(f"    {'':24} median largest strain {100 * strain:.1f} %")
    print(f"    {1000 * seconds:.0f} CPU-ms a pair; plain similarity alone of one pair: ", end="")
    start = time.process_time()
    powder_similarity(pbe[names[0]], pbe[names[1]])
    print(f"{1000 * (time.process_time() - start):.0f} CPU-ms")


def report(folder: Path, name: str, relaxed: bool, powder: bool) -> None:
    with open(folder / f"{name}.csv", newline="") as lines:
        rows = list(csv.DictReader(lines))
    ids = [row["id"] for row in rows]
    pbe = read_frames(folder / f"{name}_pbe_mbd.extxyz.gz")
    mace = read_frames(folder / f"{name}_mace.extxyz.gz")
    either = good(mace) | good(pbe)
    molecules = [either[i].n_molecules if i in either else 1 for i in ids]  # of both models the same
    lost = np.array([i not in either for i in ids])
    sizes = sorted({c.n_molecules for c in either.values()})
    broken = [len(found) - len(good(found)) for found in (pbe, mace)]
    print(
        f"\n{name}: {len(ids)} structures, cells of {sizes} molecules; not crystals: {broken[0]} PBE+MBD, "
        f"{broken[1]} MACE geometries; in {lost.sum()} the molecules are unknown, and their energies count as failed"
    )
    a, b = (np.array([float(row[k]) for row in rows]) for k in ("PBE+MBD(eV)", "MACE-OFF23(L)(eV)"))
    a[lost], b[lost] = np.nan, np.nan
    energies = {"MACE-OFF23(L)": b, "force field, as is": force_field(pbe, ids, relaxed=False)}
    if relaxed:
        energies["force field, relaxed"] = force_field(pbe, ids, relaxed=True)
    forms = EXPERIMENTAL[name]
    for model, energy in energies.items():
        agreement = compare_energies(a, energy, molecules, ids, list(forms))
        print(f"  PBE+MBD against {model}: {agreement}")
        for first, second in agreement.standings:
            print(f"    {forms[first.name]}: by PBE+MBD {first}; by {model} {second}")
    both = sorted(good(pbe).keys() & good(mace).keys())
    volumes = volume_deviation([good(mace)[n] for n in both], [good(pbe)[n] for n in both])
    print(f"  volume, MACE geometry against PBE+MBD: {volumes}")
    if powder:
        print("  powder patterns:")
        print_powder(good(pbe), good(mace))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--relax", action="store_true")
    parser.add_argument("--powder", action="store_true")
    parser.add_argument("--names", default=",".join(EXPERIMENTAL))
    options = parser.parse_args()
    for name in options.names.split(","):
        report(options.folder, name, options.relax, options.powder)


if __name__ == "__main__":
    main()
