"""Flow matching over whole cells: symmetry is exact, equal descriptions are one target, samples are crystals."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from nucleate.crystal.cif_read import read_crystal
from nucleate.crystal.rigid import normalise_hydrogens
from nucleate.crystal.standardise import represent_symmetric
from nucleate.data.packed import PackedCrystal
from nucleate.data.whole_cells import primitive_niggli, whole_cells_of, written_out
from nucleate.errors import InputError
from nucleate.generative.flow_matching import Heun
from nucleate.geometry.lattice import lattice_from_log
from nucleate.geometry.so3 import random_rotation
from nucleate.geometry.symmetry import SpaceGroup, obeys
from nucleate.geometry.torus import wrap_difference
from nucleate.metrics.packing import PackingReference
from nucleate.models.molcrystalflow_whole_cell import (
    FLOW,
    WholeCellFlow,
    averaged,
    build,
    distance_to_crystal,
    symmetrised,
)
from nucleate.models.whole_cell_packings import contents_in_group, framed_bodies, sample_packings
from nucleate.networks.molcrystalnet import MolCrystalNet

DATA = Path(__file__).parents[1] / "data"
SMALL = {
    "hidden": 32,
    "layers": 2,
    "time_width": 16,
    "molecule_width": 8,
    "node_width": 16,
    "harmonics": 4,
    "turns": 2,
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def packed():
    found = {}
    for path in sorted(DATA.glob("cod_*.cif")):
        packing, _ = represent_symmetric(normalise_hydrogens(read_crystal(path)))
        found[path.stem] = PackedCrystal(packing, path.stem, "cod")
    return found


@pytest.fixture(scope="module")
def cells(packed):
    return whole_cells_of(packed.values())[0]


@pytest.fixture
def flow():
    torch.manual_seed(0)
    network = MolCrystalNet(**SMALL, sees_cell=True)
    for head in (network.velocity, network.turn, network.strain):
        nn.init.normal_(head[-1].weight, std=0.3)  # loud, so that what is not symmetric shows
    return WholeCellFlow(network)


def alone(cells):
    """The same cells, every body on its own."""
    return replace(cells, contents=cells.contents.without_symmetry(torch.ones(len(cells), dtype=torch.bool)))


def assert_symmetric(state, contents, atol=1e-5):
    """Every operation maps every body on the body that is its image, and the cell on itself."""
    again = symmetrised(state, contents)
    there = contents.mask[..., None]
    assert (wrap_difference(again["centroid"] - state["centroid"]) * there).abs().max() < atol
    assert ((again["rotation"] - state["rotation"]) * there[..., None]).abs().max() < atol
    S = lattice_from_log(state["lattice"].double())
    W = contents.rotations.double()
    change = (W.mT @ (S @ S)[:, None] @ W - (S @ S)[:, None]).abs().amax((-1, -2))
    assert (change * contents.mask / S.square().sum((-1, -2))[:, None]).max() < atol


# ---------------------------------------------------------------- representation


def test_build_undoes_represent_in_the_group_and_written_out(packed, cells):
    for i, name in enumerate(cells.ids):
        row = cells[torch.tensor([i])]
        like = packed[name].packing
        reference = PackingReference(like.crystal(0))
        in_group = build(row.state, row.molecules, row.contents, like, row.transform)
        assert bool(obeys(like.group, in_group.lattice, 1e-3).all())
        template = written_out(like, row.centroid.shape[1] // like.n_bodies)
        in_p1 = build(row.state, row.molecules, row.contents, template)
        for packing in (in_group, in_p1):
            match = reference.compare(packing.crystal(0))
            assert match.is_match, name
            assert match.rmsd < 1e-3, name


# ---------------------------------------------------------------- symmetry


def test_noise_and_samples_are_exactly_symmetric(cells, flow):
    """Each operation is applied to a sample of a loud random network, and gives it again."""
    assert cells.has_symmetry.sum() >= 6
    assert (torch.linalg.det(cells.contents.rotations) < 0).any()
    noise = flow.prior(cells.molecules, cells.contents, seeded())
    assert_symmetric(noise, cells.contents)
    for sampler, evaluations in ((None, 6), (Heun(FLOW), 5)):
        end = flow.sample(cells.molecules, cells.contents, seeded(1), evaluations, sampler=sampler)
        assert_symmetric(end, cells.contents)
        moved = wrap_difference(end["centroid"] - noise["centroid"]).abs()[cells.contents.mask]
        assert moved.mean() > 0.05


def test_a_centred_and_a_hexagonal_group_are_exact_too(cells, flow):
    """Where axes of the primitive cell are exchanged, and turns of images depend on the cell."""
    for name in ("C2/c", "R-3", "Pbca"):
        contents = contents_in(SpaceGroup.from_name(name), cells)
        end = flow.sample(cells.molecules, contents, seeded(2), 4)
        assert_symmetric(end, contents, 2e-5)


def contents_in(group, cells):
    """One molecule in a primitive cell of the group, sixteen bodies at most."""
    lattice = torch.diag(torch.tensor([9.0, 11.0, 14.0], dtype=torch.float64))
    if group.family == "trigonal":
        lattice = torch.tensor([[9.0, 0, 0], [-4.5, 4.5 * 3**0.5, 0], [0, 0, 14.0]], dtype=torch.float64)
    _, inside = primitive_niggli(lattice, group)
    n = len(inside)
    return replace(
        cells.contents,
        molecule=torch.zeros(1, n, dtype=torch.long),
        hand=inside.determinants[None].long(),
        mask=torch.ones(1, n, dtype=torch.bool),
        unit=torch.zeros(1, n, dtype=torch.long),
        rotations=inside.rotations[None].float(),
        translations=inside.translations[None].float(),
    )


def test_the_average_over_an_orbit_is_what_all_images_agree_on(cells):
    """It keeps a symmetric velocity, and does not change when averaged again."""
    torch.manual_seed(0)
    x = cells.state
    guess = {
        "lattice": x["lattice"] + 0.1 * torch.randn_like(x["lattice"]),
        "centroid": torch.randn_like(x["centroid"]),
        "rotation": x["rotation"]
        @ random_rotation(*x["rotation"].shape[:2], generator=seeded(), dtype=torch.float32),
    }
    once = averaged(guess, x, cells.contents)
    twice = averaged(once, x, cells.contents)
    for name, value in once.items():
        torch.testing.assert_close(twice[name], value, atol=2e-4, rtol=0)
    W, unit = cells.contents.rotations, cells.contents.unit
    lead = once["centroid"].gather(1, unit[..., None].expand(-1, -1, 3))
    torch.testing.assert_close((W @ lead[..., None])[..., 0], once["centroid"], atol=1e-4, rtol=1e-4)


def test_in_p1_nothing_is_averaged(cells, flow):
    free = alone(cells)
    noise = flow.prior(free.molecules, free.contents, seeded())
    assert symmetrised(noise, free.contents) is noise
    assert averaged(noise, noise, free.contents) is noise


# ---------------------------------------------------------------- targets


@pytest.mark.parametrize("symmetric", [False, True], ids=["P1", "group"])
def test_targets_are_the_crystal_and_nearer_than_it_was(packed, cells, flow, symmetric):
    cells = cells if symmetric else alone(cells)
    noise = flow.prior(cells.molecules, cells.contents, seeded(3))
    start, target = flow.coupled(cells, noise)
    if symmetric:
        chosen = torch.nonzero(cells.has_symmetry & (cells.units <= 2)).flatten().tolist()
    else:
        chosen = range(len(cells))
    assert not torch.allclose(target["rotation"], cells.rotation, atol=1e-2)
    for i in chosen:
        row = cells[torch.tensor([i])]
        n = row.centroid.shape[1]
        own = {k: v[i : i + 1] if k == "lattice" else v[i : i + 1, :n] for k, v in target.items()}
        like = packed[cells.ids[i]].packing
        template = written_out(like, n // like.n_bodies)
        built = build(own, row.molecules, row.contents, template)
        match = PackingReference(like.crystal(0)).compare(built.crystal(0))
        assert match.is_match
        assert match.rmsd < 0.15  # symmetries of molecules hold within 0.1 Å


def test_dealing_shortens_the_paths(cells, flow):
    free = alone(cells)
    noise = flow.prior(free.molecules, free.contents, seeded(4))
    start, target = flow.coupled(free, noise)

    def length(a, b):
        step = wrap_difference(b["centroid"] - a["centroid"]) @ lattice_from_log(b["lattice"])
        step = step - step.mean(1, keepdim=True)
        return (step.square().sum(-1) * free.contents.mask).sum(1)

    assert length(start, target).mean() < 0.8 * length(noise, free.state).mean()


def test_the_published_coupling_and_weights_are_there(cells, flow):
    flow.coupling, flow.weights = "chi_grouped", "published"
    loss, parts = flow(cells, seeded())
    assert torch.isfinite(loss)
    assert parts.keys() == {"lattice", "centroid", "rotation"}


def test_a_crystal_is_at_no_distance_from_itself_in_any_order(cells):
    free = alone(cells)
    assert distance_to_crystal(cells.state, free).max() < 2e-2
    same = free.contents.hand == free.contents.hand[:, :1]
    rows = torch.nonzero(
        (same | ~free.contents.mask).all(1) & (free.bodies > 1) & (free.units == 1)
    ).flatten()
    some = free[rows]
    moved = some.state | {"centroid": (some.centroid + 0.3) % 1.0}
    first = {
        n: v if n == "lattice" else torch.cat([v[:, 1:2], v[:, :1], v[:, 2:]], 1) for n, v in moved.items()
    }
    assert len(rows)
    assert distance_to_crystal(first, some).max() < 2e-2
    other = some.state | {
        "rotation": some.rotation @ random_rotation(1, generator=seeded(), dtype=torch.float32)
    }
    assert distance_to_crystal(other, some).min() > 0.3


# ---------------------------------------------------------------- learning and sampling


class Oracle(nn.Module):
    """Knows the target."""

    def __init__(self, target, network):
        super().__init__()
        self.target, self.embedder = target, network.embedder

    def forward(self, x, t, condition):
        left = (1 - t)[:, None, None]
        drift = wrap_difference(self.target["centroid"] - x["centroid"]) / left
        return self.target | {"centroid": drift}


@pytest.mark.parametrize("evaluations", [1, 7])
def test_a_network_that_knows_the_crystal_samples_it(cells, flow, evaluations):
    four = alone(cells)[torch.nonzero(cells.bodies == 4).flatten()]
    noise = flow.prior(four.molecules, four.contents, seeded(5))
    start, target = flow.coupled(four, noise)
    flow.network = Oracle(target, flow.network)
    end = flow.sample(four.molecules, four.contents, None, evaluations, start)
    assert distance_to_crystal(end, four).max() < 0.2  # near-symmetries


def test_the_seed_decides_and_company_does_not(cells, flow):
    a, b = (flow.sample(cells.molecules, cells.contents, seeded(6), 3) for _ in range(2))
    assert all(torch.equal(a[n], b[n]) for n in a)
    noise = flow.prior(cells.molecules, cells.contents, seeded(6))
    i = int(cells.bodies.argmin())
    row = cells[torch.tensor([i])]
    n = row.centroid.shape[1]
    own = {k: v[i : i + 1] if k == "lattice" else v[i : i + 1, :n] for k, v in noise.items()}
    single = flow.sample(row.molecules, row.contents, None, 3, own)
    torch.testing.assert_close(single["centroid"], a["centroid"][i : i + 1, :n], atol=1e-4, rtol=0)
    torch.testing.assert_close(single["lattice"], a["lattice"][i : i + 1], atol=1e-4, rtol=0)


@pytest.mark.slow
def test_it_learns(cells):
    torch.manual_seed(0)
    atoms = (cells.molecules.molecules.numbers[cells.contents.molecule[:, 0]] > 0).sum(1)
    cells = cells[(atoms + 4 * cells.bodies).argsort()[:3]]
    flow = WholeCellFlow(MolCrystalNet(**SMALL, sees_cell=True), strain=0.01)
    flow.network.scores.fit(cells.molecules.features)
    flow.network.lattice_scores.fit(cells.lattice)
    optimizer = torch.optim.Adam(flow.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        loss, parts = flow(cells, seeded())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.6 * losses[0]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in flow.parameters())


# ---------------------------------------------------------------- new packings


@pytest.mark.parametrize("name", ["P1", "P21/c", "C2/c", "Pna21", "R-3"])
def test_new_packings_are_in_the_group_asked_for(packed, flow, name):
    """The cell obeys the group, and the group makes of the asymmetric unit what the network saw as a whole cell."""
    like = replace(one_body(packed["cod_2003630"].packing), group=SpaceGroup.from_name(name))
    found = sample_packings(flow, like, 4, seeded(7), 3)
    assert len(found) == 4
    assert bool(obeys(like.group, found.lattice, 1e-4).all())
    molecules, molecule = framed_bodies(like)
    contents, transform = contents_in_group(molecules, molecule, like, 4, seeded(7))
    generator = seeded(7)
    contents_in_group(molecules, molecule, like, 4, generator)
    state = flow.sample(molecules, contents, generator, 3)
    whole = build(state, molecules, contents, written_out(like, contents.mask.shape[1]))
    expected = 1 / torch.linalg.det(transform)
    torch.testing.assert_close(found.volume.float(), whole.volume.float() * expected, rtol=1e-4, atol=0)
    for i in range(2):
        match = PackingReference(whole.crystal(i), mirror=False).compare(found.crystal(i))
        assert match.is_match
        assert match.rmsd < 1e-2


def one_body(packing):
    names = ("centroid", "rotation", "handedness", "conformer")
    return replace(packing, kind=packing.kind[:1], **{n: getattr(packing, n)[:, :1] for n in names})


def test_cells_too_large_are_refused(packed, flow):
    like = replace(one_body(packed["cod_2003630"].packing), group=SpaceGroup.from_name("Ia-3d"))
    with pytest.raises(InputError, match="at most 16 molecules"):
        sample_packings(flow, like, 1, seeded())
