"""CPU-seconds of methods that order clusters: a training step of 8 clusters, and one ordered cluster.

    python benchmarks/crystallization_speed.py [CIF] [--methods rigid,lerp] [--repeats 2] [--threads 1]

Clusters are 17 copies of the molecule of a CIF (by default of a chain of 45 atoms, packed at random), loosened
each in its own way. Ours as it ships, published methods with 128 features, 3 layers and a cut-off of 20 Å. The
reference code of the strongest published method (AssembleFlow) took 44 to 53 CPU-s for such a step and 186 CPU-s for
one cluster of 45 atoms a molecule.
"""

import argparse
from pathlib import Path

import torch
from rdkit import Chem
from rdkit.Chem import rdDistGeom
from stopwatch import cpu_seconds

from nucleate.crystal.cluster import Cluster, ClusterBatch
from nucleate.crystal.io import read_crystal
from nucleate.data.clusters import Loosening, cluster_of, loosened
from nucleate.generative.seeds import generator_of
from nucleate.models.crystallization import ClusterPairs, Walk
from nucleate.models.crystallization_training import CrystallizationSettings, crystallizer_of
from nucleate.pipeline.cluster_sources import random_cluster

CHAIN = "CCCCCCCCCCCCCCO"  # 45 atoms


def cluster(cif: Path | None) -> Cluster:
    """Of the CIF, or 17 chains packed at random."""
    if cif is not None:
        return cluster_of(read_crystal(cif))
    molecule = Chem.AddHs(Chem.MolFromSmiles(CHAIN))
    rdDistGeom.EmbedMolecule(molecule, randomSeed=1)
    x = torch.from_numpy(molecule.GetConformer().GetPositions())
    numbers = torch.tensor([a.GetAtomicNum() for a in molecule.GetAtoms()])
    bonds = torch.tensor([(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in molecule.GetBonds()])
    positions = random_cluster(x - x.mean(0), 360.0, 17, True, generator_of(0))
    return Cluster(numbers, positions, CHAIN, bonds)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cif", nargs="?", type=Path)
    parser.add_argument("--methods", default="rigid,lerp")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    one = cluster(options.cif)
    batch = ClusterBatch.from_list([one.with_positions(one.positions.float())] * 8)
    loose = loosened(batch.positions, batch.mask, generator_of(1), Loosening())
    pairs = ClusterPairs(batch, loose)
    print(f"17 molecules of {len(one.numbers)} atoms; {options.threads} threads; CPU-s\n")
    print("| method | training step, 8 clusters | one ordered cluster |\n|---|---|---|")
    for name in options.methods.split(","):
        published = {} if name == "rigid" else {"width": 128, "layers": 3}
        method = crystallizer_of(CrystallizationSettings.model_validate({"method": name, **published}))
        walk = Walk(8 if name == "rigid" else 20)
        step = cpu_seconds(lambda m=method: m(pairs, generator_of(2))[0].backward(), options.repeats)
        first = ClusterBatch(batch.numbers[:1], loose[:1])
        sample = cpu_seconds(
            lambda m=method, w=walk, x=first: m.sample(x, generator_of(3), w), options.repeats
        )
        print(f"| {name}, {walk.steps} steps | {step:.2f} | {sample:.2f} |", flush=True)


if __name__ == "__main__":
    main()
