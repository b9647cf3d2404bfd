"""Small files in the formats of other programs, written here from the COD crystals of tests/data.

`python -m tests.data_room.peer_files` writes tests/data/predictions anew. Nothing in them comes from those programs:
each follows what `nucleate.data.predictions` says about its format. Every set has, for the crystal of each target,
the experimental structure itself, a copy blown up by 15 % (another packing), and something that cannot be read.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import gemmi
import numpy as np
import pyarrow
import pyarrow.parquet
import torch

from nucleate.crystal.cif_read import read_crystal
from nucleate.crystal.crystal import Crystal

DATA = Path(__file__).parents[1] / "data"
FOLDER = DATA / "predictions"
TARGETS = ("1100989", "7210454")  # an acid amide, and benzene with two functional groups: four molecules each


@dataclass(frozen=True, eq=False)
class Atoms:
    """Atoms of one cell, one molecule after another."""

    symbols: list[str]
    positions: np.ndarray  # Å
    lattice: np.ndarray  # Å, rows
    molecule: np.ndarray


def experiment(name: str) -> Crystal:
    return read_crystal(DATA / f"cod_{name}.cif")


def scaled(crystal: Crystal, factor: float) -> Crystal:
    """Every centroid at the same place of a cell `factor` times as large; the molecules keep their size."""
    lattice = crystal.lattice * factor
    own = (crystal.frac - crystal.centroids[crystal.molecule]) @ crystal.lattice
    frac = crystal.centroids[crystal.molecule] + own @ torch.linalg.inv(lattice)
    return crystal.replace(lattice=lattice, frac=frac)


def atoms_of(crystal: Crystal) -> Atoms:
    order = torch.argsort(crystal.molecule, stable=True)
    return Atoms(
        [gemmi.Element(int(z)).name for z in crystal.numbers[order]],
        crystal.positions[order].numpy(),
        crystal.lattice.numpy(),
        crystal.molecule[order].numpy(),
    )


def p1_cif(atoms: Atoms, name: str) -> str:
    """All atoms of the cell in P 1, as gemmi, ASE and pymatgen write structures without symmetry."""
    cell = gemmi.UnitCell(*_parameters(atoms.lattice))
    frac = np.linalg.solve(atoms.lattice.T, atoms.positions.T).T
    lengths = zip("abc", cell.parameters[:3])
    angles = zip(("alpha", "beta", "gamma"), cell.parameters[3:])
    lines = [f"data_{name}", "_symmetry_space_group_name_H-M 'P 1'"]
    lines += [f"_cell_length_{x} {v:.6f}" for x, v in lengths] + [
        f"_cell_angle_{x} {v:.6f}" for x, v in angles
    ]
    lines += ["loop_", "_symmetry_equiv_pos_as_xyz", "'x, y, z'", "loop_", "_atom_site_label"]
    lines += ["_atom_site_type_symbol", *(f"_atom_site_fract_{x}" for x in "xyz"), "_atom_site_occupancy"]
    for k, (s, x) in enumerate(zip(atoms.symbols, frac)):
        lines.append(f"{s}{k + 1} {s} {x[0]:.6f} {x[1]:.6f} {x[2]:.6f} 1.0")
    return "\n".join(lines) + "\n"


def oxtal_cif(crystal: Crystal, name: str, copies: int = 30) -> str:
    """The molecules nearest to a point as mmCIF: no cell, no hydrogens, a chain for each molecule."""
    cluster = _nearest(crystal, copies)
    keys = ["group_PDB", "type_symbol", "label_atom_id", "label_comp_id", "label_asym_id", "label_entity_id"]
    keys += ["auth_seq_id", "auth_asym_id", "Cartn_x", "Cartn_y", "Cartn_z", "pdbx_PDB_model_num", "id"]
    lines = [f"data_{name}_predicted_by_oxtal", "#", f"_entry.id {name}", "#", "loop_"]
    lines += [f"_atom_site.{key}" for key in keys]
    names = _heavy_names(crystal)
    for k, x in enumerate(cluster.reshape(-1, 3)):
        chain, atom = _letters(k // len(names)), names[k % len(names)]
        symbol = atom.rstrip("0123456789")
        lines.append(
            f"HETATM {symbol} {atom} UNL {chain} 1 0 {chain} {x[0]:.3f} {x[1]:.3f} {x[2]:.3f} 1 {k + 1}"
        )
    lines += [
        "#",
        "loop_",
        *(f"_chem_comp_bond.{k}" for k in ("comp_id", "atom_id_1", "atom_id_2", "value_order")),
    ]
    lines += [f"UNL {names[i]} {names[j]} SING" for i, j in _heavy_bonds(crystal)]
    return "\n".join(lines) + "\n#\n"


def ase_json(atoms: Atoms, info: dict[str, object]) -> dict[str, object]:
    """Atoms as ASE puts them in JSON."""
    numbers = [gemmi.Element(s).atomic_number for s in atoms.symbols]
    return {
        "numbers": {"__ndarray__": [[len(numbers)], "int64", numbers]},
        "positions": _array(atoms.positions),
        "cell": {"array": _array(atoms.lattice), "__ase_objtype__": "cell"},
        "pbc": {"__ndarray__": [[3], "bool", [True] * 3]},
        "info": info,
        "__ase_objtype__": "atoms",
    }


def flow_frame(atoms: Atoms, k: int) -> str:
    """One frame of MolCrystalFlow's xyz."""
    lattice = " ".join(f"{v:.6f}" for v in atoms.lattice.ravel())
    comment = f'Pred {k} Lattice="{lattice}" Properties=species:S:1:pos:R:3:bb_idx:I:1 pbc="T T T"'
    lines = [
        f"{s} {x[0]:.6f} {x[1]:.6f} {x[2]:.6f} {m}"
        for s, x, m in zip(atoms.symbols, atoms.positions, atoms.molecule)
    ]
    return "\n".join([str(len(lines)), comment, *lines]) + "\n"


