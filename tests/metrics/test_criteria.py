"""Every named criterion asks what its name promises."""

import math
from pathlib import Path

import pytest
import torch
from disguises import disguised, moved, noisy, turned_in_place

from nucleate.crystal.cif_read import read_crystal
from nucleate.errors import InputError
from nucleate.metrics.criteria import CRITERIA, Criterion, Judge, Rung, criterion

DATA = Path(__file__).parent / "data"
every_criterion = pytest.mark.parametrize("name", list(CRITERIA))


def crystal(name):
    return read_crystal(DATA / f"{name}.cif")


@every_criterion
def test_a_crystal_is_itself_by_every_criterion(name):
    verdict = Judge(criterion(name), [crystal("7121743")]).judge(disguised(crystal("7121743"), mirror=True))
    assert verdict.criterion == name
    assert verdict.same
    assert verdict.reason == ""
    assert verdict.climbed == len(CRITERIA[name].rungs)
    assert verdict.match.is_match
    assert verdict.match.rmsd < 1e-6


@every_criterion
def test_other_molecules_are_another_crystal(name):
    verdict = Judge(criterion(name), [crystal("2205937")]).judge(crystal("2008185"))
    assert not verdict.same
    assert verdict.reason == "other molecules"


@pytest.mark.parametrize("name", ["strict15", "strict20", "strict30", "ladder"])
def test_turned_molecules_are_another_crystal(name):
    verdict = Judge(criterion(name), [crystal("7121743")]).judge(turned_in_place(crystal("7121743"), 1.2))
    assert not verdict.same
    assert "agree" in verdict.reason
    assert verdict.climbed == 0


def test_the_ladder_is_all_its_rungs():
    """Two forms that share 14 of 15 molecules fail on the first rung; noise that the last one sees, there."""
    forms = Judge(criterion("ladder"), [crystal("7121743")]).judge(crystal("7121745"))
    assert (forms.same, forms.climbed, forms.match.n) == (False, 0, 15)
    for seed in range(3):
        other = noisy(crystal("7121743"), 0.3, seed)
        rungs = [Judge(criterion(f"strict{n}"), [crystal("7121743")]).judge(other) for n in (15, 20, 30)]
        ladder = Judge(criterion("ladder"), [crystal("7121743")]).judge(other)
        assert ladder.same == all(rung.same for rung in rungs)
        assert ladder.climbed == next((i for i, rung in enumerate(rungs) if not rung.same), 3)


def test_loose_is_lenient_yet_asks_for_no_clash():
    """The two forms are one crystal to it; the same packing with overlapping molecules is not."""
    loose = Judge(criterion("loose"), [crystal("7121743")])
    assert loose.judge(crystal("7121745")).same
    c = crystal("7121743")
    squeezed = c.lattice.double() * 0.85
    centre = (c.centroids.double() @ c.lattice.double())[c.molecule]
    positions = c.positions.double() - 0.15 * centre
    verdict = loose.judge(c.replace(lattice=squeezed, frac=positions @ torch.linalg.inv(squeezed)))
    assert verdict.match.n_matched >= 8
    assert verdict.reason == "molecules overlap"
    assert not verdict.same


def test_loose_has_a_limit_on_the_rmsd():
    tight = Criterion("own", (Rung(15, 0.5, 75.0),), at_least=8, max_rmsd=0.05)
    verdict = Judge(tight, [crystal("7121743")]).judge(noisy(crystal("7121743"), 0.2))
    assert verdict.match.n_matched >= 8
    assert "is not below 0.05" in verdict.reason


def test_the_best_of_several_forms_counts():
    forms = [crystal("7121745"), crystal("7121743")]
    verdict = Judge(criterion("strict15"), forms).judge(disguised(crystal("7121743"), seed=3))
    assert verdict.same
    assert verdict.match.rmsd < 1e-6


def test_the_hand_can_be_made_to_matter():
    own = Criterion("own", (Rung(15, 0.2, 20.0),), mirror=False)
    image = disguised(noisy(crystal("2205937"), 0.2), mirror=True)
    reference = noisy(crystal("2205937"), 0.2)
    assert Judge(criterion("strict15"), [reference]).judge(image).match.rmsd < 1e-6
    assert Judge(own, [reference]).judge(image).match.rmsd > 0.05
    assert "mirror images differ" in str(own)


def test_a_verdict_is_ordered_by_what_was_reached():
    judge = Judge(criterion("strict15"), [crystal("7121743")])
    same, other = judge.judge(crystal("7121743")), judge.judge(crystal("7121745"))
    assert same.better_than(other)
    assert not other.better_than(same)
    nothing = judge.judge(crystal("2008185"))
    assert math.isnan(nothing.match.rmsd)
    assert other.better_than(nothing)


def test_an_unknown_name_is_refused():
    with pytest.raises(InputError, match="strict15"):
        criterion("rmsd20")


def test_a_packing_without_a_start_is_not_called_other_molecules():
    """Acetylene twice as far apart: no two neighbours fix how to lay the linear molecule."""
    near = crystal("2100840")
    far = moved(near.replace(lattice=2 * near.lattice), near.positions.double())
    centres = (near.centroids.double() @ near.lattice.double())[near.molecule]
    far = moved(far, near.positions.double() + centres)
    assert Judge(criterion("strict15"), [near]).judge(far).reason == "no neighbours as in the reference"
