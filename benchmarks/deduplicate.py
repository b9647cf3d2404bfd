"""Deduplication: what is missed, how long it takes, and what three published landscapes contain twice.

    python benchmarks/deduplicate.py [--cifs FOLDER] [--landscapes FOLDER] [--structures 10000] [--workers 2]
                                     [--smiles "CC(=O)Oc1ccccc1C(=O)O"] [--limit N] [--most-atoms 400]
                                     [--parts recall,limits,landscapes,speed]

recall      every crystal of FOLDER (CIF files) with one copy of every kind and size. Those that do not come back in the
            cluster of their crystal are either `beyond` (the packing comparison, asked directly, does not call them the
            same) or `missed`: that is what blocking loses. A copy that the limit separates is no error
limits      fingerprint distances of pairs that are the same (landscapes by two energy models, and deformed copies), and
            how many other pairs a limit that keeps them lets through; beside it distances not resolved by class
landscapes  duplicates in the landscapes NAME_pbe_mbd.extxyz.gz of FOLDER
speed       `--structures` structures: a third deformed copies of the landscapes, in other settings and all different
            from each other; the others random pressed packings of `--smiles`, half of them with a copy. CPU-seconds
            of all processes, pairs left after every stage, and all-against-all StructureMatcher extrapolated
            from 40 pairs (if pymatgen is installed)
"""

import argparse
import resource
import time
import warnings
from itertools import pairwise
from pathlib import Path

import ase.io
import numpy as np
import torch
from rdkit import Chem

from nucleate import testing
from nucleate.crystal.crystal import Crystal
from nucleate.crystal.io import read_crystal, read_extxyz
from nucleate.crystal.molecule import Molecule
from nucleate.errors import InputError
from nucleate.geometry.lattice import strained
from nucleate.geometry.so3 import rotation_exp
from nucleate.metrics.duplicates import Duplicates, DuplicateSettings, find_duplicates
from nucleate.metrics.fingerprint import Bodies, Fingerprint, fingerprint, moments, nearest_distances
from nucleate.metrics.heavy_molecules import HeavyMolecules, classes_of
from nucleate.metrics.packing import compare_packing
from nucleate.metrics.rate import Rate

LANDSCAPES = ("aspirin", "hmx", "target_xxii")
SIZES: dict[str, tuple[float, ...]] = {
    "setting": (0,),
    "mirror": (0,),
    "supercell": (2,),
    "noise, Å": (0.05, 0.1, 0.2),
    "shift, Å": (0.1, 0.2, 0.4),
    "turn, °": (2, 5, 10),
    "strain, %": (1, 2, 3),
}


