"""A network that sees how molecules lie: contacts between anchor points of neighbours in a space group.

    atoms --encoder, once per molecule--> anchors (points of the body frame with features)
    crystal --> lattice vectors, images of the molecules, contacts of the anchors --> messages to each molecule
        --> forces along them --> shift and turn of each molecule, strain of the cell

Directions are told in the frame of each molecule (u = h R^T v, with its rotation R and hand h), and answers are turned
back, so every output turns, shifts and reflects with the crystal, and does not depend on the choice of cell, origin,
asymmetric unit or order of molecules. Periodicity and symmetry are exact: neighbours are images under the operations
of the group, and the strain is averaged over it. The network predicts the crystal at time 1 (x1-prediction).

The frame in which a molecule sees is told by `PoseCondition.axes`. It must belong to the conformer's shape and not to
the way it is written down (`crystal.rigid.own_axes`): a network that has to learn that half turns of its frame mean
nothing needs three times the training.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from nucleate.geometry.lattice import SHAPE_BASIS
from nucleate.networks.egnn import LARGEST_NUMBER
from nucleate.networks.embed import own_precision

FAR = 1e6  # Å, or Å^2: farther than anything


@dataclass(frozen=True, eq=False)
class MoleculeBatch:
    """Unique molecules, padded: atoms, and the anchor that each belongs to."""

    numbers: Int[Tensor, "molecules atoms"]  # 0 where padded
    positions: Float[Tensor, "molecules atoms 3"]  # Å, body frame
    anchor: Int[Tensor, "molecules atoms"]
    anchors: Float[Tensor, "molecules anchors 3"]  # Å, body frame
    present: Bool[Tensor, "molecules anchors"]


@dataclass(frozen=True, eq=False)
class PoseCondition:
    """What does not change on the way from noise to crystal."""

    anchors: Float[Tensor, "batch bodies anchors 3"]  # Å, body frame
    axes: Float[
        Tensor, "batch bodies 3 3"
    ]  # rows: those along which a molecule sees, right-handed, in the body frame
    hand: Float[Tensor, "batch bodies"]  # +1, or -1 for the conformer reflected through its centroid
    present: Bool[Tensor, "batch bodies anchors"]
    features: Float[Tensor, "batch bodies anchors width"]
    rotations: Float[Tensor, "batch ops 3 3"]  # of the group, on fractional columns
    translations: Float[Tensor, "batch ops 3"]
    operations: Bool[Tensor, "batch ops"]  # False where padded
    log_volume: Float[Tensor, " batch"]  # of the volume (Å^3) that the cell's molecules are expected to fill
    above: Float[
        Tensor, " batch"
    ]  # kJ/mol above the lowest crystal of the molecule, of the crystal that is asked for

    def __getitem__(self, index: Tensor | slice) -> "PoseCondition":
        return replace(self, **{name: getattr(self, name)[index] for name in self.__dataclass_fields__})


class AnchorEncoder(nn.Module):
    """Features of anchors from the atoms around them: distance-based messages, mirror-blind, computed once."""

    def __init__(
        self,
        width: int,
        layers: int = 3,
        basis: int = 16,
        reach: float = 6.0,
        near: int = 16,
        heaviest: int = LARGEST_NUMBER,
    ) -> None:
        super().__init__()
        self.near = near
        self.element = nn.Embedding(heaviest + 1, width, padding_idx=0)
        self.radial = RadialBasis(basis, reach)
        self.edge = nn.ModuleList(nn.Linear(basis, width, bias=False) for _ in range(layers))
        self.send = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.update = nn.ModuleList(perceptron(2 * width, width, width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, molecules: MoleculeBatch) -> Float[Tensor, "molecules anchors width"]:
        real = molecules.numbers > 0
        near, radial = self._neighbours(molecules.positions, real)
        h = self.element(molecules.numbers)
        pick = torch.arange(len(h), device=h.device)[:, None, None]
        for edge, send, update in zip(self.edge, self.send, self.update):
            heard = (edge(radial) * send(h)[pick, near]).sum(2)
            h = h + update(torch.cat([h, heard], -1)) * real[..., None]
        count = molecules.present.shape[1]
        member = nn.functional.one_hot(molecules.anchor, count).to(h.dtype) * real[..., None]
        return self.norm(member.mT @ h) * molecules.present[..., None]

    def _neighbours(
        self, positions: Float[Tensor, "molecules atoms 3"], real: Bool[Tensor, "molecules atoms"]
    ) -> tuple[Int[Tensor, "molecules atoms near"], Float[Tensor, "molecules atoms near basis"]]:
        """The nearest atoms of each atom and radial numbers of their distances; the last fade away."""
        exact = "donot_use_mm_for_euclid_dist"  # matrix products lose what is left of small distances
        apart = torch.cdist(positions, positions, compute_mode=exact)
        others = ~torch.eye(apart.shape[-1], dtype=torch.bool, device=apart.device)
        apart = torch.where(real[:, :, None] & real[:, None] & others, apart, FAR)
        least = apart.topk(min(self.near + 1, apart.shape[-1]), largest=False)
        distance, horizon = least.values[..., :-1], least.values[..., -1:]
        weight = fading(distance / horizon) * (distance < FAR)
        return least.indices[..., :-1], self.radial(distance) * weight[..., None]


class PoseNetwork(nn.Module):
    """The crystal at time 1, seen from the crystal at time t.

    Each molecule has `width` features and listens, in every layer, to the shortest lattice vectors and to its
    `neighbours` (images with the nearest centroids). In the first `contact_layers` each of its anchors listens to its
    `contacts` (nearest anchors of those neighbours), with `contact_width` features.
    """

    def __init__(
        self,
        width: int = 128,
        layers: int = 3,
        contact_width: int = 64,
        contact_layers: int = 1,
        neighbours: int = 16,
        contacts: int = 16,
        basis: int = 16,
        reach: float = 10.0,
    ) -> None:
        super().__init__()
        self.neighbours, self.contacts = neighbours, contacts
        self.encoder = AnchorEncoder(contact_width)
        self.radial = RadialBasis(basis, reach)
        self.told = perceptron(2 * TIME_FREQUENCIES + 2, width, width)
        self.place = perceptron(3, width, contact_width)
        self.first = nn.Linear(contact_width, width)
        self.cells = nn.ModuleList(TokenLayer(width, CELL_NUMBERS) for _ in range(layers))
        self.looks = nn.ModuleList(
            TokenLayer(width, basis + IMAGE_NUMBERS, others=True) for _ in range(layers)
        )
        self.touches = nn.ModuleList(
            ContactLayer(contact_width, basis + 6, width) for _ in range(contact_layers)
        )
        self.stretch = nn.Linear(2 * width, 1)
        self.pull = nn.Linear(2 * width, 5)
        self.force = PairWeights(contact_width, basis + 6, 3)
        last = perceptron(width, 2 * width, 12)
        self.body = nn.Sequential(nn.LayerNorm(width), last)
        with torch.no_grad():  # what has learnt nothing says little: the crystal stays sound
            for head in (self.stretch, self.pull, self.force.out, last[-1]):
                for parameter in head.parameters():
                    parameter.mul_(0.05)

    def forward(
        self,
        lattice: Float[Tensor, "batch 3 3"],
        centroid: Float[Tensor, "batch bodies 3"],
        rotation: Float[Tensor, "batch bodies 3 3"],
        t: Float[Tensor, " batch"],
        condition: PoseCondition,
    ) -> tuple[Float[Tensor, "batch 3 3"], Float[Tensor, "batch bodies 3"], Float[Tensor, "batch bodies 3"]]:
        """Strain (symmetric, logarithmic, in the frame of `lattice`), shifts (Å) and turns (rad) that lead to time 1.

        Rows of `lattice` in Å; the crystal at time 1 has rows `lattice @ exp(strain)`, centroids moved by the shift and
        rotations `exp(turn) @ rotation`.
        """
        with own_precision(lattice):
            anchors = condition.anchors @ condition.axes.mT
            frame = condition.hand[..., None, None] * rotation @ condition.axes.mT
            arms = anchors @ frame.mT
            cell = find_cell_vectors(lattice, condition)
            images = find_images(lattice, centroid, frame, condition, self.neighbours)
            near = find_contacts(anchors, frame, images, condition, self.contacts)
            direction = near.vector / near.distance.clamp(min=0.5)[..., None]
            # a contact's direction from here, and from its own end
            seen = torch.cat([self.radial(near.distance), direction @ frame[:, :, None], near.returned], -1)
            edge = seen * near.weight[..., None]
            spans, geometry = cell.seen_from(frame), self.geometry(images, frame)
            expected = condition.log_volume - torch.linalg.det(lattice).log()
        told = self.told(torch.cat([_waves(t), expected[:, None], condition.above[:, None] / WINDOW], -1))
        h = condition.features + self.place(anchors / ARM)
        x = self.first(_mean(h, condition.present)) + told[:, None]
        for k, (span, look) in enumerate(zip(self.cells, self.looks)):
            x, felt = span(x, spans, cell.weight[:, None])
            x, heard = look(x, geometry, images.weight, images.body)
            if k < len(self.touches):
                h, x = self.touches[k](h, x, edge, near, condition.present)
        told = (self.force(h, edge, near), self.pull(heard), self.stretch(felt), self.body(x))
        with own_precision(lattice):
            force, pull, stretch, own = (number.to(lattice.dtype) for number in told)
            contact = (force * condition.present[..., None, None], direction, arms)
            image = (
                pull * images.weight[..., None],
                images.vector / images.distance.clamp(min=2.0)[..., None],
            )
            along = (stretch[..., 0] * cell.weight[:, None]).mean(1), cell.direction
            strain, shift, turn = _assembled(contact, image, along, own, frame, condition)
            return _averaged(strain, lattice, condition), shift, turn

    def geometry(
        self, images: "Images", frame: Float[Tensor, "batch bodies 3 3"]
    ) -> Float[Tensor, "batch bodies images numbers"]:
        """Where each image is and how it lies, told in the frame of the molecule that looks."""
        where = (images.vector @ frame) / images.distance[..., None]
        squares = torch.cat([where * where, where * where.roll(1, -1)], -1)
        lies = frame.mT[:, :, None] @ images.frame
        far = images.distance[..., None] / ARM
        return torch.cat([self.radial(images.distance), where, where * far, squares, lies.flatten(-2)], -1)


@dataclass(frozen=True, eq=False)
class CellVectors:
    """The shortest lattice vectors, each for itself and its negative, and what the group makes of them."""

    direction: Float[Tensor, "batch vectors 3"]  # unit vectors
    length: Float[Tensor, "batch vectors"]  # Å
    weight: Float[Tensor, "batch vectors"]  # 1 for the shortest, 0 for the last
    share: Float[Tensor, "batch vectors"]  # length / V^(1/3)
    kept: Float[Tensor, "batch vectors 3"]  # means over operations Q: of u.Qu, of det(Q) u.Qu, of (u.Qu)^2

    def seen_from(
        self, frame: Float[Tensor, "batch bodies 3 3"]
    ) -> Float[Tensor, "batch bodies vectors numbers"]:
        """Numbers that do not change where a vector is replaced by its negative."""
        u = self.direction[:, None] @ frame
        centres = torch.linspace(0.3, 2.4, 8, dtype=u.dtype, device=u.device)
        bumps = torch.exp(-0.5 * ((self.share[..., None] - centres) / 0.3).square())
        alike = torch.cat([bumps, self.kept, self.length[..., None] / 10.0], -1)
        alike = alike[:, None].expand(-1, frame.shape[1], -1, -1)
        return torch.cat([u * u, u * u.roll(1, -1), alike], -1)


@dataclass(frozen=True, eq=False)
class Images:
    """For each molecule its nearest neighbours: images of all molecules under the group and the lattice."""

    vector: Float[Tensor, "batch bodies images 3"]  # Å, from centroid to centroid
    distance: Float[Tensor, "batch bodies images"]  # Å
    frame: Float[Tensor, "batch bodies images 3 3"]  # body frame of the image -> Cartesian
    body: Int[Tensor, "batch bodies images"]  # whose image it is
    weight: Float[Tensor, "batch bodies images"]  # 1 for the nearest, 0 for the last


@dataclass(frozen=True, eq=False)
class Contacts:
    """For each anchor its nearest anchors of other molecules or images."""

    vector: Float[Tensor, "batch bodies anchors contacts 3"]  # Å, from the anchor to its contact
    distance: Float[Tensor, "batch bodies anchors contacts"]  # Å
    weight: Float[Tensor, "batch bodies anchors contacts"]  # 1 for the nearest, 0 for the last and padding
    source: Int[Tensor, "batch bodies anchors contacts"]  # body * anchors + anchor that it is an image of
    returned: Float[Tensor, "batch bodies anchors contacts 3"]  # unit vector back, in the contact's own frame


def find_cell_vectors(lattice: Float[Tensor, "batch 3 3"], condition: PoseCondition) -> CellVectors:
    """The seven shortest of those to the 26 next lattice points; with the seventh they fade away."""
    vectors = _block(lattice)[14:] @ lattice  # one of each vector and its negative
    length = vectors.square().sum(-1).sqrt()
    with torch.no_grad():
        least = length.topk(SHORTEST + 1, largest=False)
        chosen, horizon = least.indices[:, :-1], least.values[:, -1:]
    length = length.gather(1, chosen)
    direction = vectors.gather(1, chosen[..., None].expand(-1, -1, 3)) / length[..., None]
    Q = cartesian_operations(lattice, condition.rotations)
    along = torch.einsum("bnx,bgxy,bny->bng", direction, Q, direction)
    sign = torch.linalg.det(condition.rotations)[:, None]
    there = condition.operations[:, None] / condition.operations.sum(1)[:, None, None]
    kept = torch.stack([(x * there).sum(-1) for x in (along, along * sign, along.square())], -1)
    share = length / torch.linalg.det(lattice)[:, None] ** (1 / 3)
    return CellVectors(direction, length, fading(length / horizon), share, kept)


def find_images(
    lattice: Float[Tensor, "batch 3 3"],
    centroid: Float[Tensor, "batch bodies 3"],
    frame: Float[Tensor, "batch bodies 3 3"],
    condition: PoseCondition,
    neighbours: int,
) -> Images:
    """The nearest by centroids, of all operations in the 27 cells around the nearest copy; exact for short cells."""
    bodies = centroid.shape[1]
    W, w = condition.rotations, condition.translations
    copies = torch.einsum("bgij,bmj->bgmi", W, centroid) + w[:, :, None]  # fractional
    apart = copies[:, None] - centroid[:, :, None, None]  # batch, own body, op, body, 3
    shifts = _block(apart)
    with torch.no_grad():
        apart = apart - apart.round()
        far = ((apart[..., None, :] + shifts) @ lattice[:, None, None, None]).square().sum(-1)
        far = torch.where(condition.operations[:, None, :, None, None], far, FAR)
        own = torch.eye(bodies, dtype=torch.bool, device=far.device)
        middle = shifts.abs().sum(-1) == 0
        far[:, :, 0] = torch.where(own[None, :, :, None] & middle, FAR, far[:, :, 0])
        kept = far.flatten(2).topk(min(neighbours + 1, far[0, 0].numel()), largest=False)
        chosen = kept.indices[..., :-1]
        horizon = kept.values[..., -1:].sqrt()  # Å, to the nearest one left out
    place = torch.div(chosen, len(shifts), rounding_mode="floor")
    op, body = torch.div(place, bodies, rounding_mode="floor"), place % bodies
    pick = torch.arange(len(lattice), device=op.device)[:, None, None]
    vector = apart.flatten(2, 3).gather(2, place[..., None].expand(-1, -1, -1, 3))
    vector = (vector + shifts[chosen % len(shifts)]) @ lattice[:, None]
    distance = vector.square().sum(-1).clamp(min=1e-8).sqrt()
    turned = cartesian_operations(lattice, W)[pick, op] @ frame[pick, body]
    there = condition.operations[pick, op]
    return Images(vector, distance, turned, body, fading(distance / horizon) * there)


def find_contacts(
    places: Float[Tensor, "batch bodies anchors 3"],
    frame: Float[Tensor, "batch bodies 3 3"],
    images: Images,
    condition: PoseCondition,
    contacts: int,
) -> Contacts:
    """The nearest anchors of the images, with the `places` of anchors in their frames; gradients flow."""
    batch, bodies, anchors = places.shape[:3]
    pick = torch.arange(batch, device=frame.device)[:, None, None]
    arms = places @ frame.mT
    points = images.vector[..., None, :] + places[pick, images.body] @ images.frame.mT
    points = points.flatten(2, 3)  # from the own centroid
    there = (condition.present[pick, images.body] & (images.weight > 0)[..., None]).flatten(2)
    with torch.no_grad():
        gaps = torch.cdist(arms.flatten(0, 1), points.flatten(0, 1)).unflatten(0, (batch, bodies))
        gaps = torch.where(there[:, :, None], gaps, FAR)
        least = gaps.topk(min(contacts + 1, gaps.shape[-1]), largest=False)
        nearest, limit = least.indices[..., :-1], least.values[..., -1:]
    flat = nearest.flatten(2)
    image = torch.div(flat, anchors, rounding_mode="floor")

    def of_contact(x: Tensor) -> Tensor:
        return x.gather(2, image).unflatten(2, nearest.shape[2:])

    found = points.gather(2, flat[..., None].expand(-1, -1, -1, 3)).unflatten(2, nearest.shape[2:])
    vector = found - arms[..., None, :]
    distance = vector.square().sum(-1).clamp(min=1e-8).sqrt()
    real = there.gather(2, flat).unflatten(2, nearest.shape[2:]) & condition.present[..., None]
    frames = images.frame.flatten(-2).gather(2, image[..., None].expand(-1, -1, -1, 9))
    frames = frames.unflatten(2, nearest.shape[2:]).unflatten(-1, (3, 3))
    returned = -torch.einsum("bmkcx,bmkcxy->bmkcy", vector / distance.clamp(min=0.5)[..., None], frames)
    weight = of_contact(images.weight) * fading(distance / limit) * real
    source = of_contact(images.body) * anchors + nearest % anchors
    return Contacts(vector, distance, weight, source, returned)


def fading(x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """1 up to 0.7, then smoothly down to 0 at 1: what is one of the last to be looked at counts little.

    An anchor is equally far from its images under an operation and its inverse; which of the two is the last must
    not matter.
    """
    return 0.5 * (1 + torch.cos(math.pi * ((x - 0.7) / 0.3).clamp(0.0, 1.0)))


class TokenLayer(nn.Module):
    """Each molecule listens to tokens: what they are like and, of images of molecules, who they are."""

    def __init__(self, width: int, numbers: int, others: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.own = nn.Linear(width, 2 * width)
        self.other = nn.Linear(width, 2 * width, bias=False) if others else None
        self.edge, self.gate = nn.Linear(numbers, 2 * width, bias=False), nn.Linear(numbers, 2 * width)
        self.message = nn.Sequential(nn.Linear(2 * width, 2 * width), nn.SiLU())
        self.update = perceptron(3 * width, 2 * width, width)

    def forward(
        self,
        x: Float[Tensor, "batch bodies width"],
        tokens: Float[Tensor, "batch bodies tokens numbers"],
        weight: Float[Tensor, "batch bodies_or_1 tokens"],
        body: Int[Tensor, "batch bodies tokens"] | None = None,
    ) -> tuple[Float[Tensor, "batch bodies width"], Float[Tensor, "batch bodies tokens messages"]]:
        """What each molecule has become, and what it heard from each token."""
        y = self.norm(x)
        pair = self.own(y)[:, :, None] + self.edge(tokens)
        if self.other is not None and body is not None:
            pick = torch.arange(len(x), device=x.device)[:, None, None]
            pair = pair + self.other(y)[pick, body]
        heard = self.message(nn.functional.silu(pair) * self.gate(tokens))
        total = (heard * weight[..., None]).sum(2)
        return x + self.update(torch.cat([y, total / 4], -1)), heard


class ContactLayer(nn.Module):
    """Each anchor listens to its contacts and to its own molecule; the molecule to its anchors."""

    def __init__(self, width: int, numbers: int, outer: int) -> None:
        super().__init__()
        self.own, self.other, self.edge = (
            nn.Linear(width, width), nn.Linear(width, width, bias=False), nn.Linear(numbers, width, bias=False)
        )  # fmt: skip
        self.gate = nn.Linear(numbers, width, bias=False)
        self.update = perceptron(3 * width, width, width)
        self.norm = nn.LayerNorm(width)
        self.down, self.up = nn.Linear(outer, width), nn.Linear(width, outer)

    def forward(
        self,
        h: Float[Tensor, "batch bodies anchors width"],
        x: Float[Tensor, "batch bodies outer"],
        edge: Float[Tensor, "batch bodies anchors contacts numbers"],
        near: Contacts,
        present: Bool[Tensor, "batch bodies anchors"],
    ) -> tuple[Float[Tensor, "batch bodies anchors width"], Float[Tensor, "batch bodies outer"]]:
        y = self.norm(h)
        pair = self.own(y)[..., None, :] + _gathered(self.other(y), near.source) + self.edge(edge)
        heard = (nn.functional.silu(pair) * self.gate(edge)).sum(3)
        body = self.down(x)[:, :, None].expand_as(y)
        h = h + self.update(torch.cat([y, heard, body], -1)) * present[..., None]
        return h, x + self.up(_mean(h, present))


class PairWeights(nn.Module):
    """Numbers for each contact from both ends and the distance."""

    def __init__(self, width: int, basis: int, count: int) -> None:
        super().__init__()
        self.own, self.other = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.edge = nn.Linear(basis, width, bias=False)
        self.out, self.norm = nn.Linear(width, count), nn.LayerNorm(width)
        self.gate = nn.Linear(basis, count, bias=False)

    def forward(
        self,
        h: Float[Tensor, "batch bodies anchors width"],
        radial: Float[Tensor, "batch bodies anchors contacts basis"],
        near: Contacts,
    ) -> Float[Tensor, "batch bodies anchors contacts count"]:
        x = self.norm(h)
        pair = self.own(x)[..., None, :] + _gathered(self.other(x), near.source) + self.edge(radial)
        return self.out(nn.functional.silu(pair)) * self.gate(radial)


class RadialBasis(nn.Module):
    """Gaussians between 0 and `reach` Å, all of them zero (with slope) at `reach`."""

    centres: Tensor

    def __init__(self, count: int, reach: float) -> None:
        super().__init__()
        self.reach, self.width = reach, reach / count
        self.register_buffer("centres", torch.linspace(0.0, reach, count), persistent=False)

    def forward(self, distance: Float[Tensor, "*n"]) -> Float[Tensor, "*n basis"]:
        bumps = torch.exp(-0.5 * ((distance[..., None] - self.centres) / self.width).square())
        inside = 0.5 * (1 + torch.cos(math.pi * (distance / self.reach).clamp(max=1.0)))
        return bumps * inside[..., None]


TIME_FREQUENCIES = 8
IMAGE_NUMBERS = 21  # of an image's direction, place, squares and orientation
CELL_NUMBERS = 18  # of a lattice vector's squares, length and symmetry
SHORTEST = 7  # lattice vectors that face the cell of points nearest to one of them
WINDOW = 5.0  # kJ/mol: a usual energy above the lowest crystal
ARM = 3.0  # Å: a usual distance of an anchor from the centroid


def cartesian_operations(
    lattice: Float[Tensor, "batch 3 3"], rotations: Float[Tensor, "batch ops 3 3"]
) -> Float[Tensor, "batch ops 3 3"]:
    """Q = L^T W L^-T: what an operation on fractional columns does to Cartesian ones."""
    inverse = torch.linalg.inv(lattice)
    return lattice.mT[:, None] @ rotations @ inverse.mT[:, None]


def _assembled(
    contact: tuple[Tensor, Tensor, Tensor],
    image: tuple[Tensor, Tensor],
    along: tuple[Tensor, Tensor],
    own: Float[Tensor, "batch bodies 12"],
    frame: Float[Tensor, "batch bodies 3 3"],
    condition: PoseCondition,
) -> tuple[Float[Tensor, "batch 3 3"], Float[Tensor, "batch bodies 3"], Float[Tensor, "batch bodies 3"]]:
    """Strain, shifts and turns: numbers along contacts (3), images (5) and lattice vectors (1), and of bodies (12)."""
    force, direction, arms = contact
    pull, line = image
    rotation = condition.hand[..., None, None] * frame
    push, twist = ((force[..., n, None] * direction).sum(3) for n in (0, 1))
    shift = push.sum(2) + (pull[..., :1] * line).sum(2) + torch.einsum("bmij,bmj->bmi", frame, own[..., :3])
    # torques of contacts; axes of the body drawn towards neighbours; a turn of the body's own
    torque = torch.linalg.cross(arms, twist).sum(2)
    lever = torch.einsum("bmnk,bmik,bmnj->bmij", pull[..., 2:], rotation, line)
    turn = _solve_inertia(arms, torque, condition.present) + axial(lever) * condition.hand[..., None]
    turn = turn + torch.einsum("bmij,bmj->bmi", rotation, own[..., 3:6])
    virial = torch.einsum("bmkc,bmkcx,bmkcy->bmxy", force[..., 2], direction, direction)
    virial = virial + torch.einsum("bmn,bmnx,bmny->bmxy", pull[..., 1], line, line)
    eye = torch.eye(3, dtype=virial.dtype, device=virial.device)
    stretch, u = along
    spanned = torch.einsum("bn,bnx,bny->bxy", stretch, u, u) / u.shape[1]
    strain = 0.03 * virial + frame @ _symmetric(own[..., 7:]) @ frame.mT + own[..., 6, None, None] * eye
    return strain.mean(1) + 0.1 * spanned, shift, turn


def _averaged(
    strain: Float[Tensor, "batch 3 3"], lattice: Float[Tensor, "batch 3 3"], condition: PoseCondition
) -> Float[Tensor, "batch 3 3"]:
    """The part of a strain that keeps the group: its mean over Q^T e Q."""
    Q = cartesian_operations(lattice, condition.rotations)
    turned = (Q.mT @ strain[:, None] @ Q) * condition.operations[..., None, None]
    mean = turned.sum(1) / condition.operations.sum(1)[:, None, None]
    return (mean + mean.mT) / 2


def _symmetric(five: Float[Tensor, "batch bodies 5"]) -> Float[Tensor, "batch bodies 3 3"]:
    """Traceless symmetric matrices from five numbers each."""
    basis = SHAPE_BASIS[:5].to(five)
    return 0.1 * torch.einsum("bmk,kij->bmij", five, basis)


def axial(matrix: Float[Tensor, "*n 3 3"]) -> Float[Tensor, "*n 3"]:
    """sum of a x b for a matrix that is a sum of a b^T."""
    return torch.stack(
        [
            matrix[..., 1, 2] - matrix[..., 2, 1],
            matrix[..., 2, 0] - matrix[..., 0, 2],
            matrix[..., 0, 1] - matrix[..., 1, 0],
        ],
        -1,
    )


def _solve_inertia(
    arms: Float[Tensor, "batch bodies anchors 3"],
    torque: Float[Tensor, "batch bodies 3"],
    present: Bool[Tensor, "batch bodies anchors"],
) -> Float[Tensor, "batch bodies 3"]:
    """(I + 1 Å^2 n)^-1 torque with the anchors' tensor of inertia I."""
    arms = arms * present[..., None]
    squares = arms.square().sum((-1, -2))
    eye = torch.eye(3, dtype=arms.dtype, device=arms.device)
    inertia = squares[..., None, None] * eye - arms.mT @ arms
    count = present.sum(-1)[..., None, None].to(arms.dtype)
    return torch.linalg.solve(inertia + count.clamp(min=1) * eye, torque)


