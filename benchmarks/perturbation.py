"""How much of a search should start from the lowest minima found so far?

    python benchmarks/perturbation.py CIF_FOLDER INDEX.csv --starts 1000 --shares 0,0.2,0.35,0.5,0.7

Validation crystals (one species, up to 30 atoms, rigid molecule from the CIF, space group unknown), equal numbers of
starts. For each share: how often the lowest minimum known from all runs was found, how many of the minima within
8 kJ/mol of it, and hits on the experimental packing. Sobol and pseudo-random starts side by side at share 0.
"""

import argparse
from pathlib import Path

import numpy as np
from recovery import composition_of, small_crystals

from nucleate.physics.forcefield import ForceField
from nucleate.physics.parameters import KJ_PER_MOL
from nucleate.pipeline.convergence import NEAR
from nucleate.pipeline.deduplicate import distinct_crystals
from nucleate.pipeline.generate import arms
from nucleate.pipeline.reference import find_reference
from nucleate.pipeline.search import search
from nucleate.pipeline.units import SearchSettings


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cifs", type=Path)
    parser.add_argument("index", type=Path)
    parser.add_argument("--starts", type=int, default=1000)
    parser.add_argument("--shares", default="0,0.2,0.35,0.5,0.7")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--splits", default="val")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    runs = [(float(s), "sobol") for s in options.shares.split(",")] + [(0.0, "random")]
    totals = {run: np.zeros(6) for run in runs}
    for row in small_crystals(options.index, options.splits.split(","), 30):
        crystal, composition = composition_of(options.cifs / f"{row['cod_id']}.cif", "common")
        field, wanted = ForceField.for_molecules(composition.species), arms(composition)
        found = []
        for share, sequence in runs:
            for seed in range(options.seeds):
                settings = SearchSettings(
                    n=options.starts, seed=seed, perturb=share, sequence=sequence, workers=options.workers
                )  # fmt: skip
                found.append(((share, sequence), search(composition, wanted, settings, field=field)))
        minima = [r.minima for _, r in found]
        known = distinct_crystals(
            *(np.concatenate([getattr(m, k) for m in minima]) for k in ("energy", "volume", "fingerprint"))
        )
        energy = np.concatenate([m.energy for m in minima])
        lowest = energy.min()
        low = {i for i, k in enumerate(known.kept) if energy[k] <= lowest + NEAR * KJ_PER_MOL}
        first = 0
        for run, result in found:
            m = result.minima
            groups = set(known.group[first : first + len(m)].tolist())
            first += len(m)
            depth = min(len(m), 100)
            matches = find_reference(crystal, (m.packing(i).crystal(0) for i in range(depth)))
            rank = matches.rank()
            hits = int(m.hits[rank - 1]) if rank else 0
            cpu = sum(result.seconds.values())
            totals[run] += [
                1,
                m.energy[0] < lowest + 0.1 * KJ_PER_MOL,
                len(groups & low) / len(low),
                rank is not None,
                hits,
                cpu,
            ]
        print(row["cod_id"], {r: int(totals[r][3]) for r in runs}, flush=True)
    print(f"{options.starts} starts; per crystal and seed:")
    print("share  numbers  lowest found  low minima found  experiment found  hits on it  CPU-s")
    for (share, sequence), t in totals.items():
        n = t[0]
        print(
            f"{share:5.2f}  {sequence:7s}  {t[1]:5.0f}/{n:.0f}      {100 * t[2] / n:9.0f} %      "
            f"{t[3]:9.0f}/{n:.0f}   {t[4] / n:11.1f}  {t[5] / n:6.1f}"
        )


if __name__ == "__main__":
    main()
