"""The cheap tests of inorganic crystals: distances over images, odd cells, charges that balance."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.crystal.inorganic import CRYSTALS, textbook

from nucleate.crystal.sites import Sites
from nucleate.errors import InputError
from nucleate.metrics import inorganic_validity
from nucleate.metrics.inorganic_validity import (
    balances,
    composition_valid,
    odd_cells,
    require_smact,
    shortest_distances,
    validities,
)

needs_smact = pytest.mark.skipif(
    inorganic_validity.importlib.util.find_spec("smact") is None, reason="smact is not installed"
)


def sites(lattice: object, frac: object, numbers: list[int]) -> Sites:
    return Sites(
        torch.tensor(lattice, dtype=torch.float64),
        torch.tensor(frac, dtype=torch.float64).reshape(-1, 3),
        torch.tensor(numbers),
    )


def random_crystal(seed: int, atoms: int) -> Sites:
    rng = np.random.default_rng(seed)
    lattice = rng.normal(size=(3, 3)) * 4
    if np.linalg.det(lattice) < 0:
        lattice = -lattice
    return sites(lattice.tolist(), rng.uniform(-2, 3, (atoms, 3)).tolist(), [6] * atoms)


def by_hand(crystal: Sites, reach: int = 7) -> float:
    """The shortest distance by going through very many images."""
    steps = np.array(list(itertools.product(range(-reach, reach + 1), repeat=3)))
    frac, lattice = crystal.frac.numpy(), crystal.lattice.numpy()
    difference = frac[None] - frac[:, None]
    difference -= np.round(difference)
    distance = np.linalg.norm((difference[:, :, None] + steps) @ lattice, axis=-1)
    distance[np.arange(len(frac)), np.arange(len(frac)), len(steps) // 2] = math.inf
    return float(distance.min())


# ---------------------------------------------------------------- structure


def test_shortest_distances_are_those_of_many_images() -> None:
    crystals = [random_crystal(seed, atoms) for seed in range(6) for atoms in (1, 2, 7)]
    found = shortest_distances(crystals)
    torch.testing.assert_close(
        found, torch.tensor([by_hand(c) for c in crystals], dtype=torch.float64), atol=1e-9, rtol=0
    )


@pytest.mark.parametrize(
    ("name", "distance"), [("copper", 3.61 / 2**0.5), ("rock salt", 2.82), ("zinc blende", 5.41 * 3**0.5 / 4)]
)
def test_shortest_distances_of_textbook_crystals(name: str, distance: float) -> None:
    assert shortest_distances([textbook(name)]).item() == pytest.approx(distance)


def test_answers_do_not_depend_on_the_company(monkeypatch: pytest.MonkeyPatch) -> None:
    crystals = [textbook(name) for name in CRYSTALS]
    together = shortest_distances(crystals)
    monkeypatch.setattr(inorganic_validity, "AT_ONCE", 2)
    torch.testing.assert_close(shortest_distances(crystals), together)
    alone = torch.cat([shortest_distances([c]) for c in crystals])
    torch.testing.assert_close(alone, together)


def test_every_textbook_crystal_has_a_sound_structure() -> None:
    assert all(v.structure for v in validities([textbook(name) for name in CRYSTALS], compositions=False))


@pytest.mark.parametrize(("gap", "sound"), [(0.49, False), (0.51, True)])
def test_two_atoms_must_be_half_an_angstrom_apart_also_through_a_face(gap: float, sound: bool) -> None:
    near = sites(np.diag([5.0, 5, 5]).tolist(), [[0, 0, 0.99], [0, 0, 0.99 + gap / 5 - 1]], [3, 9])
    thin = sites(np.diag([gap, 9.0, 9.0]).tolist(), [[0, 0, 0]], [3])  # an atom and its own image
    assert [v.structure for v in validities([near, thin], compositions=False)] == [sound, sound]


def test_cells_that_cannot_be_reduced_are_no_crystals() -> None:
    flat = sites([[4, 0, 0], [0, 4, 0], [4, 4, 0]], [[0, 0, 0]], [3])
    lost = sites(np.diag([4.0, 4, math.nan]).tolist(), [[0, 0, 0]], [3])
    assert [v.structure for v in validities([flat, lost, textbook("iron")], compositions=False)] == [
        False,
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("cell", "atoms", "odd"),
    [
        ([[4, 0, 0], [0, 4, 0], [0, 0, 4]], 1, False),
        ([[4, 0, 0], [4 * math.cos(0.16), 4 * math.sin(0.16), 0], [0, 0, 40]], 8, True),  # 9.2 degrees
        ([[21, 0, 0], [0, 2, 0], [0, 0, 2]], 1, True),  # an edge
        ([[21, 0, 0], [0, 2, 0], [0, 0, 2]], 8, False),  # no long one for eight atoms
        ([[4.7, 0, 0], [0, 4.7, 0], [0, 0, 4.7]], 1, True),  # 104 Å^3 of an atom
        ([[0.45, 0, 0], [0, 0.45, 0], [0, 0, 0.45]], 1, True),  # 0.09 Å^3
    ],
)
def test_odd_cells(cell: list[list[float]], atoms: int, odd: bool) -> None:
    assert odd_cells(torch.tensor([cell], dtype=torch.float64), torch.tensor([atoms])) == [odd]


# ---------------------------------------------------------------- composition

ELEMENTS = st.tuples(
    st.integers(1, 4),
    st.lists(st.sampled_from([-3, -2, -1, 1, 2, 3, 4]), min_size=1, max_size=4, unique=True),
    st.sampled_from([0.8, 1.3, 1.3, 2.0, 2.6, 3.4]),
)


@given(st.lists(ELEMENTS, min_size=2, max_size=4))
def test_charges_balance_where_some_combination_does(elements: list[tuple[int, list[int], float]]) -> None:
    counts, states, order = (list(x) for x in zip(*elements))
    expected = any(
        sum(n * s for n, s in zip(counts, chosen)) == 0
        and all(a < b for (s, a), (t, b) in itertools.product(zip(chosen, order), repeat=2) if s > 0 > t)
        for chosen in itertools.product(*states)
    )
    assert balances(counts, states, order) == expected


def test_unknown_electronegativities_and_states_fail() -> None:
    assert balances([1, 1], [[1], [-1]], [0.9, 3.2])
    assert not balances([1, 1], [[1], [-1]], [0.9, None])
    assert not balances([1, 1], [[1], []], [0.9, 3.2])
    assert not balances([1, 1], [[1], [-1]], [3.2, 0.9])  # the anion must be the more electronegative


def test_many_elements_of_many_states_take_no_time() -> None:
    # 10^14 combinations
    states = [list(range(1, 11))] * 7 + [list(range(-10, 0))] * 7
    assert balances([1] * 14, states, [1.0 + 0.1 * k for k in range(14)])


@needs_smact
def test_compositions_are_judged_as_smact_judges_them() -> None:
    from ase.data import chemical_symbols
    from smact.screening import smact_validity

    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(300):
        numbers = rng.choice(np.arange(1, 95), size=rng.integers(2, 5), replace=False).tolist()
        composition = {z: int(rng.integers(1, 5)) for z in numbers}
        formula = "".join(f"{chemical_symbols[z]}{n}" for z, n in composition.items())
        expected = smact_validity(formula, oxidation_states_set="smact14")
        assert composition_valid(composition) == expected, formula
        seen.add(expected)
    assert seen == {True, False}


@needs_smact
def test_compositions_of_the_textbook() -> None:
    assert composition_valid({11: 4, 17: 4})
    assert composition_valid({29: 3, 30: 1})  # an alloy
    assert composition_valid({10: 1})  # an element
    assert not composition_valid({11: 2, 17: 1})
    assert validities([textbook("rock salt")])[0].valid is True


def test_without_smact_the_error_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inorganic_validity.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install \"nucleate\[inorganic\]\"") as caught:
        require_smact()
    assert caught.value.reason == "missing package"


def test_what_was_not_tested_is_not_known() -> None:
    sound = validities([textbook("rock salt")], compositions=False)[0]
    near = sites(np.diag([5.0, 5, 5]).tolist(), [[0, 0, 0], [0, 0, 0.05]], [3, 9])
    broken = validities([near], compositions=False)[0]
    assert sound.valid is None
    assert broken.valid is False
