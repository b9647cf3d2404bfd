"""CPU-seconds of ConfGF: a training step of 128 molecules like those of QM9, and 100 conformers of one of 18 atoms.

    python benchmarks/confgf_speed.py SMILES_LIST [--threads 1] [--width 256] [--steps 5]

SMILES_LIST is a list such as qm9_smiles.csv.gz; 128 molecules of 14 to 20 atoms are drawn from it. The baseline is the
published algorithm written down plainly: the extended graph from powers of the adjacency matrix of the whole batch in
every step, and every pair computed from both of its ends. It has our weights and must give our loss. Annealed Langevin
dynamics is timed for some of its 5,000 calls, and told for all of them.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from rdkit import Chem
from rdkit.Chem import rdDistGeom
from stopwatch import cpu_seconds
from torch import Tensor

from nucleate.crystal.bond_graph import BOND_TYPES, BondGraph, BondGraphs, bond_graph
from nucleate.generative.seeds import generator_of
from nucleate.models.confgf import ORDER, PUBLISHED, ConfGF
from nucleate.models.conformer_flow import ConformerFlow
from nucleate.models.conformers import ConformerPairs
from nucleate.pipeline.molecule_lists import read_sample


def molecules(path: Path, n: int, atoms: range) -> tuple[list[BondGraph], list[Tensor]]:
    """Graphs and one embedded conformer of each."""
    graphs, positions = [], []
    for smiles in read_sample(path, 40 * n, 0):
        if not isinstance(smiles, str):
            continue
        molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
        if molecule.GetNumAtoms() in atoms and rdDistGeom.EmbedMolecule(molecule, randomSeed=1) == 0:
            graphs.append(bond_graph(molecule))
            positions.append(torch.from_numpy(molecule.GetConformer().GetPositions()).float())
        if len(graphs) == n:
            return graphs, positions
    raise SystemExit(f"expected {n} molecules of {atoms.start} to {atoms.stop - 1} atoms in {path}")


def plain_loss(model: ConfGF, batch: ConformerPairs, generator: torch.Generator) -> Tensor:
    """As published: dense powers of the adjacency matrix, directed edges."""
    real, network = batch.graphs.mask, model.network
    numbers, x = batch.graphs.numbers[real], batch.positions[real]
    bond = torch.block_diag(*(b[m][:, m] for b, m in zip(batch.graphs.bond, real)))
    near = ((bond > 0) | torch.eye(len(bond), dtype=torch.bool)).float()
    reached, order = torch.eye(len(bond)), torch.zeros_like(bond)
    for hops in range(1, ORDER + 1):
        further = (reached @ near > 0).float()
        order = torch.where((further > 0) & (reached == 0), hops, order)
        reached = further
    i, j = order.nonzero(as_tuple=True)
    molecule = torch.arange(len(real))[:, None].expand_as(real)[real]
    pairs = batch.graphs.pairs(ORDER)  # only for the same noise from either end
    sigma = PUBLISHED.levels.draw(len(real), generator)[molecule[i]]
    noise = torch.zeros(len(bond), len(bond))
    noise[pairs.i, pairs.j] = torch.randn(len(pairs.i), generator=generator)
    noise = (noise + noise.T)[i, j]
    length = (x[i] - x[j]).norm(dim=-1) + sigma * noise
    kind = torch.where(order[i, j] == 1, bond[i, j], order[i, j] - 1 + BOND_TYPES)
    h, e = network.element(numbers), network.kind(kind) * network.length(length[:, None])
    for layer in network.layers:
        out = layer(h + torch.zeros_like(h).index_add(0, i, torch.relu(h[j] + e)))
        h = h + (torch.relu(out) if layer is not network.layers[-1] else out)
    score = network.answer(torch.cat([h[i] * h[j], e], -1))[:, 0] / sigma
    return (0.5 * sigma**2 * (score + noise / sigma).square()).sum() / len(real)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("smiles", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--steps", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    graphs, positions = molecules(options.smiles, 128, range(14, 21))
    batch = ConformerPairs.from_list(graphs, positions)
    model, flow = ConfGF(options.width), ConformerFlow(96, 4, 48)
    one, same = (f(batch, generator_of(1)) for f in (model, lambda b, g: (plain_loss(model, b, g), {})))
    torch.testing.assert_close(one[0], same[0], rtol=1e-3, atol=0)

    losses: dict[str, Callable[[], Tensor]] = {
        "as published, plainly": lambda: plain_loss(model, batch, generator_of(1)),
        "ConfGF": lambda: model(batch, generator_of(1))[0],
        "flow of positions (width 96, as it ships)": lambda: flow(batch, generator_of(1))[0],
    }
    atoms, edges = int(batch.graphs.mask.sum()), 2 * len(batch.graphs.pairs(ORDER).i)
    print(f"training step: 128 molecules, {atoms} atoms, {edges} directed pairs; {options.threads} threads\n")
    base = 0.0
    for name, loss in losses.items():
        spent = cpu_seconds(lambda loss=loss: loss().backward(), options.steps)
        base = base or spent
        print(f"| {name} | {spent:.3f} CPU-s | {base / spent:.1f} times as fast |", flush=True)

    eighteen = next(g for g in graphs if len(g) == 18)
    many = BondGraphs.from_list([eighteen]).repeated(100)
    print("\n100 conformers of a molecule of 18 atoms\n")
    few = ConfGF(options.width, walk=replace(PUBLISHED, steps=1))
    call = cpu_seconds(lambda: few.sample(many, generator_of(2)), 1) / PUBLISHED.levels.count
    whole = call * PUBLISHED.levels.count * PUBLISHED.steps
    print(
        f"| annealed Langevin dynamics, 5,000 calls of {call:.3f} CPU-s | {whole:.0f} CPU-s | 1.0 times as fast |"
    )
    spent = cpu_seconds(lambda: flow.sample(many, generator_of(2)), 2)
    print(
        f"| flow of positions, {flow.steps} calls | {spent:.2f} CPU-s | {whole / spent:.0f} times as fast |"
    )


if __name__ == "__main__":
    main()
