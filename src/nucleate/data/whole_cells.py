"""Crystals as whole cells: all molecules of the primitive Niggli cell, and the operations that tie them together.

    packing --primitive Niggli cell--> log coordinates, all bodies --canonical frames--> tensors, padded and masked

Conventions. The cell is the primitive Niggli cell, once for each crystal (no other cells are shown to a network: it is
told the cell it has). It is turned to the symmetric matrix S = exp(sum of k_i B_i) of its log coordinates k. With n
molecules in the asymmetric unit the bodies 0 .. n-1 are the unit, and body g n + m is the image of body m under
operation g, x -> W_g x + w_g in fractions of this cell. The image is turned by det(Q) Q with Q = S W S^-1, and its hand
is det(W) times that of the unit's body.

Body frames are those of MolCrystalFlow (arXiv 2602.16020): principal axes, longest first, the first two signs such that
the centroid weighted with atomic numbers lies on their positive side of the plain one. The published bit chi says on
which side of the third axis it lies; here the stored conformer is the one that has it on the positive side, mirrored if
need be, so that `hand` -1 is chi = 1. For molecules with a mirror plane, planar ones above all, it means nothing.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nucleate.crystal.molecule import Molecule
from nucleate.crystal.packing import Packings
from nucleate.data.molecule_features import molecule_features
from nucleate.data.packed import PackedCrystal
from nucleate.data.poses import Groups, Molecules, Poses
from nucleate.errors import InputError
from nucleate.geometry.lattice import lattice_from_log, log_coordinates, niggli_reduce
from nucleate.geometry.manifold import State
from nucleate.geometry.symmetry import P1, SpaceGroup
from nucleate.networks.egnn import check_elements

SAME_MOLECULE = 0.1  # Å: RMSD of all atoms up to which a symmetry of the heavy atoms is one of the molecule
MOST_BODIES = 16  # molecules in a primitive cell


@dataclass(frozen=True, eq=False)
class FramedMolecules:
    """Unique molecules in canonical frames: own position = sign * frame @ canonical position, on columns."""

    molecules: Molecules
    charges: Int[Tensor, "molecules atoms"]
    features: Float[Tensor, "molecules features"]  # of `molecule_features`, raw
    turns: Float[Tensor, "molecules turns 3 3"]  # proper symmetries of the conformer; identity where padded
    frames: Float[Tensor, "molecules 3 3"]  # proper
    signs: Float[Tensor, " molecules"]  # -1 where the canonical conformer is the mirror image

    @staticmethod
    def of(conformers: Sequence[tuple[Molecule, Tensor]]) -> "FramedMolecules":
        """Raises InputError for elements beyond xenon, or of which no volume or feature is known."""
        frames, signs = zip(*(canonical_frame(m.numbers, x) for m, x in conformers))
        placed = [(m, s * x.double() @ F) for (m, x), F, s in zip(conformers, frames, signs)]
        molecules = with_exact_symmetries(Molecules.of(placed))
        check_elements(molecules.numbers)
        A = molecules.symmetries
        proper = torch.linalg.det(A)[..., None, None] > 0
        charge = [torch.tensor([a.GetFormalCharge() for a in m.graph.GetAtoms()]) for m, _ in conformers]
        return FramedMolecules(
            molecules=molecules,
            charges=torch.nn.utils.rnn.pad_sequence(charge, batch_first=True),
            features=torch.stack([features_of(m, x) for m, x in placed]).float(),
            turns=torch.where(proper, A, torch.eye(3)),
            frames=torch.stack(frames).float(),
            signs=torch.tensor(signs),
        )


@dataclass(frozen=True, eq=False)
class Contents:
    """What is in each cell, and which bodies are images of which: body i is that of `unit[i]` under W_i x + w_i.

    In P1 every body is its own unit and W the identity.
    """

    molecule: Int[Tensor, "batch bodies"]
    hand: Int[Tensor, "batch bodies"]  # +1 or -1
    mask: Bool[Tensor, "batch bodies"]  # False where padded
    unit: Int[Tensor, "batch bodies"]
    rotations: Float[Tensor, "batch bodies 3 3"]
    translations: Float[Tensor, "batch bodies 3"]

    def __len__(self) -> int:
        """Number of cells."""
        return len(self.mask)

    def __getitem__(self, index: Tensor) -> "Contents":
        return replace(self, **{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def without_symmetry(self, which: Bool[Tensor, " batch"]) -> "Contents":
        """The same, but in P1 where `which` is true."""
        bodies = self.mask.shape[1]
        own = torch.arange(bodies, device=which.device).expand_as(self.unit)
        eye = torch.eye(3, device=which.device)
        return replace(
            self,
            unit=torch.where(which[:, None], own, self.unit),
            rotations=torch.where(which[:, None, None, None], eye, self.rotations),
            translations=torch.where(which[:, None, None], 0.0, self.translations),
        )

    def narrowed(self, bodies: int) -> "Contents":
        """Without the padding beyond the first so many bodies."""
        return replace(self, **{f.name: getattr(self, f.name)[:, :bodies] for f in fields(self)})


@dataclass(frozen=True, eq=False)
class WholeCells:
    """A data set, or a batch of one; see the conventions above."""

    molecules: FramedMolecules
    groups: Groups  # of each cell, in its own axes
    contents: Contents
    lattice: Float[Tensor, "cells 6"]
    centroid: Float[Tensor, "cells bodies 3"]  # fractional; 0 where padded
    rotation: Float[Tensor, "cells bodies 3 3"]  # of the canonical frame; identity where padded
    group: Int[Tensor, " cells"]
    units: Int[Tensor, " cells"]  # bodies of the asymmetric unit
    transform: Float[Tensor, "cells 3 3"]  # cell here = transform @ cell of the packing, but for its turn
    ids: tuple[str, ...]
    keys: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.lattice)

    def __getitem__(self, index: Tensor) -> "WholeCells":
        """Some of them, padded no more than they need."""
        rows = torch.arange(len(self))[index.cpu()].tolist()
        contents = self.contents[index]
        most = int(contents.mask.sum(1).max()) if len(rows) else 0
        return replace(
            self,
            contents=contents.narrowed(most),
            lattice=self.lattice[index],
            centroid=self.centroid[index][:, :most],
            rotation=self.rotation[index][:, :most],
            group=self.group[index],
            units=self.units[index],
            transform=self.transform[index],
            ids=tuple(self.ids[i] for i in rows),
            keys=tuple(self.keys[i] for i in rows),
        )

    @property
    def state(self) -> State:
        return {"lattice": self.lattice, "centroid": self.centroid, "rotation": self.rotation}

    @property
    def bodies(self) -> Int[Tensor, " cells"]:
        """Molecules in each cell."""
        return self.contents.mask.sum(1)

    @property
    def has_symmetry(self) -> Bool[Tensor, " cells"]:
        return self.bodies > self.units

    def asymmetric_units(self, index: Int[Tensor, " rows"], bodies: int) -> Poses:
        """The asymmetric units of some cells, which must have so many bodies."""
        ids, keys = (tuple(names[i] for i in index.tolist()) for names in (self.ids, self.keys))
        return Poses(
            molecules=self.molecules.molecules,
            groups=self.groups,
            lattice=self.lattice[index][:, None],
            centroid=self.centroid[index][:, None, :bodies],
            rotation=self.rotation[index][:, None, :bodies],
            short=torch.ones(len(index), 1, dtype=torch.bool, device=index.device),
            hand=self.contents.hand[index][:, :bodies].float(),
            molecule=self.contents.molecule[index][:, :bodies],
            group=self.group[index],
            above=torch.zeros(len(index), device=index.device),
            ids=ids,
            keys=keys,
        )

    def with_mirror_images(self) -> "WholeCells":
        """Every crystal and, behind them all, its mirror image: x -> -x, every hand the other one."""
        contents, groups = self.contents, self.groups
        other = replace(contents, hand=-contents.hand, translations=-contents.translations % 1.0)
        both = {
            f.name: torch.cat([getattr(contents, f.name), getattr(other, f.name)]) for f in fields(contents)
        }
        tables = {f.name: torch.cat([getattr(groups, f.name)] * 2) for f in fields(groups)}
        tables["translations"] = torch.cat([groups.translations, -groups.translations % 1.0])
        return replace(
            self,
            groups=Groups(**tables),
            contents=Contents(**both),
            lattice=self.lattice.repeat(2, 1),
            centroid=torch.cat([self.centroid, -self.centroid % 1.0]),
            rotation=self.rotation.repeat(2, 1, 1, 1),
            group=torch.cat([self.group, self.group + len(groups.rotations)]),
            units=self.units.repeat(2),
            transform=self.transform.repeat(2, 1, 1),
            ids=self.ids * 2,
            keys=self.keys * 2,
        )


@dataclass(frozen=True, eq=False)
class _Cell:
    """One crystal, all bodies of its cell."""

    crystal: PackedCrystal
    lattice: Float[Tensor, "6"]
    centroid: Float[Tensor, "bodies 3"]
    rotation: Float[Tensor, "bodies 3 3"]
    hand: Int[Tensor, " bodies"]
    molecule: Int[Tensor, " bodies"]
    rotations: Float[Tensor, "bodies 3 3"]  # W of each body
    translations: Float[Tensor, "bodies 3"]
    group: int
    transform: Float[Tensor, "3 3"]


def whole_cells_of(crystals: Iterable[PackedCrystal]) -> tuple[WholeCells, Counter[str]]:
    """The crystals as whole cells, and how many were left out for which reason.

    Reasons: "too many molecules" (more than `MOST_BODIES` in the primitive cell), and those of `FramedMolecules.of`.
    Raises InputError where none is left.
    """
    known: dict[bytes, FramedMolecules | str] = {}
    order: dict[bytes, int] = {}
    groups: dict[bytes, tuple[int, SpaceGroup]] = {}
    left_out: Counter[str] = Counter()
    found = []
    for crystal in crystals:
        packing = crystal.packing
        names = [_remember(known, packing, m) for m in range(packing.n_bodies)]
        framed = [table for n in names if isinstance(table := known[n], FramedMolecules)]
        if len(framed) < len(names):
            left_out[next(why for n in names if isinstance(why := known[n], str))] += 1
            continue
        transform, group = primitive_niggli(packing.lattice[0], packing.group)
        if len(group) * packing.n_bodies > MOST_BODIES:
            left_out["too many molecules"] += 1
            continue
        label = group.rotations.numpy().tobytes() + group.translations.numpy().tobytes()
        number, group = groups.setdefault(label, (len(groups), group))
        molecule = torch.tensor([order.setdefault(n, len(order)) for n in names])
        found.append(_one_cell(crystal, transform, group, number, framed, molecule))
    if not found:
        raise InputError(
            f"expected crystals that fit into whole cells, got none ({dict(left_out) or 'no crystals'})"
        )
    molecules = joined_molecules([table for n in order if isinstance(table := known[n], FramedMolecules)])
    return _stacked_cells(found, molecules, Groups.of([group for _, group in groups.values()])), left_out


def _stacked_cells(cells: Sequence[_Cell], molecules: FramedMolecules, groups: Groups) -> WholeCells:
    mask = _padded([torch.ones(len(c.centroid), dtype=torch.bool) for c in cells])
    units = torch.tensor([c.crystal.packing.n_bodies for c in cells])
    place = torch.arange(mask.shape[1]).expand_as(mask)
    contents = Contents(
        molecule=_padded([c.molecule for c in cells]),
        hand=torch.where(mask, _padded([c.hand for c in cells]), 1),
        mask=mask,
        unit=torch.where(mask, place % units[:, None], place),
        rotations=_padded_matrices([c.rotations for c in cells], mask).float(),
        translations=_padded([c.translations for c in cells]).float(),
    )
    return WholeCells(
        molecules=molecules,
        groups=groups,
        contents=contents,
        lattice=torch.stack([c.lattice for c in cells]).float(),
        centroid=_padded([c.centroid for c in cells]).float(),
        rotation=_padded_matrices([c.rotation for c in cells], mask).float(),
        group=torch.tensor([c.group for c in cells]),
        units=units,
        transform=torch.stack([c.transform for c in cells]).float(),
        ids=tuple(c.crystal.id for c in cells),
        keys=tuple(c.crystal.key for c in cells),
    )


# ---------------------------------------------------------------- one crystal


def primitive_niggli(
    lattice: Float[Tensor, "3 3"], group: SpaceGroup
) -> tuple[Float[Tensor, "3 3"], SpaceGroup]:
    """T with rows of the primitive Niggli cell = T @ lattice, and the group in its axes, centrings gone.

    Positions become `frac @ inv(T)`. Raises InputError where the group's translations span no primitive cell.
    """
    eye = torch.eye(3, dtype=torch.float64)
    pure = group.translations.double()[(group.rotations == eye.long()).all((1, 2))]
    vectors = torch.cat([eye, pure[1:]])
    triples = vectors[torch.combinations(torch.arange(len(vectors)), 3)]
    spanned = torch.linalg.det(triples) * len(pure)
    fits = torch.nonzero((spanned.abs() - 1).abs() < 1e-6).flatten()
    if not len(fits):
        raise InputError(
            f"expected translations of {group.symbol} that span a primitive cell, got {pure.tolist()}",
            "odd cell",
        )
    basis = triples[fits[0]] * spanned[fits[0]].sign()
    _, change = niggli_reduce(basis @ lattice.double())
    transform = change.double() @ basis
    return transform, _in_axes(group, transform)


def _in_axes(group: SpaceGroup, transform: Float[Tensor, "3 3"]) -> SpaceGroup:
    """The group in the axes transform @ lattice of a primitive cell: one operation for each rotation."""
    columns = torch.linalg.inv(transform).T
    W = (columns @ group.rotations.double() @ transform.T).round().long()
    w = (group.translations.double() @ columns.T * 1e8).round() / 1e8 % 1.0
    first = sorted(
        {tuple(rotation): i for i, rotation in reversed(list(enumerate(W.flatten(1).tolist())))}.values()
    )
    return SpaceGroup(group.number, group.symbol, W[first], w[first])


def _one_cell(
    crystal: PackedCrystal,
    transform: Float[Tensor, "3 3"],
    group: SpaceGroup,
    number: int,
    framed: Sequence[FramedMolecules],
    molecule: Int[Tensor, " units"],
) -> _Cell:
    """Every operation applied to every body of the asymmetric unit, in the primitive cell."""
    packing = crystal.packing
    cell = transform @ packing.lattice[0].double()
    k = log_coordinates(cell)
    S = lattice_from_log(k)
    unit = packing.centroid[0].double() @ torch.linalg.inv(transform)
    F, signs = (torch.cat([getattr(f, name) for f in framed]).double() for name in ("frames", "signs"))
    own = torch.linalg.solve(S, cell) @ packing.rotation[0].double() @ F
    W, w = group.rotations.double(), group.translations
    det = group.determinants.double()
    turn = det[:, None, None] * (S @ W @ torch.linalg.inv(S))
    centroid = torch.einsum("gij,mj->gmi", W, unit) + w[:, None]
    hand = det[:, None] * packing.handedness[0] * signs
    return _Cell(
        crystal=crystal,
        lattice=k,
        centroid=centroid.flatten(0, 1) % 1.0,
        rotation=(turn[:, None] @ own).flatten(0, 1),
        hand=hand.flatten().long(),
        molecule=molecule.repeat(len(group)),
        rotations=W.repeat_interleave(len(unit), 0),
        translations=w.repeat_interleave(len(unit), 0),
        group=number,
        transform=transform,
    )


# ---------------------------------------------------------------- molecules


def canonical_frame(
    numbers: Int[Tensor, " atoms"], positions: Float[Tensor, "atoms 3"]
) -> tuple[Float[Tensor, "3 3"], float]:
    """F and s with x = s F x' for canonical positions x'; see the conventions above."""
    x = positions.double() - positions.double().mean(0)
    axes = torch.linalg.eigh(x.T @ x)[1].flip(1)
    uneven = (numbers.double() @ x) / numbers.sum()
    along = uneven @ axes
    first, second = (axes[:, i] * (1.0 if along[i] >= 0 else -1.0) for i in (0, 1))
    third = torch.linalg.cross(first, second)
    if uneven @ third >= -1e-6:
        return torch.stack([first, second, third], 1), 1.0
    return torch.stack([-first, -second, third], 1), -1.0


def with_exact_symmetries(molecules: Molecules) -> Molecules:
    """Without symmetries that lay the heavy atoms on each other but not all atoms within `SAME_MOLECULE`.

    Poses that only look alike are different targets: samples between them would match neither.
    """
    A, x, z = molecules.symmetries, molecules.positions, molecules.numbers
    moved = torch.einsum("msij,maj->msai", A, x)
    unlike = torch.where(z[:, :, None] == z[:, None], 0.0, torch.inf)
    nearest = ((moved[:, :, :, None] - x[:, None, None]).square().sum(-1) + unlike[:, None]).amin(-1)
    real = (z > 0)[:, None]
    rmsd = ((nearest * real).sum(-1) / real.sum(-1)).sqrt()
    exact = molecules.symmetric & (rmsd < SAME_MOLECULE)
    exact[:, 0] = True
    kept = torch.where(exact[..., None, None], A, torch.eye(3, dtype=A.dtype))
    return replace(molecules, symmetries=kept, symmetric=exact)


def features_of(molecule: Molecule, positions: Float[Tensor, "atoms 3"]) -> Float[Tensor, " features"]:
    """`molecule_features` of one conformer."""
    return molecule_features(molecule.with_conformers(positions[None]))[0]


def _remember(known: dict[bytes, FramedMolecules | str], packing: Packings, body: int) -> bytes:
    """The name of a body's conformer, after it was looked at once: what it is, or why it cannot be used."""
    molecule = packing.species[int(packing.kind[body])]
    local = molecule.conformers[int(packing.conformer[0, body])]
    name = molecule.numbers.numpy().tobytes() + local.numpy().round(3).tobytes()
    if name not in known:
        try:
            known[name] = FramedMolecules.of([(molecule, local)])
        except InputError as error:
            known[name] = error.reason
    return name


