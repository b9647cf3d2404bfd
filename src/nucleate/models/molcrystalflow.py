"""Flow matching for rigid molecules in a space group, with the network that sees their poses.

    represent   crystal -> log coordinates of the cell, centroid and rotation of each body of the asymmetric unit
    loss        noise -> nearest of all equivalent targets -> point on the geodesic -> the network's crystal at time 1
    sample      noise -> steps along the geodesic to the network's crystal at time 1, exactly symmetric all the way
    build       state -> `Packings`

All equivalent descriptions of a crystal count as one target: other origins and symmetry copies, exchanged bodies, and
poses that the molecule's own symmetry makes equal. The one nearest to the noise is taken.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from nucleate.crystal.packing import Packings
from nucleate.data.poses import Groups, Molecules, Poses
from nucleate.generative.flow_matching import Beta, Euler, FlowMatching, TimeLaw, even_times
from nucleate.geometry.lattice import lattice_from_log, log_coordinates, symmetric_log
from nucleate.geometry.manifold import Euclidean, Product, State
from nucleate.geometry.so3 import SO3, random_rotation, rotation_exp
from nucleate.geometry.torus import Torus, wrap_difference
from nucleate.networks.pose import MoleculeBatch, PoseCondition, PoseNetwork, cartesian_operations

SHAPE_SCALE = (0.10, 0.17, 0.10, 0.42, 0.42)  # standard deviations of the shape coordinates of short cells
VOLUME_EXCESS, VOLUME_SCALE = 0.067, 0.06  # mean and deviation of log(volume / sum of atomic volumes)
STRAIN_WEIGHT = 0.1  # of the squared strain times V^(2/3) beside shifts and turns in Å^2
MOST_STRAIN = 2.0  # norm of a logarithmic strain that a sampler follows; cells of the prior differ by less
LATE = 0.2  # 1 - t is not taken below this where errors are divided by it


FIELDS = Product({"lattice": Euclidean(6), "centroid": Torus(3), "rotation": SO3()})
FLOW = FlowMatching(FIELDS, endpoint=frozenset(FIELDS.factors))
"""A state has `lattice` (batch, 6) log coordinates, `centroid` (batch, bodies, 3) fractional, `rotation` (.., 3, 3)."""


@dataclass(frozen=True, eq=False)
class Task:
    """What is asked of the flow: molecules, their hands, and a group, for each crystal of a batch."""

    molecule: Int[Tensor, "batch bodies"]
    hand: Float[Tensor, "batch bodies"]
    group: Int[Tensor, " batch"]
    above: Float[Tensor, " batch"] | None = (
        None  # kJ/mol above the lowest crystal of the molecule; None is the lowest
    )


class PoseFlow(nn.Module):
    """`PoseNetwork` with its prior, loss and sampler."""

    def __init__(self, network: PoseNetwork, times: TimeLaw | None = None) -> None:
        super().__init__()
        self.network = network
        self.times = times or Beta(1.5, 1.0)

    # ------------------------------------------------------------ condition and prior

    def encode(
        self, molecules: Molecules, chosen: Int[Tensor, " chosen"]
    ) -> Float[Tensor, "chosen anchors width"]:
        """Features of the chosen molecules, which are those of any pose."""
        batch = MoleculeBatch(
            molecules.numbers[chosen],
            molecules.positions[chosen],
            molecules.anchor[chosen],
            molecules.anchors[chosen],
            molecules.present[chosen],
        )
        return self.network.encoder(batch)

    def condition(
        self,
        molecules: Molecules,
        groups: Groups,
        task: Task,
        features: Float[Tensor, "molecules anchors width"] | None = None,
    ) -> PoseCondition:
        """Encodes each distinct molecule of the task once, or not at all where the `features` of all are given."""
        place = task.molecule
        if features is None:
            distinct, place = torch.unique(task.molecule, return_inverse=True)
            features = self.encode(molecules, distinct)
        return PoseCondition(
            anchors=molecules.anchors[task.molecule],
            axes=molecules.axes[task.molecule],
            hand=task.hand,
            present=molecules.present[task.molecule],
            features=features[place],
            rotations=groups.rotations[task.group],
            translations=groups.translations[task.group],
            operations=groups.operations[task.group],
            log_volume=self.log_volume(molecules, groups, task),
            above=torch.zeros_like(task.hand[:, 0]) if task.above is None else task.above,
        )

    def log_volume(self, molecules: Molecules, groups: Groups, task: Task) -> Float[Tensor, " batch"]:
        """Of the volume (Å^3) that the whole cell is expected to have."""
        copies = groups.operations.sum(1)[task.group]
        return (molecules.volume[task.molecule].sum(1) * copies).log() + VOLUME_EXCESS

    def prior(self, molecules: Molecules, groups: Groups, task: Task, generator: torch.Generator) -> State:
        """Cells of the expected volume and of any shape that the group allows; uniform poses."""
        batch, bodies = task.molecule.shape
        normal = torch.randn(batch, 6, generator=generator, device=generator.device)
        return {
            "lattice": self.cells(molecules, groups, task, normal),
            "centroid": torch.rand(batch, bodies, 3, generator=generator, device=generator.device),
            "rotation": random_rotation(batch, bodies, generator=generator, dtype=torch.float32),
        }

    def cells(
        self, molecules: Molecules, groups: Groups, task: Task, normal: Float[Tensor, "batch 6"]
    ) -> Float[Tensor, "batch 6"]:
        """Log coordinates of cells of the prior from standard normal numbers."""
        k = normal * normal.new_tensor([*SHAPE_SCALE, VOLUME_SCALE / math.sqrt(3)])
        k[:, 5] += self.log_volume(molecules, groups, task) / math.sqrt(3)
        return (groups.allowed[task.group] @ k[..., None])[..., 0] + groups.fixed[task.group]

    # ------------------------------------------------------------ loss

    def forward(self, poses: Poses, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss: mean squared error of the predicted crystal over (1 - t)^2, and its parts in Å^2."""
        task = Task(poses.molecule, poses.hand, poses.group, poses.above)
        noise = self.prior(poses.molecules, poses.groups, task, generator)
        target, _ = nearest_target(poses, noise)
        t = self.times.draw(len(poses), generator, torch.float32, stratified=True)
        now = FLOW.interpolate(noise, target, t)
        condition = self.condition(poses.molecules, poses.groups, task)
        S_t, S_1 = lattice_from_log(now["lattice"]), lattice_from_log(target["lattice"])
        strain, shift, turn = self.network(S_t, now["centroid"], now["rotation"], t, condition)
        wanted_strain, U = strain_between(S_t, S_1)
        wanted_shift = wrap_difference(target["centroid"] - now["centroid"]) @ S_t
        wanted_rotation = U.mT[:, None] @ target["rotation"]
        gyration = poses.molecules.gyration[poses.molecule]
        volume = (math.sqrt(3) * target["lattice"][:, 5]).exp()
        apart = rotation_exp(turn) @ now["rotation"] - wanted_rotation
        errors = {
            "shift": (shift - wanted_shift).square().sum(-1).mean(1),
            "turn": (0.5 * gyration**2 * apart.square().sum((-1, -2))).mean(1),
            "strain": STRAIN_WEIGHT * volume ** (2 / 3) * (strain - wanted_strain).square().sum((-1, -2)),
        }
        weight = 1 / (1 - t).clamp(min=LATE).square()
        loss = (weight * sum(errors.values())).mean() / 10
        return loss, {name: error.detach().mean() for name, error in errors.items()}

    # ------------------------------------------------------------ sampling

    def endpoint(self, x: State, t: Float[Tensor, " batch"], condition: PoseCondition) -> State:
        """The crystal at time 1 as a state, turned so that its cell is symmetric."""
        S_t = lattice_from_log(x["lattice"])
        strain, shift, turn = self.network(S_t, x["centroid"], x["rotation"], t, condition)
        strain, failed = _bounded(strain)
        shift = torch.where(failed[:, None, None], math.nan, shift)
        moved = S_t @ torch.linalg.matrix_exp(strain)
        k = log_coordinates(moved)
        U = torch.linalg.solve(lattice_from_log(k), moved)
        return {
            "lattice": k,
            "centroid": (x["centroid"] + shift @ torch.linalg.inv(S_t)) % 1.0,
            "rotation": U[:, None] @ rotation_exp(turn) @ x["rotation"],
        }

    @torch.no_grad()
    def sample(
        self,
        molecules: Molecules,
        groups: Groups,
        task: Task,
        generator: torch.Generator | None,
        steps: int = 10,
        start: State | None = None,
        features: Float[Tensor, "molecules anchors width"] | None = None,
    ) -> State:
        """Crystals of the task, each exactly symmetric in its group.

        `start` replaces the noise, `features` (of all molecules, from `encode`) save encoding them again. A network
        that fails for a crystal leaves it with numbers that are not finite, and others as they are.
        """
        condition = self.condition(molecules, groups, task, features)
        if start is None:
            if generator is None:
                raise ValueError(
                    "expected a generator to draw the noise with, or the noise as `start`; got neither"
                )
            start = self.prior(molecules, groups, task, generator)
        return Euler(FLOW).sample(lambda x, t: self.endpoint(x, t, condition), start, even_times(steps))


