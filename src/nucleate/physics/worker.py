"""The far end of `process`: one ASE calculator behind a pipe.

This file is run as a program, possibly by the interpreter of another environment, so it needs only ase and
numpy. It speaks JSON, one object a line: the first request names the calculator, every later one is a
structure to evaluate or to relax, and each request gets exactly one reply. JSON writes floats so that they
read back exactly.
"""

import importlib
import importlib.util
import json
import os
import queue
import signal
import sys
import threading
import time
import warnings
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


def reply_to(request: dict, calculator: Calculator) -> dict:
    """Do one request; whatever goes wrong becomes the reply's `failure`."""
    started = time.monotonic()
    try:
        atoms = structure(request)
        atoms.calc = calculator
        if hasattr(calculator, "release"):
            calculator.release()
        verb = relax if request["verb"] == "relax" else evaluate
        answer = verb(atoms, **request["settings"])
    except Exception as error:  # noqa: BLE001  a calculator may raise anything; it is reported, not hidden
        answer = {"failure": one_line(error)}
        calculator.reset()
    return {**answer, "seconds": time.monotonic() - started}


def one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:500]


def listen(requests: queue.Queue) -> None:
    """Feed the queue; when the other end is gone, so are we, with everything we started."""
    for line in sys.stdin:
        requests.put(json.loads(line))
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(0)


def main() -> None:
    # Models print as they please; only replies may reach the pipe.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    warnings.simplefilter("ignore")
    # Running a file puts its folder first, where `chgnet.py` would hide the real package; the user's own
    # calculators are looked for in the current folder, after everything that is installed.
    sys.path[:] = [p for p in sys.path if os.path.realpath(p) != os.path.dirname(os.path.realpath(__file__))]
    sys.path.append(os.getcwd())
    requests: queue.Queue = queue.Queue()
    threading.Thread(target=listen, args=(requests,), daemon=True).start()

    def say(answer: dict) -> None:
        replies.write(json.dumps(answer) + "\n")
        replies.flush()

    try:
        calculator = build(**requests.get())
    except Exception as error:  # noqa: BLE001  as above
        say({"failure": one_line(error), "missing": error.name if isinstance(error, ImportError) else None})
        return
    say({"properties": list(getattr(calculator, "implemented_properties", []))})
    while True:
        say(reply_to(requests.get(), calculator))


if __name__ == "__main__":
    main()
