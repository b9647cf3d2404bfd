"""`Crystal` -> CIF: asymmetric unit and symmetry operations, so that it reads back as the same crystal.

Items follow the core dictionary of the IUCr (CIF core 3.2); what it has no word for is under `_nucleate_`.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import gemmi
import torch
from gemmi import cif
from torch import Tensor

from nucleate import __version__
from nucleate.crystal.crystal import Crystal
from nucleate.crystal.graph import molecule_atoms, require_bonds
from nucleate.crystal.standardise import SYMPREC, SymmetricCrystal, to_symmetric
from nucleate.files import write_atomically
from nucleate.geometry.lattice import parameters_from_lattice
from nucleate.geometry.symmetry import SpaceGroup


def write_cif(
    crystal: Crystal,
    path: str | Path,
    *,
    energy: int | float | None = None,
    provenance: Mapping[str, object] | None = None,
    name: str | None = None,
    symprec: float = SYMPREC,
) -> Path:
    """Write `cif_text` to `path`, all of it or nothing. Raises NucleateError where the folder cannot be
    written.
    """
    path = Path(path)
    text = cif_text(
        crystal,
        energy=energy,
        provenance=provenance,
        name=path.stem if name is None else name,
        symprec=symprec,
    )
    write_atomically(path, text)
    return path


def cif_text(
    crystal: Crystal,
    *,
    energy: int | float | None = None,
    provenance: Mapping[str, object] | None = None,
    name: str | None = None,
    symprec: float = SYMPREC,
) -> str:
    """The crystal as a CIF: its asymmetric unit in the standard setting of the group found at `symprec` Å.

    `energy` is a lattice energy in kJ/mol per molecule; `provenance` (command, version, seed, ...) becomes
    `_nucleate_provenance` pairs. Whole molecules are written; of a molecule on a special position the
    unique atoms.
    """
    require_bonds(crystal)
    unit = to_symmetric(crystal, symprec)
    name = name or str((crystal.info or {}).get("id", "crystal"))
    items = _molecular_items(crystal, unit, energy)
    block, labels = symmetric_block(crystal, unit, name, items, provenance or {})
    _write_bonds(block, crystal, unit, labels)
    return block.as_string(cif.WriteOptions())


def symmetric_block(
    crystal: Crystal,
    unit: SymmetricCrystal,
    name: str,
    items: Mapping[str, str],
    provenance: Mapping[str, object],
) -> tuple[cif.Block, list[str]]:
    """What the CIF of any crystal says: contents, cell, `items` besides, provenance, operations and unique atoms.

    Also the labels of the atoms.
    """
    block = cif.Block(_block_name(name))
    for tag, value in {**_items(crystal, unit), **items}.items():
        block.set_pair(tag, value)
    _write_provenance(block, provenance)
    _write_operations(block, unit.group)
    return block, _write_atoms(block, crystal, unit)


def _block_name(name: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in name)[:70] or "crystal"


def _items(crystal: Crystal, unit: SymmetricCrystal) -> dict[str, str]:
    """Everything that is one value, whether there are molecules or not."""
    lengths, angles = parameters_from_lattice(unit.lattice)
    cell = gemmi.UnitCell(*lengths.tolist(), *angles.rad2deg().tolist())
    volume = float(torch.linalg.det(unit.lattice))
    sums = Counter(crystal.numbers.tolist())
    units = _units(crystal, unit)
    formula = {z: n // units for z, n in sums.items()}
    items = {
        "_audit_creation_method": f"nucleate {__version__}",
        "_chemical_formula_sum": _formula(formula),
        "_chemical_formula_weight": f"{crystal.mass / units:.3f}",
        "_cell_length_a": f"{cell.a:.6f}",
        "_cell_length_b": f"{cell.b:.6f}",
        "_cell_length_c": f"{cell.c:.6f}",
        "_cell_angle_alpha": f"{cell.alpha:.6f}",
        "_cell_angle_beta": f"{cell.beta:.6f}",
        "_cell_angle_gamma": f"{cell.gamma:.6f}",
        "_cell_volume": f"{volume:.4f}",
        "_cell_formula_units_Z": str(unit.z),
        "_exptl_crystal_density_diffrn": f"{crystal.density:.5f}",
        "_space_group_IT_number": str(unit.group.number),
        "_space_group_name_H-M_alt": _full_symbol(unit.group),
        "_symmetry_space_group_name_H-M": _full_symbol(unit.group),
    }
    quoted = {"_audit_creation_method", "_chemical_formula_sum"}
    quoted |= {"_space_group_name_H-M_alt", "_symmetry_space_group_name_H-M"}
    return {tag: cif.quote(value) if tag in quoted else value for tag, value in items.items()}


def _units(crystal: Crystal, unit: SymmetricCrystal) -> int:
    """Formula units in the crystal's own cell."""
    return round(unit.z * crystal.volume / float(torch.linalg.det(unit.lattice)))


