"""`Sites` -> CIF: asymmetric unit and symmetry operations, so that everybody reads the same crystal back."""

from collections.abc import Mapping
from pathlib import Path

from gemmi import cif

from nucleate.crystal.cif_write import symmetric_block
from nucleate.crystal.sites import SYMPREC, Sites, crystal_of_sites
from nucleate.crystal.standardise import SymmetricCrystal, to_symmetric
from nucleate.files import write_atomically
from nucleate.geometry.symmetry import SpaceGroup


def sites_cif_text(
    sites: Sites,
    name: str,
    provenance: Mapping[str, object] | None = None,
    *,
    energy: int | float | None = None,
    symprec: float = SYMPREC,
) -> str:
    """The crystal as a CIF, in the standard setting of the group that is found at `symprec` Å.

    Cell and positions are averaged over that group, so its operations hold exactly; where that would move an atom by
    more than 5 `symprec`, or no group is found, all atoms are written in P1. `energy` is in eV per atom; `provenance`
    (command, version, seed, ...) becomes `_nucleate_provenance` pairs. Z counts reduced formulas in the cell.
    """
    return _text(sites, name, provenance, energy, to_symmetric(crystal_of_sites(sites), symprec))


def write_sites_cif(
    sites: Sites,
    path: Path,
    provenance: Mapping[str, object] | None = None,
    *,
    energy: int | float | None = None,
    symprec: float = SYMPREC,
) -> SpaceGroup:
    """Write `sites_cif_text` to `path`, all of it or nothing, named after the file. Returns the group found.

    Raises NucleateError where the folder cannot be written.
    """
    unit = to_symmetric(crystal_of_sites(sites), symprec)
    write_atomically(path, _text(sites, path.stem, provenance, energy, unit))
    return unit.group


def _text(
    sites: Sites,
    name: str,
    provenance: Mapping[str, object] | None,
    energy: int | float | None,
    unit: SymmetricCrystal,
) -> str:
    items = {} if energy is None else {"_nucleate_energy_ev_per_atom": f"{energy:.6f}"}
    block, _ = symmetric_block(crystal_of_sites(sites), unit, name, items, provenance or {})
    return block.as_string(cif.WriteOptions())
