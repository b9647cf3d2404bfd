"""Readers and writers by what the user has: a SMILES, a molecule file, a list of molecules, extended XYZ.

CIF lives in `cif_read` and `cif_write`; `read_crystal`, `write_cif` and `cif_text` are offered here as well.
"""

import re
from collections.abc import Iterable
from io import StringIO
from math import gcd
from pathlib import Path
from typing import Any

import ase
import ase.io
import numpy as np
import torch
from ase.io.formats import string2index
from rdkit import Chem, rdBase

from nucleate.crystal.assemble import assemble_crystal
from nucleate.crystal.cif_read import MOST_ATOMS, read_crystal
from nucleate.crystal.cif_write import cif_text, write_cif
from nucleate.crystal.crystal import Crystal
from nucleate.crystal.graph import with_stereo
from nucleate.crystal.molecule import Molecule
from nucleate.crystal.open_space import open_box
from nucleate.crystal.rigid import represent_rigid, species_from_crystal
from nucleate.crystal.xyz import frame_texts, read_frame
from nucleate.errors import InputError
from nucleate.files import write_atomically
from nucleate.reading import parse_csv, read_file, unpack

__all__ = [
    "checked_smiles",
    "cif_text",
    "read_crystal",
    "read_extxyz",
    "read_frames",
    "read_molecule",
    "read_molecule_list",
    "read_smiles_list",
    "read_stoichiometry",
    "write_cif",
    "write_extxyz",
]

FILES = (".cif", ".sdf", ".mol", ".xyz")
CROWDED = 300  # atoms; a molecule beyond this is surely a mistake for packing on a laptop
LONGEST = 5000  # characters of a SMILES
FARTHEST = 1e5  # Å from the origin: beyond it, rounding alone would bend molecules


def read_molecule(source: str | Path) -> tuple[Molecule, ...]:
    """The distinct molecules of a SMILES (dots separate them), SDF, MOL, XYZ or CIF file.

    A SMILES gives no conformers, SDF and XYZ one each (an SDF with several records of one molecule: one
    conformer a record), a CIF those of the crystal. Raises InputError with reason "bad SMILES",
    "unreadable", "empty file", "unknown element", "radical", "too large" or those of `read_crystal`.
    """
    return tuple(molecule for molecule, _ in read_stoichiometry(source))


def read_stoichiometry(source: str | Path) -> list[tuple[Molecule, int]]:
    """As `read_molecule`, with how many of each there are in the formula unit ("O.O.CCO": water 2, ethanol
    1).
    """
    path = Path(source)
    suffix = path.suffix.lower()
    if suffix not in FILES:
        if suffix in (".smi", ".csv"):
            raise InputError(
                f"expected one molecule, got the list {path.name}; read it with read_molecule_list"
            )
        return _from_smiles(str(source))
    if not read_file(path, "a molecule").strip():
        raise InputError(f"expected a molecule, got an empty file: {path}", reason="empty file")
    if suffix == ".cif":
        return _from_cif(path)
    return _from_xyz(path) if suffix == ".xyz" else _from_sdf(path)


def read_molecule_list(path: str | Path) -> list[tuple[str, str | InputError]]:
    """Names and SMILES of a .smi (`SMILES name`) or .csv file (columns `smiles` and, if there, `name` or
    `id`), plain or gzipped.

    A SMILES that does not parse is given back as its InputError in place, so that a summary counts it.
    Empty lines and lines that start with # are skipped; molecules without a name get their number.
    """
    return [(name, checked_smiles(smiles)) for name, smiles in read_smiles_list(path)]


def read_smiles_list(path: str | Path) -> list[tuple[str, str]]:
    """As `read_molecule_list`, whatever the SMILES may be."""
    path = Path(path)
    packed = path.suffix.lower() == ".gz"
    text = unpack(read_file(path, "a list"), path, whole=True).decode("utf-8-sig", errors="replace")
    plain = path.with_suffix("") if packed else path
    rows = _csv_rows(text, path) if plain.suffix.lower() == ".csv" else _smi_rows(text)
    if not rows:
        raise InputError(f"expected at least one molecule, got none in {path}", reason="empty file")
    return [(name or f"{k:04d}", smiles) for k, (name, smiles) in enumerate(rows, 1)]


