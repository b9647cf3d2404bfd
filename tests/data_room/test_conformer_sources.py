"""Conformers of other programs: one set for each stereoisomer, one order of atoms, energies in eV, failures named."""

import gzip
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from rdkit import Chem

from nucleate.crystal.molecule import Molecule
from nucleate.crystal.stereo import right_stereo
from nucleate.data.conformer_sources import is_source, read_source
from nucleate.data.conformers import ConformerSet, boltzmann, to_row
from nucleate.errors import InputError
from nucleate.metrics.conformer_rmsd import best_rmsds
from tests.data_room.test_conformers import embedded


def rd_mols(molecule: Molecule, order: list[int] | None = None) -> list[Chem.Mol]:
    """One RDKit molecule for each conformer, without stereo marks."""
    found = []
    for x in molecule.conformers:
        graph = Chem.Mol(molecule.graph)
        for atom in graph.GetAtoms():
            atom.SetChiralTag(Chem.ChiralType.CHI_UNSPECIFIED)
        conformer = Chem.Conformer(len(x))
        conformer.SetPositions(x.numpy())
        graph.AddConformer(conformer)
        found.append(Chem.RenumberAtoms(graph, order) if order else graph)
    return found


def geom(smiles: str, n: int = 3) -> dict[str, Any]:
    """As GEOM's `rdkit_folder` has a molecule; the lowest is not the first."""
    weights, energies = [0.1, 0.7, 0.2], [0.9, 0.0, 0.4]
    conformers = [
        {"geom_id": k, "degeneracy": 1, "rd_mol": mol, "boltzmannweight": weights[k], "relativeenergy": energies[k],
         "totalenergy": -40.0 + energies[k] / 627.509474}
        for k, mol in enumerate(rd_mols(embedded(smiles, n)))
    ]  # fmt: skip
    return {"smiles": smiles, "uniqueconfs": n, "temperature": 298.15, "conformers": conformers}


def sets(path: Path) -> dict[str, ConformerSet]:
    found = dict(read_source(path))
    assert all(isinstance(own, ConformerSet) for own in found.values()), found
    return {name: own for name, own in found.items() if isinstance(own, ConformerSet)}


def same_shapes(own: ConformerSet, molecule: Molecule) -> None:
    """Each conformer is one of the molecule's (coordinates of pickles are single precision)."""
    graph = own.molecule.graph
    order = list(molecule.graph.GetSubstructMatch(graph, useChirality=True))
    gaps = best_rmsds(graph, own.molecule.conformers, molecule.conformers[:, order])
    assert float(gaps.min(1).values.max()) < 1e-4


def test_a_pickle_of_geom(tmp_path: Path) -> None:
    (tmp_path / "alanine.pickle").write_bytes(pickle.dumps(geom("C[C@H](N)C(=O)O")))
    own = sets(tmp_path)["alanine"]
    assert own.weights.tolist() == pytest.approx([0.7, 0.2, 0.1])
    torch.testing.assert_close(
        own.energies / 0.0433641, torch.tensor([0, 0.4, 0.9]).double(), atol=1e-4, rtol=0
    )
    assert own.molecule.smiles == "C[C@H](N)C(=O)O"
    assert right_stereo(own.molecule.graph, own.molecule.conformers).all()
    same_shapes(own, embedded("C[C@H](N)C(=O)O"))
    to_row(own)


