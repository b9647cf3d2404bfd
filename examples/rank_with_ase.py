"""Rank CIF files of one substance with an ASE calculator, each structure in a process with a time limit.

python examples/rank_with_ase.py results/urea/cif ase:tblite.ase:TBLite

Without a name Lennard-Jones stands in, which knows nothing of chemistry.
"""

import math
import sys
from pathlib import Path

from nucleate.crystal.io import read_crystal
from nucleate.physics.energy import ProcessSettings
from nucleate.pipeline.relax import energies_per_molecule

STAND_IN = 'ase:ase.calculators.lj:LennardJones:{"sigma": 3.0, "epsilon": 0.004, "rc": 8.0}'


def main(folder: str | Path = "results/urea/cif", name: str = STAND_IN) -> None:
    files = sorted(Path(folder).glob("*.cif"))
    crystals = [read_crystal(path) for path in files]
    answers = energies_per_molecule(crystals, name, ProcessSettings(time_limit=120))
    lowest = min((energy for energy, _ in answers if math.isfinite(energy)), default=math.nan)
    for path, (energy, failure) in sorted(zip(files, answers), key=lambda x: (math.isnan(x[1][0]), x[1][0])):
        print(f"{path.name}  {failure or f'{energy - lowest:.2f} kJ/mol per molecule above the lowest'}")


if __name__ == "__main__":
    main(*sys.argv[1:])
