"""The numbers between generator and report: duplicates, convergence, apportioning, names."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleate.crystal.packing import Packings
from nucleate.crystal.rigid import represent_rigid
from nucleate.crystal.standardise import find_symmetry, primitive_niggli
from nucleate.errors import EnergyModelError
from nucleate.geometry.symmetry import SpaceGroup
from nucleate.physics.forcefield import ForceField
from nucleate.physics.minimise import TIGHT, minimise, pair_energy_fingerprints
from nucleate.physics.parameters import KJ_PER_MOL
from nucleate.pipeline.convergence import convergence
from nucleate.pipeline.deduplicate import DuplicateTolerance, distinct_crystals
from nucleate.pipeline.folders import distinct_names
from nucleate.pipeline.generate import Arm, Composition, random_packings
from nucleate.pipeline.rank import combined_energies
from nucleate.pipeline.strategy import CURIOSITY, Progress, apportion, plan_round

# ------------------------------------------------------------------ duplicates


def test_groups_do_not_depend_on_the_order() -> None:
    rng = np.random.default_rng(0)
    centres = np.arange(12)
    energy = np.repeat(centres * 2.0 * KJ_PER_MOL, 5) + rng.uniform(0, 0.02 * KJ_PER_MOL, 60)
    volume = np.repeat(100 + centres * 3.0, 5) * (1 + rng.uniform(0, 1e-4, 60))
    fingerprint = np.repeat(rng.uniform(-1, 0, (12, 4)), 5, 0) + rng.uniform(0, 1e-4, (60, 4))
    truth = np.repeat(centres, 5)
    for _ in range(5):
        order = rng.permutation(60)
        found = distinct_crystals(energy[order], volume[order], fingerprint[order])
        assert len(found.kept) == 12
        assert (found.multiplicity == 5).all()
        assert (np.diff(energy[order][found.kept]) > 0).all()  # by energy
        assert (truth[order][found.kept][found.group] == truth[order]).all()


@pytest.mark.parametrize("name", ["energy", "volume", "pair_energy"])
def test_each_number_alone_tells_crystals_apart(name: str) -> None:
    tolerance = DuplicateTolerance()

    def groups(scale: float) -> int:
        e = np.array([-1.0, -1.0 + scale * tolerance.energy * (name == "energy")])
        v = np.array([100.0, 100.0 * (1 + scale * tolerance.volume * (name == "volume"))])
        f = np.zeros((2, 3))
        f[1, 1] = scale * tolerance.pair_energy * (name == "pair_energy")
        return len(distinct_crystals(e, v, f).kept)

    assert groups(0.9) == 1
    assert groups(1.1) == 2


def test_nothing_is_no_group() -> None:
    found = distinct_crystals(np.zeros(0), np.zeros(0), np.zeros((0, 3)))
    assert len(found.kept) == len(found.group) == len(found.multiplicity) == 0


def _numbers(packing: Packings, field: ForceField, units: int) -> tuple[float, float, np.ndarray]:
    """Energy and volume a molecule, and the fingerprint."""
    bodies = len(packing.group) * packing.n_bodies
    assert bodies == units
    energy = field.energy(packing, TIGHT.accuracy).item() * len(packing.group) / bodies
    fingerprint = pair_energy_fingerprints(packing, field)[0].numpy()
    return energy, packing.volume.item() / bodies, fingerprint


def test_one_crystal_in_other_settings_is_one(formamide: Composition) -> None:
    """A minimum of P21/c, written in P1 with Z' = 4 and in the reduced cell."""
    group = SpaceGroup.from_name(14)
    starts = random_packings(formamide, Arm("P21/c", group, 1), 0, 12, 0)
    field = ForceField.for_molecules(formamide.species)
    found = minimise(starts, field, TIGHT)
    best = int(found.energy.argmin())
    packing = found.packings[best]
    written_out, _ = represent_rigid(packing.crystal(0), formamide.species)
    reduced, _ = represent_rigid(primitive_niggli(packing.crystal(0))[0], formamide.species)
    assert written_out.group.number == 1
    assert find_symmetry(packing.crystal(0)).number == 14
    members = [packing, written_out, reduced]
    numbers = [_numbers(p, field, 4) for p in members]
    e, v, f = (np.stack([np.asarray(n[k]) for n in numbers]) for k in range(3))
    assert np.ptp(e) < 1e-3 * KJ_PER_MOL
    assert len(distinct_crystals(e, v, f).kept) == 1
    worse = int(found.energy.argsort()[len(starts) // 2])
    assert found.energy[worse] > found.energy[best] + 0.5 * KJ_PER_MOL
    other = _numbers(found.packings[worse], field, 4)
    e, v, f = np.append(e, other[0]), np.append(v, other[1]), np.vstack([f, other[2]])
    assert len(distinct_crystals(e, v, f).kept) == 2


# ------------------------------------------------------------------ convergence


def test_convergence_by_hand() -> None:
    """Hits 3, 1, 1, 2 within 8 kJ/mol, and one minimum far above that does not count."""
    energy = np.array([0.0, 1.0, 2.0, 8.0, 8.1]) * KJ_PER_MOL
    found = convergence(energy, np.array([5, 1, 1, 2, 9]), np.array([3, 1, 1, 2, 9]))
    assert (found.lowest_found, found.low_minima, found.found_once) == (5, 4, 2)
    assert found.good_turing_unseen == pytest.approx(2 / 7)
    assert found.chao_missed == pytest.approx(2 * 1 / (2 * 2))  # f1 (f1 - 1) / (2 (f2 + 1))
    assert "found 5 times" in found.text


def test_convergence_of_nothing_and_of_perturbed_starts_alone() -> None:
    nothing = convergence(np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64))
    assert (nothing.low_minima, nothing.good_turing_unseen, nothing.chao_missed) == (0, 1.0, 0.0)
    perturbed = convergence(np.zeros(1), np.array([4]), np.array([0]))
    assert perturbed.good_turing_unseen == 1.0


def test_chao_and_good_turing_hold_on_a_lottery() -> None:
    """400 draws among 100 equally likely minima: what is missing is what the estimates say, on average."""
    rng = np.random.default_rng(1)
    missed, chao, unseen, new = [], [], [], []
    for _ in range(200):
        hits = np.bincount(rng.integers(100, size=200), minlength=100)
        seen = hits[hits > 0]
        found = convergence(np.zeros(len(seen)), seen, seen)
        missed.append(100 - len(seen))
        chao.append(found.chao_missed)
        unseen.append(found.good_turing_unseen)
        new.append((100 - len(seen)) / 100)
    assert np.mean(chao) == pytest.approx(np.mean(missed), rel=0.15)
    assert np.mean(unseen) == pytest.approx(np.mean(new), rel=0.05)


# ------------------------------------------------------------------ where starts go


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.lists(st.floats(0, 1e3), min_size=1, max_size=30))
def test_apportioned_parts_sum_and_stay_near(total: int, weights: list[float]) -> None:
    parts = apportion(total, np.array(weights))
    if sum(weights) == 0:
        assert sum(parts) == 0
        return
    exact = total * np.array(weights) / sum(weights)
    assert sum(parts) == total
    assert (np.abs(np.array(parts) - exact) <= 1 + 1e-9).all()