def write_table(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, compression="zstd")


def write_clari(folder: Path) -> None:
    rows = []
    for target in TARGETS:
        found = experiment(target)
        texts = [p1_cif(atoms_of(c), target) for c in (scaled(found, 1.15), found)]
        texts.append(texts[1].replace(texts[1].splitlines()[-3].split()[2], "nan"))
        rows += [{"id": target, "sample_idx": len(rows) + k, "cif": text} for k, text in enumerate(texts)]
    write_table(folder / "predictions.parquet", rows[::-1])
    requests = [{"id": t, "smiles": "C", "copies": 4, "samples": 4} for t in TARGETS]
    (folder / "config.json").write_text(json.dumps({"model": "invented", "requests": requests}, indent=1))
    energies = ["sample_idx,energies", "0,-100.0", "1,-104.0", "2,inf", "3,-200.0", "4,-208.0", "5,inf"]
    (folder / "energies.csv").write_text("\n".join(energies) + "\n")


def write_oxtal(folder: Path) -> None:
    (folder / "cifs").mkdir(parents=True, exist_ok=True)
    for target in TARGETS:
        text = oxtal_cif(experiment(target), target)
        (folder / "cifs" / f"{target}_seed0_sample_0.cif").write_text(text)
        cut = text[: text.index("HETATM") + 150]
        (folder / "cifs" / f"{target}_seed1_sample_0.cif").write_text(cut)


def write_genarris(folder: Path) -> None:
    (folder / "structures" / "symm_rigid_press").mkdir(parents=True, exist_ok=True)
    found = experiment(TARGETS[1])
    entries = {
        "2f4a1": ase_json(atoms_of(scaled(found, 1.15)), {"spg": 14, "uma": -400.0}),
        "8c33e": ase_json(atoms_of(found), {"spg": 14, "uma": 0, "bfgs_uma": -412.0}),
        "901bd": {"numbers": [6, 6], "positions": [[0, 0, 0]], "cell": [[5, 0, 0], [0, 5, 0], [0, 0, 5]]},
    }
    lines = [f'"{name}": {json.dumps(atoms)}' for name, atoms in entries.items()]
    path = folder / "structures" / "symm_rigid_press" / "structures.json"
    path.write_text("{\n" + ",\n".join(lines) + "\n}")


