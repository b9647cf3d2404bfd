"""Time and self-test of energy models on one crystal: the table of docs/physics_energy_models.md.

    python benchmarks/energy_models.py crystal.cif d3 chgnet gfn1

The crystal is rattled by 0.03 Å first: at a minimum all forces vanish and little is tested.
"""

import sys
import time

import torch
from ase import Atoms
from ase.io import read

from nucleate.crystal.crystal import Crystal
from nucleate.physics.energy import ProcessSettings, energy_model
from nucleate.physics.self_test import self_test


def rattled(path: str) -> Crystal:
    atoms = read(path, index=0)
    assert isinstance(atoms, Atoms)
    lattice = torch.tensor(atoms.cell.array)
    noise = torch.randn(len(atoms), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return Crystal(
        lattice=lattice,
        frac=(torch.tensor(atoms.positions) + 0.03 * noise) @ torch.linalg.inv(lattice),
        numbers=torch.tensor(atoms.numbers, dtype=torch.long),
        molecule=torch.zeros(len(atoms), dtype=torch.long),
        bonds=torch.zeros(0, 2, dtype=torch.long),
    )


def main(path: str, *names: str) -> None:
    crystal = rattled(path)
    print(f"{len(crystal)} atoms, {crystal.volume:.0f} Å^3")
    print(
        "model\tstart (s)\tgradient (s)\tsupercell (eV/atom)\tforce (eV/Å)\tstress (eV/Å^3)\trepeat (eV/atom)"
    )
    for name in names:
        with energy_model(name, process=ProcessSettings(time_limit=300)) as model:
            started = time.perf_counter()
            model.start()
            start = time.perf_counter() - started
            # The first call of a network is slower; a crystal seen before would be answered from memory.
            model.evaluate([crystal.replace(frac=crystal.frac + 0.01)])
            t = self_test(model, crystal)
            stress = "none" if t.stress is None else f"{t.stress:.1g}"
            print(
                f"{name}\t{start:.1f}\t{t.seconds:.2f}\t{t.supercell:.1g}\t{t.force:.1g}\t{stress}\t{t.repeat:.1g}",
                flush=True,
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
