"""An energy model of one's own: the enthalpy H = E + p V, as a wrapper around any other model.

python examples/own_energy_model.py results/urea/cif 2.0
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.io import read_crystal
from nucleate.physics.energy import Energy, EnergyModel, energy_model
from nucleate.physics.parameters import KJ_PER_MOL
from nucleate.testing import assert_energy_model

GPA = 0.006241509  # eV/Å^3


class UnderPressure(EnergyModel):
    """Adds p V to every energy. Forces do not feel it; the stress gains p on its diagonal, left out here."""

    def __init__(self, model: EnergyModel, pressure: float) -> None:
        self.model, self.pressure = model, pressure * GPA
        self.name = f"{model.name} at {pressure:g} GPa"
        self.capability = replace(model.capability, stress=False)

    def evaluate(self, crystals: Sequence[Crystal], *, gradient: bool = False) -> list[Energy]:
        answers = self.model.evaluate(crystals, gradient=gradient)
        return [self._enthalpy(answer, crystal) for answer, crystal in zip(answers, crystals)]

    def _enthalpy(self, answer: Energy, crystal: Crystal) -> Energy:
        if answer.energy is None:
            return answer
        return replace(answer, energy=answer.energy + self.pressure * crystal.volume, stress=None)


def main(folder: str | Path = "results/urea/cif", pressure: str | float = 1.0) -> None:
    files = sorted(Path(folder).glob("*.cif"))
    crystals = [read_crystal(path) for path in files]
    model = UnderPressure(energy_model("forcefield"), float(pressure))
    assert_energy_model(model, crystals[0])
    found = [
        (answer.energy / crystal.n_molecules / KJ_PER_MOL, path.name)
        for path, crystal, answer in zip(files, crystals, model.evaluate(crystals))
        if answer.energy is not None
    ]
    print(model.name)
    for enthalpy, name in sorted(found):
        print(f"{name}  {enthalpy:.2f} kJ/mol per molecule")


if __name__ == "__main__":
    main(*sys.argv[1:3])
