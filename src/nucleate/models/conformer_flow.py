"""Conformers by flow matching of positions: noise that hangs together -> where all atoms are.

    represent   conformer -> positions about their centroid
    noise       x_0 ~ exp(-k/2 sum_bonds |r_i - r_j|^2): a chain of springs, about as large as the molecule
    loss        x_1 turned onto x_0 -> a point on the straight way -> the network's positions at time 1
    sample      noise -> steps to the network's positions at time 1
    build       what comes out are positions

Every point of the way is a place for all atoms, so distances can be had together, unlike those of ConfGF that are moved
one by one. The start, springs of one stiffness along bonds, is that of Stark et al. 2023 and Hassan et al. 2024.
Were x_1 not turned onto x_0, predicting it would be predicting the score of the path: C s(x_t) = (t E[x_1 | x_t] - x_t)
/ (1 - t)^2, where C is the covariance of the springs.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nucleate.crystal.bond_graph import BondGraphs
from nucleate.generative.flow_matching import Euler, FlowMatching, Uniform
from nucleate.geometry.manifold import Euclidean, Product, State
from nucleate.geometry.so3 import kabsch
from nucleate.models.conformers import ConformerPairs, Watch
from nucleate.networks.conformer import ConformerNetwork

FIELDS = Product({"positions": Euclidean(3)})
FLOW = FlowMatching(FIELDS, endpoint=frozenset(FIELDS.factors), centred=frozenset(FIELDS.factors))
BOND = 1.5  # Å: root mean square of a bond's length in the noise
LATE = 0.95  # errors are not divided by less than 1 - this of the way that is left
STEPS = 25  # of the sampler, each one call of the network
CROWDED = 3.0  # exponent of the times: steps get shorter towards the end


class ConformerFlow(nn.Module):
    """`ConformerNetwork` with its noise, loss and sampler; a `ConformerModel`."""

    def __init__(self, width: int = 128, layers: int = 5, pair_width: int = 64, steps: int = STEPS) -> None:
        super().__init__()
        self.network = ConformerNetwork(width, layers, pair_width)
        self.steps = steps

    def forward(self, batch: ConformerPairs, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Squared error of the predicted positions over (1 - t)^2, the mean over atoms and molecules (Å^2)."""
        graphs = batch.graphs
        x_0 = springs(graphs, generator).to(batch.positions)
        x_1 = laid_on(batch.positions, x_0)
        t = Uniform().draw(len(graphs), generator, torch.float32, stratified=True).to(x_0)
        start, end = {"positions": x_0}, {"positions": x_1}
        x_t = FLOW.interpolate(start, end, t)
        predicted = self._endpoint(x_t, t, graphs)
        error = FLOW.squared_error(predicted, x_t, end, t, graphs.mask, LATE)["positions"]
        left = (predicted["positions"].detach() - x_1).square().sum((1, 2)) / graphs.mask.sum(1)
        return error.mean(), {"away": left.mean().sqrt()}

    @torch.no_grad()
    def sample(
        self, graphs: BondGraphs, generator: torch.Generator, watch: Watch | None = None
    ) -> Float[Tensor, "batch atoms 3"]:
        """One conformer of each molecule (Å), centred."""
        start = springs(graphs, generator).to(next(self.parameters()))

        def tell(x: State, t: float) -> State:
            if watch is not None:
                watch(t)
            return x

        times = [1 - (1 - k / self.steps) ** CROWDED for k in range(self.steps)]
        end = Euler(FLOW).sample(
            lambda x, t: self._endpoint(x, t, graphs),
            {"positions": start},
            (*times, 1.0),
            graphs.mask,
            tell,
        )
        return end["positions"]

    def _endpoint(self, x: State, t: Float[Tensor, " batch"], graphs: BondGraphs) -> State:
        return {"positions": x["positions"] + self.network(graphs, x["positions"], t)}


def springs(graphs: BondGraphs, generator: torch.Generator) -> Float[Tensor, "batch atoms 3"]:
    """Normal positions with the precision matrix (3 / BOND^2) x Laplacian of the bonds; each molecule centred.

    Bonds have a mean square length of BOND^2 in a tree, less in rings. Separate parts have one centroid.
    """
    bonded = (graphs.hops == 1).double()
    laplacian = torch.diag_embed(bonded.sum(2)) - bonded
    stiffness, modes = torch.linalg.eigh(3 / BOND**2 * laplacian)
    wide = torch.where(stiffness > 1e-6, stiffness.clamp(min=1e-6).rsqrt(), 0.0)
    noise = torch.randn(*graphs.numbers.shape, 3, generator=generator, device=generator.device)
    x = modes @ (wide[..., None] * noise.to(modes))
    return x.float() * graphs.mask[..., None]


def laid_on(x: Float[Tensor, "batch atoms 3"], target: Float[Tensor, "batch atoms 3"]) -> Tensor:
    """Positions turned so as to be nearest to `target`; both centred, padding at the origin in both."""
    return x @ kabsch(x, target).rotation.mT
