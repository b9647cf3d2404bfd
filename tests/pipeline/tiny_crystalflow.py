"""Weights of CrystalFlow that have learnt nothing but volumes, elements and sizes, quickly made."""

from pathlib import Path

import torch

from nucleate.crystal.sites import Sites, primitive_niggli_sites
from nucleate.data.inorganic import structures_of
from nucleate.generative.checkpoint import write_tensors
from nucleate.models.crystalflow_training import CrystalFlowSettings, flow_of
from tests.crystal.inorganic import CRYSTALS, textbook


def learnt() -> list[Sites]:
    """Crystals of one to fourteen atoms of ten elements."""
    return [primitive_niggli_sites(textbook(name)) for name in CRYSTALS]


def write_tiny_crystalflow(path: Path, task: str = "csp", conditions: tuple[str, ...] = ()) -> Path:
    """As `nucleate train crystalflow` would write them. Every condition is the volume of an atom."""
    settings = CrystalFlowSettings.model_validate(
        {"task": task, "conditions": conditions, "width": 16, "layers": 1, "pair_width": 8}
    )
    torch.manual_seed(0)
    flow = flow_of(settings)
    with torch.no_grad():  # or it would say nothing yet, whatever it is told
        for weight in flow.network.parameters():
            weight += 0.05 * torch.randn_like(weight)
    sites = learnt()
    volumes = [s.volume / len(s) for s in sites]
    flow.fit(structures_of(sites, dict.fromkeys(conditions, volumes)))
    about = {"system": "crystalflow", "model": settings.model_dump(mode="json")}
    write_tensors(path, flow.state_dict(), about)
    return path
