"""Write a list of drug-like molecules of which nobody owns a copy: rings, joined by links, ended by groups.

    python examples/training/drug_like.py 3000 > drug_like.smi

Molecules grow as random trees: a ring first, then pieces at hydrogens of what is there. They are not drugs and need not
exist; a model of conformers learns from them how the pieces of drugs turn against each other.
"""

import random
import sys

from rdkit import Chem, RDLogger
from rdkit.Chem import rdMolDescriptors

RINGS = """
c1ccccc1 c1ccncc1 c1ccnnc1 c1cncnc1 c1cnccn1 c1ccoc1 c1ccsc1 c1cc[nH]c1 c1cn[nH]c1 c1c[nH]cn1 c1cnoc1 c1cocn1
c1cscn1 c1nn[nH]n1 c1nc[nH]n1 c1nnco1 c1ccc2ccccc2c1 c1ccc2ncccc2c1 c1ccc2[nH]ccc2c1 c1ccc2nc[nH]c2c1 c1ccc2OCOc2c1
c1ncc2[nH]cnc2n1 c1ccc2occc2c1 c1ccc2scnc2c1 c1ccc2CCCc2c1 c1ccc2CNCCc2c1 O=c1cc[nH]c(=O)[nH]1 O=c1ccocc1
O=c1ccc2ccccc2o1 C1CCCCC1 C1CCCC1 C1CC1 C1CCC1 C1CCNCC1 C1CNCCN1 C1COCCN1 C1CCNC1 C1CCOC1 C1CCOCC1 O=C1CCCN1
O=C1CCC(=O)N1 C1CCC2CCCCC2C1 C1CC2CCC1N2 c1cc[nH+]cc1 C1CC[NH2+]CC1 C1C[NH2+]CCN1
"""
LINKS = """
C CC CCC O N S C(=O)N NC(=O) OC C=C NC(=O)N S(=O)(=O)N NS(=O)(=O) C(=O)O OC(=O) C(=O) CN CO CS C#C C=NN S(=O)(=O)
OCC NCC C(C)C C(O)C OP(=O)([O-])O
"""
ENDS = """
C C C CC C(C)C C(C)(C)C F F Cl Cl Br I O O OC OC N C#N [N+](=O)[O-] C(F)(F)F C(=O)O C(=O)[O-] C(N)=O C(C)=O
S(N)(=O)=O S(C)(=O)=O N(C)C [NH3+] C[NH3+] C(N)=[NH2+] NC(N)=[NH2+] OC(F)F SC C=C CC#N CO CCO NC(C)=O OC(C)=O
"""
SIZES = range(10, 33)  # heavy atoms
ROTORS = 10


def one_of(pieces: str) -> Chem.Mol:
    return Chem.MolFromSmiles(random.choice(pieces.split()))


def may_bear(atom: Chem.Atom, partner: Chem.Atom) -> bool:
    """Has the atom a hydrogen to give, and is the new bond one that molecules keep, with a carbon at one end?"""
    return (
        atom.GetTotalNumHs() > 0
        and atom.GetFormalCharge() <= 0
        and 6 in (atom.GetAtomicNum(), partner.GetAtomicNum())
    )


def join(molecule: Chem.Mol, place: int, piece: Chem.Mol, start: int) -> Chem.Mol | None:
    """A single bond instead of two hydrogens; None where that is no molecule."""
    both = Chem.RWMol(Chem.CombineMols(molecule, piece))
    ends = (place, molecule.GetNumAtoms() + start)
    for atom in map(both.GetAtomWithIdx, ends):
        atom.SetNumExplicitHs(max(atom.GetNumExplicitHs() - 1, 0))
    both.AddBond(*ends, Chem.BondType.SINGLE)
    return both.GetMol() if Chem.SanitizeMol(both, catchErrors=True) == Chem.SANITIZE_NONE else None


def attach(
    molecule: Chem.Mol | None, piece: Chem.Mol | None, start: int = 0, far: bool = False
) -> Chem.Mol | None:
    """Put the piece's atom `start` on a random atom of the molecule, or on the last one that may bear it if `far`."""
    if molecule is None or piece is None:
        return None
    partner = piece.GetAtomWithIdx(start)
    places = [
        atom.GetIdx() for atom in molecule.GetAtoms() if may_bear(atom, partner) and may_bear(partner, atom)
    ]
    return join(molecule, places[-1] if far else random.choice(places), piece, start) if places else None


def arm() -> Chem.Mol | None:
    """A link with a ring at its far end; it is held by its first atom."""
    ring = one_of(RINGS)
    start = random.choice([atom.GetIdx() for atom in ring.GetAtoms() if atom.GetTotalNumHs() > 0])
    return attach(one_of(LINKS), ring, start, far=True)


def grow() -> str | None:
    """One molecule: a ring, up to three more behind links, up to three ends. None where a piece did not fit."""
    molecule = one_of(RINGS)
    for _ in range(random.randint(1, 3)):
        molecule = attach(molecule, arm())
    for _ in range(random.randint(0, 3)):
        molecule = attach(molecule, one_of(ENDS))
    if (
        molecule is None
        or molecule.GetNumHeavyAtoms() not in SIZES
        or rdMolDescriptors.CalcNumRotatableBonds(molecule) > 10
    ):
        return None
    return Chem.MolToSmiles(molecule)


def main(number: int) -> None:
    random.seed(0)
    RDLogger.DisableLog("rdApp.*")
    found: dict[str, None] = {}
    while len(found) < number:
        smiles = grow()
        if smiles is not None:
            found[smiles] = None
    print("\n".join(found))


if __name__ == "__main__":
    main(int(sys.argv[1]))
