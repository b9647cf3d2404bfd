"""Public law checks, for the members of this package and for anybody's plug-ins."""

import torch

from nucleate.crystal.crystal import Crystal
from nucleate.geometry.so3 import random_rotation
from nucleate.physics.energy import EnergyModel
from nucleate.physics.self_test import SelfTest, self_test


def assert_energy_model(model: EnergyModel, crystal: Crystal, **limits: float) -> SelfTest:
    """Assert that an energy model obeys the laws of `physics.self_test` on a crystal (not at a minimum).

    Also: it answers in order and once for each crystal, leaves its input unchanged, gives gradients only when
    asked, and gives stress where its capability says so. `limits` are those of `SelfTest.broken`; loosen them
    for a model that is known to be rough (float32, the Γ point only), and say so. Returns what was measured.
    """
    lattice, frac = crystal.lattice.clone(), crystal.frac.clone()
    alone, with_gradient, empty = (
        model.evaluate([crystal]),
        model.evaluate([crystal], gradient=True),
        model.evaluate([]),
    )
    assert len(alone) == len(with_gradient) == 1, "expected one answer for one crystal"
    assert empty == [], "expected no answers for no crystals"
    assert alone[0].failure is None, f"the model failed: {alone[0].failure}"
    assert alone[0].forces is None, "expected no forces without gradient=True"
    assert (with_gradient[0].stress is not None) == model.capability.stress, (
        f"the capability says stress={model.capability.stress}, the answer says otherwise"
    )
    measured = self_test(model, crystal)
    assert (crystal.lattice == lattice).all(), "expected the input lattice unchanged"
    assert (crystal.frac == frac).all(), "expected the input positions unchanged"
    assert not measured.broken(**limits), "; ".join(measured.broken(**limits))
    return measured


def disguised(crystal: Crystal, generator: torch.Generator, mirror: bool = False) -> Crystal:
    """The same crystal (or its mirror image) written in another way: what a metric of crystals must not notice.

    Turned and shifted, in a skew cell of the same volume, with molecules some cells away, atoms and molecules in
    another order. Bonds are kept; bond types, charges and `info` are not.
    """
    skew = torch.tensor([[1, 1, 0], [0, 1, -1], [1, 1, 1]], dtype=torch.float64)
    hand = -1 if mirror else 1
    cell = skew @ crystal.lattice.double()
    hops = torch.randint(-2, 3, (crystal.n_molecules, 3), generator=generator).double() @ cell
    shift = 5 * torch.randn(3, dtype=torch.float64, generator=generator)
    turn = hand * random_rotation(generator=generator)
    positions = (crystal.positions.double() + hops[crystal.molecule] + shift) @ turn.T
    cell = hand * cell @ turn.T  # minus the axes span the same lattice and are right-handed
    order = torch.randperm(len(crystal), generator=generator)
    names = torch.randperm(crystal.n_molecules, generator=generator)
    return Crystal(
        lattice=cell,
        frac=(positions @ torch.linalg.inv(cell))[order],
        numbers=crystal.numbers[order],
        molecule=names[crystal.molecule][order],
        bonds=torch.argsort(order)[crystal.bonds],
    )
