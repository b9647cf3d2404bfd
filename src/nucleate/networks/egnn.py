"""One vector for each molecule, from its elements, charges and distances; computed once, whatever its pose.

The building-block embedder of MolCrystalFlow (arXiv 2602.16020): the invariant part of EGNN (Satorras et al. 2021)
without moving coordinates. It knows distances only, so it does not see which mirror image it is given; handedness is
told to the crystal network apart. Against the published code there is one residual a layer instead of two (which
doubled the input every layer), no sigmoid inside the softmax of the pooling (which held the contrast below e),
messages fade to zero at the cut-off instead of ending there, and the squared distance is not told beside the Gaussians,
which already say it.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from nucleate.errors import InputError
from nucleate.geometry.manifold import safe_sqrt
from nucleate.networks.embed import gaussian_basis, smooth_cutoff

LARGEST_NUMBER = 54  # hydrogen to xenon
PAIRS = 4000  # of atoms at a time: their features stay in the cache of a CPU core
GROWTH = 1.25  # molecules whose numbers of atoms differ by less are padded to one size


class MessageLayer(nn.Module):
    """m_ij = phi_e(h_i, h_j, e_ij), h_i <- h_i + phi_h(h_i, sum_j w_ij m_ij) (Satorras et al. 2021, eq. 3, 5, 6).

    The first linear map of phi_e is split: its node parts act on nodes, its edge part on the radial basis.
    """

    def __init__(self, width: int, basis: int) -> None:
        super().__init__()
        self.edge = nn.Linear(basis, width)
        self.ends = nn.Linear(width, 2 * width, bias=False)
        self.message = nn.Linear(width, width)
        self.norm = nn.LayerNorm(2 * width)
        self.update = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(
        self,
        h: Float[Tensor, "molecules atoms width"],
        radial: Float[Tensor, "molecules atoms atoms basis"],
        weight: Float[Tensor, "molecules atoms atoms"],
    ) -> Float[Tensor, "molecules atoms width"]:
        receive, send = self.ends(h).chunk(2, -1)
        hidden = torch.relu(self.edge(radial) + receive[:, :, None] + send[:, None])
        message = torch.relu(self.message(hidden))
        heard = (weight[..., None, :] @ message).squeeze(-2)
        return h + self.update(self.norm(torch.cat([h, heard], -1)))


class AttentionPooling(nn.Module):
    """sum_i a_i h_i with a = softmax over atoms of phi(h_i, |x_i|), x from the centroid (Å)."""

    def __init__(self, width: int, hidden: int = 128) -> None:
        super().__init__()
        sizes = [width + 1, hidden, hidden // 2]
        self.score = nn.Sequential(
            nn.Linear(sizes[0], sizes[1]), nn.ReLU(), nn.Linear(sizes[1], sizes[2]), nn.ReLU(),
            nn.Linear(sizes[2], 1, bias=False),  # the softmax does not see a bias
        )  # fmt: skip

    def forward(
        self,
        h: Float[Tensor, "molecules atoms width"],
        radius: Float[Tensor, "molecules atoms"],
        real: Bool[Tensor, "molecules atoms"],
    ) -> Float[Tensor, "molecules width"]:
        score = self.score(torch.cat([h, radius[..., None]], -1)).squeeze(-1)
        share = score.masked_fill(~real, -math.inf).softmax(-1)
        return (share[:, None] @ h).squeeze(1)


class MoleculeEmbedder(nn.Module):
    """Elements, formal charges and a conformer -> one vector of `width` for each molecule."""

    def __init__(
        self, width: int = 64, layers: int = 6, basis: int = 64, cutoff: float = 6.0, hidden: int = 128
    ) -> None:
        super().__init__()
        self.width, self.cutoff = width, cutoff
        self.element = nn.Embedding(LARGEST_NUMBER + 1, width, padding_idx=0)
        self.charge = nn.Linear(1, width, bias=False)
        self.register_buffer("centres", torch.linspace(0, cutoff, basis))
        self.centres: Tensor
        self.layers = nn.ModuleList(MessageLayer(width, basis) for _ in range(layers))
        self.pool = AttentionPooling(width, hidden)

    def forward(
        self,
        numbers: Int[Tensor, "molecules atoms"],
        positions: Float[Tensor, "molecules atoms 3"],
        charges: Int[Tensor, "molecules atoms"] | None = None,
    ) -> Float[Tensor, "molecules width"]:
        """Molecules padded to one number of atoms: `numbers` is 0 at padding, positions (Å) are finite there.

        Raises InputError for elements beyond xenon.
        """
        check_elements(numbers)
        real = numbers > 0
        count = real.sum(1, keepdim=True)
        centred = positions - (positions * real[..., None]).sum(1, keepdim=True) / count[..., None]
        distance = _distances(centred)
        apart = ~torch.eye(numbers.shape[1], dtype=torch.bool, device=numbers.device)
        weight = smooth_cutoff(distance, self.cutoff) * (real[:, :, None] & real[:, None] & apart)
        radial = gaussian_basis(distance, self.centres)
        h = self.element(numbers)
        if charges is not None:
            h = h + self.charge(charges[..., None].to(h.dtype))
        for layer in self.layers:
            h = layer(h, radial, weight)
        return self.pool(h, safe_sqrt(centred.square().sum(-1)), real)

    def embed(
        self,
        numbers: Int[Tensor, " atoms"],
        positions: Float[Tensor, "atoms 3"],
        molecule: Int[Tensor, " atoms"],
        charges: Int[Tensor, " atoms"] | None = None,
    ) -> Float[Tensor, "molecules width"]:
        """The same for flat atoms; `molecule` (0, 1, ..., every one present, any order) says whose each is.

        Molecules of about one size are padded together, so that one large molecule does not make the others large, and
        on a CPU a few at a time.
        """
        padding, rows = pad_by_size(molecule)
        flat = positions.new_zeros(len(rows), self.width)
        for members, atoms in (part for group in padding for part in _in_parts(*group)):
            real = atoms >= 0
            own = torch.where(real, numbers[atoms], 0)
            part = self(
                own, positions[atoms], None if charges is None else torch.where(real, charges[atoms], 0)
            )
            flat = flat.index_copy(0, members, part.to(flat.dtype))
        return flat


def check_elements(numbers: Int[Tensor, "*n"]) -> None:
    """Raises InputError, naming them, for atomic numbers outside 0 (padding) to `LARGEST_NUMBER`."""
    bad = numbers[(numbers < 0) | (numbers > LARGEST_NUMBER)]
    if len(bad):
        raise InputError(
            f"expected elements from hydrogen (1) to xenon ({LARGEST_NUMBER}), got atomic numbers "
            f"{bad.unique().tolist()}; the network has no embedding for them, so leave those molecules out",
            reason="unknown element",
        )


def pad_by_size(
    molecule: Int[Tensor, " atoms"],
) -> tuple[list[tuple[Int[Tensor, " members"], Int[Tensor, "members size"]]], Int[Tensor, " molecules"]]:
    """Molecules in groups of about one size: (members, indices of their atoms padded with -1) of each group.

    The second result is the number of atoms of each molecule. A group's sizes differ by at most the factor `GROWTH`.
    """
    sizes = torch.bincount(molecule)
    if (sizes == 0).any():
        raise ValueError("expected every molecule 0, 1, ... to have an atom; number them without gaps")
    order = torch.argsort(molecule, stable=True)
    start = torch.cumsum(sizes, 0) - sizes
    group = torch.log(sizes.double()).div(math.log(GROWTH)).floor().long()
    groups = []
    for g in group.unique().tolist():
        members = torch.nonzero(group == g).flatten()
        place = torch.arange(int(sizes[members].max()), device=molecule.device)
        inside = place < sizes[members, None]
        atoms = order[torch.where(inside, start[members, None] + place, 0)]
        groups.append((members, torch.where(inside, atoms, -1)))
    return groups, sizes


def _in_parts(
    members: Int[Tensor, " members"], atoms: Int[Tensor, "members size"]
) -> list[tuple[Int[Tensor, " part"], Int[Tensor, "part size"]]]:
    """A group of molecules in parts of about `PAIRS` pairs of atoms; in one part on a GPU."""
    if members.device.type != "cpu":
        return [(members, atoms)]
    few = max(1, PAIRS // atoms.shape[1] ** 2)
    return list(zip(members.split(few), atoms.split(few)))


def _distances(x: Float[Tensor, "molecules atoms 3"]) -> Float[Tensor, "molecules atoms atoms"]:
    return safe_sqrt((x[:, :, None] - x[:, None]).square().sum(-1))
