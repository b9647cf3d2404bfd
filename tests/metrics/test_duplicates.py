"""Copies of a crystal in any disguise and a little deformed are found; different crystals stay apart."""

import math
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from disguises import disguised, moved, noisy, repeated, seeded, turned_in_place, without_hydrogens

from nucleate.crystal.cif_read import read_crystal
from nucleate.crystal.crystal import Crystal
from nucleate.errors import InputError
from nucleate.geometry.lattice import strained
from nucleate.metrics.duplicates import DuplicateSettings, find_duplicates, spanning_forest
from nucleate.metrics.packing import compare_packing
from nucleate.metrics.packing_pairs import PairPool, load_crystals, save_crystals

HERE = Path(__file__).parent / "data"
SHARED = Path(__file__).parents[1] / "data"
FILES = {
    path.stem: path for path in [*HERE.glob("*.cif"), *SHARED.glob("*.cif")] if path.stem != "cod_2100840"
}
NAMES = sorted(FILES)


@lru_cache(maxsize=32)
def crystal(name):
    return read_crystal(FILES[name])


def strained_by(c, size, seed=0):
    strain = size * torch.randn(3, 3, dtype=torch.float64, generator=seeded(seed))
    lattice = strained(c.lattice.double(), (strain + strain.T) / 2)
    centres = c.centroids.double()
    arms = c.positions.double() - (centres @ c.lattice.double())[c.molecule]  # molecules stay as they are
    return c.replace(lattice=lattice, frac=centres[c.molecule] + arms @ torch.linalg.inv(lattice))


def pushed(c, distance, seed=0):
    """Each molecule shifted by `distance` (Å) in a direction of its own."""
    step = torch.randn(c.n_molecules, 3, dtype=torch.float64, generator=seeded(seed))
    return moved(c, c.positions.double() + (distance * step / step.norm(dim=1, keepdim=True))[c.molecule])


COPIES = {
    "setting": lambda c: disguised(c, seed=1),
    "mirror": lambda c: disguised(c, seed=2, mirror=True),
    "supercell": lambda c: repeated(c, (1, 2, 1)),
    "no hydrogens": without_hydrogens,
    "noise": lambda c: disguised(noisy(c, 0.08, seed=3), seed=3),
    "pushed": lambda c: disguised(pushed(c, 0.15, seed=4), seed=4),
    "turned": lambda c: disguised(turned_in_place(c, math.radians(3), seed=5), seed=5),
    "strain": lambda c: disguised(strained_by(c, 0.01, seed=6), seed=6),
}


@lru_cache(maxsize=1)
def shuffled_copies():
    """Every crystal and its copies in a fixed random order, with the name of what each is."""
    made = [(name, crystal(name)) for name in NAMES]
    made += [(name, copy(crystal(name))) for name in NAMES for copy in COPIES.values()]
    order = torch.randperm(len(made), generator=seeded(0)).tolist()
    return [made[i][0] for i in order], [made[i][1] for i in order]


@lru_cache(maxsize=1)
def found():
    return find_duplicates(shuffled_copies()[1])


def test_no_copy_is_missed_and_no_two_crystals_are_one():
    """15 crystals, 8 disguises and deformations: the two crystals of one compound are kept apart as well."""
    names = np.array(shuffled_copies()[0])
    result = found()
    assert result.failure == ("",) * len(names)
    assert len(result.representative) == len(NAMES)
    for k in range(len(NAMES)):
        assert len(set(names[result.cluster == k])) == 1
    assert set(result.size) == {len(COPIES) + 1}


def test_the_report_of_a_cluster_is_consistent():
    result = found()
    own = result.representative[result.cluster] == np.arange(len(result.cluster))
    assert own.sum() == len(NAMES)
    assert (result.rmsd[own] == 0).all()
    assert (result.rmsd[~own] < 0.5).all()  # nothing here is chained
    assert not result.chained.any()
    np.testing.assert_array_equal(
        result.spread, [result.rmsd[result.cluster == k].max() for k in range(len(NAMES))]
    )
    assert (result.n_matched == 20).all()
    first = [int(np.flatnonzero(result.cluster == k)[0]) for k in range(len(NAMES))]
    assert result.representative.tolist() == first == sorted(first)  # without energies: as in the list


