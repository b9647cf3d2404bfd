"""ASE calculators that behave as badly as real ones do; run inside the worker process of a test."""

import os
import signal
import subprocess
import time

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.neighborlist import neighbor_list

MARK = 5.0  # Å; a first lattice vector shorter than this sets off the misbehaviour


class Springs(Calculator):
    """Smooth short-ranged pairs, E = sum k (1 - (r/rc)^2)^3 for r < rc: repulsive, analytic, quick."""

    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012

    def __init__(self, strength=2.0, cutoff=3.0, force_factor=1.0, stress_factor=1.0, drift=0.0):
        super().__init__()
        self.strength, self.cutoff, self.drift = strength, cutoff, drift
        self.force_factor, self.stress_factor, self.calls = force_factor, stress_factor, 0

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        i, d, D = neighbor_list("idD", atoms, self.cutoff)
        u = 1 - (d / self.cutoff) ** 2
        pull = (-6 * self.strength * u**2 / self.cutoff**2)[:, None] * D  # dE/dD, for the pair counted once
        forces = np.zeros((len(atoms), 3))
        np.add.at(forces, i, pull)
        virial = np.einsum("pi,pj->ij", D, pull) / 2
        self.calls += 1
        self.results = {
            "energy": 0.5 * self.strength * float((u**3).sum()) + self.drift * self.calls,
            "forces": self.force_factor * forces,
            "stress": self.stress_factor * virial.flat[[0, 4, 8, 5, 2, 1]] / atoms.get_volume(),
        }


class Misbehaving(Springs):
    """Springs, but a crystal with a short first axis makes it crash, hang, raise, print or give NaN."""

    def __init__(self, how, note=None):
        super().__init__()
        self.how, self.note = how, note

    def leave_a_program_behind(self):
        program = subprocess.Popen(["sleep", "1000"])
        with open(self.note, "w") as note:
            note.write(str(program.pid))
        os._exit(4)

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        print("a model that talks", flush=True)
        if np.linalg.norm(atoms.cell[0]) < MARK:
            {
                "segfault": lambda: os.kill(os.getpid(), signal.SIGSEGV),
                "exit": lambda: os._exit(3),
                "external": self.leave_a_program_behind,
                "hang": lambda: time.sleep(1000),
                "raise": lambda: [][0],
                "nan": lambda: self.results.update(energy=float("nan")),
            }[self.how]()


class NoStress(Springs):
    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        del self.results["stress"]


class Bonds(Calculator):
    """Harmonic pairs of given length between atoms as they are, no images: molecules in a soft cell."""

    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012

    def __init__(self, pairs, lengths, strength=10.0):
        super().__init__()
        self.pairs, self.lengths, self.strength = np.array(pairs), np.array(lengths), strength

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        i, j = self.pairs.T
        D = atoms.positions[j] - atoms.positions[i]
        d = np.linalg.norm(D, axis=1)
        pull = (self.strength * (d - self.lengths) / d)[:, None] * D
        forces = np.zeros((len(atoms), 3))
        np.add.at(forces, i, pull)
        np.add.at(forces, j, -pull)
        virial = np.einsum("pi,pj->ij", D, pull)
        self.results = {
            "energy": 0.5 * self.strength * float(((d - self.lengths) ** 2).sum()),
            "forces": forces,
            "stress": virial.flat[[0, 4, 8, 5, 2, 1]] / atoms.get_volume(),
        }


def not_there():
    import a_package_that_nobody_has  # noqa: F401
