"""Laws of the generator of starts: symmetry, volume, shape, repeatability, chemistry."""

from dataclasses import replace

import pytest
import torch
from scipy.stats import qmc

from nucleate.crystal.standardise import find_symmetry
from nucleate.errors import InputError
from nucleate.geometry.lattice import heights
from nucleate.geometry.symmetry import SpaceGroup, obeys
from nucleate.physics.parameters import KJ_PER_MOL
from nucleate.pipeline.generate import (
    CONFORMER_TEMPERATURE,
    SMALLEST_HEIGHT,
    VOLUME_RANGE,
    Arm,
    Composition,
    arms,
    perturbed_packings,
    random_packings,
)
from tests.pipeline.conftest import composition_of

GROUPS = [1, 2, 3, 5, 7, 9, 14, 15, 19, 20, 33, 43, 56, 61, 76, 82, 88, 92, 96]
GROUPS += [114, 144, 146, 148, 152, 161, 169, 176, 198, 205, 220]


def arm_of(group: str | int, units: int = 1) -> Arm:
    space_group = SpaceGroup.from_name(group)
    return Arm(space_group.symbol, space_group, units)


@pytest.mark.parametrize("number", GROUPS)
def test_starts_have_the_symmetry_volume_and_shape_that_were_asked_for(
    number: int, formamide: Composition
) -> None:
    arm = arm_of(number)
    packings = random_packings(formamide, arm, 0, 30, seed=number)
    assert obeys(arm.group, packings.lattice).all()
    target = formamide.volume * len(arm.group)
    ratio = packings.volume / target
    assert ratio.min() >= VOLUME_RANGE[0] - 1e-6
    assert ratio.max() <= VOLUME_RANGE[1] + 1e-6
    assert ratio.max() - ratio.min() > 0.2  # the range is used
    assert heights(packings.lattice).min() > SMALLEST_HEIGHT - 1e-6
    # a planar molecule in a general place brings no symmetry of its own
    assert find_symmetry(packings.crystal(3), 1e-3).number == number


@pytest.mark.parametrize("sequence", ["sobol", "random"])
def test_a_start_depends_on_its_number_alone(sequence: str, formamide: Composition) -> None:
    arm = arm_of(14)
    whole = random_packings(formamide, arm, 0, 64, 5, sequence)
    part = random_packings(formamide, arm, 37, 9, 5, sequence)
    for name in ("lattice", "centroid", "rotation", "handedness", "conformer"):
        torch.testing.assert_close(getattr(part, name), getattr(whole, name)[37:46], rtol=0, atol=0)
    other_seed = random_packings(formamide, arm, 0, 64, 6, sequence)
    assert (other_seed.centroid - whole.centroid).abs().amax((1, 2)).min() > 1e-4
    other_arm = random_packings(formamide, arm_of(33), 0, 64, 5, sequence)
    assert (other_arm.centroid - whole.centroid).abs().amax((1, 2)).min() > 1e-4


def test_sobol_starts_are_more_even_than_random_ones(formamide: Composition) -> None:
    def discrepancy(sequence: str, seed: int) -> float:
        packings = random_packings(formamide, arm_of(14), 0, 256, seed, sequence)
        return qmc.discrepancy(packings.centroid[:, 0].numpy())

    for seed in range(3):
        assert discrepancy("sobol", seed) < 0.5 * discrepancy("random", seed)


def test_orientations_are_uniform(formamide: Composition) -> None:
    turned = random_packings(formamide, arm_of(14), 0, 2048, 1).rotation[:, 0]
    assert turned.mean(0).abs().max() < 0.03  # the mean rotation matrix of the Haar measure is zero
    assert (turned.square().mean(0) - 1 / 3).abs().max() < 0.03
    torch.testing.assert_close(torch.linalg.det(turned), torch.ones(2048, dtype=torch.float64))


# ------------------------------------------------------------------ what is searched


@pytest.mark.parametrize("smiles", ["NC=O", "C[C@H](N)C(=O)O", "c1ccccc1", "O.NC=O"])
@pytest.mark.parametrize(
    "options", [{}, {"z": (2, 4)}, {"z_prime": (1.0, 2.0)}, {"z_prime": (0.5,)}], ids=str
)
def test_weights_sum_to_one_and_no_arm_comes_twice(
    smiles: str, options: dict[str, tuple[float, ...]]
) -> None:
    found = arms(composition_of(smiles), **options)
    assert sum(a.weight for a in found) == pytest.approx(1.0)
    assert len({a.key for a in found}) == len(found)
    assert all(a.weight > 0 for a in found)


def test_one_enantiomer_is_searched_in_sohncke_groups_only() -> None:
    alanine = composition_of("C[C@H](N)C(=O)O")
    assert alanine.enantiopure
    assert all(a.group.is_sohncke for a in arms(alanine))
    hands = [random_packings(alanine, a, 0, 20, 0).handedness for a in arms(alanine, z_prime=(2.0,))]
    assert all((h == 1).all() for h in hands)
    with pytest.raises(InputError, match=r"one enantiomer, got P21/c"):
        arms(alanine, "19,14")


def test_a_racemate_is_searched_with_both_hands() -> None:
    alanine = composition_of("CC(N)C(=O)O")
    assert not alanine.enantiopure
    hands = random_packings(alanine, arm_of("P21", 2), 0, 100, 0).handedness
    assert (hands[:, 0] == 1).all()
    assert 0.3 < (hands[:, 1] == 1).double().mean() < 0.7


