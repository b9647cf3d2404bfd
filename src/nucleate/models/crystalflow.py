"""CrystalFlow (Luo et al. 2025, arXiv 2412.11693): inorganic crystals by flow matching, mended.

    represent   crystal -> log coordinates of its primitive Niggli cell, fractional coordinates, codes of elements
    loss        noise -> dealt to equal atoms -> point on the path -> the network
    sample      noise -> steps along the velocity of the network, if asked guided by properties
    build       state -> `Sites`

Atom kinds are given (crystal structure prediction) or generated with the rest (de novo). Two recipes share all of this.
"published" is the paper's: one cell volume for all in the noise, atoms in file order, every error weighed alike.
"default" starts from the volume that the elements take up and from the mean shape of Niggli cells, deals noise to equal
atoms and moves it together (`coupling.points`), takes the common translation out of what is learnt, and asks for the
end point of the cell. In both the time told to the network is the time of the state, and conditions are really dropped
in a share of the training, so that the branch without condition, which guidance needs, is learnt.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nucleate.crystal.sites import Sites
from nucleate.data.inorganic import Contents, Structures, element_volumes, expected_volume
from nucleate.errors import InputError, NucleateError
from nucleate.generative.coupling import points
from nucleate.generative.flow_matching import (
    Annealing,
    Euler,
    FlowMatching,
    Heun,
    TimeLaw,
    Uniform,
    even_times,
)
from nucleate.geometry.lattice import lattice_from_log
from nucleate.geometry.manifold import Euclidean, Manifold, Product, State
from nucleate.geometry.torus import Torus, wrap
from nucleate.networks.atom_pairs import AtomPairs
from nucleate.networks.cspnet import CODE, AtomsTold
from nucleate.networks.elements import HEAVIEST, element_of, two_hot

Recipe = Literal["default", "published"]

PUBLISHED_SCALE = (
    2**0.5,
    2**0.5,
    2**0.5,
    2**0.5,
    6**0.5,
    3**0.5,
)  # our log coordinates over those of the paper
PUBLISHED_MEAN = (0.0, 0.0, 0.0, 0.0, 0.0, 1.0)  # of the noise, in the paper's coordinates; a cell of 20 Å^3
PUBLISHED_SIGMA = 0.1
WEIGHTS = {  # of squared errors of velocity
    "default": {"lattice": 1.0, "frac": 5.0, "kind": 0.5},
    "published": {"lattice": 1 / 6, "frac": 10 / 3, "kind": 10 / CODE},
}
CELL_WIDTH = {"default": 12, "published": 6}  # numbers that a network says of a cell
LATE = 0.9  # errors of end points are divided by 1 - t, but by no less than 1 - LATE
MOST_SIZE = 200  # atoms: sizes are drawn up to here
PLAUSIBLE = (1.0, 500.0)  # Å^3 of an atom: outside no crystal is built
RETURN = 0.5  # the time that a walk goes back to
CONDITION_DROP = 0.2  # share of crystals that are learnt without their condition


@dataclass(frozen=True)
class Sampling:
    """How to walk from noise to crystals; `anneal` is the slope by which coordinates are hurried towards the data.

    With `returns` the end is mixed with new noise, as it is at time `RETURN`, and walked again from there, so often:
    errors that have gathered are forgotten, the rest is kept (restart sampling, Xu et al. 2023, arXiv 2306.14878).

    On 250 validation crystals 20 hurried Euler steps find 39.6 %, with four returns 44.4 % and more sharply
    (docs/inorganic.md). Heun's method along the learnt flow itself finds fewer.
    """

    steps: int = 20
    method: Literal["heun", "euler"] = "euler"
    anneal: float = 5.0
    guidance: float = 1.0  # 1: as conditioned; more: beyond; 0: conditions are not listened to
    returns: int = 4


class CrystalFlow(nn.Module):
    """A network with its prior, loss and sampler. What it needs to know of the data it learns in `fit`."""

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe = "default",
        conditions: Sequence[str] = (),
        generates_kinds: bool = False,
        times: TimeLaw | None = None,
    ) -> None:
        super().__init__()
        self.network, self.recipe, self.times = network, recipe, times or Uniform()
        self.conditions, self.generates_kinds = tuple(conditions), generates_kinds
        factors: dict[str, Manifold] = {"lattice": Euclidean(6), "frac": Torus()}
        if generates_kinds:
            factors["kind"] = Euclidean(CODE)
        ours = recipe == "default"
        self.flow = FlowMatching(
            Product(factors), endpoint={"lattice"} if ours else set(), centred={"frac"} if ours else set()
        )
        self.register_buffer("shape_mean", torch.zeros(5))
        self.register_buffer("shape_scale", torch.ones(5))
        self.register_buffer("volumes", torch.full((HEAVIEST,), 20.0))  # Å^3 of an atom of each element
        self.register_buffer("volume_scale", torch.ones(()))  # deviation of the log volume from these
        self.register_buffer("mean_volume", torch.full((), 20.0))
        self.register_buffer(
            "sizes", torch.zeros(MOST_SIZE + 1)
        )  # how often each number of atoms is in the data
        self.register_buffer("seen", torch.zeros(HEAVIEST + 1))  # how often each element is
        self.register_buffer("property_mean", torch.zeros(len(self.conditions)))
        self.register_buffer("property_scale", torch.ones(len(self.conditions)))
        self.register_buffer("codes", torch.cat([torch.zeros(1, CODE), two_hot()]), persistent=False)
        self.shape_mean: Tensor
        self.shape_scale: Tensor
        self.volumes: Tensor
        self.volume_scale: Tensor
        self.mean_volume: Tensor
        self.sizes: Tensor
        self.seen: Tensor
        self.property_mean: Tensor
        self.property_scale: Tensor
        self.codes: Tensor

    def fit(self, data: Structures) -> None:
        """Take from the data: shapes of cells, volumes of elements, numbers of atoms, standard scores of properties.

        Raises InputError where a property to be learnt has fewer than two values.
        """
        shape = data.lattice[:, :5]
        self.shape_mean.copy_(shape.mean(0))
        self.shape_scale.copy_(shape.std(0).clamp_min(0.02))
        self.volumes.copy_(element_volumes(data))
        log_volume = math.sqrt(3) * data.lattice[:, 5]
        self.mean_volume.copy_(data.volume_per_atom.log().mean().exp())
        expected = self.expected_volume(data.contents)
        self.volume_scale.copy_((log_volume - expected.log()).std().clamp(0.02, 0.5))
        self.sizes.copy_(torch.bincount(data.contents.sizes.clamp(max=MOST_SIZE), minlength=MOST_SIZE + 1))
        self.seen.copy_(torch.bincount(data.contents.numbers.flatten(), minlength=HEAVIEST + 1))
        self.seen[0] = 0
        for place, name in enumerate(self.conditions):
            values = data.properties[name]
            values = values[values.isfinite()]
            if len(values) < 2:
                raise InputError(f"expected values of the property {name} to learn from, got {len(values)}")
            self.property_mean[place] = values.mean()
            self.property_scale[place] = values.std().clamp_min(1e-6)

    # ------------------------------------------------------------ represent and build

    def represent(self, data: Structures) -> State:
        """The state of crystals."""
        state = {"lattice": data.lattice, "frac": data.frac}
        return state | ({"kind": self.codes[data.contents.numbers]} if self.generates_kinds else {})

    def build(self, state: State, contents: Contents) -> list[Sites | NucleateError]:
        """Crystals in the cells that were generated, or why one is none: not finite, or absurdly dense or thin."""
        numbers = contents.numbers
        if self.generates_kinds:
            numbers = torch.where(contents.mask, element_of(state["kind"]), 0)
        finite = torch.stack([v.flatten(1).isfinite().all(1) for v in state.values()]).all(0)
        share = (math.sqrt(3) * state["lattice"][:, 5].double()).exp() / contents.sizes
        cells = lattice_from_log(torch.where(finite[:, None], state["lattice"], 0.0).double()).cpu()
        frac = wrap(state["frac"].double()).cpu()
        found: list[Sites | NucleateError] = []
        for row in range(len(contents)):  # plain objects at the end of the way
            there = contents.mask[row].cpu()
            if not finite[row]:
                found.append(NucleateError("expected finite coordinates, got NaN or infinity"))
            elif not PLAUSIBLE[0] <= float(share[row]) <= PLAUSIBLE[1]:
                found.append(
                    NucleateError(
                        f"expected {PLAUSIBLE[0]:g} to {PLAUSIBLE[1]:g} Å^3 an atom, got {float(share[row]):.3g}"
                    )
                )
            else:
                found.append(Sites(cells[row], frac[row][there], numbers[row].cpu()[there]))
        return found

    # ------------------------------------------------------------ condition and prior

    def told(self, contents: Contents, conditions: Mapping[str, Tensor | float] | None = None) -> AtomsTold:
        """What the network is told besides the state. Properties that are not named, or NaN, are not known.

        Raises InputError for a property that was not learnt.
        """
        given = dict(conditions or {})
        if unknown := sorted(given.keys() - set(self.conditions)):
            raise InputError(
                f"expected conditions out of {', '.join(self.conditions) or 'none (the weights know no property)'}, "
                f"got {', '.join(unknown)}",
                reason="unknown condition",
            )
        batch, device = len(contents), contents.numbers.device
        raw = torch.full((batch, len(self.conditions)), math.nan, device=device)
        for place, name in enumerate(self.conditions):
            raw[:, place] = torch.as_tensor(given.get(name, math.nan), dtype=torch.float32, device=device)
        known = raw.isfinite()
        scores = torch.where(known, (raw - self.property_mean) / self.property_scale, 0.0)
        cell, spread = self.expected_cells(contents)
        return AtomsTold(contents.numbers, AtomPairs.of(contents.mask), scores, known.float(), cell, spread)

    def predict(self, x: State, t: Float[Tensor, " batch"], told: AtomsTold) -> State:
        """Velocities, or by default of the cell the end point: d where the contents decide it, else near k_t.

        With m and s the mean and deviation of cells of such contents, d = m + s u and k_1 = k_t + w (d - k_t), where u
        and the logit of w come from the network, and w begins as 1 - t. (A network that says the velocity has to find
        the difference of k_t and what it knows, and to magnify it: it learns that last.)
        """
        answer = self.network(x, t, told)
        if self.recipe == "default":
            u, logit = answer["lattice"].chunk(2, -1)
            first = t[:, None].clamp(1e-4, 1 - 1e-4)
            w = torch.sigmoid(logit + ((1 - first) / first).log())
            answer["lattice"] = x["lattice"] + w * (told.cell + told.spread * u - x["lattice"])
        return answer

    def prior(self, contents: Contents, generators: Sequence[torch.Generator]) -> State:
        """Noise: for each crystal from its own generator, or for all from the only one."""
        sizes = contents.sizes.tolist()
        atoms = contents.numbers.shape[1]
        if len(generators) == 1:
            [g] = generators
            drawn = [_noise(len(contents), atoms, self.generates_kinds, g)]
        else:
            drawn = []
            for g, n in zip(
                generators, sizes, strict=True
            ):  # as many numbers as it has atoms, whoever is beside it
                own = _noise(1, n, self.generates_kinds, g)
                drawn.append(
                    {
                        k: v if v.ndim == 2 else nn.functional.pad(v, (0, 0, 0, atoms - n))
                        for k, v in own.items()
                    }
                )
        device = contents.numbers.device
        noise = {name: torch.cat([d[name] for d in drawn]).to(device) for name in drawn[0]}
        noise["lattice"] = self._cells(noise["lattice"], contents)
        return noise

    def _cells(self, normal: Float[Tensor, "batch 6"], contents: Contents) -> Float[Tensor, "batch 6"]:
        """Standard normal numbers as the log coordinates of noisy cells."""
        if self.recipe == "published":
            scale = torch.tensor(PUBLISHED_SCALE, device=normal.device)
            return scale * (torch.tensor(PUBLISHED_MEAN, device=normal.device) + PUBLISHED_SIGMA * normal)
        cell, spread = self.expected_cells(contents)
        return cell + spread * normal

    def expected_cells(self, contents: Contents) -> tuple[Float[Tensor, "batch 6"], Float[Tensor, " 6"]]:
        """Mean and deviation of the log coordinates of cells with these contents."""
        k_6 = self.expected_volume(contents).log()[:, None] / math.sqrt(3)
        spread = torch.cat([self.shape_scale, self.volume_scale[None] / math.sqrt(3)])
        return torch.cat([self.shape_mean.expand(len(contents), 5), k_6], 1), spread

    def expected_volume(self, contents: Contents) -> Float[Tensor, " batch"]:
        """Å^3 of a cell with these atoms; where kinds are generated, with so many of them."""
        if self.generates_kinds:
            return self.mean_volume * contents.sizes
        return expected_volume(contents, self.volumes)

    def draw_sizes(self, n: int, generator: torch.Generator) -> list[int]:
        """Numbers of atoms as in the data."""
        return torch.multinomial(self.sizes.cpu(), n, replacement=True, generator=generator).tolist()

    # ------------------------------------------------------------ loss

    def forward(self, data: Structures, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch, and the mean squared error of velocity in each field."""
        contents, target = data.contents, self.represent(data)
        mirrored = torch.rand(len(data), 1, 1, generator=generator, device=generator.device) < 0.5
        if self.recipe == "default":  # the mirror image, in the same cell
            target["frac"] = torch.where(
                mirrored & contents.mask[..., None], wrap(-target["frac"]), target["frac"]
            )
        noise = self.coupled(self.prior(contents, [generator]), target, contents)
        t = self.times.draw(len(data), generator, torch.float32, stratified=self.recipe == "default")
        now = self.flow.interpolate(noise, target, t)
        told = self.told(contents, self._dropped(data.properties, generator))
        prediction = self.predict(now, t, told)
        errors = self._errors(prediction, now, target, t, contents)
        weights = WEIGHTS[self.recipe]
        loss = torch.stack([weights[name] * error.mean() for name, error in errors.items()]).sum()
        return loss, {name: error.detach().mean() for name, error in errors.items()}

    def coupled(self, noise: State, target: State, contents: Contents) -> State:
        """The noise dealt to the data: to equal atoms, or to all where kinds are generated; as published not at all."""
        if self.recipe == "published":
            return noise
        label = torch.where(contents.mask, 0 if self.generates_kinds else contents.numbers, -1)
        cells = lattice_from_log(target["lattice"])
        return {**noise, "frac": points(noise["frac"], target["frac"], label, cells)}

    def _errors(
        self, prediction: State, now: State, target: State, t: Tensor, contents: Contents
    ) -> dict[str, Float[Tensor, " n"]]:
        """Squared errors of velocity; by default one number a crystal, as published one an atom."""
        if self.recipe == "default":
            return self.flow.squared_error(prediction, now, target, t, contents.mask, LATE)
        wanted = self.flow.target_velocity(now, target, t, contents.mask)
        scale = torch.tensor(PUBLISHED_SCALE, device=t.device)
        errors = {"lattice": ((prediction["lattice"] - wanted["lattice"]) / scale).square().sum(-1)}
        for name in wanted.keys() - {"lattice"}:
            errors[name] = (prediction[name] - wanted[name]).square().sum(-1)[contents.mask]
        return errors

    def _dropped(self, properties: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """The properties that are learnt, for a share of the crystals none of them."""
        if not self.conditions:
            return {}
        values = [properties[name] for name in self.conditions]
        drop = torch.rand(len(values[0]), generator=generator, device=generator.device) < CONDITION_DROP
        return {name: v.masked_fill(drop, math.nan) for name, v in zip(self.conditions, values)}

    # ------------------------------------------------------------ sample

    @torch.no_grad()
    def sample(
        self,
        contents: Contents,
        generators: Sequence[torch.Generator],
        sampling: Sampling | None = None,
        conditions: Mapping[str, Tensor | float] | None = None,
    ) -> State:
        """States at time 1. A crystal's noise is its generator's alone; of several together one generator does."""
        how = sampling or Sampling()
        told = self.told(contents, conditions)
        free = self.told(contents)
        guided = how.guidance != 1.0 and bool(told.known.any())

        def predict(x: State, t: Tensor) -> State:
            answer = self.predict(x, t, told)
            if not guided:
                return answer
            without = self.predict(x, t, free)
            w = how.guidance
            return {name: w * answer[name] + (1 - w) * without[name] for name in answer}

        pace: dict[str, Callable[[float], float]] = {"frac": Annealing(how.anneal)} if how.anneal else {}
        sampler = {"heun": Heun, "euler": Euler}[how.method](self.flow, pace)
        x = sampler.sample(predict, self.prior(contents, generators), even_times(how.steps), contents.mask)
        for _ in range(how.returns):
            noise = self.coupled(self.prior(contents, generators), x, contents)
            x = self.flow.interpolate(noise, x, torch.full_like(x["lattice"][:, 0], RETURN))
            again = even_times(math.ceil(how.steps * (1 - RETURN)), RETURN)
            x = sampler.sample(predict, x, again, contents.mask)
        return x


def _noise(batch: int, atoms: int, kinds: bool, generator: torch.Generator) -> State:
    device = generator.device
    noise = {
        "lattice": torch.randn(batch, 6, generator=generator, device=device),
        "frac": torch.rand(batch, atoms, 3, generator=generator, device=device),
    }
    if kinds:
        noise["kind"] = torch.randn(batch, atoms, CODE, generator=generator, device=device)
    return noise
