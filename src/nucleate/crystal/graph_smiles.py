"""A molecular graph as SMILES with every hydrogen written: how files of data sets keep graphs.

graph --write--> text, atoms in its order --read--> the same graph, atoms in the order of the text
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from rdkit import Chem, rdBase

from nucleate.crystal.graph import sanitised
from nucleate.errors import InputError


def write_graph(graph: Chem.Mol, start: int = -1) -> tuple[str, tuple[int, ...]]:
    """SMILES with all hydrogens as atoms and with stereo, and the graph's atoms in its order.

    It is canonical unless `start` names the atom that it begins with.

    Raises InputError with reason "no SMILES" where elements or bonds do not survive, as in some metal complexes.
    """
    graph = Chem.Mol(graph)
    text = Chem.MolToSmiles(graph, allHsExplicit=True, rootedAtAtom=start)
    order = tuple(graph.GetPropsAsDict(True, True)["_smilesAtomOutputOrder"])
    back = read_graph(text)
    if _elements(back) != [_elements(graph)[i] for i in order] or _bonds(back, order) != _bonds(graph):
        raise InputError(f"expected a graph that SMILES can hold, got {text}", reason="no SMILES")
    return text, order


@lru_cache(maxsize=1024)  # records of one molecule follow one another; nobody changes a graph
def read_graph(text: str) -> Chem.Mol:
    """What `write_graph` wrote, atoms in the order of the text; sanitised as far as its valences allow."""
    options: Any = Chem.SmilesParserParams()
    options.removeHs = False
    with rdBase.BlockLogs():
        graph = Chem.MolFromSmiles(text, options)
        if graph is None:  # valences that RDKit has no rule for, as in metal complexes
            options.sanitize = False
            graph = Chem.MolFromSmiles(text, options)
    if graph is None:
        raise InputError(f"expected SMILES of a molecule, got {text!r}", reason="no SMILES")
    return sanitised(graph)


def _elements(graph: Chem.Mol) -> list[int]:
    return [atom.GetAtomicNum() for atom in graph.GetAtoms()]


def _bonds(graph: Chem.Mol, order: Sequence[int] | None = None) -> set[frozenset[int]]:
    """Pairs of bonded atoms, atom k called `order[k]`."""
    names = range(graph.GetNumAtoms()) if order is None else order
    return {frozenset((names[b.GetBeginAtomIdx()], names[b.GetEndAtomIdx()])) for b in graph.GetBonds()}
