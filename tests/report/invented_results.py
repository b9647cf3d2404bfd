"""A made-up result folder: real structures (COD, CC0) under invented energies, not a prediction."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy
import pyarrow
import pyarrow.parquet

DATA = Path(__file__).parent / "data"
STRUCTURES = ("4506226", "7210454", "7100858", "7100390", "2006784")
GROUPS = {
    14: "P21/c",
    19: "P212121",
    2: "P-1",
    33: "Pna21",
    62: "Pnma",
    4: "P21",
    61: "Pbca",
    15: "C2/c",
    1: "P1",
    9: "Cc",
}


def invented_rows(n: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of `crystals.parquet`: energies that grow with rank, densities that fall with it."""
    random = numpy.random.default_rng(seed)
    energies = numpy.sort(random.gamma(2.0, 5.0, n))
    energies -= energies[0] if n else 0.0
    numbers = random.choice(list(GROUPS), n, p=[0.34, 0.18, 0.14, 0.08, 0.04, 0.08, 0.05, 0.05, 0.02, 0.02])
    rows = []
    for i, (energy, number) in enumerate(zip(energies.tolist(), numbers.tolist())):
        density = 1.42 - 0.006 * energy + 0.02 * random.normal()
        rows.append(
            {
                "id": f"test-{i + 1:04d}",
                "rank": i + 1,
                "energy_kj_mol": energy,
                "lattice_energy_kj_mol": energy - 118.4,
                "density_g_cm3": density,
                "volume_per_molecule_A3": 137.14 * 1.66054 / density,
                "space_group": number,
                "z": 4,
                "z_prime": 0.5 if number == 62 else 1.0,
                "generator": "random",
                "conformer": i % 3,
                "seed": int(random.integers(1 << 30)),
                "n_duplicates": int(random.poisson(6)),
                "clash": False,
                "match_reference": i == 2,
                "rmsd_n": 0.21 if i == 2 else None,
                "n_matched": 15 if i == 2 else 4,
                "cif": f"cif/{i + 1:04d}.cif",
            }
        )
    return rows


def invented_run(n: int) -> dict[str, Any]:
    return {
        "nucleate": "0.1.0",
        "command": 'nucleate predict "Nc1cccc(C(=O)O)c1" -n 2000 --reference 4506226.cif',
        "molecule": {
            "name": "3-aminobenzoic acid (test data)",
            "smiles": "Nc1cccc(C(=O)O)c1",
            "formula": "C7H7NO2",
            "n_atoms": 17,
            "species": ["Nc1cccc(C(=O)O)c1"],
        },
        "seed": 0,
        "settings": {"n": 2000, "z": [2, 4], "space_groups": "common", "generator": "random", "budget": None},
        "versions": {"python": "3.11.9", "torch": "2.13.0", "rdkit": "2025.3"},
        "started": "2026-01-02T03:04:05Z",
        "wall_seconds": 312.4,
        "cpu_seconds": 598.1,
        "timings": {
            "conform": 4.2,
            "generate": 31.0,
            "press": 40.9,
            "relax": 201.7,
            "deduplicate": 12.5,
            "rank": 22.1,
        },
        "counts": {"asked": 2000, "generated": 1992, "clash_free": 1805, "converged": 1640, "distinct": n},
        "failures": {"clash after press": 187, "not converged": 165, "no volume": 8},
        "space_groups": {
            str(number): {"symbol": symbol, "starts": 400 - 36 * i, "distinct": max(0, n // (i + 2))}
            for i, (number, symbol) in enumerate(GROUPS.items())
        },
        "convergence": {
            "lowest_found_again": 23,
            "good_turing_unseen": 0.08,
            "text": "The ten lowest minima were found 23 times again.",
        },
        "energy_model": "forcefield",
        "reference": {
            "file": "4506226.cif",
            "found": True,
            "rank": 3,
            "rmsd": 0.21,
            "n_matched": 15,
            "cif": (DATA / "4506226.cif").read_text(),
        },
    }


def write_folder(folder: Path, rows: list[dict[str, Any]], run: dict[str, Any] | None) -> Path:
    (folder / "cif").mkdir(parents=True)
    names = list(invented_rows(1)[0])
    table = (
        pyarrow.Table.from_pylist(rows)
        if rows
        else pyarrow.table({name: pyarrow.array([]) for name in names})
    )
    pyarrow.parquet.write_table(table, folder / "crystals.parquet")
    for i in range(len(rows)):
        shutil.copyfile(DATA / f"{STRUCTURES[i % 5]}.cif", folder / "cif" / f"{i + 1:04d}.cif")
    if run is not None:
        (folder / "run.json").write_text(json.dumps(run))
    return folder
