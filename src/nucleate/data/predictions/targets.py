"""References, and which sample is a prediction of which of them."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nucleate.crystal.assemble import with_lewis_structures
from nucleate.crystal.cif_read import read_crystal
from nucleate.crystal.crystal import Crystal
from nucleate.crystal.graph import canonical
from nucleate.crystal.molecule import Molecule
from nucleate.crystal.rigid import species_from_crystal
from nucleate.data.predictions.cif import blocks_of
from nucleate.data.predictions.molecules import build_crystal
from nucleate.data.predictions.reader import LISTED, READERS, SUFFIXES, Asked, detect_format
from nucleate.data.predictions.sample import Entry, Frame, Sample, chemistry_of, composition_of
from nucleate.data.predictions.xyz import read_text
from nucleate.errors import InputError

References = Mapping[str, Sequence[Crystal]]


@dataclass(frozen=True)
class Assignment:
    """Samples by reference. Every reference has an entry, if an empty one; no sample is lost."""

    samples: dict[str, list[Sample]]
    unassigned: list[Sample] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def read_references(path: str | Path) -> dict[str, list[Crystal]]:
    """Known crystals by name: the polymorphs of one target are a list.

    A CIF file is its own target (its blocks are, where it has several), an extended XYZ or parquet names targets by
    `target` or `name`; in a folder every file counts, and all crystals of a sub-folder are forms of one target. CIFs
    are read as experiments are: complete and ordered. Raises InputError that lists every crystal that cannot be
    read, and where the path holds none.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(
            f"expected an existing file or folder of references, got {path}", reason="unreadable"
        )
    found: dict[str, list[Crystal]] = {}
    failed: list[str] = []
    for file, folder in _reference_files(path):
        for name, crystal in _references_of(file, failed):
            found.setdefault(folder or name, []).append(crystal)
    if failed:
        more = f", and {len(failed) - 5} more" if len(failed) > 5 else ""
        raise InputError(
            f"expected reference crystals, got {len(failed)} that cannot be read: {'; '.join(failed[:5])}{more}. "
            "Mend or remove them.",
            reason="unreadable",
        )
    if not found:
        raise InputError(f"expected reference crystals, found none in {path}", reason="empty file")
    return found


def molecules_of(references: References) -> tuple[Molecule, ...]:
    """The distinct molecules of all references, for `read_predictions`."""
    found: dict[str, Molecule] = {}
    for crystal in (c for forms in references.values() for c in forms):
        for molecule in species_from_crystal(crystal):
            found.setdefault(canonical(molecule.numbers.tolist(), molecule.bonds.tolist())[0], molecule)
    return tuple(found.values())


def assign_targets(samples: Sequence[Sample], references: References) -> Assignment:
    """Which samples are predictions of which reference.

    With one reference all are. Else by name (of the target, or of a sample without target; upper and lower case
    alike), by molecules (graphs of heavy atoms in their proportions; of a cluster their kinds alone), and for samples
    whose molecules are no reference's, as they overlap or could not be told apart, by the heavy-atom composition.
    A sample that could not be read goes where all others of its target, or without target, went. References with
    the same molecules (polymorphs given as separate targets) each get the sample. What is unusual is counted
    in `warnings`; samples that no reference explains are `unassigned`.
    """
    index = _Index(references)
    found = [index.look_up(sample) for sample in samples]
    went: dict[str | None, set[tuple[str, ...]]] = defaultdict(set)
    for sample, (names, _) in zip(samples, found):
        if names:
            went[sample.target].add(tuple(names))
    result = Assignment({name: [] for name in references})
    notes: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for sample, (names, note) in zip(samples, found):
        if not names and sample.crystal is None and len(went[sample.target]) == 1:
            names, note = list(next(iter(went[sample.target]))), ""
        for name in names:
            result.samples[name].append(sample)
        if not names:
            result.unassigned.append(sample)
        if note:
            notes[note] += 1
            examples.setdefault(note, sample.name)
    warnings = [f"{n} samples {note} (first: {examples[note]})" for note, n in notes.items()]
    return replace(result, warnings=warnings)


def asked_for(samples: Sequence[Sample], asked: Mapping[str | None, Asked]) -> Asked:
    """How many predictions of one reference were asked for: the denominator of its rates.

    `samples` are those assigned to it, `asked` is what `count_asked` says of all. Where only some samples of a
    target are assigned to the reference, those count and no more.
    """
    here = Counter(s.target for s in samples)
    number = sum(asked[t].number if n == asked[t].listed else n for t, n in here.items())
    counted = dict.fromkeys(asked[t].counted if n == asked[t].listed else LISTED for t, n in here.items())
    return Asked(number, "; ".join(counted) or LISTED, len(samples))


