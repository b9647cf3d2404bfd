"""Metrics of conformers: butane by hand, RMSDs as RDKit finds them, what is not made is not forgotten."""

import math
from itertools import pairwise, permutations

import numpy as np
import pytest
import torch
from jaxtyping import Float
from rdkit import Chem
from rdkit.Chem import rdDistGeom, rdMolAlign
from torch import Tensor

from nucleate.errors import InputError
from nucleate.geometry.so3 import kabsch, random_rotation
from nucleate.metrics import conformer_rmsd
from nucleate.metrics.conformer_rmsd import best_rmsds, symmetry
from nucleate.metrics.conformers import Properties, collapsed_rmsds, coverage, property_errors
from nucleate.metrics.rate import Rate

# maps of the heavy atoms behind each
ZOO = {
    "CCC(O)CC(C)C=O": 1,
    "O=[N+]([O-])c1ccccc1": 4,
    "OC(=O)CCC(F)(F)F": 12,
    "CS(=O)(=O)[O-]": 6,
    "NC(N)=[NH2+]": 6,
    "CC(C)Cc1ccc(cc1)C(C)C(=O)O": 8,
    "COP(=O)([O-])OCC": 2,
    "CCON=O": 1,
    "NC(=O)CCC(N)=O": 2,
    "CC(=O)/C=C(/C)[O-]": 1,
    "CC(C)(C)c1cc(C(F)(F)F)ccc1": 36,
    "C[n+]1ccc([O-])cc1": 2,
    "C": 1,
    "[H][H]": 2,
    "O=C=O": 2,
    "CC#CC": 2,
}


def embedded(smiles: str, count: int) -> Chem.Mol:
    graph = Chem.AddHs(Chem.MolFromSmiles(smiles))
    rdDistGeom.EmbedMultipleConfs(graph, count, randomSeed=7)
    return graph


def positions_of(graph: Chem.Mol) -> Float[Tensor, "conformers atoms 3"]:
    return torch.from_numpy(np.stack([c.GetPositions() for c in graph.GetConformers()]))


def butane(*torsions: float) -> Float[Tensor, "conformers 4 3"]:
    """Carbon atoms with C-C 1.53 Å and C-C-C 112 degrees."""
    bond, angle = 1.53, math.radians(112)
    side, along = bond * math.sin(angle), -bond * math.cos(angle)
    made = []
    for degrees in torsions:
        t = math.radians(degrees)
        last = [bond + along, side * math.cos(t), side * math.sin(t)]
        made.append([[-along, side, 0.0], [0.0, 0.0, 0.0], [bond, 0.0, 0.0], last])
    return torch.tensor(made, dtype=torch.float64)


BUTANE = Chem.MolFromSmiles("CCCC")


# ---------------------------------------------------------------- RMSD


@pytest.mark.parametrize(("smiles", "maps"), ZOO.items())
def test_rmsd_is_that_of_rdkit(smiles: str, maps: int) -> None:
    graph = embedded(smiles, 9)
    positions = positions_of(graph)
    bare = Chem.RemoveAllHs(graph) if smiles != "[H][H]" else graph
    theirs = [[rdMolAlign.GetBestRMS(Chem.Mol(bare), bare, j, i) for j in range(4, 9)] for i in range(4)]
    assert symmetry(graph).complete
    assert len(symmetry(graph).maps) == maps
    ours = best_rmsds(graph, positions[:4], positions[4:])
    torch.testing.assert_close(ours, torch.tensor(theirs, dtype=torch.float64), atol=1e-4, rtol=0)


def test_rmsd_does_not_see_motions_and_equal_atoms() -> None:
    graph = embedded("CC(C)Cc1ccc(cc1)C(C)C(=O)O", 3)
    x = positions_of(graph)
    moved = x @ random_rotation(3, generator=torch.Generator().manual_seed(0)).mT + 5.0
    same = symmetry(graph)
    renamed = moved.clone()
    renamed[:, same.heavy] = moved[:, same.heavy[same.maps[-1]]]
    assert not torch.equal(renamed, moved)
    torch.testing.assert_close(
        best_rmsds(graph, x, renamed).diagonal(), torch.zeros(3).double(), atol=1e-6, rtol=0
    )
    table = best_rmsds(graph, x, x)
    torch.testing.assert_close(table, table.T, atol=1e-7, rtol=0)
    assert (table + torch.eye(3) > 0.05).all()