def test_an_achiral_partner_of_an_enantiomer_takes_both_hands() -> None:
    pair = composition_of("C[C@H](N)C(=O)O.OCCO")
    assert pair.enantiopure
    hands = random_packings(pair, arm_of("P21"), 0, 100, 0).handedness
    assert (hands[:, 0] == 1).all()
    assert 0.3 < (hands[:, 1] == 1).double().mean() < 0.7


def test_half_a_molecule_is_a_whole_one_in_a_subgroup_of_index_two() -> None:
    benzene = composition_of("c1ccccc1")
    [half] = arms(benzene, "P-1", z_prime=(0.5,))
    assert (half.group.number, half.formula_units) == (1, 1)
    [half] = arms(benzene, "Pbca", z=(4,))
    assert half.group.number == 19
    # the centre comes back when the molecule is put on it: one molecule of P1 at the origin of its cell is P-1
    packing = random_packings(benzene, arms(benzene, "P-1", z_prime=(0.5,))[0], 0, 1, 0)
    assert packing.crystal(0).n_molecules == 1
    assert find_symmetry(packing.crystal(0), 0.05).number == 2


def test_centrosymmetric_molecules_are_looked_for_on_centres_too() -> None:
    benzene = arms(composition_of("c1ccccc1"))
    halves = sum(a.weight for a in benzene if "1/2" in a.key)
    assert halves == pytest.approx(0.75)
    assert not any("1/2" in a.key for a in arms(composition_of("NC=O")))


def test_z_chooses_groups_and_formula_units(formamide: Composition) -> None:
    found = {a.key: (len(a.group), a.formula_units) for a in arms(formamide, "P21/c,P-1,P21,P1", z=(4,))}
    assert found == {"P21/c": (4, 1), "P-1 Z'=2": (2, 2), "P21 Z'=2": (2, 2)}
    with pytest.raises(InputError, match="Z = 3"):
        arms(formamide, "P21/c", z=(3,))


@pytest.mark.parametrize("wanted", ["231", "0", "P99", "14,XYZ", "", " , "])
def test_unknown_groups_are_refused_by_name(wanted: str, formamide: Composition) -> None:
    with pytest.raises(InputError, match="--space-groups: expected"):
        arms(formamide, wanted)


@pytest.mark.parametrize(
    ("smiles", "counts", "atoms"),
    [
        ("O.NC(N)=O", (1, 1), 11),
        ("O.O.NC(N)=O", (2, 1), 14),
        ("O.NC(N)=O.O.NC(N)=O", (1, 1), 11),
        ("[NH4+].[Cl-]", (1, 1), 6),
    ],
)
def test_formula_units_of_several_species(smiles: str, counts: tuple[int, ...], atoms: int) -> None:
    composition = composition_of(smiles)
    assert composition.counts == counts
    packings = random_packings(composition, arm_of("P-1", 2), 0, 4, 0)
    assert packings.n_bodies == 2 * sum(counts)
    crystal = packings.crystal(0)
    assert len(crystal) == 2 * 2 * atoms
    assert crystal.n_molecules == 4 * sum(counts)
    assert int(crystal.charges.sum()) == 0


def test_shares_of_conformers_fall_with_their_energies(formamide: Composition) -> None:
    molecule = formamide.species[0]
    three = molecule.with_conformers(molecule.conformers.repeat(3, 1, 1))
    energies = torch.tensor([0.0, 4.0, 16.0], dtype=torch.float64) * KJ_PER_MOL
    composition = replace(formamide, species=(three,), conformer_energies=(energies,))
    chosen = random_packings(composition, arm_of(14), 0, 4096, 0).conformer[:, 0]
    shares = torch.bincount(chosen, minlength=3).double() / 4096
    expected = torch.softmax(-energies / CONFORMER_TEMPERATURE, 0)
    torch.testing.assert_close(shares, expected, atol=0.01, rtol=0)


# ------------------------------------------------------------------ perturbation


@pytest.mark.parametrize("group", [2, 15, 88, 148, 205])
def test_children_keep_the_group_and_stay_near(group: int, formamide: Composition) -> None:
    parents = random_packings(formamide, arm_of(group), 0, 3, 0)
    children = perturbed_packings(parents, 40, 7, "test")
    assert len(children) == 40
    assert obeys(parents.group, children.lattice).all()
    of = torch.arange(40) % 3
    change = (children.volume / parents.volume[of]).log().abs()
    assert 0 < change.mean() < 0.4
    angle = (children.rotation @ parents.rotation[of].mT).diagonal(dim1=-2, dim2=-1).sum(-1)
    assert (angle < 3 - 1e-6).all()  # everyone is turned
    again = perturbed_packings(parents, 40, 7, "test")
    torch.testing.assert_close(again.centroid, children.centroid, rtol=0, atol=0)
    assert not torch.equal(perturbed_packings(parents, 40, 8, "test").centroid, children.centroid)


def test_no_perturbation_is_no_change(formamide: Composition) -> None:
    parents = random_packings(formamide, arm_of(14), 0, 2, 0)
    same = perturbed_packings(parents, 2, 0, "test", strain=0.0, shift=0.0, turn=0.0)
    torch.testing.assert_close(same.lattice @ same.lattice.mT, parents.lattice @ parents.lattice.mT)
    torch.testing.assert_close(same.centroid, parents.centroid)
    torch.testing.assert_close(same.rotation, parents.rotation)
