"""The crystal that an ordered cluster is a piece of, where it is one.

poses --votes (`cluster_translations`)--> lattices --fold--> sites --motions of the rest--> a full cell --> crystal
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from nucleate.crystal.cluster import Cluster, ClusterBatch
from nucleate.crystal.cluster_poses import poses_of_clusters
from nucleate.crystal.crystal import Crystal
from nucleate.crystal.molecule import Molecule
from nucleate.crystal.packing import Packings
from nucleate.errors import InputError
from nucleate.geometry.so3 import nearest_rotation
from nucleate.geometry.symmetry import P1
from nucleate.physics.parameters import estimated_volume
from nucleate.pipeline.cluster_translations import (
    EXPLAINED,
    FILLED,
    NEAR,
    Seen,
    beyond_lattice,
    likely_lattices,
    same_orientation,
)

VOTED = 0.03  # weight of the voted lattice beside that of a molecule
CLOSEST = 0.45  # of the edge of a cube of a molecule's volume: centroids are never nearer


@dataclass(frozen=True, eq=False)
class FoundCell:
    """A crystal without symmetry (its sites averaged over the cluster), and what it rests on."""

    crystal: Crystal
    explained: int  # molecules with a partner one translation away
    molecules: int


def find_cell(cluster: Cluster, molecule: Molecule) -> FoundCell:
    """The crystal of the cluster; `molecule` lends its graph, atoms in the cluster's order.

    Raises InputError "no lattice" that counts what was seen, where there is no order of this kind in it.
    """
    batch = ClusterBatch.from_list([cluster.with_positions(cluster.positions.double())])
    poses = poses_of_clusters(batch)
    seen = Seen.of(poses)
    volume = estimated_volume(molecule)
    refusals: list[InputError] = []
    for lattice in likely_lattices(seen, volume):
        try:
            sites = _completed(_sites(seen, _sites(seen, lattice).lattice), seen.maps, volume)
            explained = _refuse_unexplained(seen, sites.lattice)
        except InputError as error:
            refusals.append(error)
        else:
            return FoundCell(
                _crystal(sites, molecule, poses.local[0], cluster.name), explained, len(seen.centroid)
            )
    raise refusals[0]


def _refuse_unexplained(seen: Seen, lattice: Float[Tensor, "3 3"]) -> int:
    """How many molecules have a partner. Raises InputError for too few."""
    explained, m = int(seen.explained(lattice[None])[0].sum()), len(seen.centroid)
    if explained < EXPLAINED * m:
        raise InputError(
            f"expected molecules in sites of the lattice, found {explained} of {m}", "no lattice"
        )
    return explained


@dataclass(frozen=True, eq=False)
class _Sites:
    """Molecules of one cell."""

    lattice: Float[Tensor, "3 3"]
    centroid: Float[Tensor, "sites 3"]  # Å
    frame: Float[Tensor, "sites 3 3"]

    def with_site(self, centroid: Float[Tensor, "3"], frame: Float[Tensor, "3 3"]) -> "_Sites":
        return _Sites(
            self.lattice, torch.cat([self.centroid, centroid[None]]), torch.cat([self.frame, frame[None]])
        )


def _sites(seen: Seen, lattice: Float[Tensor, "3 3"]) -> _Sites:
    """Molecules that are translations of each other as one, and the lattice that fits all of them best.

    The lattice and the sites minimise sum |c_m - s_m - n_m L|^2; directions in which the cluster has no two such
    molecules are kept as they were voted for.
    """
    partners = seen.partners(lattice[None])[0]
    member = torch.from_numpy(connected_components(partners.numpy(), directed=False)[1]).long()
    site = torch.stack([torch.nonzero(member == k)[0, 0] for k in range(int(member.max()) + 1)])
    shift = ((seen.centroid - seen.centroid[site][member]) @ torch.linalg.inv(lattice)).round()
    belongs = torch.nn.functional.one_hot(member, len(site)).double()
    kept = torch.cat(
        [VOTED * torch.eye(3, dtype=torch.float64), torch.zeros(3, len(site), dtype=torch.float64)], 1
    )
    unknowns = torch.cat([torch.cat([shift, belongs], 1), kept])
    found = torch.linalg.lstsq(unknowns, torch.cat([seen.centroid, VOTED * lattice])).solution
    like = seen.frame[site][member]
    alike = torch.einsum("mxy,syz->msxz", seen.frame, seen.maps)
    best = torch.einsum("mxy,msxy->ms", like, alike).argmax(1)
    total = torch.zeros(len(site), 3, 3, dtype=torch.float64)
    total.index_add_(0, member, alike[torch.arange(len(best)), best])
    hand = torch.linalg.det(seen.frame[site]).sign()[:, None, None]
    return _Sites(found[:3], found[3:], hand * nearest_rotation(hand * total))


def _completed(sites: _Sites, maps: Float[Tensor, "maps 3 3"], volume: float) -> _Sites:
    """With those sites of the cell that no molecule of the cluster is on, as motions of the others show them."""
    size = float(torch.linalg.det(sites.lattice))
    wanted = max(1, round(size / volume))
    while len(sites.centroid) < wanted:
        if (new := _image_in_the_open(sites, maps, CLOSEST * volume ** (1 / 3))) is None:
            break
        sites = sites.with_site(*new)
    if not 1 / FILLED < size / (len(sites.centroid) * volume) < FILLED:
        raise InputError(
            f"expected a cell of {size:.0f} Å^3 to be filled by molecules of about {volume:.0f} Å^3, found "
            f"{len(sites.centroid)} sites",
            "no lattice",
        )
    return sites


def _image_in_the_open(
    sites: _Sites, maps: Float[Tensor, "maps 3 3"], closest: float
) -> tuple[Float[Tensor, "3"], Float[Tensor, "3 3"]] | None:
    """The image of a site, far from all others, under the motion of site onto site that agrees with most of them.

    A motion disagrees where it lays a molecule nearly on another one, but not quite.
    """
    c, frame = sites.centroid, sites.frame
    n, s = len(c), len(maps)
    W = torch.einsum("jxy,syz,ivz->ijsxv", frame, maps, frame).flatten(0, 2)
    first = torch.arange(n).repeat_interleave(n * s)
    second = torch.arange(n).repeat_interleave(s).repeat(n)
    centre = (c[None] - c[first][:, None]) @ W.mT + c[second][:, None]  # motions, sites, 3
    turned = (W[:, None] @ frame).flatten(0, 1)
    step = centre.flatten(0, 1)[:, None] - c
    away = beyond_lattice(step, sites.lattice[None])[0].unflatten(0, (len(W), n))
    on = (away < NEAR) & same_orientation(turned, frame, maps).unflatten(0, (len(W), n))
    hit, free = on.any(-1), (away > closest).all(-1)
    agrees = (hit | free).all(1) & free.any(1)
    if not agrees.any():
        return None
    motion = int(torch.where(agrees, hit.sum(1), -1).argmax())
    which = int(free[motion].int().argmax())
    return centre[motion, which], turned.unflatten(0, (len(W), n))[motion, which]


def _crystal(sites: _Sites, molecule: Molecule, local: Float[Tensor, "atoms 3"], name: str) -> Crystal:
    hand = torch.linalg.det(sites.frame).sign()
    n = len(hand)
    packing = Packings(
        species=(molecule.with_conformers(local[None]),),
        group=P1,
        kind=torch.zeros(n, dtype=torch.long),
        lattice=sites.lattice[None],
        centroid=(sites.centroid @ torch.linalg.inv(sites.lattice))[None],
        rotation=(hand[:, None, None] * sites.frame)[None],
        handedness=hand.long()[None],
        conformer=torch.zeros(1, n, dtype=torch.long),
    )
    return packing.crystal(0, id=name)
