"""GFN1-xTB and GFN2-xTB by tblite."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nucleate.physics.energy import Capability, ProcessSettings, Requirement
from nucleate.physics.process import ProcessModel

CALCULATORS = str(Path(__file__).with_name("calculators.py"))
METHODS = {"gfn1": "GFN1-xTB", "gfn2": "GFN2-xTB"}
PAPERS = {
    "gfn1": "Grimme, Bannwarth & Shushkov, J. Chem. Theory Comput. 2017, 13, 1989",
    "gfn2": "Bannwarth, Ehlert & Grimme, J. Chem. Theory Comput. 2019, 15, 1652",
}


def gfn(name: str, options: Mapping[str, Any], process: ProcessSettings) -> ProcessModel:
    """`gfn1` or `gfn2`. Options: `shortest` (Å, 7.5), the height below which an axis is repeated; `accuracy`.

    tblite's periodic xTB uses the Γ point only, which is right for large cells; an axis shorter than
    `shortest` (measured between opposite faces) is repeated and energies are given per original cell.
    """
    Requirement("tblite", "'nucleate[xtb]'").check(name, process)
    capability = Capability(
        elements=frozenset(range(1, 87)),
        ions=True,
        stress=True,
        deterministic=True,
        licence="LGPL-3.0 (tblite)",
        citation=PAPERS[name],
        notes="Γ point only; short axes are repeated. A few seconds a structure: for a shortlist.",
    )
    calculator = {"source": CALCULATORS, "name": "gfn", "options": {"method": METHODS[name], **options}}
    return ProcessModel(name, capability, calculator, process)
