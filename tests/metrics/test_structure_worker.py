"""The worker finds all ways to lay one cell on another at once, and they are pymatgen's."""

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure
from tests.crystal.inorganic import CRYSTALS, rattled, textbook
from tests.metrics.inorganic_disguises import anywhere

from nucleate.crystal.sites import Sites
from nucleate.metrics.structure_worker import (
    MeanLattice,
    RecordingMatcher,
    compare,
    parameters,
    reduced,
    superpositions,
)


def structure(crystal: Sites) -> Structure:
    return Structure(crystal.lattice.numpy(), crystal.numbers.tolist(), crystal.frac.numpy())


def kept(crystal: Sites) -> Structure:
    return reduced(crystal.lattice.tolist(), crystal.frac.tolist(), crystal.numbers.tolist())


def lattices() -> list[Lattice]:
    rng = np.random.default_rng(0)
    wild = [
        Lattice.from_parameters(*rng.uniform(3, 6, 3), *rng.uniform(65, 115, 3)).get_niggli_reduced_lattice()
        for _ in range(12)
    ]
    return [*wild, *(kept(textbook(name)).lattice for name in CRYSTALS)]


def test_superpositions_are_those_of_pymatgen_in_its_order() -> None:
    seen = 0
    for one in lattices():
        for other in lattices()[::4]:
            mapped = one.find_all_mappings(other, ltol=0.3, atol=10, skip_rotation_matrix=True)
            expected = [(m.matrix, step) for m, _, step in mapped if round(abs(np.linalg.det(step))) == 1]
            steps, cells = superpositions(one, other, 0.3, 10)
            assert len(steps) == len(expected)
            for step, cell, (matrix, whole) in zip(steps, cells, expected):
                assert (step == whole).all()
                assert cell == pytest.approx(matrix, abs=1e-9)
            seen += len(expected)
    assert seen > 400


def test_parameters_are_those_of_pymatgen() -> None:
    found = parameters(np.stack([x.matrix for x in lattices()]))
    assert found == pytest.approx(np.array([x.parameters for x in lattices()]), abs=1e-9)


def test_a_mean_lattice_remembers_what_pymatgen_works_out() -> None:
    for plain in lattices():
        mean = MeanLattice(plain.matrix)
        for _ in range(2):
            assert mean.volume == plain.volume
            assert (mean.reciprocal_lattice.matrix == plain.reciprocal_lattice.matrix).all()
            assert (mean.lll_inverse == plain.lll_inverse).all()
            short = mean.get_lll_reduced_lattice()
            assert (short.matrix == plain.get_lll_reduced_lattice().matrix).all()
            assert mean.get_lll_reduced_lattice(0.6).matrix == pytest.approx(
                plain.get_lll_reduced_lattice(0.6).matrix
            )
        assert mean.get_lll_reduced_lattice() is short


@pytest.mark.parametrize("name", CRYSTALS)
def test_answers_are_those_of_pymatgen(name: str) -> None:
    true = textbook(name)
    plain = StructureMatcher(ltol=0.3, stol=0.5, angle_tol=10)
    for other in (rattled(true, 0.2), rattled(true, 0.6, 1), anywhere(true, 0), anywhere(true, 1)):
        found = compare(kept(other), kept(true), 0.3, 10, True, (0.5,))["rms"][0]
        expected = plain.get_rms_dist(structure(other), structure(true))
        assert found == (None if expected is None else pytest.approx(expected[0], rel=1e-9))


def test_equal_means_are_one_lattice() -> None:
    matcher = RecordingMatcher(ltol=0.3, stol=0.5, angle_tol=10)
    salt = kept(textbook("rock salt"))
    ways = list(matcher._get_supercells(salt, salt, 1, True))
    assert len(ways) == 48
    assert len({id(mean) for _, _, mean, _ in ways}) < 6
