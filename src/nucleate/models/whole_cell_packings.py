"""New packings from the whole-cell flow: molecules and a space group in, `Packings` in that group out.

    group, cells of the prior --Niggli--> settings of the primitive cell --> contents --sample--> states --build-->

Which axes of the primitive Niggli cell the group's are depends on the shape of the cell, so a shape is drawn from the
prior of `molcrystalflow` for each sample; the noise then begins with the shapes of Niggli cells, as in training.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from nucleate.crystal.molecule import Molecule
from nucleate.crystal.packing import Packings
from nucleate.data.poses import Groups
from nucleate.data.whole_cells import MOST_BODIES, Contents, FramedMolecules, primitive_niggli
from nucleate.errors import InputError
from nucleate.generative.flow_matching import Sampler
from nucleate.geometry.lattice import lattice_from_log
from nucleate.geometry.symmetry import SpaceGroup
from nucleate.models.molcrystalflow import SHAPE_SCALE
from nucleate.models.molcrystalflow_whole_cell import WholeCellFlow, build


def sample_packings(
    flow: WholeCellFlow,
    like: Packings,
    n: int,
    generator: torch.Generator,
    evaluations: int = 10,
    sampler: Sampler | None = None,
) -> Packings:
    """n packings of the species, kinds, conformers and hands of `like` in its group, exactly symmetric.

    In P1 every body of the cell is listed, and nothing is symmetric. Raises InputError where the primitive cell would
    hold more than `MOST_BODIES` molecules, or for elements that the network does not know.
    """
    molecules, molecule = framed_bodies(like)
    contents, transform = contents_in_group(molecules, molecule, like, n, generator)
    state = flow.sample(molecules, contents, generator, evaluations, sampler=sampler)
    return build(state, molecules, contents, like, transform)


def framed_bodies(like: Packings) -> tuple[FramedMolecules, Tensor]:
    """The distinct conformers of the bodies, in canonical frames, and which of them each body is."""
    names = [(k, c) for k, c in zip(like.kind.tolist(), like.conformer[0].tolist())]
    distinct = list(dict.fromkeys(names))
    conformers: list[tuple[Molecule, Tensor]] = [
        (like.species[k], like.species[k].conformers[c]) for k, c in distinct
    ]
    return FramedMolecules.of(conformers), torch.tensor([distinct.index(name) for name in names])


def contents_in_group(
    molecules: FramedMolecules,
    molecule: Tensor,
    like: Packings,
    n: int,
    generator: torch.Generator,
) -> tuple[Contents, Float[Tensor, "n 3 3"]]:
    """What n primitive cells of the group hold, and the transforms from its own setting to theirs."""
    units = len(molecule)
    images = len(like.group.rotations.unique(dim=0))
    if units * images > MOST_BODIES:
        raise InputError(
            f"expected at most {MOST_BODIES} molecules in a primitive cell, got {units * images} of "
            f"{like.group.symbol}; choose another group, or fewer molecules in the asymmetric unit",
            "too many molecules",
        )
    settings = [primitive_niggli(cell, like.group) for cell in prior_cells(like.group, n, generator)]
    W = torch.stack([group.rotations for _, group in settings]).repeat_interleave(units, 1)
    w = torch.stack([group.translations for _, group in settings]).repeat_interleave(units, 1)
    hand = (like.handedness[0] * molecules.signs[molecule]).repeat(images)
    contents = Contents(
        molecule=molecule.repeat(images).expand(n, -1),
        hand=(hand * torch.linalg.det(W.double()).round()).long(),
        mask=torch.ones(n, units * images, dtype=torch.bool),
        unit=torch.arange(units).repeat(images).expand(n, -1),
        rotations=W.float(),
        translations=w.float(),
    )
    if like.group.number == 1 and images == 1:
        contents = contents.without_symmetry(torch.ones(n, dtype=torch.bool))
    return contents, torch.stack([transform for transform, _ in settings]).float()


def prior_cells(group: SpaceGroup, n: int, generator: torch.Generator) -> Float[Tensor, "n 3 3"]:
    """Cells of unit volume, of any shape that the group allows. In P1 that of Niggli cells comes with the noise."""
    if len(group) == 1:
        return torch.eye(3, dtype=torch.float64).expand(n, 3, 3)
    table = Groups.of([group], normalised=False)
    k = torch.randn(n, 6, generator=generator, device=generator.device).cpu()
    k = k * torch.tensor([*SHAPE_SCALE, 0.0])
    k = k @ table.allowed[0].T + table.fixed[0]
    return lattice_from_log(k.double())