def _bounded(strain: Float[Tensor, "batch 3 3"]) -> tuple[Float[Tensor, "batch 3 3"], Bool[Tensor, " batch"]]:
    """At most `MOST_STRAIN`; none where the network failed, since its cell would end the whole batch."""
    size = strain.square().sum((-1, -2), keepdim=True).sqrt()
    bounded = strain * (MOST_STRAIN / size.clamp(min=MOST_STRAIN))
    return torch.where(size.isfinite(), bounded, 0.0), ~size.isfinite()[:, 0, 0]


def build(state: State, like: Packings) -> Packings:
    """States of one task as crystals: the molecules, hands and group are those of `like` (a batch of one)."""
    n = len(state["lattice"])
    return replace(
        like,
        lattice=lattice_from_log(state["lattice"].double()),
        centroid=state["centroid"].double() % 1.0,
        rotation=SO3().project(state["rotation"].double()),
        handedness=like.handedness[:1].expand(n, -1),
        conformer=like.conformer[:1].expand(n, -1),
    )


def strain_between(
    S_t: Float[Tensor, "batch 3 3"], S_1: Float[Tensor, "batch 3 3"]
) -> tuple[Float[Tensor, "batch 3 3"], Float[Tensor, "batch 3 3"]]:
    """The symmetric e and the rotation U with S_t expm(e) = S_1 U."""
    inverse = torch.linalg.inv(S_t)
    strain = symmetric_log(inverse @ S_1 @ S_1 @ inverse.mT) / 2
    return strain, torch.linalg.solve(S_1, S_t @ torch.linalg.matrix_exp(strain))


