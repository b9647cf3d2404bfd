"""MolCrystalFlow as published (arXiv 2602.16020), mended: flow matching over all molecules of the primitive cell.

    represent   crystal -> log coordinates of the cell, centroid and rotation of each body (data/whole_cells.py)
    loss        noise -> dealt to equal bodies, or nearest of all equal targets -> point on the path -> the network
    sample      noise -> steps along the velocity of the network, if asked averaged over the operations of a group
    build       state -> `Packings`, in P1 or as the asymmetric unit of the group

A crystal is learnt in two ways. **In P1** every body moves alone: noise is dealt to equal bodies (of one molecule and
hand) by optimal transport, together with the best common translation, which the network cannot see, and each pose is
the nearest of those that the molecule's symmetry makes equal. **In its group** noise is drawn for the asymmetric unit
and written out with the operations, improper ones included; the target is the nearest of all descriptions in the group
(`nearest_target`). Sampling averages what the network says over the orbit of each body: velocities W_g^-1 v, turns in
the frame of the body, the metric of the cell. So samples stay on the subspace that the group leaves fixed, whatever the
network says (compare Space Group Conditional Flow Matching, arXiv 2509.23822).

Mended against the published code: the loss is not clamped (which stopped its gradient), no step follows time 1, cells
keep a positive volume and begin at one expected of the molecules, hands are one rule, equal poses are one target.
Centroids are learnt as velocities, rotations and cells as end points, as published.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from nucleate.crystal.packing import Packings
from nucleate.data.whole_cells import Contents, FramedMolecules, WholeCells
from nucleate.generative.coupling import body_labels, chi_grouped, joint, nearest_pose
from nucleate.generative.flow_matching import Euler, FlowMatching, Heun, Sampler, TimeLaw, Uniform, even_times
from nucleate.geometry.lattice import lattice_from_log, log_coordinates
from nucleate.geometry.manifold import State
from nucleate.geometry.so3 import SO3, random_rotation, rotation_angle
from nucleate.geometry.torus import wrap, wrap_difference
from nucleate.models.molcrystalflow import FIELDS, VOLUME_EXCESS, VOLUME_SCALE, nearest_target
from nucleate.networks.molcrystalnet import BodyCondition, MolCrystalNet

SHAPE_MEAN = (-0.02, -0.02, -0.03, -0.21, -0.42)  # of the shape coordinates of primitive Niggli cells
SHAPE_SCALE = (0.11, 0.07, 0.11, 0.18, 0.25)
# of |v|^2, |turn|^2 and V^(2/3) |strain|^2; published: 2, 1 and 0.1 times means over 3, 3 and 9 entries (the last in Å)
PUBLISHED = {"centroid": 2 / 3, "rotation": 1 / 3, "lattice": 0.1 / 9}
ANGSTROM = 0.05  # of the squares of `distance_to_crystal`, Å^2: the loss begins near 1
LATE = 0.9  # errors of end points are divided by 1 - t, but by no less than 1 - LATE
MOST_UNITS = 2  # bodies of an asymmetric unit that is learnt in its group
SIZES = (4, 8, 16)  # cells with at most so many bodies are computed together

FLOW = FlowMatching(FIELDS, endpoint={"lattice", "rotation"}, centred={"centroid"})


@dataclass(frozen=True, eq=False)
class Told:
    """What the network is told of a batch, computed once for all times."""

    contents: Contents
    condition: BodyCondition


class WholeCellFlow(nn.Module):
    """`MolCrystalNet` with its prior, loss and sampler."""

    def __init__(
        self,
        network: MolCrystalNet,
        times: TimeLaw | None = None,
        coupling: Literal["joint", "chi_grouped"] = "joint",
        weights: Literal["angstrom", "published"] = "angstrom",
        symmetric: float = 0.5,
        strain: float = 0.0,
    ) -> None:
        """`symmetric` is the share of crystals that are learnt in their group, `strain` the deviation of k added."""
        super().__init__()
        self.network, self.coupling, self.weights = network, coupling, weights
        self.symmetric, self.strain = symmetric, strain
        self.times = times or Uniform(0.0, 0.99)

    # ------------------------------------------------------------ condition and prior

    def told(self, molecules: FramedMolecules, contents: Contents) -> Told:
        """Embeds every distinct molecule of the batch once."""
        distinct, place = torch.unique(contents.molecule, return_inverse=True)
        numbers = molecules.molecules.numbers[distinct]
        real = numbers > 0
        vectors = self.network.embedder.embed(
            numbers[real],
            molecules.molecules.positions[distinct][real],
            torch.nonzero(real)[:, 0],
            molecules.charges[distinct][real],
        )
        condition = BodyCondition(
            embedding=vectors[place],
            features=molecules.features[contents.molecule],
            handedness=contents.hand,
            mask=contents.mask,
        )
        return Told(contents, condition)

    def prior(self, molecules: FramedMolecules, contents: Contents, generator: torch.Generator) -> State:
        """Cells of the expected volume and the shape of Niggli cells, uniform poses; all as symmetric as `contents`."""
        batch, bodies = contents.mask.shape
        device = generator.device
        scale = torch.tensor([*SHAPE_SCALE, VOLUME_SCALE / math.sqrt(3)], device=device)
        k = torch.randn(batch, 6, generator=generator, device=device) * scale
        k = k + torch.tensor([*SHAPE_MEAN, 0.0], device=device)
        volume = (molecules.molecules.volume[contents.molecule] * contents.mask).sum(1)
        k[:, 5] += (volume.log() + VOLUME_EXCESS) / math.sqrt(3)
        noise = {
            "lattice": k,
            "centroid": torch.rand(batch, bodies, 3, generator=generator, device=device),
            "rotation": random_rotation(batch, bodies, generator=generator, dtype=torch.float32),
        }
        return symmetrised(noise, contents)

    # ------------------------------------------------------------ loss

    def forward(self, cells: WholeCells, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean loss over the batch, and its parts: squared errors of velocity in each field."""
        share = torch.rand(len(cells), generator=generator, device=generator.device)
        alone = (share >= self.symmetric) | ~can_be_symmetric(cells)
        parts = []
        for rows in by_size(cells.bodies):
            some = cells[rows]
            some = replace(some, contents=some.contents.without_symmetry(alone[rows]))
            parts.append((len(rows) / len(cells), *self._loss(some, generator)))
        loss = torch.stack([weight * own for weight, own, _ in parts]).sum()
        names = parts[0][2]
        return loss, {n: torch.stack([w * p[n] for w, _, p in parts]).sum() for n in names}

    def _loss(self, cells: WholeCells, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        contents = cells.contents
        cells = self._strained(cells, generator)
        noise, target = self.coupled(cells, self.prior(cells.molecules, contents, generator))
        t = self.times.draw(len(cells), generator, torch.float32, stratified=True)
        now = symmetrised(FLOW.interpolate(noise, target, t), contents)
        # images are turned as the cell of now turns them, not yet as that of the crystal
        target = symmetrised(target, contents, now["lattice"])
        told = self.told(cells.molecules, contents)
        prediction = self.network(now, t, told.condition)
        errors = FLOW.squared_error(prediction, now, target, t, contents.mask, LATE)
        weights = self._weights(cells)
        loss = torch.stack([weights[name] * error for name, error in errors.items()]).sum(0).mean()
        return loss, {name: error.detach().mean() for name, error in errors.items()}

    def _weights(self, cells: WholeCells) -> dict[str, Float[Tensor, "*batch"]]:
        """What squared errors of velocity count.

        As published an Å of a centroid counts some ten times less than an Å by which atoms turn. With "angstrom" all
        count alike.
        """
        area = (2 / math.sqrt(3) * cells.lattice[:, 5]).exp()
        if self.weights == "published":
            return {n: torch.full_like(area, w) for n, w in PUBLISHED.items()} | {
                "lattice": PUBLISHED["lattice"] * area
            }
        there = cells.contents.mask
        gyration = cells.molecules.molecules.gyration[cells.contents.molecule].square() * there
        turn = gyration.sum(1) / there.sum(1)
        return {"centroid": ANGSTROM * area, "rotation": ANGSTROM * turn, "lattice": ANGSTROM / 4 * area}

    def _strained(self, cells: WholeCells, generator: torch.Generator) -> WholeCells:
        """Crystals a little stretched, as symmetric as they were."""
        if not self.strain:
            return cells
        noise = torch.randn(len(cells), 6, generator=generator, device=generator.device)
        k = cells.lattice + self.strain * noise
        state = symmetrised(cells.state | {"lattice": k}, cells.contents)
        return replace(cells, lattice=state["lattice"], rotation=state["rotation"])

    def coupled(self, cells: WholeCells, noise: State) -> tuple[State, State]:
        """Noise and the target that it goes to."""
        alone = ~is_symmetric(cells.contents)
        target = {name: value.clone() for name, value in cells.state.items()}
        if alone.any():
            dealt, aim = self._dealt(cells, noise, torch.nonzero(alone).flatten())
            noise = {
                n: value.index_copy(0, torch.nonzero(alone).flatten(), dealt[n]) for n, value in noise.items()
            }
            target["rotation"][alone] = aim
        for bodies in range(1, MOST_UNITS + 1):
            rows = torch.nonzero(~alone & (cells.units == bodies)).flatten()
            if len(rows):
                units = {n: v[rows] if n == "lattice" else v[rows, :bodies] for n, v in noise.items()}
                nearest, _ = nearest_target(cells.asymmetric_units(rows, bodies), units)
                target["centroid"][rows, :bodies] = nearest["centroid"]
                target["rotation"][rows, :bodies] = nearest["rotation"]
        return noise, symmetrised(target, cells.contents)

    def _dealt(
        self, cells: WholeCells, noise: State, rows: Tensor
    ) -> tuple[State, Float[Tensor, "rows bodies 3 3"]]:
        """Noise of some cells in P1, dealt, and the equal poses that are nearest to it."""
        contents = cells.contents[rows]
        noise, data = ({n: v[rows] for n, v in state.items()} for state in (noise, cells.state))
        label = body_labels(contents.molecule, contents.hand, contents.mask)
        turns = cells.molecules.turns[contents.molecule]
        if self.coupling == "joint":
            gyration = cells.molecules.molecules.gyration[contents.molecule]
            S = lattice_from_log(data["lattice"])
            noise = joint(noise, data, label, S, gyration, translate=True, symmetries=turns)
        else:
            noise = chi_grouped(noise, data, label)
        return noise, nearest_pose(noise["rotation"], data["rotation"], turns)

    # ------------------------------------------------------------ sampling

    @torch.no_grad()
    def sample(
        self,
        molecules: FramedMolecules,
        contents: Contents,
        generator: torch.Generator | None,
        evaluations: int = 10,
        start: State | None = None,
        sampler: Sampler | None = None,
    ) -> State:
        """Cells with these contents, exactly as symmetric as they are; `start` replaces the noise.

        Without a sampler it is Euler's. `Euler(FLOW, pace)` takes annealing; `Heun(FLOW)` takes two looks a step, so
        half as many steps.
        """
        sampler = sampler or Euler(FLOW)
        if start is None:
            if generator is None:
                raise ValueError("expected a generator of the noise, or a start")
            start = self.prior(molecules, contents, generator)
        steps = evaluations if not isinstance(sampler, Heun) else (evaluations + 1) // 2
        ends = {name: torch.empty_like(value) for name, value in start.items()}
        for rows in by_size(contents.mask.sum(1)):
            some = contents[rows].narrowed(int(contents[rows].mask.sum(1).max()))
            told = self.told(molecules, some)
            x_0 = {n: v[rows] if n == "lattice" else v[rows, : some.mask.shape[1]] for n, v in start.items()}
            end = self._walk(told, x_0, sampler, even_times(steps))
            for name, value in end.items():
                own = ends[name]
                own[rows] = start[name][rows]  # padding stays where it is
                own[(rows,) if name == "lattice" else (rows, slice(value.shape[1]))] = value
        return ends

    def _walk(self, told: Told, x_0: State, sampler: Sampler, times: tuple[float, ...]) -> State:
        contents = told.contents
        return sampler.sample(
            lambda x, t: averaged(self.network(x, t, told.condition), x, contents),
            x_0,
            times,
            contents.mask,
            after_step=lambda x, _: symmetrised(x, contents),
        )


def by_size(bodies: Tensor) -> list[Tensor]:
    """Indices of the cells of each class of `SIZES`, so that small cells are not padded to large ones."""
    size = torch.bucketize(bodies, torch.tensor(SIZES, device=bodies.device))
    return [torch.nonzero(size == s).flatten() for s in size.unique().tolist()]


def can_be_symmetric(cells: WholeCells) -> Bool[Tensor, " batch"]:
    """Where there are operations, and few enough bodies that the nearest of all descriptions can be found."""
    return cells.has_symmetry & (cells.units <= MOST_UNITS)


# ---------------------------------------------------------------- symmetry


def symmetrised(state: State, contents: Contents, frame: Float[Tensor, "batch 6"] | None = None) -> State:
    """The state that the bodies of the asymmetric unit and the operations make; the same in P1.

    The metric of the cell is averaged over the operations, its volume kept. `frame` replaces the cell that says how
    operations turn bodies.
    """
    rows = torch.nonzero(is_symmetric(contents)).flatten()
    if not len(rows):
        return state
    W, w, unit = contents.rotations[rows], contents.translations[rows], contents.unit[rows]
    k = symmetric_cell(state["lattice"][rows], contents[rows])
    each = torch.arange(len(rows), device=rows.device)[:, None]
    centroid, rotation = (state[name][rows][each, unit] for name in ("centroid", "rotation"))
    Q = turns_of(k if frame is None else frame[rows], W)
    found = {
        "lattice": k,
        "centroid": wrap((W @ centroid[..., None]).squeeze(-1) + w),
        "rotation": Q @ rotation,
    }
    return {name: value.index_copy(0, rows, found[name]) for name, value in state.items()}


def averaged(prediction: State, x: State, contents: Contents) -> State:
    """A prediction at a symmetric x, averaged over the orbit of each body; the same in P1."""
    rows = torch.nonzero(is_symmetric(contents)).flatten()
    if not len(rows):
        return prediction
    W, mask = contents.rotations[rows], contents.mask[rows]
    same = (contents.unit[rows][:, :, None] == contents.unit[rows][:, None]) & mask[:, None]
    share = same.to(W) / same.sum(-1, keepdim=True).clamp(min=1)
    v = torch.linalg.solve(W, prediction["centroid"][rows][..., None]).squeeze(-1)
    turned = SO3().log(x["rotation"][rows], prediction["rotation"][rows])
    found = {
        "lattice": symmetric_cell(prediction["lattice"][rows], contents[rows]),
        "centroid": (W @ (share @ v)[..., None]).squeeze(-1),
        "rotation": SO3().exp(x["rotation"][rows], share @ turned),
    }
    return {name: value.index_copy(0, rows, found[name]) for name, value in prediction.items()}


def symmetric_cell(k: Float[Tensor, "batch 6"], contents: Contents) -> Float[Tensor, "batch 6"]:
    """The cell whose metric is the mean of W^T G W, of the volume it had."""
    S = lattice_from_log(k.double())
    W = contents.rotations.double()
    each = W.mT @ (S @ S)[:, None] @ W
    there = contents.mask.double()[..., None, None]
    metric = (each * there).sum(1) / there.sum(1)
    found = log_coordinates(torch.linalg.cholesky((metric + metric.mT) / 2))
    return torch.cat([found[:, :5].to(k), k[:, 5:]], -1)


def turns_of(
    k: Float[Tensor, "batch 6"], W: Float[Tensor, "batch bodies 3 3"]
) -> Float[Tensor, "batch bodies 3 3"]:
    """The proper rotations det(W) S W S^-1 by which operations turn bodies."""
    S = lattice_from_log(k)[:, None]
    return torch.linalg.det(W).round()[..., None, None] * (S @ W @ torch.linalg.inv(S))


def is_symmetric(contents: Contents) -> Bool[Tensor, " batch"]:
    """Where a body is the image of another."""
    own = torch.arange(contents.unit.shape[1], device=contents.unit.device)
    return ((contents.unit != own) & contents.mask).any(1)


# ---------------------------------------------------------------- distances and crystals


def distance_to_crystal(state: State, cells: WholeCells) -> Float[Tensor, " batch"]:
    """Å from states to the crystals with the same contents: after the best order of equal bodies and translation.

    The root of the sum of mean squared shifts, mean squared turns (rad) times the radius of gyration, and squared
    difference of log coordinates times V^(1/3) / 2, as in `nearest_target`, but of one choice of axes.
    """
    contents = cells.contents
    gyration = cells.molecules.molecules.gyration[contents.molecule]
    label = body_labels(contents.molecule, contents.hand, contents.mask)
    turns = cells.molecules.turns[contents.molecule]
    S = lattice_from_log(cells.lattice)
    dealt = joint(state, cells.state, label, S, gyration, translate=True, symmetries=turns)
    aim = nearest_pose(dealt["rotation"], cells.rotation, turns)
    shift = wrap_difference(dealt["centroid"] - cells.centroid) @ S
    turn = gyration * rotation_angle(dealt["rotation"], aim)
    moved = ((shift.square().sum(-1) + turn.square()) * contents.mask).sum(1) / contents.mask.sum(1)
    area = (2 / math.sqrt(3) * cells.lattice[:, 5]).exp()
    return (moved + 0.25 * area * (state["lattice"] - cells.lattice).square().sum(1)).sqrt()


def build(
    state: State,
    molecules: FramedMolecules,
    contents: Contents,
    like: Packings,
    transform: Float[Tensor, "batch 3 3"] | None = None,
) -> Packings:
    """States as packings of the species, group, kinds and conformers of `like`, one state a crystal.

    The first bodies of the state are those of `like`. With `transform` the cell becomes its inverse times the state's:
    the setting of a group whose primitive Niggli cell the state describes.
    """
    n, bodies = len(state["lattice"]), like.n_bodies
    T = torch.eye(3).expand(n, 3, 3) if transform is None else transform
    T = T.double()
    molecule, hand = contents.molecule[:, :bodies], contents.hand[:, :bodies]
    return replace(
        like,
        lattice=torch.linalg.solve(T, lattice_from_log(state["lattice"].double())),
        centroid=(state["centroid"][:, :bodies].double() @ T) % 1.0,
        rotation=SO3().project(
            state["rotation"][:, :bodies].double() @ molecules.frames[molecule].double().mT
        ),
        handedness=(hand * molecules.signs[molecule]).long(),
        conformer=like.conformer[:1].expand(n, -1),
    )