def _block(like: Tensor) -> Float[Tensor, "27 3"]:
    """Lattice shifts around the nearest image; those of a skew cell may need more, of a reduced one not."""
    span = torch.tensor([-1.0, 0.0, 1.0], dtype=like.dtype, device=like.device)
    return torch.cartesian_prod(span, span, span)


def _gathered(
    x: Float[Tensor, "batch bodies anchors width"], source: Int[Tensor, "batch bodies anchors contacts"]
) -> Float[Tensor, "batch bodies anchors contacts width"]:
    per_crystal = x.shape[1] * x.shape[2]
    first = per_crystal * torch.arange(len(x), device=x.device).view(-1, 1, 1, 1)
    rows = (source + first).flatten()
    return x.flatten(0, 2).index_select(0, rows).unflatten(0, source.shape)


def _mean(
    h: Float[Tensor, "batch bodies anchors width"], present: Bool[Tensor, "batch bodies anchors"]
) -> Float[Tensor, "batch bodies width"]:
    return (h * present[..., None]).sum(2) / present.sum(2).clamp(min=1)[..., None]


def _waves(t: Float[Tensor, " batch"]) -> Float[Tensor, "batch waves"]:
    steps = math.pi * torch.arange(1, TIME_FREQUENCIES + 1, dtype=t.dtype, device=t.device)
    return torch.cat([torch.sin(t[:, None] * steps), torch.cos(t[:, None] * steps)], -1)


def perceptron(inside: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inside, hidden), nn.SiLU(), nn.Linear(hidden, out))
