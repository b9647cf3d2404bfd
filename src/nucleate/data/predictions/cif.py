"""CIF text -> entries: crystals of any kind, and clusters in mmCIF as OXtal writes them.

OXtal (github.com/OXtal/OXtal, runner/dumper.py and oxtal/data/utils.py) writes one file a sample,
`<name>_seed<seed>_sample_<k>.cif` in `<dump_dir>/cifs`, through biotite: block `..._predicted_by_oxtal`, a loop
`_atom_site` with `Cartn_x/y/z` (Å), `type_symbol`, `label_atom_id` and one `label_asym_id` for each copy of a
molecule, and a loop `_chem_comp_bond`. There is no cell, and hydrogens are left out.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import gemmi
import numpy as np
from gemmi import cif

from nucleate.crystal.cif_read import MOST_ATOMS
from nucleate.crystal.crystal import Crystal
from nucleate.crystal.io import read_crystal
from nucleate.data.predictions.molecules import refuse_absurd_cell
from nucleate.data.predictions.sample import Entry, Frame, finite_number
from nucleate.errors import InputError
from nucleate.reading import read_file

ENERGY_TAG = "_nucleate_lattice_energy_kj_mol"  # per molecule, as `predict` and `relax` write it
OXTAL_NAME = re.compile(r"(?P<target>.+)_seed\w*?_sample_\d+$")
SPECIAL = 0.15  # Å: an atom this close to its own image sits on a special position


def entries_of_cif(path: Path) -> Iterator[Entry]:
    """One entry for each data block with a structure; a file without one is a failed entry."""
    oxtal = OXTAL_NAME.match(path.stem)
    target = oxtal["target"] if oxtal else None
    text = read_file(path, "a CIF").decode("utf-8", errors="replace")
    blocks = list(blocks_of(text))
    for name, block, failure in blocks:
        label = path.stem if len(blocks) == 1 else name
        yield replace(entry_of_block(label, block, failure), target=target)
    if not blocks:
        what = "a CIF without a structure" if text.strip() else "an empty file"
        yield Entry(path.stem, target=target, failure=f"unreadable: expected a structure, got {what}")


def blocks_of(text: str) -> Iterator[tuple[str, cif.Block | None, str]]:
    """Name and content of each block that has a cell or atoms, or the reason why it cannot be read.

    A text that does not parse as a whole is cut at its `data_` lines, so one broken block costs only itself.
    """
    try:
        documents = [cif.read_string(text, check_level=0)]
    except (ValueError, RuntimeError):
        documents = []
    for block in (b for document in documents for b in document):
        if _is_structure(block):
            yield block.name, block, ""
    if documents or not text.strip():
        return
    for part in re.split(r"(?mi)^(?=data_)", text):
        if not part.lower().startswith("data_"):
            continue
        name = part[5:].split(maxsplit=1)[0] if part[5:].strip() else "?"
        try:
            found = [b for b in cif.read_string(part, check_level=0) if _is_structure(b)]
        except (ValueError, RuntimeError) as error:
            yield name, None, f"unreadable: expected CIF, got {' '.join(str(error).split())[:100]}"
            continue
        yield from ((b.name, b, "") for b in found)


def entry_of_text(name: str, text: object) -> Entry:
    """The first structure of a CIF kept in a table."""
    if not isinstance(text, str) or not text.strip():
        return Entry(name, failure="unreadable: expected the text of a CIF, got nothing")
    for _, block, failure in blocks_of(text):
        return entry_of_block(name, block, failure)
    return Entry(name, failure="unreadable: expected the text of a CIF with atoms, got none")


def entry_of_block(name: str, block: cif.Block | None, failure: str = "") -> Entry:
    if block is None:
        return Entry(name, failure=failure)
    try:
        return Entry(name, structure_of(block), energy=finite_number(block.find_value(ENERGY_TAG)))
    except InputError as error:
        return Entry(name, failure=f"{error.reason}: {error}")
    except (ValueError, RuntimeError) as error:  # gemmi, of operations or numbers that are none
        return Entry(name, failure=f"unreadable: expected a structure in CIF, got {error!s:.100}")


def structure_of(block: cif.Block) -> Frame | Crystal:
    """Bare atoms of a P1 list or a cluster; a crystal read with its symmetry otherwise.

    Atoms of a P1 list are taken as they are: merging those that fall together, as is right for an experiment,
    would hide an overlap. Where a symmetric structure clashes, the atoms of all images are handed on, so that
    the molecules can be told apart by what is known of them.
    """
    if _column(block, "Cartn_x") and not _column(block, "fract_x"):
        return _cluster(block)
    _refuse_unknown(block, [f"fract_{x}" for x in "xyz"])
    small = gemmi.make_small_structure_from_block(block)
    operations = [gemmi.Op(x) for x in small.symops] or _named_operations(block)
    whole = all(abs(site.occ - 1) < 5e-3 and site.element.atomic_number for site in small.sites)
    if (n := len(small.sites) * len(operations or [gemmi.Op()])) > MOST_ATOMS:
        raise InputError(f"expected at most {MOST_ATOMS} atoms in the cell, got {n}", reason="too large")
    images = _expanded(small, operations or [gemmi.Op()])
    if len(operations) == 1 and operations[0] == gemmi.Op() and whole:
        return images
    if images.lattice is not None:
        refuse_absurd_cell(images.lattice, len(images.numbers))
    try:
        return read_crystal(block.as_string(), check_contents=False)
    except InputError as error:
        hopeless = error.reason not in ("clash", "polymeric") or not whole
        if hopeless or _on_special_position(images, len(operations)):
            raise
        return images


def _is_structure(block: cif.Block) -> bool:
    return bool(_column(block, "fract_x") or _column(block, "Cartn_x") or block.find_value("_cell_length_a"))


def _column(block: cif.Block, tag: str) -> list[str]:
    """A column of the list of atoms, under its name in core CIF or mmCIF."""
    return [cif.as_string(x) for x in block.find_values(f"_atom_site_{tag}")] or [
        cif.as_string(x) for x in block.find_values(f"_atom_site.{tag}")
    ]


def _refuse_unknown(block: cif.Block, tags: list[str]) -> None:
    """Readers skip atoms without numbers as coordinates; in a prediction they are a failure."""
    columns = [[cif.as_number(x) for x in _column(block, tag)] for tag in tags]
    if not columns[0]:
        raise InputError("expected a list of atoms, got none", reason="no atoms")
    if not all(np.isfinite(column).all() for column in columns):
        raise InputError("expected numbers as coordinates, got NaN or '?'", reason="not a number")


def _named_operations(block: cif.Block) -> list[gemmi.Op]:
    """Operations of the group that the file names without listing any; none where it names none."""
    for tag in ("_space_group_name_H-M_alt", "_symmetry_space_group_name_H-M"):
        if (symbol := block.find_value(tag)) and (
            group := gemmi.find_spacegroup_by_name(cif.as_string(symbol))
        ):
            return list(group.operations())
    return []


def _expanded(small: gemmi.SmallStructure, operations: list[gemmi.Op]) -> Frame:
    """All images of the sites, one operation after another."""
    frac = np.array([site.fract.tolist() for site in small.sites])
    images = [np.array(op.rot) / op.DEN @ frac.T + np.array(op.tran)[:, None] / op.DEN for op in operations]
    lattice = np.array(small.cell.orth.mat.tolist()).T
    numbers = np.array([site.element.atomic_number for site in small.sites])
    return Frame(np.tile(numbers, len(operations)), np.concatenate([x.T for x in images]) @ lattice, lattice)


def _on_special_position(images: Frame, n_operations: int) -> bool:
    """True where some operation leaves an atom in place: then images are no copies of whole molecules."""
    assert images.lattice is not None
    frac = np.linalg.solve(images.lattice.T, images.positions.T).T.reshape(n_operations, -1, 3)
    step = frac[1:] - frac[:1]
    return bool((np.linalg.norm((step - np.round(step)) @ images.lattice, axis=-1) < SPECIAL).any())


def _cluster(block: cif.Block) -> Frame:
    """Cartesian atoms, labelled by the copy they belong to, with the bonds that the file lists."""
    _refuse_unknown(block, [f"Cartn_{x}" for x in "xyz"])
    positions = np.array([[cif.as_number(x) for x in _column(block, f"Cartn_{axis}")] for axis in "xyz"]).T
    symbols = _column(block, "type_symbol")
    numbers = np.array([gemmi.Element(s.capitalize()).atomic_number for s in symbols])
    if len(numbers) != len(positions):
        raise InputError("expected an element (type_symbol) for every atom", reason="unreadable")
    names, chains = _column(block, "label_atom_id"), _column(block, "label_asym_id")
    lattice = _cell(block)
    if len(names) != len(numbers) or len(chains) != len(numbers):
        return Frame(numbers, positions, lattice)
    labels = _copies(chains, names)
    return Frame(numbers, positions, lattice, labels, _bonds(block, labels, names))


def _copies(chains: list[str], names: list[str]) -> np.ndarray:
    """Molecule of each atom: a new one starts with each chain, and where a chain repeats the name of an atom."""
    labels: list[int] = []
    seen: set[str] = set()
    current = -1
    for k, (chain, name) in enumerate(zip(chains, names)):
        if k == 0 or chain != chains[k - 1] or name in seen:
            current, seen = current + 1, set()
        seen.add(name)
        labels.append(current)
    return np.array(labels)


def _bonds(block: cif.Block, labels: np.ndarray, names: list[str]) -> np.ndarray | None:
    """Bonds of `_chem_comp_bond` for every copy; None where copies differ, as all are called UNL in that list."""
    listed = list(zip(*(block.find_values(f"_chem_comp_bond.atom_id_{end}") for end in (1, 2))))
    size = len(names) // (int(labels.max()) + 1)
    uniform = (np.bincount(labels) == size).all() and names == names[:size] * (int(labels.max()) + 1)
    if not listed or not uniform:
        return None
    place = {name: k for k, name in enumerate(names[:size])}
    pairs = [tuple(place.get(cif.as_string(end), -1) for end in pair) for pair in listed]
    local = np.array([pair for pair in pairs if min(pair) >= 0], dtype=int).reshape(-1, 2)
    return (local[None] + size * np.arange(int(labels.max()) + 1)[:, None, None]).reshape(-1, 2)


def _cell(block: cif.Block) -> np.ndarray | None:
    """Lattice of an mmCIF that has one; the cell 1 1 1 of the PDB means none."""
    tags = [f"_cell.length_{x}" for x in "abc"] + [f"_cell.angle_{x}" for x in ("alpha", "beta", "gamma")]
    values = [cif.as_number(block.find_value(tag) or "?") for tag in tags]
    if not np.isfinite(values).all() or max(values[:3]) <= 1.0:
        return None
    return np.array(gemmi.UnitCell(*values).orth.mat.tolist()).T
