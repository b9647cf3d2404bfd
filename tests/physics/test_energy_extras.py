"""The real xTB, D3 and CHGNet, where they are installed: laws, units, the rule for short axes."""

import numpy as np
import pytest
import torch

from nucleate.crystal.crystal import Crystal
from nucleate.physics.energy import ProcessSettings, energy_model
from nucleate.testing import assert_energy_model

pytestmark = [pytest.mark.extra, pytest.mark.filterwarnings("ignore")]


def ice(a: float = 5.0) -> Crystal:
    """Two water molecules in a small cell, tilted so that no force vanishes by symmetry."""
    water = torch.tensor([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]], dtype=torch.float64)
    turn = torch.tensor([[0.6, 0.8, 0.0], [0.0, 0.0, 1.0], [0.8, -0.6, 0.0]], dtype=torch.float64)
    positions = torch.cat([water + 0.5, water @ turn + torch.tensor([2.6, 2.4, 2.2])])
    lattice = torch.tensor([[a, 0, 0], [0.3, 4.8, 0], [0.2, -0.3, 4.6]], dtype=torch.float64)
    return Crystal(
        lattice=lattice,
        frac=positions @ torch.linalg.inv(lattice),
        numbers=torch.tensor([8, 1, 1, 8, 1, 1]),
        molecule=torch.tensor([0, 0, 0, 1, 1, 1]),
        bonds=torch.tensor([[0, 1], [0, 2], [3, 4], [3, 5]]),
    )


@pytest.mark.parametrize(("name", "package"), [("d3", "dftd3"), ("chgnet", "chgnet"), ("gfn1", "tblite")])
def test_laws(name, package):
    pytest.importorskip(package)
    with energy_model(name) as model:
        assert_energy_model(model, ice(), supercell=2e-3, force=0.02, stress=2e-4)


def test_short_axes_are_repeated_and_energies_are_per_cell():
    """Doubled axes agree with a doubled cell exactly; without the rule the Γ point is far off."""
    pytest.importorskip("tblite")
    with energy_model("gfn1") as ruled, energy_model("gfn1", options={"shortest": 0.1}) as bare:
        [doubled], [gamma] = ruled.evaluate([ice()], gradient=True), bare.evaluate([ice()], gradient=True)
    assert doubled.forces is not None
    assert doubled.forces.shape == (6, 3)
    assert float(doubled.forces.sum(0).abs().max()) < 1e-4
    assert doubled.energy is not None
    assert gamma.energy is not None
    assert 0.001 < abs(doubled.energy - gamma.energy) < 2.0


def test_chgnet_is_the_sum_of_its_parts_in_ev_per_cell():
    pytest.importorskip("chgnet")
    pytest.importorskip("dftd3")
    names = ["chgnet", 'chgnet:{"dispersion": false}', "d3"]
    parts = []
    for name in names:
        with energy_model(name, process=ProcessSettings(time_limit=120)) as model:
            parts += model.evaluate([ice()], gradient=True)
    assert [part.failure for part in parts] == [None] * 3
    both, network, dispersion = (float(part.energy or 0) for part in parts)
    assert both == pytest.approx(network + dispersion, abs=1e-4)
    assert network == pytest.approx(-28.5, abs=3)  # two water molecules of PBE, some -14.3 eV each
    assert -1 < dispersion < 0
    stress = [np.asarray(part.stress) for part in parts]
    np.testing.assert_allclose(stress[0], stress[1] + stress[2], atol=1e-6)