def _molecular_items(crystal: Crystal, unit: SymmetricCrystal, energy: int | float | None) -> dict[str, str]:
    """What is only said of molecules."""
    items = {
        "_chemical_formula_moiety": cif.quote(_moiety(crystal, _units(crystal, unit))),
        "_cell_formula_units_Z_prime": f"{unit.z_prime:.6g}",
    }
    if energy is not None:
        items["_nucleate_lattice_energy_kj_mol"] = f"{energy:.4f}"
    return items


def _full_symbol(group: SpaceGroup) -> str:
    """Hermann-Mauguin symbol with spaces, as CIF wants it; rhombohedral groups on hexagonal axes as R ...
    :H.
    """
    return gemmi.find_spacegroup_by_number(group.number).xhm()


def _formula(counts: Mapping[int, int]) -> str:
    """Hill order with spaces."""
    named = {gemmi.Element(z).name: n for z, n in counts.items()}
    first = [e for e in ("C", "H") if e in named] if "C" in named else []
    order = first + sorted(e for e in named if e not in first)
    return " ".join(f"{e}{named[e] if named[e] > 1 else ''}" for e in order)


def _moiety(crystal: Crystal, units: int) -> str:
    """Formulae and charges of the molecules in one formula unit: '2(C6 H8 N 1+), S O4 2-'."""
    found: Counter[str] = Counter()
    for atoms in molecule_atoms(crystal):
        text = _formula(Counter(crystal.numbers[atoms].tolist()))
        charge = 0 if crystal.charges is None else int(crystal.charges[atoms].sum())
        found[text + (f" {abs(charge)}{'+' if charge > 0 else '-'}" if charge else "")] += 1
    per_unit = {text: n / units for text, n in found.items()}
    return ", ".join(text if n == 1 else f"{n:g}({text})" for text, n in per_unit.items())


def _write_provenance(block: cif.Block, provenance: Mapping[str, object]) -> None:
    if provenance:
        loop = block.init_loop("_nucleate_provenance_", ["key", "value"])
        for key, value in provenance.items():
            loop.add_row([cif.quote(" ".join(str(x).split())) for x in (key, value)])  # one line each


def _write_operations(block: cif.Block, group: SpaceGroup) -> None:
    loop = block.init_loop("_space_group_symop_", ["id", "operation_xyz"])
    for k, (rotation, translation) in enumerate(zip(group.rotations, group.translations), 1):
        op = gemmi.Op()
        op.rot = (rotation * gemmi.Op.DEN).tolist()
        op.tran = [round(x * gemmi.Op.DEN) for x in translation.tolist()]
        loop.add_row([str(k), cif.quote(op.triplet())])


def _write_atoms(block: cif.Block, crystal: Crystal, unit: SymmetricCrystal) -> list[str]:
    tags = ["label", "type_symbol", "fract_x", "fract_y", "fract_z", "occupancy", "site_symmetry_order"]
    loop = block.init_loop("_atom_site_", tags)
    seen: Counter[str] = Counter()
    labels = []
    orders = _site_orders(unit)
    for z, x, order in zip(crystal.numbers[unit.atoms].tolist(), unit.frac.tolist(), orders.tolist()):
        element = gemmi.Element(z).name
        seen[element] += 1
        labels.append(f"{element}{seen[element]}")
        loop.add_row([labels[-1], element, *(f"{v:.7f}" for v in x), "1", str(order)])
    return labels


def _site_orders(unit: SymmetricCrystal) -> Tensor:
    """Number of operations that keep each atom where it is."""
    step = unit.group.expand(unit.frac) - unit.frac
    return (((step - step.round()) @ unit.lattice).norm(dim=-1) < 1e-2).sum(0)


def _write_bonds(block: cif.Block, crystal: Crystal, unit: SymmetricCrystal, labels: list[str]) -> None:
    """Bonds between listed atoms, with their lengths (Å); bonds to symmetry images are implied."""
    place = {atom: k for k, atom in enumerate(unit.atoms.tolist())}
    rows = []
    positions = unit.frac @ unit.lattice
    for a, b in crystal.bonds.tolist():
        if a in place and b in place:
            length = float((positions[place[a]] - positions[place[b]]).norm())
            rows.append([labels[place[a]], labels[place[b]], f"{length:.4f}"])
    if rows:
        loop = block.init_loop("_geom_bond_", ["atom_site_label_1", "atom_site_label_2", "distance"])
        for row in rows:
            loop.add_row(row)
