"""Lists of molecules that data sets are made of, and molecules that are kept out of them."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from rdkit import Chem, rdBase

from nucleate.crystal.graph import canonical
from nucleate.crystal.io import checked_smiles, read_molecule, read_smiles_list
from nucleate.data.conformers import is_conformers, read_conformer_keys
from nucleate.data.packed import data_sets, read_keys
from nucleate.data.predictions import molecules_of, read_references
from nucleate.errors import InputError
from nucleate.metrics.heavy_molecules import molecule_key

LISTS = (".smi", ".csv", ".smi.gz", ".csv.gz")

Given = str | InputError  # a SMILES, or why a line of a list is none


def read_sample(path: Path, n: int | None = None, seed: int = 0) -> list[Given]:
    """SMILES of a .smi or .csv list (also .gz), or `n` of them in random order; a larger n begins with the same ones.

    A line that is no SMILES stays, as its InputError. Raises InputError where the list cannot be read.
    """
    everything = [smiles for _, smiles in read_smiles_list(path)]
    if n is None:
        return [checked_smiles(smiles) for smiles in everything]
    drawn = np.random.default_rng(seed).permutation(len(everything))[:n]
    return [checked_smiles(everything[i]) for i in drawn]


def excluded_keys(paths: Iterable[Path]) -> frozenset[str]:
    """Keys (`molecule_key`) of all molecules in data sets, lists of SMILES, and whatever `read_references` reads.

    Raises InputError where anything there cannot be read: what is not known cannot be left out.
    """
    return frozenset(key for path in paths for key in _keys_in(path))


def _keys_in(path: Path) -> Iterable[str]:
    if path.is_dir() and (folders := data_sets(path)):
        return {part for folder in folders for key in _keys_of(folder) for part in key.split(".")}
    if path.name.lower().endswith(LISTS):
        return {key for _, smiles in read_smiles_list(path) for key in _keys_of_smiles(smiles, path)}
    return {molecule_key(molecule) for molecule in molecules_of(read_references(path))}


def _keys_of(folder: Path) -> frozenset[str]:
    return read_conformer_keys(folder) if is_conformers(folder) else read_keys(folder)


def _keys_of_smiles(smiles: str, path: Path) -> set[str]:
    """Of every part. Radicals and odd valences, which nothing here can compute, have a graph all the same."""
    try:
        return {molecule_key(molecule) for molecule in read_molecule(smiles)}
    except InputError as refusal:
        with rdBase.BlockLogs():
            graph = Chem.MolFromSmiles(smiles, sanitize=False)
        if graph is None or not graph.GetNumAtoms():
            raise InputError(f"{path.name}: {refusal}", refusal.reason) from None
        parts = Chem.GetMolFrags(graph, asMols=True, sanitizeFrags=False)
        return {canonical(*_heavy(part))[0] for part in parts}


def _heavy(graph: Chem.Mol) -> tuple[list[int], list[list[int]]]:
    """Elements and bonds without hydrogens, unless there is nothing else."""
    atoms = [a.GetIdx() for a in graph.GetAtoms() if a.GetAtomicNum() > 1] or list(range(graph.GetNumAtoms()))
    place = {atom: i for i, atom in enumerate(atoms)}
    ends = [(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in graph.GetBonds()]
    bonds = [[place[i], place[j]] for i, j in ends if i in place and j in place]
    return [graph.GetAtomWithIdx(i).GetAtomicNum() for i in atoms], bonds