def test_an_rmsd_is_that_of_the_packing_comparison():
    crystals, result = shuffled_copies()[1], found()
    for i in np.flatnonzero(result.rmsd > 0.05)[:3].tolist():
        leader = crystals[result.representative[result.cluster[i]]]
        match = compare_packing(leader, crystals[i], 20, 0.25, 25.0)
        assert match.rmsd == pytest.approx(result.rmsd[i])


def test_every_pair_is_accounted_for():
    counts, n = found().pairs, len(shuffled_copies()[1])
    assert counts.all == n * (n - 1) // 2
    assert (
        counts.all > counts.same_chemistry >= counts.near_volume >= counts.near_fingerprint >= counts.compared
    )
    assert counts.same == n - len(NAMES)  # no comparison joins what is joined already
    assert set(counts.seconds) == {"fingerprints", "comparison", "representatives"}


def test_neither_the_order_nor_the_shortcut_decides():
    names, crystals = shuffled_copies()
    keep = [i for i, name in enumerate(names) if name.startswith(("71217", "2205937", "cod_11009"))][::-1]
    few, asked = [crystals[i] for i in keep], [found().cluster[i] for i in keep]
    for settings in (DuplicateSettings(), DuplicateSettings(exhaustive=True)):
        assert same_partition(find_duplicates(few, settings=settings).cluster, np.array(asked))


def same_partition(a, b):
    return ((a[:, None] == a) == (b[:, None] == b)).all()


@pytest.mark.slow
def test_two_workers_find_what_one_finds():
    names, crystals = shuffled_copies()
    told = []
    result = find_duplicates(
        crystals,
        settings=DuplicateSettings(workers=2),
        progress=lambda done, asked: told.append((done, asked)),
    )
    np.testing.assert_array_equal(result.cluster, found().cluster)
    np.testing.assert_array_equal(result.rmsd, found().rmsd)
    assert result.pairs.compared == found().pairs.compared
    assert told
    assert told[-1][0] == told[-1][1] == result.pairs.compared + result.pairs.to_representatives


def test_chains_are_joined_and_reported():
    """Each step of a chain is small, its ends are far apart: one cluster whose spread shows it."""
    c = crystal("cod_7210454")
    away = torch.randn(c.n_molecules, 3, dtype=torch.float64, generator=seeded(9))
    away = (away / away.norm(dim=1, keepdim=True))[c.molecule]
    chain = [moved(c, c.positions.double() + 0.3 * k * away) for k in range(4)]
    ends = compare_packing(chain[0], chain[-1], 20, 0.25, 25.0)
    assert not (ends.is_match and ends.rmsd < 0.5)
    result = find_duplicates(chain)
    assert set(result.cluster) == {0}
    assert result.chained.tolist()[0] is False
    assert result.chained[-1]
    assert not result.spread[0] < 0.5
    assert len(find_duplicates([chain[0], chain[-1]]).representative) == 2


def test_the_lowest_energy_represents():
    c, other = crystal("7121743"), crystal("7121745")
    crystals = [c, other, disguised(c), noisy(other, 0.02), without_hydrogens(c)]
    result = find_duplicates(crystals, [1.0, 0.5, -3.0, 0.0, math.nan])
    assert result.representative.tolist() == [2, 3]
    assert result.cluster.tolist() == [0, 1, 0, 1, 0]
    apart = find_duplicates(crystals, [1.0, 0.5, -3.0, 0.0, math.nan], DuplicateSettings(energy_window=1.0))
    assert apart.cluster.tolist() == [0, 1, 0, 1, 0]  # an unknown energy rules nothing out
    apart = find_duplicates(crystals[:3], [1.0, 0.5, -3.0], DuplicateSettings(energy_window=1.0))
    assert apart.cluster.tolist() == [2, 1, 0]


