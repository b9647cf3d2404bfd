"""Conformers that a user has (SDF, pickles of GEOM and others) -> a data set, split by molecule."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, PositiveInt

from nucleate.crystal.molecule import Molecule
from nucleate.data.conformer_sources import read_source
from nucleate.data.conformers import ConformerSet, to_row
from nucleate.errors import InputError
from nucleate.pipeline.conformer_data import fingerprint
from nucleate.pipeline.conformer_shards import ConformerShards, ConformersMade, refuse_full
from nucleate.pipeline.folders import hold_folder, make_folder


class ConformerImportSettings(BaseModel, frozen=True, extra="forbid"):
    """What is taken of each molecule."""

    keep: PositiveInt | None = None  # conformers at most, the lowest; None: all of them
    largest: PositiveInt = 500  # atoms


def import_conformers(
    source: Path,
    folder: Path,
    settings: ConformerImportSettings | None = None,
    exclude: Iterable[str] = (),
    split: str | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> ConformersMade:
    """The molecules of a source (`data.conformer_sources`) as data sets in sub-folders of `folder`, one for each split.

    Coordinates are taken as they are. Molecules with a key in `exclude` are left out and counted, and so is what cannot
    be read. Ctrl-C ends the run early. Raises InputError where the source is not there or the folder is not empty.
    """
    settings, tell = settings or ConformerImportSettings(), progress or (lambda *_: None)
    excluded = frozenset(exclude)
    about = {
        "settings": settings.model_dump(mode="json"),
        "source": source.name,
        "excluded": fingerprint(excluded),
        "one_split": split,
    }
    with hold_folder(make_folder(folder)):
        refuse_full(folder)
        files = ConformerShards(folder, about, split)
        interrupted, number = False, -1
        try:
            for number, (name, given) in enumerate(read_source(source)):
                tell(number, 0, name)
                try:
                    row = to_row(_taken(name, given, settings, excluded))
                except InputError as error:
                    files.leave_out(number, name, error.reason, str(error))
                else:
                    files.take(number, name, row, {})
        except KeyboardInterrupt:
            interrupted = True
        return files.finish(number + 1, interrupted)


def _taken(
    name: str,
    given: ConformerSet | InputError,
    settings: ConformerImportSettings,
    excluded: frozenset[str],
) -> ConformerSet:
    if isinstance(given, InputError):
        raise given
    if len(given.molecule) > settings.largest:
        raise InputError(f"expected at most {settings.largest} atoms, got {len(given.molecule)}", "too large")
    if given.key in excluded:
        raise InputError("expected a molecule that is not excluded", reason="excluded")
    lowest = slice(settings.keep)
    weights = given.weights[lowest]
    molecule = Molecule(given.molecule.graph, given.molecule.conformers[lowest], name)
    return replace(given, molecule=molecule, energies=given.energies[lowest], weights=weights / weights.sum())