def read_extxyz(source: str | Path, index: str = ":") -> list[Crystal]:
    """Crystals of an extended XYZ file (ASE), plain or gzipped, with bonds perceived.

    An array `mol_id` is kept in `info["mol_id"]` in the order of the atoms; molecules themselves always
    follow the bonds. Raises InputError where a frame has no cell in three dimensions, or as `read_crystal`
    does.
    """
    path = Path(source)
    return [_crystal_of(frame, path.name) for frame in read_frames(path, index)]


def read_frames(path: Path, index: str = ":") -> list[ase.Atoms]:
    """Frames of an XYZ file, plain or extended, as ASE has them. Raises InputError "unreadable" or "empty file"."""
    text = unpack(read_file(path, "an XYZ file"), path).decode("utf-8", errors="replace")
    if not text.strip():
        raise InputError(f"expected an XYZ file, got an empty file: {path}", reason="empty file")
    frames, where = list(frame_texts(text)), string2index(index)
    try:
        return [
            read_frame(frame)
            for frame in (frames[where] if isinstance(where, slice) else [frames[int(where)]])
        ]
    except InputError as error:
        raise InputError(
            f"expected an XYZ file, got {path.name} that cannot be read ({error})", error.reason
        ) from None


def write_extxyz(crystals: Iterable[Crystal], path: str | Path) -> Path:
    """Crystals as extended XYZ with the array `mol_id`; plain values of `info` go to the comment line."""
    stream = StringIO()
    for crystal in crystals:
        info = {k: v for k, v in (crystal.info or {}).items() if isinstance(v, str | int | float | bool)}
        atoms = ase.Atoms(
            numbers=crystal.numbers.numpy(),
            cell=crystal.lattice.double().numpy(),
            positions=crystal.positions.double().numpy(),
            pbc=True,
            info=info,
        )
        atoms.set_array("mol_id", crystal.molecule.numpy())
        ase.io.write(stream, atoms, format="extxyz")
    write_atomically(Path(path), stream.getvalue())
    return Path(path)


def _from_smiles(text: str) -> list[tuple[Molecule, int]]:
    graph = _parse_smiles(text)
    parts = Chem.GetMolFrags(graph, asMols=True)
    found: dict[str, tuple[Molecule, int]] = {}
    for part in parts:
        full = Chem.AddHs(part)
        empty = torch.zeros(0, full.GetNumAtoms(), 3, dtype=torch.float64)
        molecule = Molecule(_plain(full), empty, name=Chem.MolToSmiles(part))
        known, count = found.get(molecule.smiles, (molecule, 0))
        found[molecule.smiles] = (known, count + 1)
    return list(found.values())


def _parse_smiles(text: str) -> Chem.Mol:
    """A closed-shell molecule from a SMILES, or InputError that says what is wrong with it."""
    text = text.strip()
    if not text:
        raise InputError("expected a SMILES or a molecule file, got nothing", reason="bad SMILES")
    if len(text) > LONGEST:
        raise InputError(
            f"expected a SMILES of at most {LONGEST} characters, got {len(text)} ({text[:20]}...)",
            reason="too large",
        )
    with rdBase.BlockLogs():
        bare = Chem.MolFromSmiles(text, sanitize=False)
        if bare is not None:  # rings of thousands of atoms take their time
            _refuse_large(bare, text[:60], 3 * CROWDED)
        graph = None if bare is None else Chem.MolFromSmiles(text)
    if graph is None or graph.GetNumAtoms() == 0:
        why = "its syntax is broken" if bare is None else "a valence or an aromatic ring is impossible"
        hint = (
            ""
            if not Path(text).suffix
            else "; if it is a file: .cif, .sdf, .mol, .xyz, .smi and .csv are read"
        )
        raise InputError(
            f"expected a SMILES such as CC(=O)O, got {text[:60]!r}: {why}; check it in a drawing "
            f"program{hint}",
            reason="bad SMILES",
        )
    _refuse_odd(graph, text[:60])
    return graph