@pytest.mark.parametrize("noise", [0.1, 1e-2, 1e-3])
def test_the_best_of_all_orders_is_found_for_flat_and_straight_molecules(noise: float) -> None:
    """Singular values of nearly 0 and nearly equal ones, where a closed form may lose its digits."""
    generator = torch.Generator().manual_seed(1)
    straight = torch.tensor([[-1.2, 0, 0], [0, 0, 0], [1.2, 0, 0]], dtype=torch.float64)
    ring = torch.tensor([[0.9, 0, 0], [-0.45, 0.78, 0], [-0.45, -0.78, 0]], dtype=torch.float64)
    for smiles, shape, orders in (("O=C=O", straight, [(0, 1, 2), (2, 1, 0)]), ("C1CC1", ring, None)):
        graph = Chem.MolFromSmiles(smiles)
        x, y = (shape + noise * torch.randn(9, 3, 3, generator=generator).double() for _ in range(2))
        x[0], y[0] = shape, -shape  # exactly flat, and turned about
        searched = torch.stack(
            [
                kabsch(y[None, :, list(o)].expand(9, -1, -1, -1), x[:, None].expand(-1, 9, -1, -1)).rmsd
                for o in orders or permutations(range(3))
            ]
        )
        torch.testing.assert_close(best_rmsds(graph, x, y), searched.amin(0), atol=1e-6, rtol=0)
        assert best_rmsds(graph, x, y)[0, 0] < 1e-6


def test_mirror_images_differ_unless_asked() -> None:
    right, left = butane(60.0), butane(-60.0)
    assert best_rmsds(BUTANE, right, left) > 0.4
    assert best_rmsds(BUTANE, right, left, mirror=True) < 1e-7
    graph = embedded("CC(O)CN", 3)
    x = positions_of(graph)
    torch.testing.assert_close(
        best_rmsds(graph, x, -x, mirror=True), best_rmsds(graph, x, x, mirror=True), atol=1e-7, rtol=0
    )


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = embedded("CC(C)(C)c1cc(C(F)(F)F)ccc1", 10)
    x = positions_of(graph)
    whole = best_rmsds(graph, x, x)
    monkeypatch.setattr(conformer_rmsd, "AT_ONCE", 30)
    torch.testing.assert_close(best_rmsds(graph, x, x), whole)


def test_too_many_orders_give_an_upper_bound_and_say_so() -> None:
    graph = embedded("CC(C)(C)c1cc(C(F)(F)F)ccc1", 6)
    x = positions_of(graph)
    few = symmetry(graph, most=3)
    assert not few.complete
    assert few.maps[0].equal(torch.arange(len(few.heavy)))
    some, best = best_rmsds(few, x, x), best_rmsds(graph, x, x)
    assert (some >= best - 1e-7).all()
    assert (some > best + 1e-3).any()
    assert some.diagonal().max() < 1e-6


def test_positions_that_are_not_numbers_are_refused() -> None:
    broken = butane(60.0)
    broken[0, 0, 0] = torch.nan
    with pytest.raises(InputError, match="finite"):
        best_rmsds(BUTANE, butane(180.0), broken)
    assert best_rmsds(BUTANE, butane(180.0), broken[:0]).shape == (1, 0)


# ---------------------------------------------------------------- coverage


def test_butane_by_hand() -> None:
    """References anti, gauche+, gauche-; made are anti twice, gauche+ and something eclipsed."""
    references, made = butane(180.0, 60.0, -60.0), butane(180.0, 180.0, 60.0, 0.0)
    d = best_rmsds(BUTANE, references, made)
    lost = min(float(d[2, 0]), float(d[2, 3]))  # gauche- is nearest to anti or to the eclipsed one
    astray = float(d[:, 3].min())
    assert min(lost, astray) > 0.2
    radii = collapsed_rmsds(references, torch.arange(4))
    found = coverage(d, radii, asked=4, threshold=0.2)
    assert found.cov_r == pytest.approx(2 / 3)
    assert found.mat_r == pytest.approx(lost / 3, abs=1e-6)
    assert found.cov_p == pytest.approx(3 / 4)
    assert found.mat_p == pytest.approx(astray / 4, abs=1e-6)
    assert coverage(d, radii, 4, threshold=10.0).cov_r == 1.0


def test_a_table_by_hand() -> None:
    d = torch.tensor([[0.1, 0.9, 0.5], [0.7, 0.6, 0.8]])
    found = coverage(d, torch.tensor([2.0, 3.0]), asked=3, threshold=0.5)
    assert found.cov_r == 0.5  # 0.1, and not 0.6
    assert found.mat_r == pytest.approx(0.35)
    assert found.cov_p == pytest.approx(2 / 3)  # 0.1, 0.6, and 0.5, which is the threshold itself
    assert found.mat_p == pytest.approx(0.4)


