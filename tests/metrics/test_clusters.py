"""Metrics of clusters: no error scores 0 in any order, errors do not, and what the published ones miss."""

import math
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from nucleate.crystal.cif_read import read_crystal
from nucleate.crystal.cluster import Cluster
from nucleate.data.clusters import cluster_of
from nucleate.errors import InputError
from nucleate.geometry.so3 import SO3, kabsch, random_rotation
from nucleate.metrics import clusters
from nucleate.metrics.cluster_assignment import MAX_MAPS, assignments, largest_overlap
from nucleate.metrics.cluster_evaluation import controls, judge_cluster, summarise_clusters
from nucleate.metrics.clusters import (
    collapsed,
    collision,
    collision_between,
    match_cluster,
    neighbour_distance_error,
    pm,
    pm_atom,
    pm_atom_permuted,
    pm_center,
    pm_center_permuted,
    published_mean,
    rmsd_cluster,
    separation,
    shuffled,
    volume_error,
    volume_per_molecule,
)

CIFS = Path(__file__).parents[1] / "data"
REAL = ("cod_1100989", "cod_2000380", "cod_2100840", "cod_7210454")  # 14, 53, 4 and 15 atoms


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Float[Tensor, "..."]:
    return torch.randn(*shape, generator=rng(seed), dtype=torch.float64)


def packing(seed: int = 0, volume: float = 450.0, atoms: int = 12, copies: int = 17) -> Float[Tensor, "..."]:
    """A molecule and its nearest copies in a made-up crystal of two molecules a cell, one inverted."""
    lattice = torch.eye(3, dtype=torch.float64) + 0.2 * normal(3, 3, seed=seed)
    lattice = lattice * (2 * volume / torch.linalg.det(lattice).abs()) ** (1 / 3)
    molecule = normal(atoms, 3, seed=seed + 100) * torch.tensor([2.5, 1.5, 0.7], dtype=torch.float64)
    molecule = molecule - molecule.mean(0)
    cells = torch.cartesian_prod(*[torch.arange(-3, 4)] * 3).double()
    other = torch.tensor([0.45, 0.5, 0.4], dtype=torch.float64)
    placed = torch.cat(
        [(cells @ lattice)[:, None] + molecule, ((cells + other) @ lattice)[:, None] - molecule]
    )
    return placed[placed.mean(1).norm(dim=1).argsort()[:copies]]


def made(positions: Float[Tensor, "m n 3"]) -> Cluster:
    """As a cluster of carbon chains."""
    n = positions.shape[1]
    return Cluster(
        torch.full((n,), 6), positions, "", torch.stack([torch.arange(n - 1), torch.arange(1, n)], 1)
    )


def real(name: str) -> Cluster:
    return cluster_of(read_crystal(CIFS / f"{name}.cif"))


# ---------------------------------------------------------------- as published


def test_pm_by_hand() -> None:
    """Distances 1, 1, 2 on a line against 1, 1, sqrt 2 at a right angle: one pair of nine entries, twice."""
    line = torch.tensor([[-1.0, 0, 0], [0, 0, 0], [1, 0, 0]])
    bent = torch.tensor([[-1.0, 0, 0], [0, 0, 0], [0, 1, 0]])
    assert pm(line, bent).item() == pytest.approx(math.sqrt(2 * (2 - math.sqrt(2)) ** 2 / 9))


def test_pm_sees_no_motion_no_mirror_and_every_sample_alone() -> None:
    x = packing()
    moved = x @ random_rotation(generator=rng(1)).mT + 5.0
    for f in (pm_atom, pm_center):
        noisy = x + normal(*x.shape, seed=2)
        both = f(torch.stack([x, x, x]), torch.stack([moved, -x, noisy]))
        torch.testing.assert_close(both[:2], torch.zeros(2, dtype=torch.float64), atol=1e-9, rtol=0)
        torch.testing.assert_close(both[2], f(x, noisy))
        assert both[2] > 0.1


def test_collision_separation_and_compactness_by_hand() -> None:
    """Two CO, the carbons 1.45 Å apart: of 16 entries 4 diagonal, 4 bonds, 2 clashes."""
    numbers = torch.tensor([6, 8])  # radii 0.76 and 0.66 Å
    x = torch.tensor([[[0.0, 0, 0], [1.13, 0, 0]], [[0, 1.45, 0], [-1.13, 1.45, 0]]])
    assert collision(x, numbers).item() == pytest.approx(10 / 16)
    assert collision_between(x, numbers).item() == pytest.approx(2 / 8)
    apart = x + torch.tensor([0.0, 3, 0]) * torch.arange(2)[:, None, None]
    assert collision(apart, numbers).item() == pytest.approx(8 / 16)
    assert collision_between(apart, numbers).item() == 0
    near = torch.tensor([[[0.0, 0, 0]], [[0.4, 0, 0]], [[99.0, 0, 0]]])
    assert separation(near).item() == pytest.approx(2 / 3)
    assert clusters.is_compact(torch.stack([near, 1.1 * near, math.nan * near])).tolist() == [
        True,
        False,
        False,
    ]


