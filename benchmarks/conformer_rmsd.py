"""How long do best RMSDs of many conformers take, and do they agree with RDKit's?

    python benchmarks/conformer_rmsd.py [SMILES ...] [--references 50] [--generated 100]

Conformers are embedded by ETKDG. For each molecule: orders of its heavy atoms, CPU-milliseconds for all pairs by
`nucleate.metrics.conformer_rmsd.best_rmsds` and by RDKit's GetBestRMS (timed on the first 400 pairs, one thread), and
the largest difference between the two on those.
"""

import argparse
import time

import torch
from rdkit import Chem
from rdkit.Chem import rdMolAlign

from nucleate.crystal.molecule import Molecule
from nucleate.metrics.conformer_rmsd import best_rmsds, symmetry
from nucleate.pipeline.conformer_baselines import etkdg

MOLECULES = (
    "CCC(O)CC(C)C=O",  # 1 order
    "CC(C)Cc1ccc(cc1)C(C)C(=O)O",  # ibuprofen, 8
    "CCOC(=O)c1ccccc1Oc1nc(OC)nc(OC)n1",  # 2
    "FC(F)(F)c1cc(C(F)(F)F)cc(c1)C(C)(C)C",  # 432
)


def compared(smiles: str, references: int, generated: int) -> tuple[int, int, float, float, float]:
    """Orders, pairs, seconds of ours, seconds of RDKit's, largest difference (Å)."""
    graph = Chem.AddHs(Chem.MolFromSmiles(smiles))
    positions = etkdg(Molecule(graph, torch.zeros(0, graph.GetNumAtoms(), 3)), references + generated)
    one, other = positions[:references], positions[references:]
    best_rmsds(graph, one[:2], other[:2])
    began = time.process_time()
    ours = best_rmsds(graph, one, other)
    seconds = time.process_time() - began
    bare = graph
    for x in positions:
        conformer = Chem.Conformer(len(x))
        conformer.SetPositions(x.numpy())
        bare.AddConformer(conformer, assignId=True)
    bare = Chem.RemoveAllHs(bare)
    probe = Chem.Mol(bare)  # is moved
    few, began = min(20, references, len(other)), time.process_time()
    theirs = [[rdMolAlign.GetBestRMS(probe, bare, references + j, i) for j in range(few)] for i in range(few)]
    each = (time.process_time() - began) / few**2
    apart = (ours[:few, :few] - torch.tensor(theirs, dtype=torch.float64)).abs().max()
    return len(symmetry(graph).maps), ours.numel(), seconds, each * ours.numel(), float(apart)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("smiles", nargs="*", default=MOLECULES)
    parser.add_argument("--references", type=int, default=50)
    parser.add_argument("--generated", type=int, default=100)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("| molecule | orders | pairs | CPU-ms | RDKit, CPU-ms | difference, Å |\n|" + "---|" * 6)
    for smiles in given.smiles:
        orders, pairs, ours, theirs, apart = compared(smiles, given.references, given.generated)
        print(f"| {smiles} | {orders} | {pairs} | {1e3 * ours:.0f} | {1e3 * theirs:.0f} | {apart:.0e} |")


if __name__ == "__main__":
    main()
