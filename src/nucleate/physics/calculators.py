"""Builders of ASE calculators, called inside the worker process by `worker.build`.

Like `worker`, this file must import in a foreign environment: ase and numpy at the top, each model's package
inside its builder. Every builder returns an ASE calculator in eV, eV/Å and eV/Å^3.
"""

from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, Calculator, all_changes

SHORTEST_HEIGHT = 7.5  # Å; below it, k = 0 alone misses up to 26 kJ/mol per cell with GFN-xTB


class Repeated(Calculator):
    """A Γ-point calculator on a cell repeated until no axis is short; results per original cell.

    With n copies in all, E = E' / n; the forces are those of the first copy and the stress is the same.
    """

    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012  (ASE wants a list)

    def __init__(self, calculator: Calculator, shortest: float = SHORTEST_HEIGHT) -> None:
        super().__init__()
        self.calculator, self.shortest = calculator, shortest
        self.held: tuple[int, ...] | None = None

    def hold(self, atoms: Atoms) -> None:
        """Keep today's number of copies until released: a relaxation needs one smooth surface."""
        self.held = repeats(atoms, self.shortest)

    def release(self) -> None:
        self.held = None
        self.reset()

    def reset(self) -> None:
        super().reset()
        self.calculator.reset()

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        counts = self.held or repeats(atoms, self.shortest)
        large = atoms.repeat(counts)
        large.calc = self.calculator
        self.results = {
            "energy": large.get_potential_energy() / np.prod(counts),
            "forces": large.get_forces()[: len(atoms)],
            "stress": large.get_stress(),
        }


def repeats(atoms: Atoms, shortest: float) -> tuple[int, ...]:
    """Copies along a, b, c so that the distance between opposite faces is at least `shortest` (Å)."""
    heights = 1 / np.linalg.norm(np.linalg.inv(atoms.cell.array), axis=0)
    return tuple(int(n) for n in np.maximum(np.ceil(shortest / heights - 1e-9), 1))


def gfn(method: str, shortest: float = SHORTEST_HEIGHT, accuracy: float = 1.0) -> Calculator:
    """GFN1-xTB or GFN2-xTB by tblite, with short axes repeated."""
    from tblite.ase import TBLite

    return Repeated(TBLite(method=method, accuracy=accuracy, verbosity=0), shortest)


def d3(method: str = "pbe", damping: str = "d3bj", three_body: bool = False) -> Calculator:
    """DFT-D3 dispersion of a functional, nothing else.

    `three_body` adds the Axilrod-Teller-Muto term: 5 % of the energy at some 500 times the cost.
    """
    from dftd3.ase import DFTD3

    return DFTD3(method=method, damping=damping, params_tweaks={"method": method, "atm": three_body})


def chgnet(
    version: str = "0.3.0", dispersion: bool = True, device: str = "cpu", three_body: bool = False
) -> BaseCalculator:
    """CHGNet with the weights from its own wheel, and D3(BJ) for PBE, which it was trained on.

    The package's calculator turns its eV/atom into eV and its GPa into eV/Å^3.
    """
    from ase.calculators.mixing import SumCalculator
    from chgnet.model import CHGNet
    from chgnet.model.dynamics import CHGNetCalculator

    network = CHGNet.load(model_name=version, use_device=device, check_cuda_mem=False, verbose=False)
    calculator = CHGNetCalculator(network, use_device=device, on_isolated_atoms="error")
    return SumCalculator([calculator, d3(three_body=three_body)]) if dispersion else calculator


def mace(family: str = "off", device: str = "cpu", default_dtype: str = "float64", **more: Any) -> Calculator:
    """mace-torch: `family` "off" (organic), "mp" (89 elements; `dispersion=True` adds D3) or "omol".

    `model` (a size, or the path of weights on this disk) and whatever else there is goes to `mace_<family>`.
    """
    from mace import calculators

    return getattr(calculators, f"mace_{family}")(device=device, default_dtype=default_dtype, **more)


def orb(
    model: str = "orb_v3_conservative_inf_omat", device: str = "cpu", precision: str = "float32-highest"
) -> Calculator:
    """orb-models: a function of `orb_models.forcefield.pretrained`.

    Since 0.6 the loader returns the model and an adapter; before, the model alone, and the calculator was in
    another module.
    """
    from orb_models.forcefield import pretrained

    loaded = getattr(pretrained, model)(device=device, precision=precision)
    if isinstance(loaded, tuple):
        from orb_models.forcefield.inference.calculator import ORBCalculator

        network, adapter = loaded
        return ORBCalculator(network, atoms_adapter=adapter, device=device)
    from orb_models.forcefield.calculator import ORBCalculator

    return ORBCalculator(loaded, device=device)


class _NeutralSpinless(Calculator):
    """Sets what UMA's periodic tasks expect in `atoms.info`: charge 0 and spin 0 (not multiplicity 1)."""

    def __init__(self, calculator: Calculator) -> None:
        super().__init__()
        self.calculator = calculator
        self.implemented_properties = calculator.implemented_properties

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        atoms = atoms.copy()
        atoms.info.update(charge=0, spin=0)
        self.calculator.calculate(atoms, properties, system_changes)
        self.results = dict(self.calculator.results)


def uma(model: str = "uma-s-1p2", task: str = "omc", device: str = "cpu") -> Calculator:
    """fairchem-core 2: UMA, molecular-crystal task. The weights' licence is accepted at Hugging Face."""
    from fairchem.core import FAIRChemCalculator, pretrained_mlip

    predictor = pretrained_mlip.get_predict_unit(model, device=device)
    return _NeutralSpinless(FAIRChemCalculator(predictor, task_name=task))


def aimnet2(model: str = "aimnet2", coulomb: str = "ewald") -> Calculator:
    """aimnet: AIMNet2 with Ewald summation, as periodic cells need."""
    from aimnet.calculators import AIMNet2ASE, AIMNet2Calculator

    network = AIMNet2Calculator(model)
    network.set_lrcoulomb_method(coulomb)
    return AIMNet2ASE(network)
