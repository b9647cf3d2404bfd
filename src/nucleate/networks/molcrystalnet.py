"""The published network of MolCrystalFlow (arXiv 2602.16020), mended: molecules as nodes of the whole cell.

    molecule vectors + 18 features + time --> nodes
    centroid differences, relative rotations, cell --> edges, all molecules with all
    6 x (handedness fused in, messages) --> velocity of centroids, rotations and cell at time 1

What an edge knows does not change when a molecule moves by a lattice vector, when all move together, or when their
order changes. **It is blind, as published, to a rotation of all molecules together** with the cell held still: it sees
rotations of molecules relative to each other only, never relative to the cell or to a displacement. So it cannot learn
how molecules are turned where the noise turns them uniformly: the best it can say is where they are. `sees_cell`
gives every body the cell as seen from its own frame, which is all that is missing.

Mended against the published code: displacements are odd and continuous at cell faces (they were taken modulo 1);
relative rotations are matrices and their powers instead of three angles that are singular at 0 and pi; no
contraction of angles with the cell; the layer norm that was built and never called is called; the predicted cell always
has a positive volume; features are standard scores; padding instead of loops.
"""

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from nucleate.geometry.lattice import lattice_from_log
from nucleate.geometry.manifold import State
from nucleate.geometry.so3 import quaternion_to_matrix
from nucleate.geometry.torus import wrap_difference
from nucleate.networks.egnn import MoleculeEmbedder
from nucleate.networks.embed import Standardise, own_precision, periodic_waves, time_waves

LATTICE_FEATURES = 15  # six log coordinates, nine entries of the metric at unit volume


@dataclass(frozen=True, eq=False)
class BodyCondition:
    """What the bodies of each crystal are; it does not change on the way from noise to crystal."""

    embedding: Float[Tensor, "batch bodies width"]  # of `MoleculeEmbedder`
    features: Float[Tensor, "batch bodies features"]  # raw; the network standardises them
    handedness: Int[Tensor, "batch bodies"]  # +1, or -1 for the mirrored conformer
    mask: Bool[Tensor, "batch bodies"]  # False where padded; everything is finite there

    def __getitem__(self, index: Tensor | slice) -> "BodyCondition":
        """Crystals by index, repeats allowed."""
        return replace(self, **{f.name: getattr(self, f.name)[index] for f in fields(self)})


class HandednessFusion(nn.Module):
    """h <- h + LayerNorm(phi(h, c)), c the embedding of each body's handedness.

    The first linear map of phi is split: the part of c acts on the two rows of the table, not on every body.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.node, self.hand = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden, bias=False)
        self.out = nn.Sequential(nn.SiLU(), nn.Linear(hidden, hidden), nn.LayerNorm(hidden))

    def forward(
        self,
        h: Float[Tensor, "batch bodies hidden"],
        table: Float[Tensor, "2 hidden"],
        mirrored: Int[Tensor, "batch bodies"],
    ) -> Float[Tensor, "batch bodies hidden"]:
        hand = nn.functional.embedding(mirrored, self.hand(table))
        return h + self.out(self.node(h) + hand)


class CrystalLayer(nn.Module):
    """m_ij = phi_m(h_i, h_j, e_ij, cell), h_i <- h_i + phi_h(h_i, mean_j m_ij), j over all bodies, i itself too.

    As in the layer of DiffCSP (Jiao et al. 2023, eq. 6, 7), with phi_m split as in `egnn.MessageLayer`.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.ends = nn.Linear(hidden, 2 * hidden, bias=False)
        self.message = nn.Sequential(nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU())
        self.update = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.SiLU(), nn.Linear(hidden, hidden))

    def forward(
        self,
        h: Float[Tensor, "batch bodies hidden"],
        edge: Float[Tensor, "batch bodies bodies hidden"],
        cell: Float[Tensor, "batch hidden"],
        share: Float[Tensor, "batch bodies"],
    ) -> Float[Tensor, "batch bodies hidden"]:
        normal = self.norm(h)
        receive, send = self.ends(normal).chunk(2, -1)
        message = self.message(edge + (receive + cell[:, None])[:, :, None] + send[:, None])
        heard = (share[:, None, None] @ message).squeeze(-2)
        return h + self.update(torch.cat([normal, heard], -1))


