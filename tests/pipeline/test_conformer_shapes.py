"""Sources of shapes: counts that add up, stereo, repeatability, time limits that hold."""

import time

import pytest
import torch
from rdkit import Chem

from nucleate.crystal.io import read_molecule
from nucleate.crystal.molecule import Molecule
from nucleate.crystal.stereo import right_stereo
from nucleate.errors import NucleateError
from nucleate.pipeline import conformer_shapes
from nucleate.pipeline.conform import ConformSettings, conform
from nucleate.pipeline.conformer_shapes import Drawn, _embedded, bare, etkdg, is_sound
from nucleate.pipeline.learned_conformers import Learned, source_named
from tests.pipeline.stand_in_conformer_models import ShakenEtkdg

CHIRAL = "C[C@H](O)/C=C/[C@@H](C)F"


def molecule_of(smiles: str) -> Molecule:
    [molecule] = read_molecule(smiles)
    return molecule


# ------------------------------------------------------------------ ETKDG


def test_one_by_one_gives_what_rdkit_gives_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = bare(molecule_of("OCCCO"))
    every = {"pruneRmsThresh": -1.0}  # equal ones too
    at_once = _embedded(graph, 12, 3, time.monotonic() + 60, **every)
    assert len(at_once) == 12
    clock = iter(
        range(10**6)
    )  # every look at the clock costs a second, so that there is no time for 12 at once
    monkeypatch.setattr(conformer_shapes.time, "monotonic", lambda: float(next(clock)))
    one_by_one = _embedded(graph, 12, 3, 20.0, **every)
    assert 2 <= len(one_by_one) < 12
    assert torch.equal(one_by_one, at_once[: len(one_by_one)])


def test_places_of_hydroxyl_hydrogens_are_different_shapes() -> None:
    molecule = molecule_of("OCCO")
    with_them, without = (etkdg(molecule, 12, seed=3, hydrogens=wanted) for wanted in (True, False))
    assert len(with_them.positions) > len(without.positions) >= 1


def test_time_runs_out_with_shapes_in_hand() -> None:
    molecule = molecule_of("C" * 24)
    started = time.monotonic()
    drawn = etkdg(molecule, 5000, time_limit=2.0)
    assert time.monotonic() - started < 6.0
    assert 2 <= len(drawn.positions) < 5000
    assert drawn.asked == 5000


def test_the_largest_seed_is_a_seed() -> None:
    assert len(etkdg(molecule_of("CCO"), 3, seed=2**31 - 1).positions)


def test_what_cannot_be_embedded_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conformer_shapes.rdDistGeom, "EmbedMultipleConfs", lambda *_: [])
    with pytest.raises(NucleateError, match="raise the time limit"):
        etkdg(molecule_of("CCO"), 3)


# ------------------------------------------------------------------ what is sound


def test_torn_crowded_and_infinite_shapes_are_not_sound() -> None:
    molecule = molecule_of("CCCCCC")
    good = etkdg(molecule, 1).positions[0]
    torn, crowded, lost = good.clone(), good.clone(), good.clone()
    torn[0] += 5.0
    crowded[5] = crowded[0] + 0.3
    lost[2, 1] = torch.nan
    assert is_sound(molecule.graph, torch.stack([good, torn, crowded, lost])).tolist() == [
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("smiles", "other"),
    [
        ("C[C@H]1CC[C@@H](C)CC1", "C[C@H]1CC[C@H](C)CC1"),  # no R or S in either
        (
            "O[C@H]1[C@H](O)[C@@H](O)[C@H](O)[C@H](O)[C@@H]1O",
            "O[C@H]1[C@H](O)[C@@H](O)[C@H](O)[C@@H](O)[C@@H]1O",
        ),
        ("C/C=C\\C", "C/C=C/C"),
        ("C[S@](=O)c1ccccc1", "C[S@@](=O)c1ccccc1"),
    ],
)
def test_stereo_without_labels_is_seen(smiles: str, other: str) -> None:
    molecule, wrong = molecule_of(smiles), molecule_of(other)
    shape = etkdg(molecule, 1).positions
    assert right_stereo(molecule.graph, shape).all()
    order = list(wrong.graph.GetSubstructMatch(molecule.graph, useChirality=False))
    relabelled = Chem.RenumberAtoms(wrong.graph, order)
    assert not right_stereo(relabelled, shape).any()


