"""The program of `process`: one ASE calculator, run by `nucleate.far_end`.

It may run in the interpreter of another environment, so it needs only ase and numpy. The first request names
the calculator, every later one is a structure to evaluate or to relax.
"""

import importlib
import importlib.util
import time
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE, LBFGS

OPTIMISERS = {"fire": FIRE, "lbfgs": LBFGS}


def build(source: str, name: str, options: dict) -> Calculator:
    """The calculator `name` of a module or of a .py file, made with these options."""
    module = _load(source) if source.endswith(".py") else importlib.import_module(source)
    calculator = getattr(module, name)(**options)
    if not hasattr(calculator, "get_potential_energy"):
        raise TypeError(f"expected an ASE calculator from {name}, got {type(calculator).__name__}")
    return calculator


def _load(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location("nucleate_calculator_file", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot import {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def structure(request: dict) -> Atoms:
    """Atoms of a request; total charge and multiplicity where foundation models look for them."""
    atoms = Atoms(request["numbers"], request["positions"], cell=request["cell"], pbc=True)
    atoms.info.update(charge=0, spin=1)
    return atoms


def evaluate(atoms: Atoms, gradient: bool) -> dict:
    """Energy (eV), and forces (eV/Å) and stress (eV/Å^3, 3 x 3, or None) if asked."""
    answer: dict[str, Any] = {"energy": float(atoms.get_potential_energy())}
    if gradient:
        answer["forces"] = np.asarray(atoms.get_forces(), dtype=float).tolist()
        answer["stress"] = _stress(atoms)
    if not np.isfinite(answer["energy"]) or not np.isfinite(answer.get("forces", 0.0)).all():
        raise ValueError(f"the energy or a force is not a finite number (energy {answer['energy']})")
    return answer


def _stress(atoms: Atoms) -> list | None:
    try:
        return np.asarray(atoms.get_stress(voigt=False), dtype=float).tolist()
    except (NotImplementedError, PropertyNotImplementedError):
        return None


def relax(
    atoms: Atoms, optimiser: str, fmax: float, smax: float, max_steps: int, time_limit: float, free_cell: bool
) -> dict:
    """Lower the energy with every atom, and the cell if `free_cell`, until forces < fmax and stress < smax.

    The cell moves by its logarithmic strain (Frechet), scaled so that one number fits both: the row of the
    filter for the cell is V σ / factor, and factor = V smax / fmax makes it fmax just where σ = smax.
    """
    if hasattr(atoms.calc, "hold"):
        atoms.calc.hold(atoms)
    volume, factor = atoms.get_volume(), atoms.get_volume() * smax / fmax
    target = FrechetCellFilter(atoms, exp_cell_factor=factor) if free_cell else atoms
    stepper = OPTIMISERS[optimiser](target, logfile=None)
    started, reason, converged = time.monotonic(), "", False
    for converged in stepper.irun(fmax=fmax, steps=max_steps):
        if converged:
            break
        if time.monotonic() - started > time_limit:
            reason = f"stopped after {time_limit:g} s"
            break
        if not 1 / 3 < atoms.get_volume() / volume < 3:
            reason = f"the cell went from {volume:.0f} to {atoms.get_volume():.0f} Å^3"
            break
    if not converged and not reason:
        reason = f"not converged in {max_steps} steps"
    final = evaluate(atoms, gradient=True)
    return {
        **final,
        "positions": atoms.get_positions().tolist(),
        "cell": atoms.cell.array.tolist(),
        "converged": bool(converged),
        "steps": int(stepper.nsteps),
        "reason": reason,
    }


def answer(request: dict, calculator: Calculator) -> dict:
    """Do one request; after a failure the calculator forgets what it held."""
    try:
        atoms = structure(request)
        atoms.calc = calculator
        if hasattr(calculator, "release"):
            calculator.release()
        verb = relax if request["verb"] == "relax" else evaluate
        return verb(atoms, **request["settings"])
    except Exception:
        calculator.reset()
        raise


def start(opening: dict) -> tuple[dict, Callable[[dict], dict]]:
    """Build the calculator of the first request; say what it can do, and how to ask it."""
    calculator = build(**opening)
    hello = {"properties": list(getattr(calculator, "implemented_properties", []))}
    return hello, partial(answer, calculator=calculator)
