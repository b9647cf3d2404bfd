"""CPU-seconds of energies and slopes of ice: batches in torch against OpenMM, one configuration after the other.

    python benchmarks/rigid_energies.py [--molecules 16] [--configurations 64] [--threads 1]

Both have the same energy (to the tolerance of their sums, which is printed): TIP4P-Ew, Lennard-Jones with switch and
dispersion correction, Ewald sums. OpenMM is asked as published flows ask it: positions in, energy and forces out.
Needs the extra `free-energy`.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from nucleate.data.ice import ice_xi
from nucleate.geometry.so3 import quaternion_to_matrix, rotation_exp
from nucleate.physics.molecular_dynamics import NM, rigid_system
from nucleate.physics.parameters import KJ_PER_MOL
from nucleate.physics.rigid_sites import TIP4P_EW, SiteEnergy


def cpu_seconds(call: Callable[[], Tensor], repeats: int = 3) -> tuple[float, Tensor]:
    """The least of some calls."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        found = call()
        times.append(time.process_time() - start)
    return min(times), found


def by_openmm(sites: Tensor, cell: Tensor, platform: str, forces: bool) -> Callable[[], Tensor]:
    """Energies (eV) of sites (configurations, all sites, 3) in Å."""
    import openmm

    n = sites.shape[1] // len(TIP4P_EW)
    system = rigid_system(TIP4P_EW, cell, n)
    properties = {"Threads": "1"} if platform == "CPU" else {}
    engine = openmm.Platform.getPlatformByName(platform)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), engine, properties)

    def call() -> Tensor:
        found = []
        for x in (sites / NM).numpy():
            context.setPositions(x)
            state = context.getState(energy=True, forces=forces)
            found.append(KJ_PER_MOL * state.getPotentialEnergy()._value)
        return torch.tensor(found, dtype=torch.float64)

    return call


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--molecules", type=int, default=16)
    parser.add_argument("--configurations", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    places, turns, cell = ice_xi(given.molecules)
    generator = torch.Generator().manual_seed(0)
    shape = (given.configurations, given.molecules, 3)
    x = places + 0.1 * torch.randn(shape, generator=generator, dtype=torch.float64)
    shaken = rotation_exp(0.1 * torch.randn(shape, generator=generator, dtype=torch.float64))
    rotations = quaternion_to_matrix(turns) @ shaken
    energy = SiteEnergy(TIP4P_EW, given.molecules, cell)
    sites = (x[..., None, :] + TIP4P_EW.sites @ rotations.mT).flatten(1, 2)

    def energies(dtype: torch.dtype) -> Callable[[], Tensor]:
        return lambda: energy(x.to(dtype), rotations.to(dtype))

    def slopes(dtype: torch.dtype) -> Callable[[], Tensor]:
        def call() -> Tensor:
            moving = x.to(dtype).requires_grad_()
            found = energy(moving, rotations.to(dtype))
            found.sum().backward()
            return found.detach()

        return call

    calls = {
        "OpenMM Reference, energy": by_openmm(sites, cell, "Reference", False),
        "OpenMM CPU, energy": by_openmm(sites, cell, "CPU", False),
        "batch, double, energy": energies(torch.float64),
        "batch, single, energy": energies(torch.float32),
        "OpenMM Reference, energy and forces": by_openmm(sites, cell, "Reference", True),
        "OpenMM CPU, energy and forces": by_openmm(sites, cell, "CPU", True),
        "batch, double, energy and slopes": slopes(torch.float64),
        "batch, single, energy and slopes": slopes(torch.float32),
    }
    print(
        f"{given.molecules} molecules, {given.configurations} configurations, cut-off {energy.cutoff:.3f} Å"
    )
    print("| | CPU-ms a configuration | to OpenMM Reference | largest difference, eV |\n|---|---|---|---|")
    exact, base = energy(x, rotations), 0.0
    for name, call in calls.items():
        seconds, found = cpu_seconds(call)
        base = seconds if "Reference" in name else base
        away = float((found.double() - exact).abs().max())
        print(f"| {name} | {1000 * seconds / given.configurations:.2f} | {base / seconds:.2f} | {away:.1e} |")


if __name__ == "__main__":
    main()
