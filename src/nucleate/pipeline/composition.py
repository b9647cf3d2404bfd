"""What a user gives -> what is searched: species, their conformers, their numbers, a name."""

import hashlib
import re
from dataclasses import dataclass
from functools import reduce
from math import gcd
from pathlib import Path

import numpy as np
import torch
from rdkit import Chem

from nucleate.crystal.io import read_crystal, read_stoichiometry
from nucleate.crystal.molecule import Molecule
from nucleate.crystal.rigid import normalise_hydrogens
from nucleate.crystal.standardise import find_symmetry
from nucleate.errors import InputError
from nucleate.geometry.symmetry import SpaceGroup
from nucleate.pipeline.conform import Conformers, ConformSettings, conform
from nucleate.pipeline.generate import Composition

LARGEST = 120  # atoms in a formula unit


@dataclass(frozen=True, eq=False)
class Subject:
    """The composition to be searched and how to call it."""

    name: str
    smiles: str
    composition: Composition
    notes: list[str]

    @property
    def digest(self) -> str:
        """Of the shapes of all molecules, to 0.001 Å."""
        positions = hashlib.sha256()
        for molecule in self.composition.species:
            positions.update(np.round(molecule.conformers.numpy(), 3).tobytes())
        return positions.hexdigest()[:16]


def read_subject(
    source: str, settings: ConformSettings | None = None, seed: int = 0, name: str | None = None
) -> Subject:
    """SMILES (dots: co-crystals and salts), SDF, MOL, XYZ or CIF.

    Molecules with coordinates are taken as rigid conformers, hydrogens at neutron distances; those without are
    embedded. Raises InputError for what cannot be read or is too large.
    """
    given = read_stoichiometry(source)
    size = sum(len(m) * n for m, n in given)
    if size > LARGEST:
        raise InputError(
            f"expected at most {LARGEST} atoms in a formula unit, got {size}. This search is for small molecules; "
            "give a fragment or a smaller one.",
            reason="too large",
        )
    charge = sum(m.charge * n for m, n in given)
    if charge:
        raise InputError(
            f"expected a neutral formula unit, got charge {charge:+d}. Add the counter-ions to the SMILES, as in "
            "'[NH4+].[Cl-]'.",
            reason="charged",
        )
    _refuse_mirror_pairs([m for m, _ in given])
    parts = [_with_conformers(m, settings, seed) for m, _ in given]
    counts = [n for _, n in given]
    units = reduce(gcd, counts)
    smiles = ".".join(p.molecule.smiles for p, n in zip(parts, counts) for _ in range(n // units))
    composition = Composition(
        species=tuple(p.molecule for p in parts),
        counts=tuple(n // units for n in counts),
        conformer_energies=tuple(p.energies for p in parts),
        enantiopure=_is_enantiopure(source, [m for m, _ in given]),
    )
    called = folder_name(name) if name else default_name(source, smiles)
    return Subject(called, smiles, composition, _notes(given, composition))


TETRAHEDRAL = re.compile(
    r"@{1,2}(?!@|(?:SP|TB|OH|TH|AL)\d)"
)  # marks of stereo, but for those of metals (@SP1)


def _refuse_mirror_pairs(molecules: list[Molecule]) -> None:
    """Two enantiomers as two species would be kept in their hands, and their racemate never be found."""
    names = {Chem.CanonSmiles(m.smiles) for m in molecules if m.is_chiral}
    for name in sorted(names):
        mirrored = Chem.CanonSmiles(TETRAHEDRAL.sub(lambda found: "@" if len(found[0]) == 2 else "@@", name))
        if mirrored in names:
            raise InputError(
                f"expected one SMILES for a racemate, got both enantiomers {name} and {mirrored}. Write it once and "
                "without @; with --z-prime 2 both hands may also share an asymmetric unit.",
                reason="both enantiomers",
            )


def _with_conformers(molecule: Molecule, settings: ConformSettings | None, seed: int) -> Conformers:
    if len(molecule.conformers):
        rigid = normalise_hydrogens(molecule)
        return Conformers(rigid, torch.zeros(len(rigid.conformers), dtype=torch.float64), 0, 0)
    return conform(molecule, settings, seed)


def _is_enantiopure(source: str, molecules: list[Molecule]) -> bool:
    """A chiral molecule alone in its hand: as the stereo of a SMILES says, or the space group of a CIF."""
    if not any(m.is_chiral for m in molecules):
        return False
    if Path(source).suffix.lower() == ".cif":
        return SpaceGroup.from_name(find_symmetry(read_crystal(source)).number).is_sohncke
    return True


def _notes(given: list[tuple[Molecule, int]], composition: Composition) -> list[str]:
    notes = []
    for molecule, _ in given:
        centres = Chem.FindMolChiralCenters(
            molecule.graph, includeUnassigned=True, useLegacyImplementation=False
        )
        if any(label == "?" for _, label in centres):
            notes.append(
                f"{molecule.name or molecule.smiles}: the hand of some stereocentre is not given, so a racemate of one "
                "diastereomer is searched. Write @ or @@ in the SMILES for one enantiomer."
            )
    if composition.enantiopure:
        notes.append("One enantiomer: only space groups without improper operations are searched.")
    return notes


def default_name(source: str, smiles: str) -> str:
    """A folder name: the file's stem, or the SMILES with what file systems dislike replaced."""
    if Path(source).suffix.lower() in (".cif", ".sdf", ".mol", ".xyz", ".csv"):
        return folder_name(Path(source).stem)
    return folder_name(smiles)


def folder_name(text: str) -> str:
    """Letters and digits of the text, joined by underscores: harmless in a path, a CIF and a web page."""
    bare = re.sub(r"[^A-Za-z0-9-]+", "_", text).strip("_-")
    return bare[:60] or "molecule"