def deformed(
    c: Crystal, seed: int, noise: float = 0, shift: float = 0, turn: float = 0, strain: float = 0
) -> Crystal:
    """Gaussian noise per coordinate (Å), each molecule shifted (Å) and turned (degrees) by as much, the cell strained
    (percent, standard deviation of the components) around whole molecules."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=g)

    def directions() -> torch.Tensor:
        d = normal(c.n_molecules, 3)
        return d / d.norm(dim=1, keepdim=True)

    e = strain / 100 * normal(3, 3)
    lattice = strained(c.lattice.double(), (e + e.T) / 2)
    centre = c.centroids.double() @ c.lattice.double()
    arms = c.positions.double() - centre[c.molecule]
    turns = rotation_exp(np.radians(turn) * directions())
    arms = torch.einsum("aij,aj->ai", turns[c.molecule], arms) + noise * normal(len(c), 3)
    centre = c.centroids.double() @ lattice + shift * directions()
    return c.replace(lattice=lattice, frac=(centre[c.molecule] + arms) @ torch.linalg.inv(lattice))


def disguised(c: Crystal, seed: int, mirror: bool = False) -> Crystal:
    return testing.disguised(c, torch.Generator().manual_seed(seed), mirror)


def doubled(c: Crystal) -> Crystal:
    """Two cells along a."""
    times = torch.tensor([2.0, 1.0, 1.0], dtype=torch.float64)
    step = torch.tensor([[0.0, 0, 0], [1, 0, 0]], dtype=torch.float64)
    copy = torch.arange(2)[:, None]
    return Crystal(
        lattice=times[:, None] * c.lattice.double(),
        frac=((c.frac.double() + step[:, None]) / times).flatten(0, 1),
        numbers=c.numbers.repeat(2),
        molecule=(c.molecule + copy * c.n_molecules).flatten(),
        bonds=(c.bonds + copy[..., None] * len(c)).flatten(0, 1),
    )


def copy_of(c: Crystal, kind: str, size: float, seed: int) -> Crystal:
    word = kind.split(",")[0]
    if word in ("setting", "mirror"):
        return disguised(c, seed, mirror=word == "mirror")
    if word == "supercell":
        return disguised(doubled(c), seed)
    return disguised(deformed(c, seed, **{word: size}), seed)


def readable(folder: Path, most_atoms: int, limit: int | None) -> dict[str, Crystal]:
    found: dict[str, Crystal] = {}
    for path in sorted(folder.glob("*.cif"))[:limit]:
        try:
            c = read_crystal(path)
        except InputError:
            continue
        if len(c) <= most_atoms:
            found[path.stem] = c
    return found


def landscape(file: Path) -> list[Crystal]:
    """Frames that are crystals of molecules; the number of the others is printed."""
    found: list[Crystal] = []
    frames, refused = len(ase.io.read(file, ":")), 0
    for index in range(frames):
        try:
            found += read_extxyz(file, str(index))
        except InputError:
            refused += 1
    if refused:
        print(f"  {file.name}: {refused} of {frames} frames left out (atoms that clash)")
    return found


def cpu_seconds() -> float:
    """Of this process and of those it has ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def same(a: Crystal, b: Crystal, settings: DuplicateSettings) -> bool:
    """The packing comparison in either direction, without any blocking."""
    options = (settings.n, settings.distance_tolerance, settings.angle_tolerance, settings.mirror)
    matches = (compare_packing(a, b, *options), compare_packing(b, a, *options))
    return any(m.is_match and m.rmsd < settings.rmsd for m in matches)


def recall(crystals: dict[str, Crystal], settings: DuplicateSettings) -> None:
    names = list(crystals)
    alone = find_duplicates(list(crystals.values()), settings=settings)
    print(f"\nrecall: {len(names)} crystals; {settings.criterion}")
    for k in np.flatnonzero(alone.size > 1):
        print("  one crystal already:", ", ".join(names[i] for i in np.flatnonzero(alone.cluster == k)))
    print(f"  {'copy':14s} {'size':>5s}   found with its crystal             beyond  missed")
    for kind, sizes in SIZES.items():
        for size in sizes:
            copies = [copy_of(c, kind, size, seed) for seed, c in enumerate(crystals.values())]
            both = find_duplicates([*crystals.values(), *copies], settings=settings)
            apart = np.flatnonzero(both.cluster[: len(names)] != both.cluster[len(names) :]).tolist()
            missed = [names[i] for i in apart if same(crystals[names[i]], copies[i], settings)]
            hits = Rate(len(names) - len(apart), len(names))
            line = f"  {kind:14s} {size:5g}   {hits!s:35s} {len(apart) - len(missed):4d} {len(missed):7d}"
            print(line, " ".join(missed), flush=True)


