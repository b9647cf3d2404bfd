"""Conformers that a user has, from other programs and data sets, as `ConformerSet`s.

| source | what is in it |
|---|---|
| SDF (.sdf, .sdf.gz) | records with 3D coordinates; those of one stereoisomer become one set |
| GEOM (.pickle, .pkl) | of one molecule: `conformers` with RDKit molecules, weights and energies |
| lists of RDKit molecules (.pickle, .pkl) | as ISO17 and GraphDG keep them, also nested in tuples and dictionaries |
| a folder of these pickles | one after the other |

Pickles are read without running them (`safe_pickle`). Stereo is read off the coordinates, whatever the file says;
coordinates of a molecule whose records have their atoms in other orders are put into the order of its first.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from rdkit import Chem, rdBase
from torch import Tensor

from nucleate.crystal.graph import with_stereo
from nucleate.crystal.molecule import Molecule
from nucleate.crystal.stereo import right_stereo
from nucleate.data.conformers import ConformerSet, boltzmann
from nucleate.data.safe_pickle import read_pickle
from nucleate.errors import InputError
from nucleate.physics.parameters import HARTREE, KCAL_PER_MOL, KJ_PER_MOL
from nucleate.reading import read_file, unpack

SDF, PICKLES = (".sdf", ".sdf.gz"), (".pickle", ".pkl")
DEEP = 6  # containers within containers

Given = ConformerSet | InputError  # or why a molecule has none


@dataclass(frozen=True, eq=False)
class Record:
    """One conformer of a file."""

    graph: Chem.Mol  # with its conformer
    name: str
    energy: float = math.nan  # eV
    weight: float = math.nan


@dataclass
class _Group:
    """Conformers of one stereoisomer, in the order of atoms of the first."""

    graph: Chem.Mol
    name: str
    positions: list[Float[Tensor, "atoms 3"]] = field(default_factory=list)
    energies: list[float] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)


def is_source(path: Path) -> bool:
    """Is this something that `read_source` reads, by its name?"""
    return path.is_dir() or path.name.lower().endswith(SDF + PICKLES)


def read_source(path: Path) -> Iterator[tuple[str, Given]]:
    """Names and sets of everything in the source; what cannot be read stands in its place as its error.

    Raises InputError where the source is not there, or a folder holds no pickles.
    """
    if not path.exists():
        raise InputError(f"expected an SDF file, a pickle or a folder of pickles, got {path}; check the path")
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.name.lower().endswith(PICKLES))
        if not files:
            raise InputError(f"expected pickles (.pickle, .pkl) in {path}, found none", "empty file")
        for file in files:
            yield from _of_pickle(file)
    elif path.name.lower().endswith(PICKLES):
        yield from _of_pickle(path)
    else:
        yield from _sets(_sdf_records(path), path.name.split(".")[0])


def _of_pickle(path: Path) -> Iterator[tuple[str, Given]]:
    try:
        records = list(_pickle_records(read_pickle(path), path.stem))
        if not records:
            raise InputError(
                f"expected RDKit molecules with coordinates in {path.name}, found none", "empty file"
            )
    except InputError as error:
        yield path.stem, error
        return
    yield from _sets(records, path.stem)


# ---------------------------------------------------------------- files -> records


def _sdf_records(path: Path) -> Iterator[Record | InputError]:
    text = unpack(read_file(path, "an SDF file"), path)
    with rdBase.BlockLogs():
        for number, graph in enumerate(Chem.ForwardSDMolSupplier(BytesIO(text), removeHs=False), 1):
            if graph is None:
                yield InputError(
                    f"expected a molecule that RDKit reads, got record {number} of {path.name}", "unreadable"
                )
                continue
            name = graph.GetProp("_Name").strip() if graph.HasProp("_Name") else ""
            kj = graph.GetProp("energy_kj_mol") if graph.HasProp("energy_kj_mol") else ""
            yield Record(graph, name or path.name.split(".")[0], _number(kj) * KJ_PER_MOL)


def _pickle_records(content: Any, name: str, depth: int = 0) -> Iterator[Record]:
    """Molecules in containers, each with all its conformers; GEOM's dictionaries with energies and weights."""
    if isinstance(content, Chem.Mol):
        graph = Chem.Mol(content)  # without the attributes that a pickle may have hung on it
        for conformer in graph.GetConformers():
            yield Record(Chem.Mol(graph, confId=conformer.GetId()), name)
    elif depth == DEEP:
        return
    elif isinstance(content, dict) and isinstance(content.get("conformers"), list):
        for one in content["conformers"]:
            yield from _geom_records(one, name)
    elif isinstance(content, dict):
        for key, value in content.items():
            yield from _pickle_records(value, key if isinstance(key, str) else name, depth + 1)
    elif isinstance(content, list | tuple):
        for value in content:
            yield from _pickle_records(value, name, depth + 1)