def in_turn(samples: Sequence[Sample], references: References) -> list[Sample]:
    """Samples that name no target, frame i a prediction of reference i modulo their number.

    That is the order in which MolCrystalFlow writes `pred_*.xyz` for the crystals of `gt_*.xyz`. Raises InputError
    where the samples do not come out even.
    """
    names = list(references)
    if len(samples) % len(names):
        raise InputError(
            f"expected as many samples for each of the {len(names)} references, got {len(samples)} samples in all"
        )
    return [
        replace(sample, target=names[k % len(names)], index=k // len(names))
        for k, sample in enumerate(samples)
    ]


class _Index:
    """References by name, by molecules and by composition."""

    def __init__(self, references: References) -> None:
        self.names = {name.lower(): name for name in references}
        self.by_molecules: dict[object, list[str]] = defaultdict(list)
        self.by_composition: dict[object, list[str]] = defaultdict(list)
        self.chemistry: dict[str, set[object]] = defaultdict(set)
        for name, forms in references.items():
            for crystal in forms:
                molecules = chemistry_of(crystal)
                kinds = frozenset(key for key, _ in molecules)
                for key in (molecules, kinds):
                    self.chemistry[name].add(key)
                    if name not in self.by_molecules[key]:
                        self.by_molecules[key].append(name)
                composition = composition_of(crystal.numbers.numpy())
                if name not in self.by_composition[composition]:
                    self.by_composition[composition].append(name)

    def look_up(self, sample: Sample) -> tuple[list[str], str]:
        """Names of the references, and what was unusual."""
        molecules = self._molecules(sample)
        given = sample.target or sample.name
        if len(self.names) == 1 or given.lower() in self.names:
            name = self.names.get(given.lower()) or next(iter(self.names.values()))
            strange = molecules is not None and molecules not in self.chemistry[name]
            return [name], f"of {name} hold other molecules than it" if strange else ""
        if molecules is not None and (names := self.by_molecules.get(molecules)):
            return names, self._note(sample, names, "their molecules")
        if names := self.by_composition.get(sample.composition, []):
            return names, f"have the atoms, but not the molecules, of {', '.join(names)} and count for it"
        failed = "could not be read and name no reference" if sample.crystal is None else "fit no reference"
        return [], f"{failed}{f' (target {sample.target})' if sample.target else ''}: they count nowhere"

    def _molecules(self, sample: Sample) -> object | None:
        if sample.crystal is None:
            return None
        found = chemistry_of(sample.crystal)
        return found if sample.periodic else frozenset(key for key, _ in found)

    def _note(self, sample: Sample, names: list[str], how: str) -> str:
        if sample.target is not None:
            return f"name the target {sample.target}, which no reference has; {how} assign them to {', '.join(names)}"
        if len(names) > 1:
            return f"could be of {', '.join(names)}, which have the same molecules; they count for each"
        return ""


def _reference_files(path: Path) -> Iterable[tuple[Path, str | None]]:
    """Files with the sub-folder that they are forms in."""
    if path.is_file():
        return [(path, None)]
    files = sorted(p for p in path.rglob("*") if p.is_file() and p.name.endswith(SUFFIXES))
    return [(p, p.relative_to(path).parts[0] if p.parent != path else None) for p in files]


def _references_of(file: Path, failed: list[str]) -> Iterable[tuple[str, Crystal]]:
    """Names and crystals of one file; what cannot be read goes to `failed`."""
    try:
        if not file.stat().st_size:
            raise InputError("expected a crystal, got an empty file")
        kind = detect_format(file)
        if kind == "cif":
            yield from _experiments(file, failed)
            return
        for entry in READERS[kind](file):
            yield entry.target or entry.name, _crystal_of(entry)
    except InputError as error:
        failed.append(f"{file.name} ({error})")
    except OSError as error:
        failed.append(f"{file.name} ({error.strerror})")


def _experiments(file: Path, failed: list[str]) -> Iterable[tuple[str, Crystal]]:
    """Blocks of a CIF, each read strictly."""
    blocks = list(blocks_of(read_text(file)))
    if not blocks:
        failed.append(f"{file.name} (expected a CIF with a structure)")
    for name, block, failure in blocks:
        label = file.stem if len(blocks) == 1 else name
        try:
            if block is None:
                raise InputError(failure)
            yield label, read_crystal(block.as_string())
        except InputError as error:
            failed.append(f"{label} ({error})")


def _crystal_of(entry: Entry) -> Crystal:
    """With bond orders: a reference's molecules are taken for the truth."""
    if entry.structure is None:
        raise InputError(f"{entry.name}: {entry.failure}")
    if isinstance(entry.structure, Frame):
        if entry.structure.lattice is None:
            raise InputError(
                f"{entry.name}: expected a crystal, got a cluster without a cell", reason="no cell"
            )
        return with_lewis_structures(build_crystal(entry.structure))
    return entry.structure
