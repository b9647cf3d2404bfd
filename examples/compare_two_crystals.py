"""Are two crystals the same packing? And how different are their powder patterns?

python examples/compare_two_crystals.py one.cif other.cif
"""

import sys
from pathlib import Path

from nucleate.crystal.io import read_crystal
from nucleate.crystal.standardise import find_symmetry
from nucleate.metrics.packing import compare_packing
from nucleate.metrics.pxrd import powder_pattern

DATA = Path(__file__).parents[1] / "tests" / "metrics" / "data"


def main(one: str | Path = DATA / "7121743.cif", other: str | Path = DATA / "7121745.cif") -> None:
    first, second = read_crystal(one), read_crystal(other)
    for path, crystal in ((one, first), (other, second)):
        symmetry = find_symmetry(crystal)
        print(f"{Path(path).name}: {symmetry.symbol}, Z = {symmetry.z}, {crystal.density:.3f} g/cm³")
    match = compare_packing(first, second)
    print(
        f"{match.n_matched} of {match.n} molecules agree, RMSD {match.rmsd:.2f} Å, mirrored: {match.mirrored}"
    )
    gap = powder_pattern(first).intensity - powder_pattern(second).intensity
    print(f"powder patterns differ by {gap.abs().mean():.2f} % of the highest peak on average")


if __name__ == "__main__":
    main(*sys.argv[1:3])
