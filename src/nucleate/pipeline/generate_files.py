"""`nucleate generate`: packings as CIF files, before any minimisation."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, Field, NonNegativeInt, PositiveInt

from nucleate.crystal.io import write_cif
from nucleate.physics.forcefield import ForceField
from nucleate.physics.minimise import CLASH, PRESS, closest_contacts, minimise
from nucleate.pipeline.claims import claim_again
from nucleate.pipeline.composition import Subject, read_subject
from nucleate.pipeline.folders import hold_folder, make_folder
from nucleate.pipeline.generate import Arm, Composition, arms, random_packings
from nucleate.pipeline.learned import (
    LearnedGenerator,
    Name,
    SamplingSettings,
    Starts,
    generator_named,
    shares_of,
)
from nucleate.pipeline.strategy import apportion, divided
from nucleate.pipeline.units import per_formula_unit

MARK = "generate.json"
DRAWS = 4  # of a sample whose molecules overlap


class GenerateSettings(BaseModel, frozen=True, extra="forbid"):
    """How many packings, where, and from which generator."""

    n: PositiveInt = Field(20, le=100_000)
    z: tuple[PositiveInt, ...] | None = None
    space_groups: str = "common"
    generator: Name = "random"
    weights: Path | None = None  # of the learned generator; None: those of the package
    sampling: SamplingSettings = SamplingSettings(draws=DRAWS)
    press: bool = True
    seed: NonNegativeInt = Field(0, lt=2**31)


Row = dict[str, Any]
Part = tuple[str, Arm, int, Starts]  # generator, arm, how many packings were asked for, and what came


def generate_files(source: str, folder: Path, settings: GenerateSettings | None = None) -> list[Row]:
    """Write folder/0001.cif ...; starts are spread over space groups by their prior. One row a packing asked for.

    `draws` says how often it was drawn, `volume_drawn` the volume then over the predicted one, `clash_drawn` whether
    molecules overlapped then. A sample without a sound cell has no file, but a `failure`. A run that was cut short is
    run again: the same settings write the same files. Raises InputError for what cannot be read or generated, before
    anything is written, and for a folder of other files or another run.
    """
    settings = settings or GenerateSettings()
    subject = read_subject(source, seed=settings.seed)
    field = ForceField.for_molecules(subject.composition.species)
    wanted = arms(subject.composition, settings.space_groups, settings.z)
    generator, share = generator_named(
        settings.generator, settings.weights, settings.sampling, subject.composition, wanted
    )
    parts = list(_parts(subject.composition, wanted, settings, generator, share))
    with hold_folder(make_folder(folder)):
        claim_again(folder / MARK, _identity(subject, settings, generator))
        return _write(parts, subject.composition, field, folder, settings)


def _identity(subject: Subject, settings: GenerateSettings, generator: LearnedGenerator | None) -> Row:
    """What must agree for files to be the same."""
    weights = None if generator is None else generator.digest
    about = {"molecule": subject.smiles, "conformers": subject.digest, "weights": weights}
    return about | settings.model_dump(mode="json", exclude={"weights"})


def _write(
    parts: list[Part],
    composition: Composition,
    field: ForceField,
    folder: Path,
    settings: GenerateSettings,
) -> list[Row]:
    rows: list[Row] = []
    for name, arm, asked, starts in parts:
        packings = minimise(starts.packings, field, PRESS).packings if settings.press else starts.packings
        before, after = (closest_contacts(p, field) < CLASH for p in (starts.packings, packings))
        ratio = per_formula_unit(arm, starts.packings.volume) / composition.volume
        for i in range(len(packings)):
            path = folder / f"{len(rows) + 1:04d}.cif"
            crystal = packings.crystal(i)
            provenance = {
                "seed": settings.seed,
                "generator": name,
                "start": f"{arm.key} {int(starts.number[i])}",
            }
            write_cif(crystal, path, provenance=provenance)
            row: Row = {"file": str(path), "generator": name, "space_group": arm.key}
            row |= {"density_g_cm3": crystal.density, "clash": bool(after[i]), "draws": int(starts.draws[i])}
            rows.append(row | {"volume_drawn": float(ratio[i]), "clash_drawn": bool(before[i])})
        failed: Row = {"file": None, "generator": name, "space_group": arm.key}
        failed |= {"draws": settings.sampling.draws, "failure": "no sound cell"}
        rows += [failed] * (asked - len(packings))
    return rows


def _parts(
    composition: Composition,
    wanted: list[Arm],
    settings: GenerateSettings,
    generator: LearnedGenerator | None,
    share: float,
) -> Iterator[Part]:
    each = apportion(settings.n, np.array([a.weight for a in wanted]))
    random, learned = divided(each, shares_of(generator, share, composition, wanted))
    asked = [(arm, 0, count) for arm, count in zip(wanted, learned) if count]
    made = generator.batch(composition, asked, settings.seed) if generator and asked else []
    found = {arm.key: starts for (arm, _, _), starts in zip(asked, made)}
    for arm, some, others in zip(wanted, random, learned):
        if some:
            packings = random_packings(composition, arm, 0, some, settings.seed)
            yield "random", arm, some, Starts.of(packings, 0)
        if others and generator is not None:
            yield generator.name, arm, others, found[arm.key]


def statistics(rows: list[Row]) -> list[str]:
    """A line for each generator: what became of its packings, and how large they are, mean and deviation."""
    lines = []
    for name in dict.fromkeys(row["generator"] for row in rows):
        own = [row for row in rows if row["generator"] == name]
        kept = [row for row in own if row["file"]]
        clear = sum(not row["clash_drawn"] for row in kept)
        drawn = sum(row["draws"] for row in own)
        text = f"{name}: {len(kept)} of {len(own)} (drawn {drawn} times), {clear} of them without overlaps when drawn"
        if kept:
            volume, density = (
                _spread([row[key] for row in kept]) for key in ("volume_drawn", "density_g_cm3")
            )
            text += f"; volume drawn {volume} times the predicted one, density {density} g/cm³"
        lines.append(text)
    return lines


def _spread(values: list[float]) -> str:
    return f"{np.mean(values):.3f} ± {np.std(values):.3f}"