def limits(folder: Path, settings: DuplicateSettings) -> None:
    print("\nlimits: fingerprint distances of pairs that are the same, and others below the largest of them")
    for name in LANDSCAPES:
        first = landscape(folder / f"{name}_pbe_mbd.extxyz.gz")
        of = {(c.info or {})["ident"]: c for c in first}
        pairs = [
            (of[ident], c)
            for c in landscape(folder / f"{name}_mace.extxyz.gz")
            if (ident := (c.info or {})["ident"]) in of
        ]
        rng = np.random.default_rng(0)
        for seed in range(300):
            c = first[seed % len(first)]
            size = rng.uniform(0, 1, 4) * rng.integers(0, 2, 4)
            pairs.append((c, deformed(c, seed, 0.25 * size[0], 0.6 * size[1], 8 * size[2], 3 * size[3])))
        pairs = [pair for pair in pairs if same(*pair, settings)]
        for label, make in (("by class of atoms", fingerprint), ("any atom", unresolved)):
            prints = [make(c) for c in first]
            equal = np.array([make(a).distance(make(b)) for a, b in pairs])
            others = np.array(
                [
                    a.distance(b)
                    for i, a in enumerate(prints)
                    for b in prints[:i]
                    if abs(np.log(a.volume / b.volume)) < settings.volume_window
                ]
            )
            most = settings.fingerprint_limit
            print(
                f"  {name:12s} {label:18s} {len(equal)} pairs, 99 % below {np.quantile(equal, 0.99):.2f}, all below "
                f"{equal.max():.2f} Å: so are {(others < equal.max()).mean():.2%} of {len(others)} others. {most:g} Å "
                f"loses {(equal > most).sum()}, lets {(others < most).mean():.2%} through",
                flush=True,
            )


def unresolved(c: Crystal) -> Fingerprint:
    """Distances to the 32 nearest atoms whatever their class, averaged by class."""
    whole, molecules = fingerprint(c), HeavyMolecules.of(c)
    present = molecules.present.numpy() > 0
    bodies = Bodies.of(molecules, molecules.positions.numpy()[present], present.sum(1))
    near = nearest_distances(bodies, np.zeros(len(bodies.points), np.int64), 32)
    group = np.concatenate([classes_of(key).numpy() for key in molecules.keys])  # one species
    mean, spread = moments(near, np.unique(group, return_inverse=True)[1])
    return Fingerprint(whole.chemistry, whole.volume, np.concatenate([mean, spread]))


def show_landscapes(folder: Path, settings: DuplicateSettings) -> None:
    print(f"\nlandscapes: {settings.criterion}")
    for name in LANDSCAPES:
        crystals = landscape(folder / f"{name}_pbe_mbd.extxyz.gz")
        found = find_duplicates(crystals, settings=settings)
        print(f"  {name}: {len(crystals)} structures, {len(found.representative)} distinct")
        for k in np.flatnonzero(found.size > 1):
            members = np.flatnonzero(found.cluster == k).tolist()
            print(
                "   ",
                ", ".join(
                    f"{(crystals[i].info or {}).get('ident')} ({found.rmsd[i]:.2f} Å)" for i in members
                ),
            )


def generated(smiles: str, count: int, seed: int = 0) -> list[Crystal]:
    """Random packings in common space groups, pressed until nothing clashes."""
    from nucleate.physics.forcefield import ForceField
    from nucleate.physics.minimise import PRESS, minimise
    from nucleate.pipeline.conform import conform
    from nucleate.pipeline.generate import Composition, arms, random_packings

    graph = Chem.AddHs(Chem.MolFromSmiles(smiles))
    found = conform(Molecule(graph, torch.zeros(0, graph.GetNumAtoms(), 3), smiles))
    composition = Composition((found.molecule,), (1,), (found.energies,), False)
    field = ForceField.for_molecules(composition.species)
    made: list[Crystal] = []
    groups = ("2", "14", "19", "61", "4", "33", "15", "29")
    for k, group in enumerate(groups):
        want = (count - len(made)) // (len(groups) - k)
        packings = random_packings(composition, arms(composition, group)[0], 0, want, seed)
        pressed = minimise(packings, field, PRESS).packings
        made += [pressed.crystal(i) for i in range(len(pressed))]
    return made