def _geom_records(one: Any, name: str) -> Iterator[Record]:
    """A conformer of GEOM: `totalenergy` is in Hartree, `relativeenergy` in kcal/mol."""
    if not isinstance(one, dict) or not isinstance(one.get("rd_mol"), Chem.Mol):
        return
    total, relative = _number(one.get("totalenergy")), _number(one.get("relativeenergy"))
    energy = relative * KCAL_PER_MOL if math.isnan(total) else total * HARTREE
    graph = Chem.Mol(one["rd_mol"])
    if graph.GetNumConformers():
        yield Record(graph, name, energy, _number(one.get("boltzmannweight")))


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


# ---------------------------------------------------------------- records -> sets


def _sets(records: Iterable[Record | InputError], name: str) -> Iterator[tuple[str, Given]]:
    """Conformers of one stereoisomer together, in the order in which molecules first appear."""
    groups: dict[str, _Group] = {}
    for record in records:
        if isinstance(record, InputError):
            yield name, record
            continue
        try:
            _add(groups, record)
        except InputError as error:
            yield record.name, error
    for group in groups.values():
        yield group.name, _set_of(group)


def _add(groups: dict[str, _Group], record: Record) -> None:
    """Raises InputError for a record without hydrogens or coordinates, of several molecules, or of another order of
    atoms that cannot be told from the graph.
    """
    graph, positions = _sound(record)
    smiles = Chem.MolToSmiles(Chem.RemoveHs(graph, sanitize=False))
    group = groups.setdefault(smiles, _Group(graph, record.name))
    order = _order(group.graph, graph, positions)
    group.positions.append(positions[order])
    group.energies.append(record.energy)
    group.weights.append(record.weight)


def _sound(record: Record) -> tuple[Chem.Mol, Float[Tensor, "atoms 3"]]:
    """The graph with the stereo of the coordinates (Å), and these."""
    graph = Chem.Mol(record.graph)
    conformer = graph.GetConformer() if graph.GetNumConformers() else None
    if conformer is None or not conformer.Is3D():
        raise InputError(f"expected 3D coordinates of {record.name}, got none", "no coordinates")
    if any(atom.GetTotalNumHs() for atom in graph.GetAtoms()):
        raise InputError(
            f"expected every hydrogen of {record.name} as an atom, got implicit ones", "no hydrogens"
        )
    if len(Chem.GetMolFrags(graph)) > 1:
        raise InputError(f"expected one molecule as {record.name}, got several", "several molecules")
    positions = torch.tensor(conformer.GetPositions(), dtype=torch.float64)
    if not positions.isfinite().all():
        raise InputError(f"expected finite coordinates of {record.name}, got others", "no coordinates")
    graph.RemoveAllConformers()
    for atom in graph.GetAtoms():
        atom.SetIsotope(0)
        atom.SetAtomMapNum(0)
    return with_stereo(graph, positions), positions


def _order(first: Chem.Mol, graph: Chem.Mol, positions: Float[Tensor, "atoms 3"]) -> list[int]:
    """The atoms of a record in the order of the first one of its molecule."""
    same = list(range(first.GetNumAtoms()))
    if _table(first) == _table(graph) and right_stereo(first, positions[None])[0]:
        return same
    order = list(graph.GetSubstructMatch(first, useChirality=True))
    if len(order) != len(same) or not right_stereo(first, positions[None, order])[0]:
        raise InputError(
            "expected the atoms of all conformers in one order, got others that the graph does not tell",
            "other order",
        )
    return order


def _table(graph: Chem.Mol) -> tuple[list[int], list[tuple[int, int]]]:
    bonds = [sorted((b.GetBeginAtomIdx(), b.GetEndAtomIdx())) for b in graph.GetBonds()]
    return [a.GetAtomicNum() for a in graph.GetAtoms()], sorted((i, j) for i, j in bonds)


def _set_of(group: _Group) -> ConformerSet:
    """Lowest first; weights as given, or those of the energies."""
    energies, weights = (torch.tensor(x, dtype=torch.float64) for x in (group.energies, group.weights))
    energies = energies - energies.min()  # NaN, all of them, where one is not known
    known = bool(weights.isfinite().all() and (weights >= 0).all() and weights.sum() > 0)
    weights = weights / weights.sum() if known else boltzmann(energies)
    order = (
        energies.argsort(stable=True)
        if energies.isfinite().all()
        else weights.argsort(descending=True, stable=True)
    )
    molecule = Molecule(group.graph, torch.stack(group.positions)[order], group.name)
    return ConformerSet(molecule, energies[order], weights[order], "read")
