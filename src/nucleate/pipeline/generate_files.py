"""`nucleate generate`: packings as CIF files, before any minimisation."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, NonNegativeInt, PositiveInt

from nucleate.crystal.io import write_cif
from nucleate.physics.forcefield import ForceField
from nucleate.physics.minimise import CLASH, PRESS, closest_contacts, minimise
from nucleate.pipeline.composition import read_subject
from nucleate.pipeline.folders import make_folder
from nucleate.pipeline.generate import arms, random_packings
from nucleate.pipeline.strategy import apportion


class GenerateSettings(BaseModel, frozen=True, extra="forbid"):
    n: PositiveInt = Field(20, le=100_000)
    z: tuple[PositiveInt, ...] | None = None
    space_groups: str = "common"
    press: bool = True
    seed: NonNegativeInt = Field(0, lt=2**31)


def generate_files(
    source: str, folder: Path, settings: GenerateSettings | None = None
) -> list[dict[str, Any]]:
    """Write folder/0001.cif ...; starts are spread over space groups by their prior. One row a packing."""
    import numpy as np

    settings = settings or GenerateSettings()
    subject = read_subject(source, seed=settings.seed)
    field = ForceField.for_molecules(subject.composition.species)
    wanted = arms(subject.composition, settings.space_groups, settings.z)
    make_folder(folder)
    rows: list[dict[str, Any]] = []
    for arm, count in zip(wanted, apportion(settings.n, np.array([a.weight for a in wanted]))):
        if not count:
            continue
        packings = random_packings(subject.composition, arm, 0, count, settings.seed)
        if settings.press:
            packings = minimise(packings, field, PRESS).packings
        contacts = closest_contacts(packings, field)
        for i in range(count):
            path = folder / f"{len(rows) + 1:04d}.cif"
            crystal = packings.crystal(i)
            write_cif(crystal, path, provenance={"seed": settings.seed, "start": f"{arm.key} {i}"})
            rows.append(
                {
                    "file": str(path),
                    "space_group": arm.key,
                    "density_g_cm3": crystal.density,
                    "clash": bool(contacts[i] < CLASH),
                }
            )
    return rows