def many(folder: Path, smiles: str, count: int) -> tuple[list[Crystal], np.ndarray]:
    """Structures, and the number of the crystal that each is a copy of."""
    originals = [c for name in LANDSCAPES for c in landscape(folder / f"{name}_pbe_mbd.extxyz.gz")]
    copies = count // 3
    source = np.arange(copies) % len(originals)
    made = [
        disguised(deformed(originals[s], i, noise=0.03, shift=0.05, turn=1, strain=0.5), i)
        for i, s in enumerate(source.tolist())
    ]
    packed = generated(smiles, (count - copies) * 2 // 3)
    again = count - copies - len(packed)
    made += packed + [disguised(deformed(c, i, noise=0.03), i) for i, c in enumerate(packed[:again])]
    truth = np.concatenate(
        [source, len(originals) + np.arange(len(packed)), len(originals) + np.arange(again)]
    )
    order = np.random.default_rng(0).permutation(len(made))
    return [made[i] for i in order.tolist()], truth[order]


def report(found: Duplicates, truth: np.ndarray, used: float, wall: float) -> None:
    counts, n = found.pairs, len(truth)
    print(f"  {n} structures, {len(np.unique(truth))} originals, {len(found.representative)} distinct found")
    best = np.full(int(truth.max()) + 1, -1)
    best[truth] = found.cluster
    apart = int((best[truth] != found.cluster).sum())
    print(
        f"  copies not in the cluster of another copy of their original: {apart}; chained: {found.chained.sum()}"
    )
    print(f"  CPU {used:.1f} s in all processes, wall {wall:.1f} s:", end=" ")
    print(", ".join(f"{name} {seconds:.1f} s" for name, seconds in counts.seconds.items()))
    for label, left in (
        ("all pairs", counts.all),
        ("of one chemistry", counts.same_chemistry),
        ("near in volume", counts.near_volume),
        ("near in fingerprint, not yet joined", counts.near_fingerprint),
        ("compared", counts.compared),
        ("compared again, for the RMSD to the representative", counts.to_representatives),
    ):
        print(f"    {label:52s} {left:12,d}")


def structure_matcher(crystals: list[Crystal], same_chemistry: int, used: float) -> None:
    """All pairs of one chemistry, extrapolated from 40 pairs."""
    try:
        from pymatgen.analysis.structure_matcher import StructureMatcher
        from pymatgen.core import Lattice, Structure
    except ImportError:
        print("  pymatgen is not installed; StructureMatcher is left out")
        return
    kind = fingerprint(crystals[0]).chemistry
    alike = [c for c in crystals[:400] if fingerprint(c).chemistry == kind][:41]
    structures = [
        Structure(Lattice(c.lattice.numpy()), c.numbers.tolist(), c.frac.double().numpy()) for c in alike
    ]
    matcher = StructureMatcher(ltol=0.3, stol=0.3, angle_tol=10, scale=False)
    before = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for a, b in pairwise(structures):
            matcher.fit(a, b)
    seconds = (time.process_time() - before) / (len(structures) - 1)
    total = seconds * same_chemistry
    print(
        f"  StructureMatcher: {1e3 * seconds:.0f} ms a pair (mean of {len(structures) - 1}); {same_chemistry:,d} pairs "
        f"would take {total / 3600:.1f} CPU-hours, {total / used:.0f} times ours"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cifs", type=Path, help="CIF files for the recall")
    parser.add_argument("--landscapes", type=Path, help="extended XYZ files of three landscapes")
    parser.add_argument("--structures", type=int, default=10_000, help="for the speed")
    parser.add_argument("--parts", default="recall,limits,landscapes,speed")
    parser.add_argument("--smiles", default="CC(=O)Oc1ccccc1C(=O)O")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--limit", type=int, help="CIF files to read")
    parser.add_argument("--most-atoms", type=int, default=400, help="of a cell")
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = DuplicateSettings()
    parts = options.parts.split(",")
    if options.cifs and "recall" in parts:
        recall(readable(options.cifs, options.most_atoms, options.limit), settings)
    if options.landscapes and "limits" in parts:
        limits(options.landscapes, settings)
    if options.landscapes and "landscapes" in parts:
        show_landscapes(options.landscapes, settings)
    if options.landscapes and "speed" in parts:
        crystals, truth = many(options.landscapes, options.smiles, options.structures)
        print(f"\nspeed: {settings.criterion}; {options.workers} workers")
        before, started = cpu_seconds(), time.perf_counter()
        found = find_duplicates(crystals, settings=settings.model_copy(update={"workers": options.workers}))
        used, wall = cpu_seconds() - before, time.perf_counter() - started
        report(found, truth, used, wall)
        structure_matcher(crystals, found.pairs.same_chemistry, used)


if __name__ == "__main__":
    main()