def test_rounds_together_spend_what_was_asked() -> None:
    space = [
        Arm(str(i), SpaceGroup.from_name(g), 1, w)
        for i, (g, w) in enumerate([(14, 0.6), (2, 0.3), (19, 0.1)])
    ]
    state = Progress.start(space)
    energy, arm = np.zeros(0), np.zeros(0, np.int64)
    spent = 0
    for number in range(6):
        plan = plan_round(number, 1003, 6, 0.35, state, energy, arm)
        spent += sum(plan.random) + sum(plan.perturbed)
        energy, arm = np.linspace(0, 0.2, 20), np.tile([0, 1], 10)
        state = state.after(plan, energy, arm)
        assert (sum(plan.perturbed) > 0) == (number > 0)
        assert plan.perturbed[2] == 0  # nothing of it is known
        assert plan.random[2] > 0  # nor forgotten
    assert spent == 1003
    assert state.random_starts[0] > state.random_starts[2]


def test_an_arm_that_yields_nothing_keeps_its_curiosity() -> None:
    space = [Arm(str(i), SpaceGroup.from_name(g), 1, 0.5) for i, g in enumerate([14, 2])]
    state = replace(Progress.start(space), random_starts=[100, 100], low_minima=np.array([10.0, 0.0]))
    plan = plan_round(1, 600, 6, 0.0, state, np.zeros(10), np.zeros(10, np.int64))
    assert plan.random[1] / plan.random[0] == pytest.approx(CURIOSITY / (CURIOSITY + 2), abs=0.02)
    assert len(space) == len(plan.random)


# ------------------------------------------------------------------ one scale, names


def test_energies_of_two_models_on_one_scale() -> None:
    first = np.array([-10.0, -9.0, -8.0, -7.0])
    second = np.array([-110.0, np.nan, -108.0, np.nan])
    np.testing.assert_allclose(combined_energies(first, second), [-110.0, -109.0, -108.0, -107.0])
    with pytest.raises(EnergyModelError, match="got none"):
        combined_energies(first, np.full(4, np.nan))


def test_names_are_kept_apart() -> None:
    assert distinct_names(["a", "b", "A", "a", "a-2"]) == ["a", "b", "A-2", "a-3", "a-2-2"]