def test_the_published_mean_drops_what_it_dislikes_and_says_how_much() -> None:
    mean, kept = published_mean(torch.tensor([1.0, 3.0, 250.0, math.nan, math.inf]))
    assert mean == 2.0
    assert (kept.hits, kept.asked) == (2, 5)
    mean, kept = published_mean(torch.tensor([math.nan]))
    assert math.isnan(mean)
    assert kept.hits == 0


# ---------------------------------------------------------------- the finding


@pytest.mark.parametrize("seed", range(3))
def test_what_the_published_metric_cannot_tell(seed: int) -> None:
    """The truth in another order scores as far as another crystal, all on one spot 13: about as in the tables."""
    x = packing(seed)
    same = shuffled(x, rng(seed))
    assert 4.5 < pm_center(x, same) < 7
    assert abs(pm_center(x, same) - pm_center(x, packing(seed + 10))) < 1.5
    assert 11.5 < pm_center(x, collapsed(x)) < 15
    assert pm_center_permuted(x, same) < 1e-6
    assert pm_atom_permuted(x, same) < 1e-6
    assert rmsd_cluster(x, same) < 1e-6
    assert pm_center_permuted(x, packing(seed + 10)) > 0.5
    assert pm_center_permuted(x, collapsed(x)) == pytest.approx(float(pm_center(x, collapsed(x))))


@pytest.mark.parametrize("name", REAL)
def test_real_crystals_in_any_order_are_themselves(name: str) -> None:
    cluster = real(name)
    x = cluster.positions.double()
    same = shuffled(x, rng(3)) + 4.0
    match = match_cluster(cluster, same, mirror=False)
    assert pm_center(x, same) > 2
    assert max(pm_center_permuted(x, same), pm_atom_permuted(x, same), rmsd_cluster(x, same)) < 1e-6
    assert (match.n_matched, match.n) == (15, 15)
    assert match.rmsd == pytest.approx(0, abs=1e-6)
    assert collision_between(same, cluster.numbers) == 0
    assert 0 < collision(same, cluster.numbers) < 0.05  # bonds, and every atom with itself
    assert abs(volume_error(x, same)) < 1e-9


# ---------------------------------------------------------------- assignment


def test_an_assignment_says_who_is_who() -> None:
    x = packing(1)
    order, R = torch.randperm(17, generator=rng(5)), random_rotation(generator=rng(6))
    y = x[order] @ R.mT + 2.0
    best = assignments(x, y)[0]
    assert torch.equal(order[best.molecule], torch.arange(17))
    torch.testing.assert_close(best.rotation, R)
    torch.testing.assert_close(x @ best.rotation.mT + best.translation, best.ordered(y))
    assert not best.mirrored


@pytest.mark.parametrize("seed", range(4))
def test_the_least_is_found_where_all_orders_can_be_tried(seed: int) -> None:
    """Six molecules that have little in common: 720 orders."""
    x, y = packing(seed, copies=6), packing(seed + 20, copies=6)
    orders = torch.tensor(list(permutations(range(6))))
    every = y[orders]
    rmsd = float(kabsch(x.flatten(0, 1).expand(len(every), -1, -1), every.flatten(1, 2)).rmsd.min())
    assert rmsd_cluster(x, y) == pytest.approx(rmsd, abs=1e-6)
    assert pm_center_permuted(x, y) == pytest.approx(
        float(pm_center(x.expand_as(every), every).min()), abs=1e-6
    )
    assert pm_atom_permuted(x, y) == pytest.approx(float(pm_atom(x.expand_as(every), every).min()), abs=1e-6)


@pytest.mark.parametrize("size", [0.3, 1.0, 3.0])
def test_never_worse_than_the_order_given(size: float) -> None:
    x = packing(2)
    y = x + size * normal(*x.shape, seed=9) + 2 * size * normal(17, 1, 3, seed=10)
    given = float(kabsch(x.flatten(0, 1), y.flatten(0, 1)).rmsd)
    assert rmsd_cluster(x, y) <= given + 1e-9
    assert pm_center_permuted(x, y) <= float(pm_center(x, y)) + 1e-9
    assert pm_atom_permuted(x, y) <= float(pm_atom(x, y)) + 1e-9
    mixed = shuffled(y, rng(11))  # an error of this size is found again in any order and place
    assert rmsd_cluster(x, mixed) == pytest.approx(rmsd_cluster(x, y), rel=0.02)
    assert pm_center_permuted(x, mixed) == pytest.approx(pm_center_permuted(x, y), rel=0.05)


