"""Structures per CPU-second of every stage of the search, beside PyXtal's random crystals.

    python benchmarks/search.py [--smiles "CC(=O)Oc1ccccc1C(=O)O"] [--starts 300]

One process, one thread, CPU-seconds of that process after the kernels are compiled; space groups 2, 14, 19 and 61 in
turn. PyXtal (pip install nucleate[peers]) makes random crystals without minimising them, so its number stands beside
`generate`; the volume that each puts a molecule into is printed too.
"""

import argparse
import time
import warnings

import numpy as np
import torch
from rdkit import Chem

from nucleate.crystal.molecule import Molecule
from nucleate.physics.forcefield import ForceField
from nucleate.physics.minimise import (
    PRESS,
    ROUGH,
    TIGHT,
    closest_contacts,
    minimise,
    pair_energy_fingerprints,
)
from nucleate.pipeline.conform import conform
from nucleate.pipeline.generate import Composition, arms, random_packings

GROUPS = ("2", "14", "19", "61")


class Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.structures: dict[str, int] = {}

    def measure(self, name: str, structures: int, work):
        before = time.process_time()
        result = work()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - before
        self.structures[name] = self.structures.get(name, 0) + structures
        return result


def ours(smiles: str, starts: int) -> tuple[Clock, Composition]:
    graph = Chem.AddHs(Chem.MolFromSmiles(smiles))
    found = conform(Molecule(graph, torch.zeros(0, graph.GetNumAtoms(), 3), smiles))
    composition = Composition((found.molecule,), (1,), (found.energies,), False)
    field = ForceField.for_molecules(composition.species)
    clock = Clock()
    for group in GROUPS:
        arm = arms(composition, group)[0]
        few = minimise(random_packings(composition, arm, 0, 2, 1), field, PRESS).packings
        minimise(minimise(few, field, ROUGH).packings, field, TIGHT)  # compile, not counted
        pair_energy_fingerprints(few, field), closest_contacts(few, field)
        packed = clock.measure(
            "generate", starts, lambda a=arm: random_packings(composition, a, 0, starts, 0)
        )
        pressed = clock.measure("press", starts, lambda p=packed: minimise(p, field, PRESS)).packings
        rough = clock.measure("rough minimisation", starts, lambda p=pressed: minimise(p, field, ROUGH))
        low = rough.packings[rough.energy.argsort()[: starts // 5]]
        clock.measure("fingerprints", len(low), lambda p=low: pair_energy_fingerprints(p, field))
        clock.measure("tight minimisation", len(low), lambda p=low: minimise(p, field, TIGHT))
    return clock, composition


def pyxtal_crystals(smiles: str, count: int) -> tuple[float, list[float]] | None:
    """CPU-seconds for `count` random crystals, and volumes per molecule (Å^3); None where PyXtal is missing."""
    try:
        from pyxtal import pyxtal
    except ImportError:
        return None
    volumes, before = [], time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for k in range(count):
            crystal = pyxtal(molecular=True)
            group = int(GROUPS[k % len(GROUPS)])
            crystal.from_random(3, group, [f"{smiles}.smi"], random_state=k)
            if crystal.valid:
                volumes.append(
                    crystal.lattice.volume / sum(site.wp.multiplicity for site in crystal.mol_sites)
                )
    return time.process_time() - before, volumes


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--smiles", default="CC(=O)Oc1ccccc1C(=O)O")
    parser.add_argument("--starts", type=int, default=300, help="in each of four space groups")
    options = parser.parse_args()
    torch.set_num_threads(1)
    clock, composition = ours(options.smiles, options.starts)
    print(
        f"{options.smiles}, {len(composition.species[0])} atoms, {options.starts} starts in each of {GROUPS}"
    )
    for name, seconds in clock.seconds.items():
        n = clock.structures[name]
        print(f"  {name:20s} {n / seconds:9.0f} structures per CPU-second   {1e3 * seconds / n:8.2f} ms each")
    starts = clock.structures["generate"]
    total = sum(clock.seconds.values())
    print(f"  all, one in five minimised tightly: {starts / total:.0f} starts per CPU-second")
    peer = pyxtal_crystals(options.smiles, 40)
    if peer is None:
        print("  PyXtal is not installed (pip install nucleate[peers]); its row is left out")
        return
    seconds, volumes = peer
    mine = clock.seconds["generate"] + clock.seconds["press"]
    print(f"  PyXtal random crystal {1e3 * seconds / 40:31.1f} ms each; {len(volumes)} of 40 valid")
    print(f"  ratio to generate + press: {seconds / 40 / (mine / starts):.0f} times the CPU-time of ours")
    print(
        f"  volume per molecule: PyXtal {np.median(volumes):.0f} Å^3, ours {1.125 * composition.volume:.0f} Å^3 before "
        "the press"
    )


if __name__ == "__main__":
    main()
