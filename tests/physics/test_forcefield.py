"""The force field on packings: symmetry, an independent Ewald sum with autograd, and gradients of rigid bodies."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from rdkit import Chem

from nucleate.crystal.packing import Packings
from nucleate.errors import InputError
from nucleate.geometry.symmetry import P1, SpaceGroup, strain_basis
from nucleate.physics import rigid_body
from nucleate.physics.charges import mmff_charges
from nucleate.physics.energy import energy_model
from nucleate.physics.forcefield import COARSE, FINAL, FINE, Accuracy, ForceField
from nucleate.physics.minimise import (
    CLASH,
    PRESS,
    ROUGH,
    TIGHT,
    closest_contacts,
    minimise,
    pair_energy_fingerprints,
)
from nucleate.physics.parameters import COULOMB, EXP6, TYPES, atom_types
from nucleate.pipeline.generate import Arm, Composition, random_packings
from nucleate.testing import assert_energy_model
from tests.physics.conftest import embedded

GROUPS = ["P1", "P-1", "P21/c", "P212121", "C2/c", "P41", "R3", "Pna21"]


def packings(molecule, group, n=2, units=1, seed=0):
    composition = Composition((molecule,), (1,), (torch.zeros(1),), False)
    return random_packings(composition, Arm(group, SpaceGroup.from_name(group), units), 0, n, seed)


def pressed(molecule, group, n=2, units=1, seed=0):
    field = ForceField.for_molecules([molecule])
    return minimise(packings(molecule, group, n, units, seed), field, PRESS).packings, field


def all_in_p1(p: Packings) -> Packings:
    """The same single crystal with every molecule of the cell as a body of its own."""
    group, lattice = p.group, p.lattice[0]
    W = group.rotations.double()
    turned = lattice.T @ W @ torch.linalg.inv(lattice.T)
    hand = group.determinants.double()
    ops, bodies = len(group), p.n_bodies
    return Packings(
        species=p.species,
        group=P1,
        kind=p.kind.repeat(ops),
        lattice=p.lattice,
        centroid=group.expand(p.centroid[0]).reshape(1, ops * bodies, 3),
        rotation=((turned * hand[:, None, None])[:, None] @ p.rotation[0]).reshape(1, ops * bodies, 3, 3),
        handedness=(hand.long()[:, None] * p.handedness[0]).reshape(1, ops * bodies),
        conformer=p.conformer.repeat(1, ops),
    )


@pytest.mark.parametrize("group", GROUPS)
def test_energy_does_not_depend_on_symmetry_or_split(group, formamide):
    p, field = pressed(formamide, group, n=1)
    energy = field.energy(p, FINAL).item()
    assert field.energy(all_in_p1(p), FINAL).item() / len(p.group) == pytest.approx(energy, abs=1e-8)
    assert field.energy(p, Accuracy(18.0, 0.22, 2.4)).item() == pytest.approx(energy, abs=5e-6)
    assert field.energy(p, FINE).item() == pytest.approx(energy, abs=1e-3)
    assert field.energy(p, COARSE).item() == pytest.approx(energy, abs=5e-3)


def test_energy_of_a_doubled_cell(formamide):
    p, field = pressed(formamide, "P1", n=1)
    half = p.centroid / torch.tensor([2.0, 1, 1])
    doubled = replace(
        p,
        kind=p.kind.repeat(2),
        lattice=p.lattice * torch.tensor([2.0, 1, 1])[:, None],
        centroid=torch.cat([half, half + torch.tensor([0.5, 0, 0])], 1),
        rotation=p.rotation.repeat(1, 2, 1, 1),
        handedness=p.handedness.repeat(1, 2),
        conformer=p.conformer.repeat(1, 2),
    )  # fmt: skip
    assert field.energy(doubled).item() / 2 == pytest.approx(field.energy(p).item(), abs=1e-8)


def reference_energy(p: Packings, field: ForceField, x: torch.Tensor, lattice: torch.Tensor) -> torch.Tensor:
    """The same sums over a P1 crystal, written for autograd: bare pairs in a sphere, other alpha, all waves."""
    alpha, cutoff, order = 0.5, 9.0, 9
    names = [t for k in p.kind.tolist() for t in atom_types(field.species[k].graph)]
    rows = [TYPES.index(t) for t in names]
    A, B, C, _ = (torch.from_numpy(np.ascontiguousarray(t[np.ix_(rows, rows)])) for t in field.tables)
    q = torch.cat([torch.from_numpy(field.charges[k][0]) for k in p.kind.tolist()])
    c = torch.tensor([math.sqrt(EXP6[t].C) for t in names], dtype=torch.float64)
    body = p.body_of_atom
    span = torch.arange(-4, 5)
    shifts = torch.cartesian_prod(span, span, span).double()
    d = x[:, None, None] - x[None, :, None] - shifts @ lattice
    home = (shifts == 0).all(-1)
    same = torch.eye(len(x), dtype=torch.bool)[..., None] & home
    r2 = (d**2).sum(-1) + same * 1.0
    inside = (body[:, None] == body)[..., None] & home & ~same
    use = (r2 < cutoff**2) & ~same & ~inside
    r = r2.sqrt()
    s = alpha**2 * r2
    shape = (1 + s + s**2 / 2) * torch.exp(-s)
    u = A[..., None] * torch.exp(-B[..., None] * r) - C[..., None] / r2**3 * shape
    u = u + COULOMB * (q[:, None] * q)[..., None] * torch.erfc(alpha * r) / r
    energy = 0.5 * (u * use).sum()
    damped = (
        C[..., None] / r2**3 * (1 - shape) - COULOMB * (q[:, None] * q)[..., None] * torch.erf(alpha * r) / r
    )
    energy = energy + 0.5 * (damped * inside).sum()
    span = torch.arange(-order, order + 1)
    hkl = torch.cartesian_prod(span, span, span).double()
    k = 2 * math.pi * hkl[(hkl != 0).any(-1)] @ torch.linalg.inv(lattice).T
    k2 = (k**2).sum(-1)
    phase = x @ k.T
    square = lambda w: (w @ phase.cos()) ** 2 + (w @ phase.sin()) ** 2  # noqa: E731
    volume = torch.linalg.det(lattice)
    b = k2.sqrt() / (2 * alpha)
    energy = energy + 2 * math.pi * COULOMB / volume * (torch.exp(-(b**2)) / k2 * square(q)).sum()
    bracket = math.sqrt(math.pi) * torch.erfc(b) + (1 / (2 * b**3) - 1 / b) * torch.exp(-(b**2))
    energy = energy - math.pi**1.5 / (24 * volume) * (k2**1.5 * bracket * square(c)).sum()
    energy = energy - math.pi**1.5 * alpha**3 / (6 * volume) * c.sum() ** 2 + alpha**6 / 12 * (c**2).sum()
    return energy - COULOMB * alpha / math.sqrt(math.pi) * (q**2).sum()


def test_agrees_with_an_independent_sum_and_autograd(formamide):
    p, field = pressed(formamide, "P-1", n=1)
    whole = all_in_p1(p)
    x = whole.positions()[0].clone().requires_grad_()
    strain = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    deform = torch.eye(3).double() + strain
    energy = reference_energy(whole, field, x @ deform, whole.lattice[0] @ deform)
    energy.backward()
    mine, force, virial = field.energy_and_gradient(whole, FINAL)
    assert mine.item() == pytest.approx(energy.item(), abs=2e-5)
    torch.testing.assert_close(force[0], x.grad, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(virial[0], strain.grad, atol=2e-4, rtol=1e-4)
    # the asymmetric unit says the same of its own atoms
    _, part, part_virial = field.energy_and_gradient(p, FINAL)
    torch.testing.assert_close(part[0], x.grad[: len(formamide)], atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(part_virial[0] * 2, strain.grad, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("press", [False, True], ids=["forcefield", "press"])
@pytest.mark.parametrize(("group", "units"), [("P1", 2), ("P21/c", 1), ("C2/c", 1), ("P41", 1), ("R3", 1)])
def test_rigid_gradient_is_the_slope(group, units, press, formamide):
    """Along each allowed strain, shift and rotation; the cell stays within the space group."""
    p, field = pressed(formamide, group, n=1, units=units)
    level = PRESS if press else TIGHT
    basis = strain_basis(p.group, p.lattice[0]).numpy()
    arrays = field.arrays(p)
    body = (
        arrays.local[0], arrays.start, arrays.radius[0], arrays.gyration[0], arrays.q[0], arrays.c, arrays.types,
        arrays.size,
    )  # fmt: skip
    setting = (
        float(press),
        *(level.accuracy if press else (12.0, 0.3, 3.0)),
        level.stiffness,
        level.pressure,
    )
    atoms, bodies, ops = len(body[0]), p.n_bodies, len(p.group)
    work = tuple(
        np.empty(s) for s in [(atoms, 3), (atoms, 3), (3, 3), (3, 3), (bodies, 3), (bodies, 3), (ops, 3, 3)]
    )
    n = len(basis) + 6 * bodies

    def energy_at(step):
        lattice, centroid, rotation = np.empty((3, 3)), np.empty((bodies, 3)), np.empty((bodies, 3, 3))
        rigid_body.take_step(
            step,
            arrays.lattice[0],
            arrays.centroid[0],
            arrays.rotation[0],
            body[3],
            basis,
            lattice,
            centroid,
            rotation,
        )
        lists = rigid_body.neighbour_lists(
            setting, lattice, centroid, rotation, body, arrays.group, field.tables, work[0]
        )
        gradient = np.empty(n)
        energy = rigid_body.potential_energy(
            setting,
            lattice,
            centroid,
            rotation,
            body,
            arrays.group,
            field.tables,
            lists,
            work,
            gradient,
            basis,
        )
        return energy, gradient

    _, gradient = energy_at(np.zeros(n))
    h = 1e-4
    slopes = [(energy_at(h * e)[0] - energy_at(-h * e)[0]) / (2 * h) for e in np.eye(n)]
    np.testing.assert_allclose(gradient, slopes, atol=2e-4 * max(1, np.abs(slopes).max()))


@pytest.mark.parametrize("group", ["P-1", "P21/c", "P212121", "R3"])
def test_minimiser_lowers_the_energy_and_keeps_the_group(group, formamide):
    p, field = pressed(formamide, group, n=6)
    rough = minimise(p, field, ROUGH)
    tight = minimise(rough.packings, field, TIGHT)
    assert not tight.collapsed.any()
    assert (tight.energy < field.energy(p, FINE)).all()
    assert tight.converged.double().mean() >= 0.5
    assert (tight.gradient[tight.converged] < TIGHT.tolerance).all()
    torch.testing.assert_close(tight.energy, field.energy(tight.packings, FINE), atol=1e-4, rtol=0)
    eye = torch.eye(3).double().expand_as(tight.packings.rotation)
    torch.testing.assert_close(tight.packings.rotation @ tight.packings.rotation.mT, eye, atol=1e-9, rtol=0)
    strain_basis(p.group, tight.packings.lattice[0])  # raises where the cell left the family


def test_no_crystal_affects_another(formamide):
    p, field = pressed(formamide, "P21/c", n=4)
    together = minimise(p, field, ROUGH)
    alone = minimise(p[2], field, ROUGH)
    assert together.energy[2].item() == alone.energy[0].item()


def test_press_takes_overlaps_away(formamide):
    before = packings(formamide, "P21/c", n=20)
    after, field = pressed(formamide, "P21/c", n=20)
    assert closest_contacts(after, field).median() > 0.85 > closest_contacts(before, field).median()


def test_fingerprint_ignores_the_choice_of_cell(formamide):
    p, field = pressed(formamide, "P21/c", n=1)
    minimum = minimise(p, field, ROUGH).packings
    cell = torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 0, 1]], dtype=torch.float64)
    whole = all_in_p1(minimum)
    other = replace(whole, lattice=cell @ whole.lattice, centroid=whole.centroid @ torch.linalg.inv(cell))
    torch.testing.assert_close(
        pair_energy_fingerprints(other, field), pair_energy_fingerprints(minimum, field), atol=1e-9, rtol=0
    )


def test_a_flat_cell_is_called_collapsed(formamide):
    p, field = pressed(formamide, "P1", n=2)
    flat = replace(p, lattice=p.lattice * torch.tensor([[[1.0], [1], [0.01]], [[1.0], [1], [1]]]))
    result = minimise(flat, field, ROUGH)
    assert result.collapsed.tolist() == [True, False]


@pytest.mark.parametrize(
    "smiles", ["O=C=O", "S=C=S", "C[S+](C)C", "[O-][N+]#N", "NC=O", "C[NH3+]", "CC(=O)[O-]", "OB(O)C", "[I-]"]
)
@pytest.mark.filterwarnings("ignore:MMFF94 has no type")
def test_charges_add_up_to_the_formal_charge(smiles):
    """RDKit's MMFF94 makes carbon dioxide a dianion's half and loses the charge of sulphonium."""
    graph = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert mmff_charges(graph).sum() == pytest.approx(Chem.GetFormalCharge(graph), abs=1e-6)


@pytest.mark.parametrize("halide", ["[F-]", "[Cl-]", "[Br-]"])
def test_minima_of_halides_are_no_clashes(halide):
    """Hydrogen bonds to anions are shorter than van der Waals radii say."""
    species = (embedded("[NH4+]"), embedded(halide))
    salt = Composition(species, (1, 1), (torch.zeros(1),) * 2, False)
    starts = random_packings(salt, Arm("P21/c", SpaceGroup.from_name("P21/c"), 1), 0, 10, 0)
    field = ForceField.for_molecules(species)
    found = minimise(minimise(starts, field, PRESS).packings, field)
    lowest = found.packings[int(found.energy.argmin())]
    assert closest_contacts(lowest, field).item() > CLASH


def test_unknown_elements_are_refused():
    with pytest.raises(InputError, match="Se"):
        ForceField.for_molecules([embedded("C[Se]C")])


def test_as_an_energy_model_of_all_atoms(formamide):
    p, field = pressed(formamide, "P21/c", n=1)
    minimum = minimise(p, field, ROUGH).packings
    crystal = minimum.crystal(0)
    model = energy_model("forcefield")
    answer = model.evaluate([crystal])[0]
    assert answer.energy == pytest.approx(field.energy(minimum).item() * len(p.group), abs=1e-6)
    assert_energy_model(model, crystal)