def write_fastcsp(folder: Path) -> None:
    for target in TARGETS:
        found = experiment(target)
        texts = [
            p1_cif(atoms_of(scaled(found, 1.15)), "blown"),
            p1_cif(atoms_of(found), "found"),
            "data_cut\nloop_",
        ]
        rows = [
            {
                "mol_id": target,
                "conf_id": "c0",
                "z": 4,
                "structure_id": f"{k:04x}_{target}_c0_4",
                "cif_generated": texts[0],
                "cif_relaxed": text,
                "energy_relaxed": -4000.0 - 4 * k,
                "energy_relaxed_per_molecule": -1000.0 - k,
                "optimizer_converged": True,
            }
            for k, text in enumerate(texts)
        ]
        write_table(folder / "filtered_structures" / f"{target}.parquet", rows)


def write_molcrystalflow(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    found = [experiment(t) for t in TARGETS]
    blown = [scaled(c, 1.15) for c in found]
    text = "".join(flow_frame(atoms_of(c), k) for k, c in enumerate([*blown, *found]))
    (folder / "pred_predictions_2.xyz").write_text(text)
    (folder / "gt_predictions_2.xyz").write_text(
        "".join(flow_frame(atoms_of(c), k) for k, c in enumerate(found))
    )


def main(folder: Path = FOLDER) -> None:
    for name, write in WRITERS.items():
        write(folder / name)


WRITERS = {
    "clari": write_clari,
    "oxtal": write_oxtal,
    "genarris": write_genarris,
    "fastcsp": write_fastcsp,
    "molcrystalflow": write_molcrystalflow,
}


def _array(values: np.ndarray) -> dict[str, object]:
    return {"__ndarray__": [list(values.shape), "float64", [round(float(x), 6) for x in values.ravel()]]}


def _parameters(lattice: np.ndarray) -> list[float]:
    a, b, c = lattice
    angles = [
        np.degrees(np.arccos(u @ v / np.linalg.norm(u) / np.linalg.norm(v)))
        for u, v in ((b, c), (a, c), (a, b))
    ]
    return [*np.linalg.norm(lattice, axis=1), *angles]


def _heavy(crystal: Crystal) -> torch.Tensor:
    """Heavy atoms of the first molecule."""
    return torch.nonzero((crystal.molecule == 0) & (crystal.numbers > 1)).flatten()


def _heavy_names(crystal: Crystal) -> list[str]:
    symbols = [gemmi.Element(int(z)).name.upper() for z in crystal.numbers[_heavy(crystal)]]
    return [f"{s}{symbols[: k + 1].count(s)}" for k, s in enumerate(symbols)]


def _heavy_bonds(crystal: Crystal) -> list[tuple[int, int]]:
    place = {int(a): k for k, a in enumerate(_heavy(crystal))}
    return [(place[a], place[b]) for a, b in crystal.bonds.tolist() if a in place and b in place]


def _nearest(crystal: Crystal, copies: int) -> np.ndarray:
    """Heavy atoms (copies, atoms, 3) in Å of the molecules whose centroids are nearest to that of molecule 0."""
    order = torch.argsort(crystal.molecule, stable=True)
    own = order[crystal.numbers[order] > 1].reshape(crystal.n_molecules, -1)
    shifts = torch.cartesian_prod(*[torch.arange(-3, 4)] * 3).double() @ crystal.lattice
    molecules = crystal.positions[own]
    images = (molecules[None] + shifts[:, None, None]).flatten(0, 1)
    far = (images.mean(1) - molecules[0].mean(0)).norm(dim=1)
    return images[far.argsort()[:copies]].numpy()


def _letters(k: int) -> str:
    return chr(65 + k) if k < 26 else chr(64 + k // 26) + chr(65 + k % 26)


if __name__ == "__main__":
    main()
