"""CHGNet 0.3.0 with D3(BJ) dispersion, and D3 alone."""

from collections.abc import Mapping
from typing import Any

from nucleate.physics.energy import Capability, ProcessSettings, Requirement
from nucleate.physics.process import ProcessModel
from nucleate.physics.xtb import CALCULATORS

D3_PAPER = "Grimme, Ehrlich & Goerigk, J. Comput. Chem. 2011, 32, 1456"


def chgnet(name: str, options: Mapping[str, Any], process: ProcessSettings) -> ProcessModel:
    """CHGNet + D3(BJ, PBE). Options: `version`, `dispersion` (true), `three_body` (false), `device`."""
    also = ("dftd3",) if options.get("dispersion", True) else ()
    Requirement("chgnet", "'nucleate[chgnet]'", also).check(name, process)
    capability = Capability(
        elements=frozenset(range(1, 95)) - {84, 85, 86, 87, 88},  # those of MPtrj, its training set
        ions=True,
        stress=True,
        deterministic=True,
        licence="BSD-3-Clause (CHGNet, weights in the wheel), LGPL-3.0 (s-dftd3)",
        citation=f"Deng et al., Nat. Mach. Intell. 2023, 5, 1031; {D3_PAPER}",
        notes="Trained on PBE(+U) of inorganic crystals: a re-ranker for organic ones, float32 inside.",
    )
    calculator = {"source": CALCULATORS, "name": "chgnet", "options": dict(options)}
    return ProcessModel(name, capability, calculator, process)


def d3(name: str, options: Mapping[str, Any], process: ProcessSettings) -> ProcessModel:
    """D3 dispersion alone. Options: `method` ("pbe"), `damping` ("d3bj"), `three_body` (false)."""
    Requirement("dftd3", "'nucleate[chgnet]'").check(name, process)
    capability = Capability(
        elements=frozenset(range(1, 95)),
        ions=False,
        stress=True,
        deterministic=True,
        licence="LGPL-3.0 (s-dftd3)",
        citation=D3_PAPER,
        notes="Attraction only: a term to add, never a surface to relax on.",
    )
    calculator = {"source": CALCULATORS, "name": "d3", "options": dict(options)}
    return ProcessModel(name, capability, calculator, process)