def test_mirror_images_can_be_kept_apart():
    hand = one_handed()
    image = disguised(hand, seed=3, mirror=True)
    assert len(find_duplicates([hand, image]).representative) == 1
    assert len(find_duplicates([hand, image], settings=DuplicateSettings(mirror=False)).representative) == 2
    turned = [hand, disguised(hand, seed=3)]
    assert len(find_duplicates(turned, settings=DuplicateSettings(mirror=False)).representative) == 1


def one_handed():
    """CHFClBr in P1."""
    lattice = torch.tensor([[5.2, 0, 0], [1.0, 6.1, 0], [0.4, 1.3, 5.6]], dtype=torch.float64)
    atoms = [[0, 0, 0], [1.35, 0, 0], [-0.6, 1.66, 0], [-0.65, -0.9, 1.6], [-0.4, -0.5, -0.9]]
    return Crystal(
        lattice=lattice,
        frac=torch.tensor(atoms, dtype=torch.float64) @ torch.linalg.inv(lattice),
        numbers=torch.tensor([6, 9, 17, 35, 1]),
        molecule=torch.zeros(5, dtype=torch.long),
        bonds=torch.tensor([[0, i] for i in range(1, 5)]),
    )


def test_what_cannot_be_compared_stays_by_itself():
    c = crystal("7121743")
    flat = c.replace(lattice=torch.diag(torch.tensor([1e-3, 1e-3, 1e-3], dtype=torch.float64)))
    result = find_duplicates([c, flat, disguised(c)])
    assert result.cluster.tolist() == [0, 1, 0]
    assert result.failure[0] == result.failure[2] == ""
    assert "Niggli" in result.failure[1]


def test_a_process_that_dies_costs_no_finished_work(monkeypatch):
    """A program that cannot even start is told; one that dies on a pair loses that pair only."""
    program = Path(__file__).parent / "stand_in_pairs.py"
    monkeypatch.setattr("nucleate.metrics.packing_pairs.PROGRAM", program)
    monkeypatch.setattr("nucleate.metrics.packing_pairs.FEW", 1)
    with PairPool([crystal("7121743")] * 4, DuplicateSettings().sameness, workers=2) as pool:
        pairs = [(i, j) for i in range(4) for j in range(4) if i != j]
        outcomes = dict(zip(pairs, pool.compare(pairs)))
    lost = {pair for pair, outcome in outcomes.items() if outcome.failure}
    assert lost == {(2, 3)}
    assert "crashed" in outcomes[2, 3].failure
    assert all(outcome.same for pair, outcome in outcomes.items() if pair != (2, 3))


def test_crystals_survive_the_way_to_a_process(tmp_path):
    crystals = [crystal("7121743"), crystal("2014129"), without_hydrogens(crystal("2100840"))]
    save_crystals(crystals, tmp_path / "crystals.npz")
    for before, after in zip(crystals, load_crystals(tmp_path / "crystals.npz"), strict=True):
        for name in ("lattice", "frac", "numbers", "molecule", "bonds"):
            torch.testing.assert_close(getattr(after, name), getattr(before, name), rtol=0, atol=0)


def test_a_forest_connects_what_all_pairs_connect_and_prefers_early_ones():
    pairs = np.array([[0, 1], [1, 0], [1, 2], [2, 0], [5, 4]])
    assert spanning_forest(pairs).tolist() == [0, 2, 4]


def test_bad_input_and_nothing_at_all():
    c = crystal("7121743")
    with pytest.raises(InputError, match="one energy for each of the 1"):
        find_duplicates([c], [1.0, 2.0])
    with pytest.raises(ValueError, match="rmsd"):
        DuplicateSettings(rmsd=0.0)
    alone = find_duplicates([c])
    assert alone.cluster.tolist() == alone.representative.tolist() == [0]
    nothing = find_duplicates([])
    assert len(nothing.cluster) == len(nothing.representative) == 0