# ------------------------------------------------------------------ learned


def test_mirror_images_are_put_right_and_torn_draws_are_drawn_again() -> None:
    molecule = molecule_of(CHIRAL)
    model = ShakenEtkdg(molecule, mirrored=4, torn=3)
    drawn = Learned(model)(molecule, 20, seed=1)
    assert len(drawn.positions) == 20
    assert right_stereo(molecule.graph, drawn.positions).all()
    assert is_sound(molecule.graph, drawn.positions).all()
    assert drawn.mirrored >= 8
    assert drawn.unsound == drawn.made - 20
    assert drawn.wrong_stereo == 0
    assert sum(model.calls) == drawn.made > 20


def test_another_diastereomer_is_no_mirror_image() -> None:
    wanted, other = molecule_of("C[C@H](O)[C@@H](F)Cl"), molecule_of("C[C@H](O)[C@H](F)Cl")
    with pytest.raises(NucleateError, match=r"none of 40 draws \(0 with torn .* 40 with another stereo\)"):
        Learned(ShakenEtkdg(other))(wanted, 10)


def test_draws_end_after_some_rounds() -> None:
    molecule = molecule_of("CCO")
    model = ShakenEtkdg(molecule, torn=9)
    drawn = Learned(model, rounds=2)(molecule, 10)
    assert drawn.made == 20 == sum(model.calls)
    assert len(drawn.positions) == drawn.made - drawn.unsound < 10


def test_batches_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    molecule = molecule_of("CCO")
    monkeypatch.setattr("nucleate.pipeline.learned_conformers.PAIRS", 4 * len(molecule) ** 2)
    model = ShakenEtkdg(molecule)
    assert len(Learned(model)(molecule, 10).positions) == 10
    assert model.calls == [4, 4, 2]


def test_the_same_seed_gives_the_same_draws() -> None:
    molecule = molecule_of(CHIRAL)
    one, two, other = (Learned(ShakenEtkdg(molecule))(molecule, 5, seed=s).positions for s in (7, 7, 8))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_a_slow_model_is_stopped() -> None:
    molecule = molecule_of("CCO")

    class Slow(ShakenEtkdg):
        def sample(self, graphs, generator, watch=None):
            for step in range(1000):
                time.sleep(0.01)
                watch(step / 1000)
            raise AssertionError("nobody stopped it")

    started = time.monotonic()
    with pytest.raises(NucleateError, match="Raise the time limit"):
        Learned(Slow(molecule))(molecule, 5, time_limit=0.2)
    assert time.monotonic() - started < 3.0


def test_single_atoms_need_no_model() -> None:
    for source in (etkdg, Learned(ShakenEtkdg(molecule_of("CC")))):
        drawn = source(molecule_of("[Na+]"), 5, 0, 1.0)
        assert drawn.positions.tolist() == [[[0, 0, 0]]]


def test_predict_takes_its_conformers_from_the_source_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    molecule = molecule_of("OCCO")
    asked: list[tuple[int, int]] = []

    def source(given: Molecule, n: int, seed: int, time_limit: float) -> Drawn:
        asked.append((n, seed))
        return etkdg(given, n, seed, time_limit)

    monkeypatch.setattr("nucleate.pipeline.conform.source_named", lambda *name: source)
    found = conform(molecule, ConformSettings(conformers="confgf"), seed=4)
    assert asked == [(60, 4)]
    assert found.embedded == len(etkdg(molecule, 60, 4).positions)


def test_etkdg_needs_no_weights() -> None:
    assert source_named("etkdg") is etkdg