def _refuse_odd(graph: Chem.Mol, name: str) -> None:
    """Refuse radicals, dummy atoms and molecules far too large."""
    if any(atom.GetAtomicNum() == 0 for atom in graph.GetAtoms()):
        raise InputError(
            f"expected chemical elements only, got a dummy atom (*) in {name}; write the real group",
            reason="unknown element",
        )
    if any(atom.GetNumRadicalElectrons() and _is_organic(atom) for atom in graph.GetAtoms()):
        raise InputError(
            f"expected a closed-shell molecule, got a radical: {name}; are hydrogens or charges missing?",
            reason="radical",
        )
    _refuse_large(graph, name, CROWDED)


def _refuse_large(graph: Chem.Mol, name: str, most: int) -> None:
    if graph.GetNumAtoms() > most:
        raise InputError(
            f"expected at most {most} atoms, got {graph.GetNumAtoms()} in {name}; packing searches do not reach that "
            "far",
            reason="too large",
        )


def _is_organic(atom: Chem.Atom) -> bool:
    return atom.GetAtomicNum() in (1, 5, 6, 7, 8, 9, 14, 15, 16, 17, 34, 35, 53)


def _plain(graph: Chem.Mol) -> Chem.Mol:
    """Isotope labels and atom-map numbers dropped: they change neither shape nor packing."""
    copy = Chem.Mol(graph)
    for atom in copy.GetAtoms():
        atom.SetIsotope(0)
        atom.SetAtomMapNum(0)
        atom.SetNoImplicit(True)
    Chem.SanitizeMol(copy)
    Chem.AssignStereochemistry(copy, cleanIt=True, force=True)
    return copy


def _from_sdf(path: Path) -> list[tuple[Molecule, int]]:
    with rdBase.BlockLogs():
        records = list(Chem.SDMolSupplier(str(path), removeHs=False))
    good = [m for m in records if m is not None and m.GetNumAtoms()]
    if not good or len(good) < len(records):
        raise InputError(
            f"expected molecule records that RDKit can read, got {len(records) - len(good)} broken of "
            f"{len(records)} in {path.name}; check valences and the end of the file",
            reason="unreadable",
        )
    found: dict[str, Molecule] = {}
    for record in good:
        for part in Chem.GetMolFrags(record, asMols=True):
            _add_record(found, part, path)
    return [(molecule, 1) for molecule in found.values()]


def _add_record(found: dict[str, Molecule], part: Chem.Mol, path: Path) -> None:
    """A record as a new molecule, or as one more conformer of one that is there."""
    _refuse_odd(part, path.name)
    conformer = part.GetConformer()
    solid = conformer.Is3D()
    full = Chem.AddHs(part, addCoords=solid)
    places = torch.tensor(full.GetConformer().GetPositions(), dtype=torch.float64)[None]
    if not places.isfinite().all() or float(places.abs().max()) > FARTHEST:
        raise InputError(
            f"expected coordinates in Å in {path.name}, got some beyond {FARTHEST:g} or none", "not a number"
        )
    full.RemoveAllConformers()
    if solid:
        full = with_stereo(full, places[0])
    name = part.GetProp("_Name") if part.HasProp("_Name") else ""
    molecule = Molecule(_plain(full), places if solid else places[:0], name=name or path.stem)
    if (known := found.get(molecule.smiles)) is None:
        found[molecule.smiles] = molecule
    elif len(molecule.conformers):
        order = molecule.graph.GetSubstructMatch(known.graph, useChirality=True)
        more = torch.cat([known.conformers, molecule.conformers[:, list(order)]])
        found[molecule.smiles] = known.with_conformers(more)