def test_overlap_is_made_larger_by_exchanges_only() -> None:
    Q = normal(5, 5, 5, 5)
    starts = torch.stack([torch.arange(5), torch.arange(5).flip(0)])
    p = largest_overlap(Q, starts)
    i = torch.arange(5)

    def total(q: Tensor) -> float:
        return float(Q[i[:, None], i, q[:, None], q].sum())

    assert sorted(p.tolist()) == [0, 1, 2, 3, 4]
    assert total(p) >= max(total(q) for q in starts)
    beside = [p[torch.tensor([b if k == a else a if k == b else k for k in range(5)])] for a in i for b in i]
    assert max(total(q) for q in beside) <= total(p) + 1e-9


def test_mirror_images_only_where_they_are_asked_for() -> None:
    x = packing(3)
    x = torch.cat([x[:1], x[1:][normal(16, seed=4).argsort()[:11]]])  # no centre of inversion is left
    image = shuffled(-x, rng(1))
    assert rmsd_cluster(x, image) > 0.3
    assert rmsd_cluster(x, image, mirror=True) < 1e-6
    assert assignments(x, image, mirror=True)[0].mirrored
    assert not assignments(x, shuffled(x, rng(2)), mirror=True)[0].mirrored
    assert pm_atom_permuted(x, image) < 1e-6  # blind, as it was published
    cluster = made(x)
    assert match_cluster(cluster, image, n=12).n_matched == 12
    assert match_cluster(cluster, image, n=12, mirror=False).n_matched < 12


def test_equivalent_atoms_may_change_places_where_the_molecule_allows() -> None:
    """Benzene's six carbons, numbered from another corner in every copy."""
    angle = torch.arange(6) * math.pi / 3
    ring = 1.39 * torch.stack([angle.cos(), angle.sin(), 0 * angle], 1).double()
    x = packing(4, volume=120.0).mean(1)[:, None] + ring @ SO3().random(17, generator=rng(8)).mT
    turns = torch.stack([torch.arange(6).roll(k) for k in range(6)])
    maps = torch.cat([turns, turns.flip(1)])
    named = torch.gather(x, 1, maps[torch.randint(12, (17,), generator=rng(2))][..., None].expand(-1, -1, 3))
    y = shuffled(named, rng(7))
    assert rmsd_cluster(x, y) > 0.3
    assert rmsd_cluster(x, y, maps) < 1e-6
    assert pm_atom_permuted(x, y, maps) < 1e-6 < pm_atom_permuted(x, y)
    rings = torch.stack([torch.arange(6), torch.arange(6).roll(-1)], 1)
    assert match_cluster(replace(made(x), bonds=rings), y).n_matched == 15


@pytest.mark.parametrize("copies", [1, 2, 3])
@pytest.mark.parametrize("atoms", [1, 2, 5])
def test_few_molecules_and_few_atoms(copies: int, atoms: int) -> None:
    x = packing(1, atoms=atoms, copies=copies)
    y = shuffled(x, rng(2))
    assert max(rmsd_cluster(x, y), pm_center_permuted(x, y), pm_atom_permuted(x, y)) < 1e-6


def test_what_cannot_be_compared_is_refused() -> None:
    x = packing()
    with pytest.raises(InputError, match="shape"):
        rmsd_cluster(x, x[:9])
    with pytest.raises(InputError, match="shape"):
        match_cluster(made(x), x[:9])
    with pytest.raises(InputError, match="finite"):
        pm_center_permuted(x, x * math.nan)
    with pytest.raises(InputError, match="NaN"):
        match_cluster(made(x), x * math.nan)
    with pytest.raises(InputError, match="automorphisms"):
        rmsd_cluster(x, x, torch.arange(12).repeat(MAX_MAPS + 1, 1))


# ---------------------------------------------------------------- molecules in their places, density


