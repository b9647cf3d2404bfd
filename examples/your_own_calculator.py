"""Bring your own ASE calculator: name it, test it, relax a crystal with it.

python examples/your_own_calculator.py
"""

import torch

from nucleate.crystal.crystal import Crystal
from nucleate.physics.energy import ProcessSettings, energy_model
from nucleate.physics.relax_atoms import relax_atoms
from nucleate.physics.self_test import self_test

argon = Crystal(
    lattice=torch.diag(torch.tensor([5.6, 5.4, 5.3], dtype=torch.float64)),
    frac=torch.tensor([[0.02, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]], dtype=torch.float64),
    numbers=torch.full((4,), 18),
    molecule=torch.arange(4),
    bonds=torch.zeros(0, 2, dtype=torch.long),
)


def main() -> None:
    # Any class that ASE can use: a module path, or ase:/path/to/your_file.py:YourCalculator
    name = "ase:ase.calculators.lj:LennardJones"
    options = {"sigma": 3.4, "epsilon": 0.0104, "rc": 9.0, "smooth": True}
    with energy_model(name, options=options, process=ProcessSettings(time_limit=10)) as model:
        print("laws that do not hold:", self_test(model, argon).broken())
        [end] = relax_atoms([argon], model)
    print(
        f"{end.energy:.4f} eV, {end.crystal.volume:.1f} Å^3, converged {end.converged} in {end.steps} steps"
    )


if __name__ == "__main__":
    main()