def joined_molecules(parts: Sequence[FramedMolecules]) -> FramedMolecules:
    """All in one table."""
    tables = [part.molecules for part in parts]
    molecules = {
        f.name: _padded([getattr(t, f.name)[0] for t in tables])
        for f in fields(Molecules)
        if f.name not in ("symmetries", "volume", "gyration")
    }
    single = {name: torch.cat([getattr(t, name) for t in tables]) for name in ("volume", "gyration")}
    return FramedMolecules(
        molecules=Molecules(
            **molecules, **single, symmetries=_padded_turns([t.symmetries[0] for t in tables])
        ),
        charges=_padded([p.charges[0] for p in parts]),
        turns=_padded_turns([p.turns[0] for p in parts]),
        **{name: torch.cat([getattr(p, name) for p in parts]) for name in ("features", "frames", "signs")},
    )


def _padded(parts: Sequence[Tensor]) -> Tensor:
    """Zeros (False) behind."""
    return torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True)


def _padded_turns(parts: Sequence[Tensor]) -> Tensor:
    """Identities behind."""
    return _padded_matrices(parts, _padded([torch.ones(len(p), dtype=torch.bool) for p in parts]))


def _padded_matrices(parts: Sequence[Tensor], mask: Bool[Tensor, "batch bodies"]) -> Tensor:
    padded = _padded(parts)
    return torch.where(mask[..., None, None], padded, torch.eye(3, dtype=padded.dtype))


# ---------------------------------------------------------------- what is asked of a generator


def written_out(packing: Packings, images: int) -> Packings:
    """A template in P1 for cells with so many images of each body: species, kinds, hands and conformers alone.

    Hands are those of the unit: what is built from a state has its own.
    """
    return replace(
        packing,
        group=P1,
        kind=packing.kind.repeat(images),
        centroid=packing.centroid.repeat(1, images, 1),
        rotation=packing.rotation.repeat(1, images, 1, 1),
        handedness=packing.handedness.repeat(1, images),
        conformer=packing.conformer.repeat(1, images),
    )