@torch.no_grad()
def nearest_target(poses: Poses, noise: State) -> tuple[State, Float[Tensor, " batch"]]:
    """Of all descriptions of each crystal the one nearest to the noise, and its distance (Å).

    They differ in the cell (short ones of the setting), the order of bodies, the origin, the operation that each
    body is an image under, and the symmetry of its molecule. The squared distance adds those of shifts (Å), of turns
    (rad, where small) times the radius of gyration, and of the log coordinates times V^(1/3) / 2.
    """
    bodies = poses.centroid.shape[2]
    orders = [list(range(bodies))] + ([[1, 0]] if bodies == 2 else [])
    row, cell = torch.nonzero(poses.short, as_tuple=True)
    own_noise = {name: value[row] for name, value in noise.items()}
    found = [_nearest_in_order(poses, row, cell, own_noise, order) for order in orders]
    squared, best = torch.stack([cost for cost, _ in found]).min(0)
    pairs = torch.arange(len(row), device=row.device)
    grid = torch.full(poses.short.shape, torch.inf, device=row.device)
    grid[row, cell] = squared
    least, which = grid.min(1)
    place = torch.zeros_like(poses.short, dtype=torch.long)
    place[row, cell] = pairs
    chosen = place[torch.arange(len(poses), device=row.device), which]
    nearest = {name: torch.stack([state[name] for _, state in found])[best, pairs][chosen] for name in noise}
    return nearest, least.sqrt()


