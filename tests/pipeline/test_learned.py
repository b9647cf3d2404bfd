"""Laws of packings from learned weights: they hold whatever the weights are."""

import math
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nucleate.crystal.packing import Packings
from nucleate.crystal.standardise import find_symmetry
from nucleate.errors import InputError, NucleateError
from nucleate.generative.checkpoint import read_tensors, write_tensors
from nucleate.geometry.so3 import random_rotation
from nucleate.geometry.symmetry import SpaceGroup, obeys
from nucleate.physics.minimise import CLASH, closest_contacts
from nucleate.physics.parameters import KJ_PER_MOL, atomic_volume
from nucleate.pipeline.generate import CONFORMER_TEMPERATURE, Arm, Composition, arms, random_packings
from nucleate.pipeline.learned import LearnedGenerator, SamplingSettings, generator_named, shares_of
from tests.pipeline.conftest import composition_of
from tests.pipeline.tiny_weights import write_tiny_weights

QUICK = SamplingSettings(steps=2)
POSE = ("lattice", "centroid", "rotation")


def arm_of(group: str | int, units: int = 1) -> Arm:
    space_group = SpaceGroup.from_name(group)
    return Arm(space_group.symbol, space_group, units)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_weights(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def generator(weights: Path) -> LearnedGenerator:
    return LearnedGenerator(weights, QUICK)


def away(one: Packings, two: Packings) -> float:
    """Largest difference of cells, centroids (on the torus) and rotations; infinity where anything else differs."""
    same = torch.equal(one.handedness, two.handedness) and torch.equal(one.conformer, two.conformer)
    shift = (one.centroid - two.centroid + 0.5) % 1.0 - 0.5
    parts = [shift, one.lattice - two.lattice, one.rotation - two.rotation]
    return max(float(x.abs().max()) for x in parts) if same else math.inf


# ------------------------------------------------------------------ samples


@pytest.mark.parametrize("sequence", ["sobol", "random"])
def test_a_sample_depends_on_its_number_alone(
    sequence: Any, generator: LearnedGenerator, formamide: Composition
) -> None:
    """In another batch (of another size, at another place) it is the same but for rounding."""
    arm = arm_of(14)
    whole = generator.packings(formamide, arm, 0, 40, 5, sequence)
    assert len(whole) == 40
    for first, count in ((13, 9), (39, 1), (20, 20)):
        part = generator.packings(formamide, arm, first, count, 5, sequence)
        assert away(part, whole[slice(first, first + count)]) < 1e-4
    assert away(generator.packings(formamide, arm, 0, 40, 5, sequence), whole) == 0
    for other in (
        generator.packings(formamide, arm, 0, 40, 6, sequence),
        generator.packings(formamide, arm_of(33), 0, 40, 5, sequence),
    ):
        assert (other.centroid - whole.centroid).abs().amax((1, 2)).min() > 1e-4


@pytest.mark.parametrize("group", [1, 2, 4, 9, "P21/n", 15, 19, 33, 61, 88, 96, 146, 148, 169, 198])
def test_samples_are_exactly_symmetric(
    group: str | int, generator: LearnedGenerator, formamide: Composition
) -> None:
    arm = arm_of(group)
    packings = generator.packings(formamide, arm, 0, 12, 1)
    assert len(packings) > 6
    assert obeys(arm.group, packings.lattice, 1e-12).all()
    eye = torch.eye(3, dtype=torch.float64).expand_as(packings.rotation)
    torch.testing.assert_close(packings.rotation @ packings.rotation.mT, eye, atol=1e-10, rtol=0)
    assert (torch.linalg.det(packings.rotation) > 0).all()
    assert find_symmetry(packings.crystal(2), 1e-3).number == arm.group.number
    ratio = packings.volume / (formamide.volume * len(arm.group))
    assert 0.5 < ratio.median() < 2.5


def test_numbers_of_the_space_group_prior_reach_the_noise(
    weights: Path, formamide: Composition, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the network stands still, samples are the prior: the volume it was told with 6 % spread, uniform poses."""

    def still(lattice: Tensor, centroid: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
        return torch.zeros_like(lattice), torch.zeros_like(centroid), torch.zeros_like(centroid)

    generator = LearnedGenerator(weights, SamplingSettings(steps=2, volume="sampled"))
    monkeypatch.setattr(generator.flow.network, "forward", still)
    packings = generator.packings(formamide, arm_of(14), 0, 1024, 0)
    logs = (packings.volume / (4 * atomic_volume(formamide.species[0]))).log()
    assert logs.mean() == pytest.approx(0.067, abs=0.005)
    assert logs.std() == pytest.approx(0.06, rel=0.1)
    assert (packings.centroid.mean((0, 1)) - 0.5).abs().max() < 0.02
    assert packings.rotation.mean((0, 1)).abs().max() < 0.05  # the mean of the Haar measure is zero


@pytest.mark.parametrize("group", [2, 14, 148])
def test_samples_take_the_predicted_volume_and_nothing_else_changes(
    group: int, weights: Path, formamide: Composition
) -> None:
    """Cells differ by one factor each; poses, hands and numbers are those of the flow."""
    arm = arm_of(group)
    given, sampled = (
        LearnedGenerator(weights, SamplingSettings(steps=2, volume=name)).starts(formamide, arm, 0, 24, 3)
        for name in ("predicted", "sampled")
    )
    assert torch.equal(given.number, sampled.number)
    each = given.packings.volume / (len(arm.group) * formamide.volume)
    torch.testing.assert_close(each, torch.ones_like(each), atol=1e-9, rtol=0)
    factor = (given.packings.volume / sampled.packings.volume) ** (1 / 3)
    assert factor.std() > 0.01
    torch.testing.assert_close(given.packings.lattice, sampled.packings.lattice * factor[:, None, None])
    assert torch.equal(given.packings.centroid, sampled.packings.centroid)
    assert torch.equal(given.packings.rotation, sampled.packings.rotation)


def test_arms_that_share_calls_get_the_samples_that_they_get_alone(
    weights: Path, formamide: Composition
) -> None:
    """Also where samples are drawn again, and whatever the orders of the groups."""
    generator = LearnedGenerator(weights, SamplingSettings(steps=2, draws=3))
    wanted = [(arm_of(148), 4, 3), (arm_of(1), 0, 5), (arm_of(14), 2, 30), (arm_of(19), 0, 1)]
    for together, (arm, first, count) in zip(generator.batch(formamide, wanted, 7), wanted):
        alone = generator.starts(formamide, arm, first, count, 7)
        assert torch.equal(together.number, alone.number)
        assert torch.equal(together.draws, alone.draws)
        assert away(together.packings, alone.packings) < 1e-4
        assert together.packings.group is arm.group


def test_one_enantiomer_stays_and_hands_are_those_of_random_starts(generator: LearnedGenerator) -> None:
    for smiles in ("C[C@H](N)C(=O)O", "CC(N)C(=O)O"):
        composition = composition_of(smiles)
        own = generator.packings(composition, arm_of("P21"), 0, 8, 0).handedness
        assert torch.equal(own, random_packings(composition, arm_of("P21"), 0, 8, 0).handedness)
        assert (own == 1).all()


def three_conformers(formamide: Composition) -> Composition:
    molecule = formamide.species[0]
    three = molecule.with_conformers(molecule.conformers.repeat(3, 1, 1))
    energies = torch.tensor([0.0, 4.0, 16.0], dtype=torch.float64) * KJ_PER_MOL
    return replace(formamide, species=(three,), conformer_energies=(energies,))


def test_shares_of_conformers_fall_with_their_energies_however_often_samples_are_drawn(
    weights: Path, formamide: Composition
) -> None:
    composition = three_conformers(formamide)
    energies = composition.conformer_energies[0]
    generator = LearnedGenerator(weights, SamplingSettings(steps=1, draws=2))
    chosen = generator.packings(composition, arm_of(1), 0, 512, 0).conformer[:, 0]
    shares = torch.bincount(chosen, minlength=3).double() / len(chosen)
    expected = torch.softmax(-energies / CONFORMER_TEMPERATURE, 0)
    torch.testing.assert_close(shares, expected, atol=0.02, rtol=0)


def test_each_conformer_is_told_to_the_network(generator: LearnedGenerator) -> None:
    """The same numbers with another conformer end elsewhere, and with the same one under another number do not."""
    glycol = composition_of("OCCO")
    first, second = glycol.species[0].conformers[:2]
    ends = []
    for pair in ((first, second), (first, first), (second, first)):
        molecule = glycol.species[0].with_conformers(torch.stack(pair))
        equal = torch.zeros(2, dtype=torch.float64)
        composition = replace(glycol, species=(molecule,), conformer_energies=(equal,))
        ends.append(generator.packings(composition, arm_of(2), 0, 12, 0))
    one = ends[0].conformer[:, 0] == 1
    assert one.any()
    assert not one.all()
    apart = (ends[0].lattice - ends[1].lattice).abs().amax((1, 2))
    assert apart[~one].max() < 1e-4
    assert apart[one].min() > 1e-4
    swapped = (ends[2].lattice - ends[0].lattice).abs().amax((1, 2))
    assert swapped.min() > 1e-4


def test_molecules_may_be_written_in_any_frame(generator: LearnedGenerator) -> None:
    """A turned conformer gives the same crystals, atom for atom."""
    acid = composition_of("OC(F)C=O")
    molecule = acid.species[0]
    turn = random_rotation(generator=torch.Generator().manual_seed(1))
    turned = replace(acid, species=(molecule.with_conformers(molecule.conformers @ turn.mT),))
    one, two = (generator.packings(c, arm_of(14), 0, 10, 0) for c in (acid, turned))
    torch.testing.assert_close(one.lattice, two.lattice, atol=1e-3, rtol=0)
    torch.testing.assert_close(one.positions(), two.positions(), atol=1e-3, rtol=0)


# ------------------------------------------------------------------ overlaps and failures


def test_samples_that_overlap_are_drawn_again_and_the_first_clear_one_stays(weights: Path) -> None:
    water = composition_of("O")
    arm = arm_of(1)
    # 40 samples: the noise of number 41 is too flat a cell for anything
    once, often = (
        LearnedGenerator(weights, SamplingSettings(steps=1, draws=n, volume="sampled")).starts(
            water, arm, 0, 40, 0
        )
        for n in (1, 6)
    )
    field = LearnedGenerator(weights)._of(water).field
    clear, now = (closest_contacts(s.packings, field) >= CLASH for s in (once, often))
    assert torch.equal(once.number, torch.arange(40))
    assert torch.equal(often.number, torch.arange(40))
    assert 0 < clear.sum() < now.sum()
    assert away(once.packings[clear], often.packings[clear]) < 1e-4
    assert (often.draws[clear] == 1).all()
    assert (often.draws[~clear] > 1).all()
    assert (often.draws[~now] == 6).all()
    stuck = ~now  # none of six was clear: the first is kept, so that volumes do not grow with the draws
    assert away(once.packings[stuck], often.packings[stuck]) < 1e-4


def test_a_network_that_fails_for_some_costs_only_these(
    generator: LearnedGenerator, formamide: Composition, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = generator.starts(formamide, arm_of(14), 3, 40, 0)
    forward = generator.flow.network.forward

    def failing(lattice: Tensor, centroid: Tensor, rotation: Tensor, t: Tensor, condition: Any) -> Any:
        strain, shift, turn = forward(lattice, centroid, rotation, t, condition)
        bad = (centroid[:, 0, 0] > 0.5)[:, None]
        return (
            torch.where(bad[..., None], math.nan, strain),
            torch.where(bad[..., None], math.inf, shift),
            turn,
        )

    monkeypatch.setattr(generator.flow.network, "forward", failing)
    some = generator.starts(formamide, arm_of(14), 3, 40, 0)
    assert 5 < len(some.packings) < 35
    rows = torch.searchsorted(sound.number, some.number)
    assert torch.equal(sound.number[rows], some.number)
    assert away(sound.packings[rows], some.packings) < 1e-4

    def broken(lattice: Tensor, centroid: Tensor, *_: Any) -> Any:
        return torch.full_like(lattice, 1e30), torch.zeros_like(centroid), torch.zeros_like(centroid)

    monkeypatch.setattr(generator.flow.network, "forward", broken)
    assert len(generator.packings(formamide, arm_of(14), 0, 7, 0)) == 0


# ------------------------------------------------------------------ what it cannot do


def test_what_the_weights_do_not_know_is_refused_by_name(
    generator: LearnedGenerator, formamide: Composition
) -> None:
    pair = composition_of("O.NC=O")
    assert generator.refusal(formamide, arm_of(14)) == ""
    assert generator.refusal(pair, arm_of(14)) == "several kinds of molecules"
    two = "2 molecules in the asymmetric unit, the weights know 1"
    assert generator.refusal(formamide, arm_of(14, 2)) == two
    with pytest.raises(InputError, match=r"P21/c with 2 molecules in the asymmetric unit"):
        generator.packings(formamide, arm_of(14, 2), 0, 3, 0)
    wanted = arms(formamide, "14,2", z_prime=(1.0, 2.0))
    assert generator.refusals(formamide, wanted) == {two: ["P21/c Z'=2", "P-1 Z'=2"]}
    assert shares_of(generator, 0.5, formamide, wanted).tolist() == [0.5, 0.0, 0.5, 0.0]
    assert shares_of(None, 0.5, formamide, wanted).tolist() == [0.0] * 4


def test_a_generator_by_name(weights: Path, formamide: Composition) -> None:
    wanted = arms(formamide, "14")
    assert generator_named("random", None, QUICK, formamide, wanted) == (None, 0.0)
    for name, expected in (("molcrystalflow", 1.0), ("mixture", 0.5)):
        found, share = generator_named(name, weights, QUICK, formamide, wanted)
        assert isinstance(found, LearnedGenerator)
        assert share == expected
    with pytest.raises(InputError, match=r"--weights: expected --generator auto, molcrystalflow or mixture"):
        generator_named("random", weights, QUICK, formamide, wanted)
    with pytest.raises(InputError, match=r"--weights: expected a file of weights, found none at nowhere"):
        generator_named("mixture", Path("nowhere"), QUICK, formamide, wanted)
    with pytest.raises(
        InputError, match=r"can make, got several kinds of molecules\. Choose --generator random"
    ):
        generator_named("mixture", weights, QUICK, composition_of("O.NC=O"), wanted)


def test_weights_of_other_settings_are_refused(weights: Path, tmp_path: Path) -> None:
    tensors, about = read_tensors(weights)
    other = tmp_path / "other.safetensors"
    write_tensors(other, tensors, {**about, "model": {**about["model"], "width": 32}})
    with pytest.raises(InputError, match=r"expected the weights of this network"):
        LearnedGenerator(other)
    write_tensors(other, tensors, {**about, "model": {**about["model"], "colour": 1}})
    with pytest.raises(InputError, match=r"this version can use, got .*other\.safetensors.*\(colour\)"):
        LearnedGenerator(other)
    write_tensors(other, tensors, {**about, "model": {**about["model"], "network": "molcrystalnet"}})
    with pytest.raises(InputError, match=r"expected weights of the network pose, got molcrystalnet"):
        LearnedGenerator(other)


def test_other_processes_read_the_same_file_or_none(
    weights: Path, tmp_path: Path, formamide: Composition
) -> None:
    own = tmp_path / "weights.safetensors"
    own.write_bytes(weights.read_bytes())
    generator = LearnedGenerator(own, QUICK)
    sent = pickle.dumps(generator)
    assert len(sent) < 1000
    again = pickle.loads(sent)  # noqa: S301
    assert away(*(g.packings(formamide, arm_of(2), 0, 5, 0) for g in (generator, again))) == 0
    tensors, about = read_tensors(own)
    write_tensors(own, {name: x + 0.1 for name, x in tensors.items()}, about)
    with pytest.raises(NucleateError, match=r"expected .*weights\.safetensors to stay as it was"):
        pickle.loads(sent)  # noqa: S301