class MolCrystalNet(nn.Module):
    """The velocity of the centroids, and the rotations and the cell expected at time 1.

    With the default sizes it has the published width and depth, and 4.5 M parameters.
    """

    def __init__(
        self,
        hidden: int = 256,
        layers: int = 6,
        features: int = 18,
        time_width: int = 128,
        molecule_width: int = 64,
        node_width: int = 128,
        harmonics: int = 32,
        turns: int = 12,
        sees_cell: bool = False,
    ) -> None:
        """`harmonics` of the centroid differences and `turns` (powers) of the relative rotations are looked at.

        With `sees_cell` (not published) the lattice vectors in the frame of each body are among its features.
        """
        super().__init__()
        self.sees_cell = sees_cell
        self.time_width, self.harmonics, self.turns = time_width, harmonics, turns
        self.embedder = MoleculeEmbedder(molecule_width)
        self.scores, self.lattice_scores = Standardise(features), Standardise(6)
        self.molecule = nn.Linear(molecule_width, node_width)
        self.node = nn.Sequential(
            nn.Linear(node_width + features + time_width + 9 * sees_cell, hidden), nn.LayerNorm(hidden)
        )
        self.edge = nn.Linear(6 * harmonics + 9 * turns + 3, layers * hidden, bias=False)
        self.cell = nn.Linear(LATTICE_FEATURES, layers * hidden)
        self.hands = nn.Embedding(2, hidden)
        self.fusions = nn.ModuleList(HandednessFusion(hidden) for _ in range(layers))
        self.layers = nn.ModuleList(CrystalLayer(hidden) for _ in range(layers))
        self.velocity, self.turn, self.strain = _head(hidden, 3), _head(hidden, 3), _head(hidden, 6)

    def forward(self, state: State, t: Float[Tensor, " batch"], condition: BodyCondition) -> State:
        """From `lattice` (batch, 6), `centroid` (batch, bodies, 3) and `rotation` (batch, bodies, 3, 3) at time t.

        Returns `lattice` (log coordinates at time 1), `centroid` (velocity in fractional coordinates, without a
        common drift) and `rotation` (at time 1: turned in the body frame by the quaternion (1, b, c, d) / norm).
        Padded bodies have velocity 0 and keep their rotation. Under autocast the geometry stays in the precision of
        the state.
        """
        present = condition.mask.to(state["centroid"].dtype)
        share = present / present.sum(1, keepdim=True)
        with own_precision(present):
            pairs, cell = self.edge_features(state), self.cell_features(state["lattice"])
        edges, cells = (m.chunk(len(self.layers), -1) for m in (self.edge(pairs), self.cell(cell)))
        mirrored = (condition.handedness < 0).long()
        h = self.node(self.node_features(state, t.to(present), condition))
        for fuse, layer, edge, cell in zip(self.fusions, self.layers, edges, cells):
            h = layer(fuse(h, self.hands.weight, mirrored), edge, cell, share)
        strain = self.strain((share[:, None] @ h).squeeze(1))
        velocity, turn = (head(h).to(present) * present[..., None] for head in (self.velocity, self.turn))
        with own_precision(present):
            drift = velocity.sum(1, keepdim=True) * share[..., None]
            quaternion = torch.cat([torch.ones_like(turn[..., :1]), turn], -1)
            rotation = state["rotation"] @ quaternion_to_matrix(quaternion)
        lattice = state["lattice"] + self.lattice_scores.scale * strain.to(present)
        return {"lattice": lattice, "centroid": velocity - drift, "rotation": rotation}

    def node_features(
        self, state: State, t: Float[Tensor, " batch"], condition: BodyCondition
    ) -> Float[Tensor, "batch bodies inputs"]:
        """Molecule vector, 18 features, time. Scores beyond a few deviations are drawn in (asinh)."""
        bodies = condition.mask.shape[1]
        told = time_waves(t, self.time_width)[:, None].expand(-1, bodies, -1)
        scores = torch.asinh(self.scores(condition.features.to(t.dtype)))
        parts = [self.molecule(condition.embedding), scores, told]
        if self.sees_cell:
            with own_precision(t):
                parts.append(cell_in_body(state["lattice"], state["rotation"]).flatten(2))
        return torch.cat(parts, -1)

    def edge_features(self, state: State) -> Float[Tensor, "batch bodies bodies edge"]:
        """Of each ordered pair (i, j): waves of the difference of centroids, its direction, relative rotation."""
        centroid, rotation = state["centroid"], state["rotation"]
        step = wrap_difference(centroid[:, None] - centroid[:, :, None])
        waves = periodic_waves(step, self.harmonics)
        direction = waves[..., : 3 * self.harmonics : self.harmonics] @ unit_metric(state["lattice"])[:, None]
        relative = rotation[:, :, None].mT @ rotation[:, None]
        return torch.cat([waves, direction, rotation_powers(relative, self.turns)], -1)

    def cell_features(self, lattice: Float[Tensor, "batch 6"]) -> Float[Tensor, "batch cell"]:
        """Log coordinates as standard scores, and the metric L L^T of the cell scaled to unit volume."""
        return torch.cat([self.lattice_scores(lattice), unit_metric(lattice).flatten(1)], -1)


def unit_metric(k: Float[Tensor, "*n 6"]) -> Float[Tensor, "*n 3 3"]:
    """L L^T / V^(2/3) of the cell with log coordinates k: the cell of twice the shape, without its volume."""
    shape = torch.cat([2 * k[..., :5], torch.zeros_like(k[..., 5:])], -1)
    return lattice_from_log(shape)


def cell_in_body(
    k: Float[Tensor, "batch 6"], rotation: Float[Tensor, "batch bodies 3 3"]
) -> Float[Tensor, "batch bodies 3 3"]:
    """Rows R^T l_k: the lattice vectors of the cell, scaled to unit volume, in the frame of each body.

    The frame of the world is that of `lattice_from_log`, in which L is symmetric.
    """
    shape = torch.cat([k[:, :5], torch.zeros_like(k[:, 5:])], -1)
    return lattice_from_log(shape)[:, None] @ rotation


def rotation_powers(rotation: Float[Tensor, "*n 3 3"], count: int) -> Float[Tensor, "*n entries"]:
    """The entries of R, R^2, ..., R^count: waves of the angle that have no singular point.

    R^k turns by k times the angle about the same axis n, so its entries are cos(k omega), sin(k omega) n and
    (1 - cos(k omega)) n n^T, summed: smooth in R, with no axis to choose at 0 and no sign to choose at pi.
    """
    powers = rotation[..., None, :, :]
    while powers.shape[-3] < count:
        powers = torch.cat([powers, powers @ powers[..., -1:, :, :]], -3)
    return powers[..., :count, :, :].flatten(-3)


def _head(hidden: int, outputs: int) -> nn.Sequential:
    """Starts small, so that an untrained network leaves the state nearly as it is."""
    last = nn.Linear(hidden, outputs, bias=False)
    nn.init.normal_(last.weight, std=0.01 / hidden**0.5)
    return nn.Sequential(nn.Linear(hidden, hidden), nn.SiLU(), last)
