"""Is a flow that learnt on 16 molecules of ice of use on more? Its weights on another cell, beside harmonic scaling.

    python benchmarks/free_energy_transfer.py [--molecules 128] [--frames 240] [--chains 6] [--weights FILE]

Frames of ice XI at 250 K by our own sampler, mapped to 100 K. The known differences are those of molecular dynamics and
MBAR (Koehler et al. 2023): -669.711 kT for 16 molecules, -5316.481 for 128.
"""

import argparse
from importlib.resources import files
from pathlib import Path

import torch

from nucleate.data.ice import ice_xi
from nucleate.data.rigid_frames import RigidFrames
from nucleate.generative.seeds import generator_of
from nucleate.metrics.free_energy import one_sided
from nucleate.models.rigid_body_flow import Map, RigidBodyFlow, ideal_crystal
from nucleate.models.rigid_body_flow_training import held_crystal
from nucleate.physics.rigid_minimum import nearest_minimum
from nucleate.physics.rigid_sampler import sample
from nucleate.physics.rigid_sites import TIP4P_EW, SiteEnergy
from nucleate.pipeline.free_energy import SYSTEM, flow_of, scaling
from nucleate.weights import read_weights

BASE, TARGET = 250.0, 100.0  # K
KNOWN = {16: -669.71090, 128: -5316.48092}  # kT


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--molecules", type=int, default=128)
    parser.add_argument("--frames", type=int, default=240)
    parser.add_argument("--chains", type=int, default=6)
    parser.add_argument(
        "--weights", type=Path, default=Path(str(files("nucleate.weights") / f"{SYSTEM}.safetensors"))
    )
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    torch.set_num_threads(1)
    places, turns, cell = ice_xi(given.molecules)
    energy = SiteEnergy(TIP4P_EW, given.molecules, cell)
    places, turns = nearest_minimum(energy, places, turns, steps=60)
    chains = sample(
        energy, places, turns, BASE, -(-given.frames // given.chains), 3, given.chains, given.seed, burn_in=50
    )
    frames = RigidFrames(TIP4P_EW, cell, BASE, *chains.one_after_another())
    ideal = ideal_crystal(frames)
    flow = flow_of(read_weights(given.weights, SYSTEM))
    assert isinstance(flow, RigidBodyFlow)
    maps: dict[str, Map] = {"harmonic": scaling(BASE, TARGET), "flow": flow.on(ideal)}
    crystal, bodies = held_crystal(frames, ideal), ideal.represent(frames)
    print(
        "| map | F_B - F_A, kT | frames that count, % | mean of -log w above the known value, kT |\n|---|---|---|---|"
    )
    for name, one in maps.items():
        with torch.no_grad():
            log_w, _ = crystal.work(
                one, bodies, frames.energies, BASE, TARGET, generator_of(given.seed, "shift")
            )
        log_w = log_w + crystal.spring_share(BASE, TARGET)
        found = one_sided(log_w)
        above = -float(log_w.mean()) - KNOWN.get(given.molecules, float("nan"))
        print(
            f"| {name} | {found.difference:.2f} ± {found.error:.2f} | {100 * found.effective:.1f} | {above:.2f} |"
        )


if __name__ == "__main__":
    main()
