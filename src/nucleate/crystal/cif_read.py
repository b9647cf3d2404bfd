"""CIF -> `Crystal`, through gemmi: any setting, symmetry expanded, molecules made whole, defects named.

The operations in the file decide, not the symbol: P21/n is not P21/c. Fractional coordinates of atoms on
special positions are averaged over their site symmetry, which repairs rounded thirds.
"""

import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
import torch
from gemmi import cif

from nucleate.crystal.assemble import assemble_crystal, refuse_missing_hydrogens
from nucleate.crystal.crystal import Crystal
from nucleate.crystal.perceive import find_neighbours
from nucleate.errors import InputError
from nucleate.reading import read_file

SAME_SITE = 0.15  # Å: images of one atom this close are one atom on a special position
LONGEST, THINNEST = 1000.0, 1.0  # Å: of cells that are meant; thinner ones have neighbours without end
MOST_OPERATIONS = 384  # 192 of a face-centred cubic group, and as many centrings again
MOST_ATOMS = 20_000  # of a cell
FARTHEST = 1e4  # cells from the origin: rounding alone moves an atom farther out by more than it should
FULL = 0.995  # occupancy from which a site counts as ordered
ISOTOPES = {"D": "H", "T": "H"}


@dataclass(frozen=True)
class Site:
    """One line of the atom list."""

    label: str
    element: str
    frac: tuple[float, float, float]
    occupancy: float
    assembly: str
    group: str


def read_crystal(
    source: str | Path, *, block: str | None = None, disorder: str = "refuse", check_contents: bool = True
) -> Crystal:
    """The crystal in a CIF file (path) or CIF text.

    `block` names the data block; without it the first one with atoms is read. `disorder="major"` keeps the
    major component of a disordered structure instead of refusing it. Raises InputError with `reason` one of
    "empty file", "unreadable", "no atoms", "unknown element", "disordered", "clash", "polymeric", "missing
    hydrogens", "incomplete" (atoms of the formula lack). `check_contents=False` leaves out the last two.
    `info` gets id, space_group (number), symbol, formula and, where something was odd, warnings.
    """
    if disorder not in ("refuse", "major"):
        raise InputError(f"expected disorder='refuse' or 'major', got {disorder!r}")
    name, text = _text_of(source)
    data = _choose_block(_parse(text, name), block, name)
    lattice = _lattice(data)
    operations, notes = _operations(data)
    sites = _ordered_sites(_sites(data), disorder)
    frac, numbers = _expand(sites, operations, lattice)
    info: dict[str, Any] = {"id": data.name or name, **notes}
    crystal = assemble_crystal(
        torch.from_numpy(lattice),
        torch.from_numpy(frac),
        torch.from_numpy(numbers),
        info,
        check_hydrogens=False,
    )
    return _check_contents(crystal, data, check_contents)


