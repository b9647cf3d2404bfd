"""From bare atoms in a cell to a `Crystal`: bonds, whole molecules, bond orders, charges, checks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.graph import canonical, local_bonds, molecule_atoms, molecule_bonds
from nucleate.crystal.lewis import Skeleton, lewis_structures
from nucleate.crystal.molecule import Molecule
from nucleate.crystal.perceive import Neighbours, perceive_bonds, refuse_bare_atoms, whole_molecules
from nucleate.errors import InputError


def assemble_crystal(
    lattice: Float[Tensor, "3 3"],
    frac: Float[Tensor, "atoms 3"],
    numbers: Int[Tensor, " atoms"],
    info: dict[str, Any] | None = None,
    check_hydrogens: bool = True,
) -> Crystal:
    """A crystal of whole molecules from all atoms of one cell (lattice rows in Å, right-handed).

    Bonds come from distances, orders and charges from the cheapest neutral Lewis structures. Raises
    InputError with reason "clash", "polymeric" or "missing hydrogens". What was unusual is listed in
    `info["warnings"]`.
    """
    cell, x, z = lattice.double().numpy(), frac.double().numpy(), numbers.numpy()
    bonds = perceive_bonds(cell, x, z)
    whole, molecule = whole_molecules(x, bonds)
    bare = Crystal(
        lattice=lattice.double(),
        frac=torch.from_numpy(whole),
        numbers=numbers.long(),
        molecule=torch.from_numpy(molecule),
        bonds=torch.from_numpy(np.stack([bonds.i, bonds.j], 1).astype(np.int64)),
        info=info,
    )
    crystal = with_lewis_structures(bare, bonds)
    if check_hydrogens:
        refuse_missing_hydrogens(crystal)
    return crystal


def with_lewis_structures(crystal: Crystal, lengths: Neighbours | None = None) -> Crystal:
    """The crystal with bond orders and formal charges of the cheapest neutral Lewis structures.

    Copies of one molecule get the same structure, taken from the first copy.
    """
    ends = crystal.positions[crystal.bonds]
    distance = (ends[:, 0] - ends[:, 1]).norm(dim=-1).numpy() if lengths is None else lengths.distance
    atoms, chosen, local = molecule_atoms(crystal), molecule_bonds(crystal), local_bonds(crystal)
    keys = [canonical(crystal.numbers[a].tolist(), b.tolist()) for a, b in zip(atoms, local)]
    first: dict[str, int] = {}
    for m, (key, _) in enumerate(keys):
        first.setdefault(key, m)
    copies = {key: sum(key == other for other, _ in keys) for key in first}
    solved = lewis_structures(
        [
            Skeleton(
                crystal.numbers[atoms[m]].numpy(), local[m].numpy(), distance[chosen[m].numpy()], copies[key]
            )
            for key, m in first.items()
        ]
    )
    structure = dict(zip(first, solved))
    pairs, types, charges = [], [], torch.zeros(len(crystal), dtype=torch.long)
    for m, (key, order) in enumerate(keys):
        answer, reference = structure[key], torch.tensor(keys[first[key]][1])
        image = torch.empty(len(order), dtype=torch.long)
        image[reference] = atoms[m][torch.tensor(order)]
        pairs.append(image[torch.from_numpy(answer.bonds)].reshape(-1, 2))
        types += list(answer.types)
        charges[image] = torch.from_numpy(answer.charges)
    warnings = sorted({note for answer in solved for note in answer.warnings})
    if charges.sum() != 0:
        warnings.append(f"formal charges of the cell sum to {int(charges.sum())}")
    info = dict(crystal.info or {})
    if warnings:
        info["warnings"] = [*info.get("warnings", []), *warnings]
    return crystal.replace(bonds=torch.cat(pairs).long(), bond_types=tuple(types), charges=charges, info=info)


def refuse_missing_hydrogens(crystal: Crystal) -> None:
    """Raise InputError "missing hydrogens" where the geometry of an atom asks for one that is not there."""
    refuse_bare_atoms(crystal.positions.numpy(), crystal.numbers.numpy(), crystal.bonds.numpy())


def assign_graph(crystal: Crystal, molecules: Sequence[Molecule]) -> Crystal:
    """The crystal with bond orders and charges of the given molecules, found by isomorphism.

    For callers who know the molecules (a SMILES): nothing is perceived but which atoms are bonded. Raises
    InputError "other molecule" where the crystal holds one that is not among them.
    """
    known: dict[str, tuple[Molecule, tuple[int, ...]]] = {}
    for molecule in molecules:
        key, order = canonical(molecule.numbers.tolist(), molecule.bonds.tolist())
        known.setdefault(key, (molecule, order))
    atoms, local = molecule_atoms(crystal), local_bonds(crystal)
    pairs, types, charges = [], [], torch.zeros(len(crystal), dtype=torch.long)
    for at, bonds in zip(atoms, local):
        key, order = canonical(crystal.numbers[at].tolist(), bonds.tolist())
        if key not in known:
            raise InputError(
                f"expected only the molecules {[m.formula for m in molecules]}, got another with {len(at)} "
                "atoms; check protonation, solvent and bonds",
                reason="other molecule",
            )
        molecule, reference = known[key]
        image = torch.empty(len(at), dtype=torch.long)
        image[torch.tensor(reference)] = at[torch.tensor(order)]
        pairs.append(image[molecule.bonds].reshape(-1, 2))
        types += [b.GetBondType() for b in molecule.graph.GetBonds()]
        charges[image] = torch.tensor([a.GetFormalCharge() for a in molecule.graph.GetAtoms()])
    return crystal.replace(bonds=torch.cat(pairs), bond_types=tuple(types), charges=charges)
