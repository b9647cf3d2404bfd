"""Thin adapters of foundation models that this project cannot ship: each runs in the environment you give it.

The builders are in `calculators`, written after the packages' documentation and tested with stand-ins of the
same interface. Their weights are downloaded by the packages and have not been run here: `self_test` first.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from nucleate.physics.energy import Capability, ProcessSettings, Requirement
from nucleate.physics.process import ProcessModel
from nucleate.physics.xtb import CALCULATORS

ORGANIC = frozenset({1, 6, 7, 8, 9, 15, 16, 17, 35, 53})
NOT_RUN = "Not run by this project: run `self_test` first."


@dataclass(frozen=True)
class Adapter:
    package: str
    install: str
    capability: Capability


ADAPTERS = {
    "mace": Adapter(
        "mace",
        "mace-torch",
        Capability(
            elements=None,  # MACE-OFF knows ORGANIC, MACE-MP 89 elements; see `_elements`
            ions=False,
            stress=True,
            deterministic=True,
            licence="MIT (code, MACE-MP-0); MACE-OFF weights: Academic Software License, no commercial use",
            citation="Kovács et al., J. Am. Chem. Soc. 2025, 147, 17598; MACE-MP: arXiv:2401.00096",
            notes=NOT_RUN + " Default: MACE-OFF23 medium, float64; neutral organic molecules only.",
        ),
    ),
    "orb": Adapter(
        "orb_models",
        "orb-models",
        Capability(
            elements=None,
            ions=True,
            stress=True,
            deterministic=False,
            licence="Apache-2.0 (code and weights)",
            citation="Rhodes et al., arXiv:2504.06231 (Orb-v3)",
            notes=NOT_RUN + " The `conservative` and `inf` models only: the others' forces are no gradient.",
        ),
    ),
    "uma": Adapter(
        "fairchem",
        "fairchem-core",
        Capability(
            elements=None,
            ions=True,
            stress=True,
            deterministic=False,
            licence="MIT (code); weights: FAIR Chemistry License, to be accepted at Hugging Face",
            citation="Wood et al., arXiv:2506.23971 (UMA); task omc: molecular crystals, PBE-D3",
            notes=NOT_RUN,
        ),
    ),
    "aimnet2": Adapter(
        "aimnet",
        "'aimnet[ase]'",
        Capability(
            elements=frozenset({1, 5, 6, 7, 8, 9, 14, 15, 16, 17, 33, 34, 35, 53}),
            ions=True,
            stress=True,
            deterministic=True,
            licence="MIT (code and weights)",
            citation="Anstine, Zubatyuk & Isayev, Chem. Sci. 2025, 16, 10228",
            notes=NOT_RUN + " Trained on molecules; periodic by Ewald summation.",
        ),
    ),
}


def adapter(name: str, options: Mapping[str, Any], process: ProcessSettings) -> ProcessModel:
    """`mace`, `orb`, `uma` or `aimnet2`; the options are those of that builder in `calculators`."""
    chosen = ADAPTERS[name]
    Requirement(chosen.package, chosen.install).check(name, process)
    capability = _with_elements(name, chosen.capability, options)
    calculator = {"source": CALCULATORS, "name": name, "options": dict(options)}
    return ProcessModel(name, capability, calculator, process)


def _with_elements(name: str, capability: Capability, options: Mapping[str, Any]) -> Capability:
    """MACE-OFF knows ten elements; of the other families and models only the package knows."""
    organic = name == "mace" and options.get("family", "off") == "off"
    return replace(capability, elements=ORGANIC) if organic else capability