def test_conformers_not_made_stay_in_the_denominators() -> None:
    d, radii = torch.tensor([[0.1, 0.9], [0.7, 0.6]]), torch.tensor([2.0, 3.0])
    found = coverage(d, radii, asked=8)
    assert found.made == Rate(2, 8)
    assert found.cov_r == 0.5
    assert found.mat_r == pytest.approx(0.35)
    assert found.cov_p == 1 / 8
    assert found.mat_p == pytest.approx((0.1 + 0.6 + 6 * 2.0) / 8)  # six on one spot
    nothing = coverage(d[:, :0], radii, asked=8)
    assert (nothing.cov_r, nothing.cov_p) == (0.0, 0.0)
    assert (nothing.mat_r, nothing.mat_p) == (2.5, 2.0)


def test_giving_up_gains_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    references, made = (
        butane(180.0, 60.0, -60.0),
        butane(*(360 * torch.rand(12, generator=generator)).tolist()),
    )
    d, radii = best_rmsds(BUTANE, references, made), collapsed_rmsds(references, torch.arange(4))
    ladder = [coverage(d[:, :k], radii, asked=12, threshold=0.3) for k in range(13)]
    for less, more in pairwise(ladder):
        assert more.cov_r >= less.cov_r
        assert more.cov_p >= less.cov_p
        assert more.mat_r <= less.mat_r
        assert more.mat_p < less.mat_p


def test_recall_alone_does_not_see_rubbish() -> None:
    """The published numbers ask only whether references are found: every sample more can but help them."""
    references, rubbish = butane(180.0, 60.0, -60.0), butane(*range(-170, 180, 10))
    radii = collapsed_rmsds(references, torch.arange(4))
    good, rich = (
        coverage(d, radii, d.shape[1], 0.1)
        for d in (best_rmsds(BUTANE, references, x) for x in (references, torch.cat([references, rubbish])))
    )
    assert good.cov_r == rich.cov_r == 1.0
    assert rich.mat_r == pytest.approx(good.mat_r, abs=1e-6)
    assert good.cov_p == 1.0
    assert rich.cov_p < 0.5
    assert rich.mat_p > 0.1


def test_hydrogens_are_not_seen() -> None:
    graph = embedded("CO", 1)
    x = positions_of(graph)
    turned = x.clone()
    turned[:, 5] = 2 * x[:, 1] - x[:, 5]  # the hydrogen of the hydroxyl group on the wrong side
    assert best_rmsds(graph, x, turned) < 1e-7


def test_a_collapsed_conformer_is_as_far_as_it_is_said_to_be() -> None:
    references = butane(180.0, 60.0)
    spot = best_rmsds(BUTANE, references, torch.zeros(1, 4, 3, dtype=torch.float64))[:, 0]
    torch.testing.assert_close(collapsed_rmsds(references, torch.arange(4)), spot)


@pytest.mark.parametrize(("shape", "asked"), [((0, 2), 2), ((2, 3), 2), ((2, 0), 0)])
def test_impossible_numbers_are_refused(shape: tuple[int, int], asked: int) -> None:
    with pytest.raises(InputError, match="asked for"):
        coverage(torch.zeros(shape), torch.ones(shape[0]), asked)


# ---------------------------------------------------------------- properties


def ensemble(energies: list[float], gaps: list[float]) -> Properties:
    return Properties(torch.tensor(energies), torch.tensor(gaps))


def test_property_errors_by_hand() -> None:
    references = [ensemble([-10.0, -9.0], [5.0, 7.0]), ensemble([-3.0], [4.0])]
    made = [ensemble([-9.5, -7.5, math.nan], [5.0, 8.0, 1.0]), ensemble([-2.0], [4.5])]
    errors = property_errors(made, references)
    assert errors.mean_energy == pytest.approx((1.0 + 1.0) / 2)  # -8.5 for -9.5
    assert errors.min_energy == pytest.approx((0.5 + 1.0) / 2)
    assert errors.mean_gap == pytest.approx((0.5 + 0.5) / 2)
    assert errors.min_gap == pytest.approx(
        (0.0 + 0.5) / 2
    )  # the gap of the one without energy does not count
    assert errors.max_gap == pytest.approx((1.0 + 0.5) / 2)
    assert (errors.molecules, errors.conformers) == (Rate(2, 2), Rate(3, 4))


def test_a_molecule_without_numbers_is_counted_and_not_compared() -> None:
    references = [ensemble([-1.0], [5.0]), ensemble([-1.0], [5.0])]
    errors = property_errors([ensemble([-1.0], [5.0]), ensemble([math.nan], [5.0])], references)
    assert (errors.mean_energy, errors.molecules) == (0.0, Rate(1, 2))
    assert math.isnan(property_errors([ensemble([], [])], references[:1]).mean_energy)
