"""Ensembles: weights, mirror images, overlay, counts that add up, models of energy."""

import math
import time
from typing import Any

import pytest
import torch
from rdkit import Chem

from nucleate.crystal.io import read_molecule
from nucleate.crystal.stereo import right_stereo
from nucleate.errors import InputError, NucleateError
from nucleate.geometry.so3 import kabsch
from nucleate.physics import molecule_energy
from nucleate.physics.parameters import KJ_PER_MOL
from nucleate.pipeline.conformer_shapes import Drawn, etkdg
from nucleate.pipeline.ensemble import Ensemble, EnsembleSettings, enough, ensemble

LOSSES = (
    *("out_of_time", "lost_stereo", "lost_bonds", "other_diastereomer", "alike", "beyond", "not_converged"),
    *("wrong_stereo", "unsound"),
)


def ensemble_of(smiles: str, **options: object) -> Ensemble:
    [molecule] = read_molecule(smiles)
    return ensemble(molecule, EnsembleSettings.model_validate(options))


def test_butane_is_half_trans_with_two_gauche_forms() -> None:
    found = ensemble_of("CCCC", n=5)
    assert found.images.tolist() == [1, 2]  # trans; gauche and its mirror image
    gap = float(found.energies[1]) / KJ_PER_MOL
    assert 2.0 < gap < 5.0
    ratio = 2 * math.exp(-gap * 1000 / (8.314462 * 298.15))
    torch.testing.assert_close(
        found.weights, torch.tensor([1.0, ratio]).double() / (1 + ratio), atol=1e-5, rtol=0
    )


def test_mirror_images_count_once_where_the_hand_is_fixed() -> None:
    found = ensemble_of("C[C@H](O)CC", n=20)
    assert set(found.images.tolist()) == {1}
    assert right_stereo(found.molecule.graph, found.positions).all()


def test_conformers_lie_over_the_lowest() -> None:
    found = ensemble_of("OCCCF", n=6)
    heavy = found.positions[:, found.molecule.heavy]
    assert found.distances[0] == 0
    for k in range(1, len(heavy)):
        gap = (heavy[k] - heavy[0]).square().sum(-1).mean().sqrt()  # as they lie, and by name
        assert gap == pytest.approx(float(kabsch(heavy[k], heavy[0]).rmsd), abs=1e-6)
        assert gap == pytest.approx(float(found.distances[k]), abs=1e-6)


@pytest.mark.parametrize(
    ("smiles", "options"),
    [
        ("OCCCO", {"n": 4}),
        ("CC(O)C(F)Cl", {"n": 30}),
        ("OCCO", {"n": 3, "window": 5.0}),
        ("CCO", {"optimise": "none", "n": 2}),
    ],
)
def test_every_shape_is_accounted_for(smiles: str, options: dict[str, object]) -> None:
    counts = ensemble_of(smiles, **options).counts
    assert counts["made"] == counts["handed_over"] + sum(counts.get(name, 0) for name in LOSSES)


def test_at_most_n_within_the_window_lowest_first() -> None:
    found = ensemble_of("OCCCO", n=20, window=6.0)
    assert 1 < len(found.energies) <= 20
    assert (found.energies.diff() >= 0).all()
    assert float(found.energies.max()) <= 6.0 * KJ_PER_MOL
    assert float(found.weights.sum()) == pytest.approx(1)
    assert len(ensemble_of("OCCCO", n=2).energies) == 2


def test_oxygens_of_a_carboxylate_are_equal() -> None:
    assert len(ensemble_of("[NH3+]CC(=O)[O-]").energies) == 1


def test_shapes_can_stay_as_they_are() -> None:
    [molecule] = read_molecule("CCCC")
    drawn = etkdg(molecule, 20)
    found = ensemble(molecule, EnsembleSettings(optimise="none", samples=20))
    assert found.energy_model == "MMFF94, dielectric 4, shapes not optimised"
    bond = lambda x: (x[..., 0, :] - x[..., 1, :]).norm(dim=-1)  # noqa: E731
    kept = bond(found.positions)
    assert all((bond(drawn.positions) - length).abs().min() < 1e-6 for length in kept)


def test_without_any_force_field_shapes_come_without_energies() -> None:
    with pytest.raises(InputError, match="knows all atoms"):
        ensemble_of("F[Xe]F")
    found = ensemble_of("F[Xe]F", optimise="none")
    assert found.energies.isnan().all()
    assert len(found.positions) == len(found.energies) >= 1


@pytest.mark.parametrize(
    ("smiles", "shapes"),
    [("c1ccccc1", 10), ("C1CCCCC1", 20), ("CCCCC", 40), ("O=C1CCCCCCCCCCCCO1", 200), ("C" * 60, 200)],
)
def test_flexible_molecules_are_searched_harder(smiles: str, shapes: int) -> None:
    assert enough(read_molecule(smiles)[0].graph) == shapes


@pytest.mark.parametrize("smiles", ["[Na+]", "[H][H]", "Cl", "O", "O=C=O"])
def test_small_things_have_one_conformer(smiles: str) -> None:
    found = ensemble_of(smiles)
    assert found.energies.tolist() == [0.0]
    assert found.weights.tolist() == [1.0]


def test_complexes_are_refused() -> None:
    with pytest.raises(InputError, match="Pt with 4 bonds") as caught:
        ensemble_of("[NH3][Pt]([NH3])(Cl)Cl")
    assert caught.value.reason == "metal complex"


def test_shapes_that_lose_their_stereo_are_counted_and_refused() -> None:
    [molecule] = read_molecule("C[C@H](F)CO")
    shapes = etkdg(molecule, 4).positions
    wrong = Drawn(torch.cat([shapes, -shapes]), 8, 8)
    found = ensemble(molecule, EnsembleSettings(n=20), source=lambda *asked: wrong)
    assert found.counts["lost_stereo"] == len(shapes)
    assert right_stereo(molecule.graph, found.positions).all()
    all_wrong = Drawn(-shapes, len(shapes), len(shapes))
    with pytest.raises(NucleateError, match="bonds and stereo"):
        ensemble(molecule, EnsembleSettings(n=20), source=lambda *asked: all_wrong)


def test_the_time_limit_holds_and_says_what_was_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    one_shape = molecule_energy._optimised

    def slow(*given: Any) -> Any:
        time.sleep(0.2)
        return one_shape(*given)

    monkeypatch.setattr(molecule_energy, "_optimised", slow)
    started = time.monotonic()
    found = ensemble_of("OCCCO", n=500, samples=40, time_limit=1.0)
    assert time.monotonic() - started < 3.0
    assert found.counts["out_of_time"] > 0
    assert 1 <= len(found.energies) < found.counts["made"]


def test_the_same_seed_gives_the_same_ensemble() -> None:
    one, two = (ensemble_of("OCC(O)CO", n=5, seed=3) for _ in range(2))
    assert torch.equal(one.positions, two.positions)
    assert torch.equal(one.weights, two.weights)


@pytest.mark.extra
def test_gfn2_looks_at_the_minima_of_the_force_field_again() -> None:
    pytest.importorskip("tblite")
    found = ensemble_of("CCCC", n=2, optimise="gfn2")
    assert found.energy_model == "GFN2-xTB"
    assert found.images.tolist() == [1, 2]
    assert 1.0 < float(found.energies[1]) / KJ_PER_MOL < 5.0
    assert Chem.CanonSmiles(found.molecule.smiles) == "CCCC"