def _from_xyz(path: Path) -> list[tuple[Molecule, int]]:
    atoms = read_frames(path, "0")[0]
    refuse_odd_atoms(atoms, path.name)
    lattice, frac = open_box(torch.tensor(atoms.positions, dtype=torch.float64))
    crystal = assemble_crystal(lattice, frac, torch.tensor(atoms.numbers).long())
    return _counted(crystal, path.stem)


def refuse_odd_atoms(atoms: ase.Atoms, name: str) -> None:
    """Refuse dummy atoms, far too many of them, and places that are none."""
    if not 0 < len(atoms) <= MOST_ATOMS:
        raise InputError(f"expected 1 to {MOST_ATOMS} atoms in {name}, got {len(atoms)}", reason="too large")
    if ((atoms.numbers < 1) | (atoms.numbers > 118)).any():
        raise InputError(
            f"expected chemical elements in {name}, got a dummy atom (X)", reason="unknown element"
        )
    if (farthest := float(np.abs([*atoms.positions, *atoms.cell]).max())) > FARTHEST:
        raise InputError(
            f"expected positions and cells in Å in {name}, got {farthest:.3g}", reason="absurd coordinates"
        )


def _from_cif(path: Path) -> list[tuple[Molecule, int]]:
    return _counted(read_crystal(path), path.stem)


def _counted(crystal: Crystal, name: str) -> list[tuple[Molecule, int]]:
    """Distinct molecules of a crystal with their counts in the formula unit."""
    species = species_from_crystal(crystal)
    packing, _ = represent_rigid(crystal, species)
    counts = torch.bincount(packing.kind, minlength=len(species)).tolist()
    unit = gcd(*counts)
    named = [
        Molecule(m.graph, m.conformers, name=name if len(species) == 1 else f"{name}-{k}")
        for k, m in enumerate(species, 1)
    ]
    return [(m, n // unit) for m, n in zip(named, counts)]


def _crystal_of(frame: ase.Atoms, name: str) -> Crystal:
    refuse_odd_atoms(frame, name)
    lattice = torch.tensor(np.array(frame.cell), dtype=torch.float64)
    if abs(torch.linalg.det(lattice)) < 1e-3:
        raise InputError(
            f"expected a crystal with a Lattice, got a frame of {name} without a cell in three dimensions",
            reason="no cell",
        )
    positions = torch.tensor(frame.positions, dtype=torch.float64)
    if torch.linalg.det(lattice) < 0:
        lattice = -lattice  # the same translations, right-handed; positions stay
    frac = positions @ torch.linalg.inv(lattice)
    info: dict[str, Any] = {
        k: v for k, v in frame.info.items() if isinstance(v, str | int | float | bool | np.number)
    }
    if "mol_id" in frame.arrays:
        info["mol_id"] = torch.tensor(frame.arrays["mol_id"].astype(np.int64))
    return assemble_crystal(lattice, frac, torch.tensor(frame.numbers).long(), info, check_hydrogens=False)


def _smi_rows(text: str) -> list[tuple[str, str]]:
    lines = [line.strip() for line in text.splitlines()]
    parts = [re.split(r"\s+", line, maxsplit=1) for line in lines if line and not line.startswith("#")]
    return [(p[1] if len(p) > 1 else "", p[0]) for p in parts]


def _csv_rows(text: str, path: Path) -> list[tuple[str, str]]:
    names, rows = parse_csv(text, path)
    column = {name.strip().lower(): name for name in names}
    if "smiles" not in column:
        have = ", ".join(column) or "none"
        raise InputError(
            f"expected a column named 'smiles' in {path.name}, got {have}; name the columns in line 1"
        )
    label = column.get("name") or column.get("id")
    found = [(row[label].strip() if label else "", row[column["smiles"]].strip()) for row in rows]
    return [(name, smiles) for name, smiles in found if name or smiles]


def checked_smiles(smiles: str) -> str | InputError:
    """The SMILES, or why it is none of a closed-shell molecule."""
    try:
        _parse_smiles(smiles)
    except InputError as error:
        return error
    return smiles