def test_relative_energies_do_where_there_are_no_others(tmp_path: Path) -> None:
    content = geom("CCO")
    for one in content["conformers"]:
        del one["totalenergy"], one["boltzmannweight"]
    (tmp_path / "ethanol.pkl").write_bytes(pickle.dumps(content))
    own = sets(tmp_path / "ethanol.pkl")["ethanol"]
    torch.testing.assert_close(
        own.energies / 0.0433641, torch.tensor([0, 0.4, 0.9]).double(), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(own.weights, boltzmann(own.energies))


def test_lists_of_molecules_are_grouped_by_stereoisomer(tmp_path: Path) -> None:
    """As ISO17 keeps them: a long list, or splits of them, of molecules without marks of stereo."""
    left, right = embedded("C[C@H](F)Cl", 2), embedded("C[C@@H](F)Cl", 3)
    content = {"train": [*rd_mols(left), *rd_mols(right)], "rest": (rd_mols(embedded("CCO", 2)), "a text", 5)}
    (tmp_path / "iso17.pkl").write_bytes(pickle.dumps(content))
    found = [own for _, own in read_source(tmp_path / "iso17.pkl") if isinstance(own, ConformerSet)]
    assert {own.molecule.smiles: len(own) for own in found} == {
        left.smiles: 2, right.smiles: 3, "CCO": 2,
    }  # fmt: skip
    assert all(own.energies.isnan().all() for own in found)
    assert found[1].weights.tolist() == pytest.approx([1 / 3] * 3)


def test_atoms_in_other_orders_are_put_into_one(tmp_path: Path) -> None:
    molecule = embedded("C[C@H](N)C(=O)OC/C=C/C", 3)
    mols = []
    for k, one in enumerate(rd_mols(molecule)):
        g = torch.Generator().manual_seed(k)
        mols.append(Chem.RenumberAtoms(one, torch.randperm(len(molecule), generator=g).tolist()))
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(mols))
    own = sets(tmp_path)["a"]
    assert len(own) == 3
    bonds = own.molecule.bonds
    lengths = (own.molecule.conformers[:, bonds[:, 0]] - own.molecule.conformers[:, bonds[:, 1]]).norm(dim=-1)
    assert float(lengths.max()) < 1.7
    same_shapes(own, molecule)


@pytest.mark.parametrize("packed", [False, True])
def test_sdf_with_many_conformers(packed: bool, tmp_path: Path) -> None:
    blocks = []
    for smiles in ("C[C@H](N)C(=O)O", "C/C=C\\C"):
        for k, mol in enumerate(rd_mols(embedded(smiles, 2))):
            mol.SetProp("_Name", f"name of {smiles}")
            blocks.append(f"{Chem.MolToMolBlock(mol)}>  <energy_kj_mol>\n{5 - k}\n\n$$$$\n")
    text = "".join(blocks).encode()
    path = tmp_path / ("all.sdf.gz" if packed else "all.sdf")
    path.write_bytes(gzip.compress(text) if packed else text)
    found = sets(path)
    assert {own.molecule.smiles for own in found.values()} == {"C[C@H](N)C(=O)O", "C/C=C\\C"}
    for own in found.values():
        torch.testing.assert_close(own.energies, torch.tensor([0, 0.010364270]).double(), atol=1e-6, rtol=0)
        assert own.molecule.name.startswith("name of")


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    bare = Chem.RemoveHs(rd_mols(embedded("CCO", 1))[0])
    flat = Chem.Mol(rd_mols(embedded("CCO", 1))[0])
    flat.RemoveAllConformers()
    two = Chem.CombineMols(*rd_mols(embedded("CCO", 2)))
    (tmp_path / "a.pkl").write_bytes(pickle.dumps([bare, two]))
    (tmp_path / "b.pkl").write_bytes(pickle.dumps([flat]))
    (tmp_path / "c.pkl").write_bytes(pickle.dumps({"smiles": "CCO", "conformers": [{"geom_id": 3}]}))
    (tmp_path / "d.pkl").write_bytes(b"junk")
    (tmp_path / "e.pkl").write_bytes(pickle.dumps(Path("x")))
    reasons = [(name, own.reason) for name, own in read_source(tmp_path) if isinstance(own, InputError)]
    assert reasons == [
        ("a", "no hydrogens"), ("a", "several molecules"), ("b", "empty file"), ("c", "empty file"),
        ("d", "unreadable"), ("e", "unsafe pickle"),
    ]  # fmt: skip
    (tmp_path / "x.sdf").write_text("nonsense\n\n\n  2  1\n$$$$\n")
    [(_, broken)] = read_source(tmp_path / "x.sdf")
    assert isinstance(broken, InputError)


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="check the path"):
        next(read_source(tmp_path / "nothing.sdf"))
    with pytest.raises(InputError, match="found none"):
        next(read_source(tmp_path))
    assert is_source(tmp_path)
    assert is_source(Path("a.SDF.gz"))
    assert not is_source(Path("a.csv.gz"))


def test_an_energy_that_is_missing_hides_all(tmp_path: Path) -> None:
    content = geom("CCO")
    del content["conformers"][1]["totalenergy"], content["conformers"][1]["relativeenergy"]
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(content))
    own = sets(tmp_path)["x"]
    assert own.energies.isnan().all()
    assert own.weights.tolist() == pytest.approx([0.7, 0.2, 0.1])
    assert not math.isnan(float(own.weights.sum()))
