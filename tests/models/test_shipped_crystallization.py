"""The weights that come with the package put clusters (that they learnt from) in better order than they were given."""

from pathlib import Path

import pytest
import torch

from nucleate.crystal.cluster import ClusterBatch
from nucleate.crystal.io import read_crystal
from nucleate.data.clusters import Loosening, cluster_of, evaluation_copies
from nucleate.generative.seeds import generator_of
from nucleate.metrics.clusters import pm_center_permuted
from nucleate.models.crystallization import Walk
from nucleate.models.crystallization_training import CrystallizationSettings, crystallizer_of
from nucleate.weights import find_weights, read_weights

CIFS = Path(__file__).parents[1] / "data"
NAMES = ("1100989", "2003630", "7100858")


@pytest.mark.parametrize("inversion", [False, True])
def test_shipped_weights_order_molecules(inversion: bool) -> None:
    weights = read_weights(find_weights("crystallization"), "crystallization")
    method = weights.fill(crystallizer_of(weights.settings(CrystallizationSettings)))
    truths = [cluster_of(read_crystal(CIFS / f"cod_{name}.cif").replace(info={"id": name})) for name in NAMES]
    loose = evaluation_copies(truths, Loosening(inversion=inversion), 0)
    found = method.sample(ClusterBatch.from_list(loose), generator_of(0), Walk(2))
    before, after = torch.zeros(2)
    for truth, start, x in zip(truths, loose, found):
        before += pm_center_permuted(truth.positions, start.positions)
        after += pm_center_permuted(truth.positions, x[:, : len(truth.numbers)].double())
    assert after < 0.85 * before