def _nearest_in_order(
    poses: Poses, row: Int[Tensor, " pairs"], cell: Int[Tensor, " pairs"], noise: State, order: list[int]
) -> tuple[Float[Tensor, " pairs"], State]:
    """For pairs of a crystal and one of its cells the nearest description, and its squared distance."""
    k, group = poses.lattice[row, cell], poses.group[row]
    hand, molecule = poses.hand[row][:, order], poses.molecule[row][:, order]
    S = lattice_from_log(k)
    W, w = poses.groups.rotations[group], poses.groups.translations[group]
    A = poses.molecules.symmetries[molecule]
    centroid = torch.einsum("bgij,bmj->bmgi", W, poses.centroid[row, cell][:, order]) + w[:, None]
    rotation = torch.einsum(
        "bgij,bmjk,bmakl->bmgail", cartesian_operations(S, W), poses.rotation[row, cell][:, order], A
    )
    real = poses.groups.operations[group][:, None, :, None] & poses.molecules.symmetric[molecule][:, :, None]
    gyration = poses.molecules.gyration[molecule][..., None, None]
    turned = 0.5 * gyration**2 * (rotation - noise["rotation"][:, :, None, None]).square().sum((-1, -2))
    turned = torch.where(real & (torch.linalg.det(rotation) > 0), turned, torch.inf)
    cost, c, R = _under_common_origin(poses.groups, group, noise, S, centroid, rotation, turned)
    scale = 0.5 * torch.linalg.det(S) ** (1 / 3)
    cost = cost + scale**2 * (k - noise["lattice"]).square().sum(1)
    same = (molecule == poses.molecule[row]).all(1) & (hand == poses.hand[row]).all(1)
    return torch.where(same, cost, torch.inf), {"lattice": k, "centroid": c % 1.0, "rotation": R}


def _under_common_origin(
    groups: Groups,
    group: Int[Tensor, " batch"],
    noise: State,
    S: Float[Tensor, "batch 3 3"],
    centroid: Float[Tensor, "batch bodies ops 3"],
    rotation: Float[Tensor, "batch bodies ops symmetries 3 3"],
    turned: Float[Tensor, "batch bodies ops symmetries"],
) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch bodies 3"], Float[Tensor, "batch bodies 3 3"]]:
    """Each body takes its cheapest image; all share one origin.

    Along free axes the origin is chosen so that the first body need not move.
    """
    shifts, free = groups.shifts[group], groups.free[group]
    bodies, rows = centroid.shape[1], torch.arange(len(S), device=S.device)
    slide = torch.where(free[:, None], noise["centroid"][:, :1] - centroid[:, 0], 0.0)  # batch ops 3
    # one body takes the origin of its own image; of several, each image of the first one is tried
    slides = (
        [slide] if bodies == 1 else [slide[:, g : g + 1] for g in range(slide.shape[1] if free.any() else 1)]
    )
    found = []
    for own in slides:
        aim = centroid[:, None] + shifts[:, :, None, None] + own[:, None, None]  # batch shifts bodies ops 3
        apart = wrap_difference(aim - noise["centroid"][:, None, :, None]) @ S[:, None, None]
        cost = apart.square().sum(-1)[..., None] + turned[:, None]
        least, which = cost.flatten(3).min(-1)  # batch shifts bodies
        total, shift = least.mean(-1).min(-1)
        chosen, place = which[rows, shift], torch.arange(bodies, device=S.device)
        op = torch.div(chosen, cost.shape[-1], rounding_mode="floor")
        c = aim[rows, shift][rows[:, None], place, op]
        R = rotation[rows[:, None], place, op, chosen % cost.shape[-1]]
        found.append((total, c, R))
    best = torch.stack([total for total, _, _ in found]).argmin(0)
    cost, c, R = (torch.stack(parts)[best, rows] for parts in zip(*found))
    return cost, c, R
