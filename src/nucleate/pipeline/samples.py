"""Crystals of files and folders of any format, each with what to call it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nucleate.crystal.molecule import Molecule
from nucleate.data.predictions import Sample, read_predictions
from nucleate.errors import InputError

INSIDE = ("", "cif", "cifs", "generated")  # where a folder keeps its CIF files


@dataclass(frozen=True, eq=False)
class LabelledSample:
    """`file` is the CIF that holds this crystal and no other; None where there is none."""

    label: str
    sample: Sample
    file: Path | None


def read_samples(given: Sequence[Path], molecules: Sequence[Molecule] | None = None) -> list[LabelledSample]:
    """What `read_predictions` finds under each path. A file that is no crystal is a failed sample.

    Raises InputError for a path that is not there and a folder that holds nothing.
    """
    return [_labelled(path, sample) for path in given for sample in _read(path, molecules)]


def _read(path: Path, molecules: Sequence[Molecule] | None) -> list[Sample]:
    try:
        return read_predictions(path, molecules=molecules)
    except InputError as error:
        if path.is_dir() or not path.exists():
            raise
        return [Sample(None, 0, path.stem, None, failure=f"{error.reason}: {error}")]


def _labelled(path: Path, sample: Sample) -> LabelledSample:
    if path.is_dir():
        folders = [path / (sample.target or "") / inside for inside in INSIDE] + [
            path / inside for inside in INSIDE
        ]
        file = next((f for f in (folder / f"{sample.name}.cif" for folder in folders) if f.is_file()), None)
        return LabelledSample(str(file or path / sample.name), sample, file)
    alone = sample.name == path.stem
    file = path if alone and path.suffix.lower() == ".cif" else None
    return LabelledSample(str(path) if alone else f"{path}:{sample.name}", sample, file)
