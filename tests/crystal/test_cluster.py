"""Clusters and padded batches of them: what goes in comes out, and padding changes nothing."""

import pytest
import torch

from nucleate.crystal.cluster import Cluster, ClusterBatch, padded_centroids


def cluster(atoms: int, molecules: int = 5, seed: int = 0) -> Cluster:
    g = torch.Generator().manual_seed(seed)
    numbers = torch.randint(1, 10, (atoms,), generator=g)
    bonds = torch.stack([torch.arange(atoms - 1), torch.arange(1, atoms)], 1)
    positions = torch.randn(molecules, atoms, 3, dtype=torch.float64, generator=g)
    return Cluster(numbers, positions, f"c{atoms}", bonds)


def test_a_batch_splits_into_what_it_was_made_of() -> None:
    clusters = [cluster(3), cluster(7, seed=1), cluster(1, seed=2)]
    batch = ClusterBatch.from_list(clusters)
    assert batch.positions.shape == (3, 5, 7, 3)
    assert batch.mask.sum(1).tolist() == [3, 7, 1]
    assert (batch.positions.transpose(1, 2)[~batch.mask] == 0).all()
    for before, after in zip(clusters, batch.split(clusters)):
        assert torch.equal(after.positions, before.positions)
        assert (after.name, after.bonds is before.bonds) == (before.name, True)


def test_centroids_do_not_see_the_padding() -> None:
    clusters = [cluster(3), cluster(7, seed=1)]
    batch = ClusterBatch.from_list(clusters)
    torch.testing.assert_close(batch.centroids, torch.stack([c.centroids for c in clusters]))
    garbage = torch.where(batch.mask[:, None, :, None], batch.positions, 99.0)
    torch.testing.assert_close(padded_centroids(garbage, batch.mask), batch.centroids)


def test_a_choice_of_a_batch_is_a_batch() -> None:
    batch = ClusterBatch.from_list([cluster(3), cluster(7, seed=1), cluster(2, seed=2)])
    assert torch.equal(batch[[2, 0]].numbers, batch.numbers[[2, 0]])
    assert torch.equal(batch[1].positions, batch.positions[1:2])
    assert len(batch[1:]) == 2


def test_sizes_count_molecules_and_atoms() -> None:
    one = cluster(3)
    assert (len(one), one.n_molecules) == (15, 5)
    assert Cluster(one.numbers, one.positions).bonds.shape == (0, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": torch.zeros(0, 3, 3)}, "empty cluster"),
        ({"positions": torch.full((5, 3, 3), torch.nan)}, "finite"),
        ({"bonds": torch.tensor([[0, 3]])}, "bonds between the 3 atoms"),
        ({"bonds": torch.tensor([[-1, 0]])}, "bonds between the 3 atoms"),
    ],
)
def test_what_is_no_cluster_is_refused(change: dict[str, torch.Tensor], message: str) -> None:
    fields = {"numbers": torch.tensor([8, 1, 1]), "positions": torch.zeros(5, 3, 3)} | change
    with pytest.raises(ValueError, match=message):
        Cluster(**fields)


@pytest.mark.parametrize("clusters", [[], [cluster(3), cluster(3, molecules=4)]], ids=["none", "two sizes"])
def test_batches_are_of_one_size(clusters: list[Cluster]) -> None:
    with pytest.raises(ValueError, match="equally many molecules"):
        ClusterBatch.from_list(clusters)
