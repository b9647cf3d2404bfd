"""From minima to the crystals that are handed over: sound, distinct, with symmetry and final energies."""

from dataclasses import replace

from nucleate.crystal.standardise import find_symmetry
from nucleate.metrics.packing import PackingReference
from nucleate.physics.forcefield import FINAL
from nucleate.physics.minimise import CLASH
from nucleate.physics.parameters import KJ_PER_MOL
from nucleate.pipeline.landscape import SYMMETRY_TOLERANCE, Candidate
from nucleate.pipeline.learned import LearnedGenerator
from nucleate.pipeline.reference import is_same
from nucleate.pipeline.search import SearchResult
from nucleate.pipeline.units import total_energy

GENERATORS = {"random": "random", "learned": LearnedGenerator.name, "perturbed": "perturbed"}
"""What a table calls the starts of each kind of unit."""
TWIN_ENERGY, TWIN_DENSITY, TWIN_RMSD = 0.5, 0.01, 0.15  # kJ/mol per molecule, relative, Å


def candidates_of(result: SearchResult, keep: int, window: float, seed: int) -> list[Candidate]:
    """The lowest sound minima as crystals, energies with tight lattice sums; best first.

    At most `keep`, and none more than `window` kJ/mol per molecule above the lowest.
    """
    minima = result.minima
    kept: list[Candidate] = []
    prepared: list[PackingReference] = []
    for i in range(len(minima)):
        if minima.contact[i] < CLASH:
            continue
        if len(kept) == keep:
            break
        candidate = _candidate(result, i, seed)
        twin = next((k for k in range(len(kept)) if _same(kept[k], prepared[k], candidate)), None)
        if twin is None:
            kept.append(candidate)
            prepared.append(PackingReference(candidate.crystal))
        else:
            kept[twin] = replace(kept[twin], hits=kept[twin].hits + candidate.hits)
    kept.sort(key=lambda c: c.energy)
    return [c for c in kept if c.energy <= kept[0].energy + window]


def _same(known: Candidate, reference: PackingReference, other: Candidate) -> bool:
    """Minima that stopped a little apart: 15 molecules within `TWIN_RMSD`, near in energy and density."""
    density = known.crystal.density / other.crystal.density - 1
    near = abs(known.energy - other.energy) < TWIN_ENERGY and abs(density) < TWIN_DENSITY
    return near and is_same(reference.compare(other.crystal), TWIN_RMSD)


def _candidate(result: SearchResult, i: int, seed: int) -> Candidate:
    minima, composition = result.minima, result.composition
    arm, packing = result.arms[minima.arm[i]], minima.packing(i)
    total = total_energy(composition, arm, packing, result.field.energy(packing, FINAL)).item()
    energy = total / composition.molecules / KJ_PER_MOL
    crystal = packing.crystal(0)
    symmetry = find_symmetry(crystal, SYMMETRY_TOLERANCE)
    return Candidate(
        crystal=crystal,
        energy=energy,
        lattice_energy=energy,
        energy_model="forcefield",
        space_group=symmetry.number,
        symbol=symmetry.symbol,
        z=symmetry.z,
        z_prime=symmetry.z_prime,
        generator=GENERATORS[str(minima.kind[i])],
        conformer=",".join(str(c) for c in packing.conformer[0].tolist()),
        start=f"{arm.key} {int(minima.start[i])}",
        seed=seed,
        hits=int(minima.hits[i]),
        clash=False,
    )