def read_sites(source: str | Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lattice (Å, rows), fractional coordinates and atomic numbers of all atoms of a CIF's cell, molecules or not.

    Raises InputError as `read_crystal` does up to "disordered".
    """
    name, text = _text_of(source)
    data = _choose_block(_parse(text, name), None, name)
    lattice = _lattice(data)
    operations, _ = _operations(data)
    frac, numbers = _expand(_ordered_sites(_sites(data), "refuse"), operations, lattice)
    return lattice, frac, numbers


def _text_of(source: str | Path) -> tuple[str, str]:
    """Name and text of a CIF given by path, or the text itself."""
    if isinstance(source, str) and ("\n" in source or source.lstrip().startswith("data_")):
        return "text", source
    path = Path(source)
    text = read_file(path, "a CIF").decode("utf-8", errors="replace")
    if not text.strip():
        raise InputError(f"expected a CIF, got an empty file: {path}", reason="empty file")
    return path.stem, text


def _parse(text: str, name: str) -> cif.Document:
    if not text.strip():
        raise InputError("expected a CIF, got empty text", reason="empty file")
    try:
        return cif.read_string(text, check_level=0)
    except (ValueError, RuntimeError) as error:
        detail = " ".join(str(error).split())[:120]
        raise InputError(
            f"expected a valid CIF, got one that cannot be parsed ({name}: {detail}); is the file truncated?",
            reason="unreadable",
        ) from error


def _choose_block(document: cif.Document, wanted: str | None, name: str) -> cif.Block:
    if wanted is not None:
        found = [b for b in document if b.name.lower() == wanted.lower()]
        if not found:
            have = ", ".join(b.name for b in document)
            raise InputError(
                f"expected a data block named {wanted!r} in {name}, got {have or 'none'}", "unreadable"
            )
        return found[0]
    with_atoms = [b for b in document if len(b.find_values("_atom_site_fract_x"))]
    if not with_atoms:
        raise InputError(
            f"expected atoms with fractional coordinates, got none in {name}; a truncated file or a report "
            "without a structure",
            reason="no atoms",
        )
    return with_atoms[0]


def _number(value: str | None) -> float | None:
    """A CIF number, its uncertainty dropped; None for ?, . and anything that is not finite."""
    number = cif.as_number(value) if value is not None else float("nan")
    return float(number) if np.isfinite(number) else None


def _lattice(data: cif.Block) -> np.ndarray:
    """Rows a, b, c in Å, a along x, b in the xy plane."""
    tags = [f"_cell_length_{x}" for x in "abc"] + [f"_cell_angle_{x}" for x in ("alpha", "beta", "gamma")]
    values = [_number(data.find_value(tag)) for tag in tags]
    values[3:] = [90.0 if v is None else v for v in values[3:]]
    if any(v is None or v <= 0 for v in values):
        raise InputError(
            f"expected six positive cell parameters, got {values}; is the file complete?", "unreadable"
        )
    lattice = np.array(gemmi.UnitCell(*values).orth.mat.tolist()).T
    if not np.isfinite(lattice).all() or np.linalg.det(lattice) < 1e-3:
        raise InputError(f"expected a cell with a volume, got {values}; check the angles", "unreadable")
    height = float((1 / np.linalg.norm(np.linalg.inv(lattice), axis=0)).min())
    if height < THINNEST or float(np.linalg.norm(lattice, axis=1).max()) > LONGEST:
        raise InputError(
            f"expected a cell at least {THINNEST:g} and at most {LONGEST:g} Å long, got {values}, {height:.3g} Å thick",
            reason="absurd cell",
        )
    return lattice


def _operations(data: cif.Block) -> tuple[list[gemmi.Op], dict[str, Any]]:
    """Operations of the file, or of its Hall or Hermann-Mauguin symbol or number; notes for `info`."""
    listed: list[str] = []
    for tag in ("_space_group_symop_operation_xyz", "_symmetry_equiv_pos_as_xyz"):
        listed = listed or [cif.as_string(v) for v in data.find_values(tag)]
    named = _named_groups(data)
    if not any(c in "xX" for c in "".join(listed)):
        if not named:
            raise InputError(
                "expected symmetry operations or a known space-group symbol, got neither; add "
                "_space_group_symop_operation_xyz",
                reason="unreadable",
            )
        return list(named[0].operations()), {"space_group": named[0].number, "symbol": named[0].short_name()}
    unique = _group(listed)
    notes: dict[str, Any] = {}
    found = gemmi.find_spacegroup_by_ops(gemmi.GroupOps(unique))
    if found is not None:
        notes |= {"space_group": found.number, "symbol": found.short_name()}
    for group in named:
        if found is None or group.number != found.number:
            true = found.short_name() if found else "another group"
            note = f"the symbol says {group.short_name()}, the operations are those of {true}"
            notes.setdefault("warnings", []).append(note)
    return unique, notes


def _group(listed: list[str]) -> list[gemmi.Op]:
    """The operations of a file, the identity first, each once; InputError where they are no group."""
    if len(listed) > MOST_OPERATIONS:
        raise InputError(
            f"expected at most {MOST_OPERATIONS} symmetry operations, got {len(listed)}", reason="unreadable"
        )
    try:
        operations = [gemmi.Op(v).wrap() for v in listed]
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"expected operations like -x,y+1/2,-z, got one that is not: {error}", reason="unreadable"
        ) from error
    if bad := next((v for v, op in zip(listed, operations) if abs(op.det_rot()) != gemmi.Op.DEN**3), None):
        raise InputError(
            f"expected operations that keep the volume, got {bad[:60]!r}, which does not", reason="unreadable"
        )
    unique = list({op.triplet(): op for op in [gemmi.Op(), *operations]}.values())
    try:
        closed = {(a * b).wrap().triplet() for a in unique for b in unique}
    except RuntimeError as error:  # h,k,l beside x,y,z
        raise InputError(
            f"expected operations like -x,y+1/2,-z, got others beside them: {error}", reason="unreadable"
        ) from error
    if len(closed) != len(unique):
        raise InputError(
            f"expected symmetry operations that form a group, got {len(unique)} whose products give "
            f"{len(closed)}; "
            "one of them is missing or mistyped",
            reason="unreadable",
        )
    return unique


def _named_groups(data: cif.Block) -> list[gemmi.SpaceGroup]:
    """The groups that the file names, by Hall symbol, Hermann-Mauguin symbol and number; the surest first."""
    groups = []
    for tag in ("_space_group_name_Hall", "_symmetry_space_group_name_Hall"):
        if hall := data.find_value(tag):
            try:
                groups.append(gemmi.find_spacegroup_by_ops(gemmi.symops_from_hall(cif.as_string(hall))))
            except (ValueError, RuntimeError):
                continue  # a symbol that gemmi does not know: the others may still help
    for tag in ("_space_group_name_H-M_alt", "_symmetry_space_group_name_H-M"):
        if symbol := data.find_value(tag):
            groups.append(gemmi.find_spacegroup_by_name(cif.as_string(symbol)))
    for tag in ("_space_group_IT_number", "_symmetry_Int_Tables_number"):
        number = _number(data.find_value(tag))
        if number is not None and 1 <= number <= 230:
            groups.append(gemmi.find_spacegroup_by_number(int(number)))
    return [group for group in groups if group is not None]


def _sites(data: cif.Block) -> list[Site]:
    """Real atoms of the list: dummy atoms and lines without coordinates are left out."""
    optional = [
        "type_symbol",
        "occupancy",
        "calc_flag",
        "disorder_assembly",
        "disorder_group",
    ]
    needed = ["label", "fract_x", "fract_y", "fract_z"]
    table = data.find("_atom_site_", [*needed, *["?" + tag for tag in optional]])
    formula = _formula(data)
    sites = []
    for row in table:
        value = [cif.as_string(row[k]) if row.has(k) else "" for k in range(9)]
        position = [_number(v) for v in value[1:4]]
        if value[6] == "dum" or any(x is None for x in position):
            continue
        if any(abs(x) > FARTHEST for x in position if x is not None):
            raise InputError(
                f"expected fractional coordinates, got {position} of {value[0]!r}; are they in Å?",
                reason="unreadable",
            )
        element = _element(value[4], value[0], formula)
        occupancy = _number(value[5])
        full = 1.0 if occupancy is None else occupancy
        sites.append(Site(value[0], element, tuple(position), full, value[7], value[8]))  # type: ignore[arg-type]
    if not sites:
        raise InputError("expected atoms with coordinates, got only unknown (?) positions", reason="no atoms")
    return sites


def _element(symbol: str, label: str, formula: dict[str, float] | None) -> str:
    """Element from the type symbol (`Cu2+`, `C`), else from the label (`CL1`, `C12A`, `HO1`)."""
    letters = re.match(r"[A-Za-z]+", symbol or label)
    text = letters.group().capitalize() if letters else ""
    candidates = [text[:2], text[:1]] if not symbol else [text, text[:2], text[:1]]
    known = [ISOTOPES.get(c, c) for c in candidates if c in ISOTOPES or gemmi.Element(c).atomic_number > 0]
    if formula and not symbol:  # CA1 is calcium only if the formula has calcium
        known = [c for c in known if c in formula] or known
    if not known:
        raise InputError(
            f"expected a chemical element, got {symbol or label!r} (atom {label!r}); give its type symbol",
            reason="unknown element",
        )
    return known[0]


def _ordered_sites(sites: list[Site], disorder: str) -> list[Site]:
    """The sites of one ordered structure, or InputError "disordered"."""
    present = [s for s in sites if s.occupancy > 1e-6]
    if not present:
        raise InputError("expected atoms, got none of an occupancy above zero", reason="no atoms")
    groups: dict[str, set[str]] = {}
    for s in present:
        if s.group not in ("", "0"):
            groups.setdefault(s.assembly, set()).add(s.group)
    partial = [s for s in present if s.occupancy < FULL]
    split = [a for a, names in groups.items() if len(names) > 1]
    if not partial and not split:
        return present
    if disorder == "refuse":
        kind = f"{len(partial)} partly occupied sites" if partial else "several disorder groups"
        first = partial[0].label if partial else next(s.label for s in present if s.assembly in split)
        raise InputError(
            f"expected an ordered structure, got {kind} (first: {first}); read its major component with "
            "disorder='major' or use another file",
            reason="disordered",
        )
    return _major_component(present, groups)


def _major_component(sites: list[Site], groups: dict[str, set[str]]) -> list[Site]:
    """Of each assembly the group with the largest mean occupancy; ungrouped sites if occupied by more than
    half.
    """
    if any(name.startswith("-") for names in groups.values() for name in names):
        raise InputError(
            "expected disorder that leaves the symmetry intact, got a molecule disordered about a "
            "special position "
            "(negative disorder group); no component can be chosen",
            reason="disordered",
        )
    kept = {}
    for assembly, names in groups.items():
        weight = {g: [s.occupancy for s in sites if (s.assembly, s.group) == (assembly, g)] for g in names}
        kept[assembly] = max(sorted(names), key=lambda g: sum(weight[g]) / len(weight[g]))
    chosen = [
        s
        for s in sites
        if (
            s.group == kept[s.assembly]
            if s.group not in ("", "0")
            else s.occupancy > 0.5 or s.occupancy >= FULL
        )
    ]
    return [replace(s, occupancy=1.0) for s in chosen]


def _expand(
    sites: list[Site], operations: list[gemmi.Op], lattice: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """All atoms of the cell: images that fall together are one atom; sites listed twice count once."""
    if (n := len(sites) * len(operations)) > MOST_ATOMS:
        raise InputError(f"expected at most {MOST_ATOMS} atoms in the cell, got {n}", reason="too large")
    den = gemmi.Op.DEN
    W = np.array([op.rot for op in operations]) / den
    w = np.array([op.tran for op in operations]) / den
    x = np.array([s.frac for s in sites])
    images = np.einsum("oij,aj->aoi", W, x) + w
    step = images - x[:, None]
    step -= np.round(step)
    fixed = np.linalg.norm(step @ lattice, axis=-1) < SAME_SITE  # the operations that keep each site
    x = x + (step * fixed[..., None]).sum(1) / fixed.sum(1)[:, None]
    images = np.einsum("oij,aj->aoi", W, x) + w
    keep = np.ones(images.shape[:2], dtype=bool)
    for a in np.nonzero(fixed.sum(1) > 1)[0]:
        keep[a] = _first_of_equals(images[a], lattice)
    atom, op = np.nonzero(keep)
    frac, numbers = images[atom, op], np.array([gemmi.Element(s.element).atomic_number for s in sites])[atom]
    once = _listed_once(frac, numbers, atom, lattice)
    return frac[once], numbers[once].astype(np.int64)


def _first_of_equals(frac: np.ndarray, lattice: np.ndarray) -> np.ndarray:
    """True for positions that no earlier one equals modulo lattice translations."""
    step = frac[:, None] - frac[None]
    same = np.linalg.norm((step - np.round(step)) @ lattice, axis=-1) < SAME_SITE / 2
    return ~np.tril(same, -1).any(1)


def _listed_once(frac: np.ndarray, numbers: np.ndarray, site: np.ndarray, lattice: np.ndarray) -> np.ndarray:
    """Drop later sites that repeat an earlier one's atoms: a list of the whole cell, or of a grown
    molecule.
    """
    near = find_neighbours(lattice, frac, SAME_SITE)
    twice = (numbers[near.i] == numbers[near.j]) & (site[near.i] != site[near.j])
    once = np.ones(len(frac), dtype=bool)
    once[np.maximum(near.i, near.j)[twice]] = False
    return once


def _formula(data: cif.Block) -> dict[str, float] | None:
    """_chemical_formula_sum as element counts (deuterium as hydrogen), or None where it cannot be read."""
    text = data.find_value("_chemical_formula_sum")
    counts: dict[str, float] = {}
    for symbol, amount in re.findall(r"([A-Z][a-z]?)\s*(\d*\.?\d*)", cif.as_string(text) if text else ""):
        element = ISOTOPES.get(symbol, symbol)
        counts[element] = counts.get(element, 0.0) + (float(amount) if amount.strip(".") else 1.0)
    return {e: n for e, n in counts.items() if 0 < n < 1e6} or None


def _check_contents(crystal: Crystal, data: cif.Block, strict: bool) -> Crystal:
    """Compare with the file's formula and valences; what lacks is refused if `strict`, other quarrels
    noted.
    """
    info = dict(crystal.info or {})
    formula = _formula(data)
    if formula is not None:
        info["formula"] = " ".join(f"{e}{n:g}" for e, n in sorted(formula.items()))
        quarrel = _formula_quarrel(crystal, formula, _number(data.find_value("_cell_formula_units_Z")))
        if quarrel is not None and quarrel.reason and strict:
            raise quarrel
        if quarrel is not None:
            info["warnings"] = [*info.get("warnings", []), str(quarrel)]
    if strict:
        refuse_missing_hydrogens(crystal)
    return crystal.replace(info=info)


def _formula_quarrel(crystal: Crystal, formula: dict[str, float], units: float | None) -> InputError | None:
    """None where contents = Z × formula, else what is wrong; its reason is empty where nothing is missing."""
    found = Counter(gemmi.Element(int(z)).name for z in crystal.numbers)
    ratios = {found[e] / n for e, n in formula.items() if e != "H"} or {units or 1.0}
    z = ratios.pop() if len(ratios) == 1 else units
    expected = {e: n * z for e, n in formula.items()} if z else {}
    wrong = {e: (n, found[e]) for e, n in expected.items() if abs(n - found[e]) > 0.01 * max(n, 1)}
    extra = set(found) - set(formula)
    if not wrong and not extra:
        return None
    described = ", ".join(f"{have} {e} instead of {want:g}" for e, (want, have) in sorted(wrong.items()))
    lacking = {e for e, (want, have) in wrong.items() if have < want}
    if lacking and not extra:
        return InputError(
            f"expected the atoms of the formula, got {described} in the cell; complete the file, or pass "
            "check_contents=False if its formula is wrong",
            reason="missing hydrogens" if set(wrong) == {"H"} else "incomplete",
        )
    return InputError(f"the atoms do not agree with the formula: {described or sorted(extra)}", reason="")