def test_molecules_are_counted_one_by_one() -> None:
    x = packing()
    cluster, y = made(x), x.clone()
    y[3] += torch.tensor([0.0, 0.0, 6.0])  # elsewhere
    middle = y[5].mean(0)
    y[5] = (y[5] - middle) @ SO3().exp(
        torch.eye(3), torch.tensor([0.0, 1.0, 0.0])
    ).double().mT + middle  # turned
    assert match_cluster(cluster, x).n_matched == 15
    assert match_cluster(cluster, shuffled(y, rng(1)), mirror=False).n_matched == 13
    assert match_cluster(cluster, collapsed(x)).n_matched <= 1
    assert match_cluster(cluster, packing(9)).n_matched < 8


def test_bonds_are_perceived_where_there_are_none() -> None:
    cluster = real("cod_2000380")
    bare = Cluster(cluster.numbers, cluster.positions)
    assert match_cluster(bare, shuffled(cluster.positions, rng(0))).n_matched == 15


@pytest.mark.parametrize("name", REAL)
def test_the_volume_is_that_of_the_crystal(name: str) -> None:
    crystal = read_crystal(CIFS / f"{name}.cif")
    x = cluster_of(crystal).positions
    assert volume_per_molecule(x) == pytest.approx(crystal.volume / crystal.n_molecules, rel=0.01)
    wider = x + 0.1 * (x.mean(1) - x.mean((0, 1)))[:, None]
    assert volume_error(x, wider) == pytest.approx(1.1**3 - 1)


def test_no_volume_without_a_closed_cell() -> None:
    x = packing()
    flat = x * torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    for open_ in (collapsed(x), flat, x[:4], torch.zeros_like(x)):
        assert math.isnan(volume_per_molecule(open_))


def test_neighbour_distances_by_hand() -> None:
    """Four on a line, 4 Å apart; then the last one 5 Å from the third: one of four has another distance."""
    x = torch.tensor([0.0, 4, 8, 12])[:, None, None] * torch.tensor([1.0, 0, 0])
    y = torch.tensor([0.0, 4, 8, 13])[:, None, None] * torch.tensor([1.0, 0, 0])
    assert neighbour_distance_error(x, y[[2, 0, 3, 1]]).item() == pytest.approx(0.25)
    assert neighbour_distance_error(x, collapsed(x)).item() == pytest.approx(4)


# ---------------------------------------------------------------- rows and scores


def test_failures_stay_in_the_denominators() -> None:
    x = packing()
    truth = made(x)
    rows = [
        judge_cluster("prediction", "a", 0, truth, x + 50 * normal(17, 1, 3)),
        judge_cluster("prediction", "a", 1, truth, shuffled(x, rng(1))),
        judge_cluster("prediction", "b", 0, truth, None, "diverged: at step 3"),
        judge_cluster("prediction", "b", 1, truth, x * math.nan),
    ]
    scores = summarise_clusters(rows, "prediction", ["a", "b", "c"], top=(1, 2))
    assert scores.failures == {"diverged": 1, "not finite": 1}
    assert (scores.targets, scores.asked) == (3, 4)
    first, both = scores.best_of["1"], scores.best_of["2"]
    assert (first.found.hits, both.found.hits, both.found.asked) == (0, 1, 3)
    assert both.matched == pytest.approx(1 / 3)
    assert (both.near.hits, both.measured.hits, both.measured.asked) == (1, 1, 3)
    assert both.rmsd < 1e-6 < first.rmsd
    assert scores.published.kept.asked == scores.published.compact.asked == scores.clash_free.asked == 4
    assert scores.published.compact.hits == 1
    assert scores.surrounded.asked == 4
    assert scores.as_json()["best_of"]["2"]["found"] == {"hits": 1, "asked": 3}


def test_the_controls_say_what_each_number_is_worth() -> None:
    truth = made(packing(volume=700.0))
    rows = controls("a", truth, rng(0))
    perfect, worst = (summarise_clusters(rows, name, ["a"], (1,)) for name in ("shuffled", "collapsed"))
    assert perfect.published.pm_center > 5  # a perfect answer
    assert perfect.best_of["1"].found.value == 1
    assert perfect.best_of["1"].pm_center_permuted < 1e-6
    assert worst.published.pm_center > 12
    assert worst.best_of["1"].found.value == 0
    assert (worst.surrounded.hits, perfect.surrounded.hits) == (0, 1)
    assert worst.as_json()["rmad"] is None


def test_nothing_asked_is_nothing_known() -> None:
    scores = summarise_clusters([], "prediction", ["a"])
    assert (scores.asked, scores.best_of["1"].found.asked) == (0, 1)
    assert math.isnan(scores.published.pm_center)


def test_a_sample_of_another_molecule_is_refused() -> None:
    with pytest.raises(InputError, match="shape"):
        judge_cluster("prediction", "a", 0, made(packing()), packing(atoms=5))
