"""CIF files of crystals without molecules: everybody reads the same crystal back."""

import io
from pathlib import Path

import ase.io
import gemmi
import pytest
import torch

from nucleate.crystal.formula import parse_formula
from nucleate.crystal.sites import Sites, primitive_niggli_sites, sites_from_cif, sites_of_atoms
from nucleate.crystal.sites_cif import sites_cif_text, write_sites_cif
from nucleate.errors import NucleateError
from tests.crystal.inorganic import CRYSTALS, distances, rattled, textbook


def shapeless() -> Sites:
    """Without any symmetry, in a skew cell."""
    lattice = torch.tensor([[4.0, 0, 0], [0.7, 4.4, 0], [-0.9, 1.1, 5.0]], dtype=torch.float64)
    frac = torch.tensor([[0.1, 0.2, 0.3], [0.5, 0.7, 0.9], [0.8, 0.1, 0.6]], dtype=torch.float64)
    return Sites(lattice, frac, torch.tensor([12, 8, 17]))


def examples() -> dict[str, Sites]:
    found = {name: primitive_niggli_sites(textbook(name)) for name in CRYSTALS}
    found |= {f"{name}, as given": textbook(name) for name in ("copper", "spinel", "corundum")}
    found |= {"shapeless": shapeless(), "rattled": rattled(textbook("rutile"), 0.1)}
    return found | {"supercell": sites_of_atoms(textbook("rutile").atoms.repeat((1, 1, 2)))}


EXAMPLES = examples()


def assert_same(found: Sites, sites: Sites) -> None:
    """Equal up to the choice of the cell: distances of equal atoms, repeated as often as the volume says."""
    first, second = distances(found), distances(sites)
    per = len(found), len(sites)
    torch.testing.assert_close(
        first.repeat_interleave(per[1]), second.repeat_interleave(per[0]), rtol=0, atol=1e-4
    )
    assert found.volume / per[0] == pytest.approx(sites.volume / per[1], rel=1e-6)
    assert found.reduced_formula == sites.reduced_formula


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_written_crystal_is_read_back(name: str) -> None:
    sites = EXAMPLES[name]
    text = sites_cif_text(sites, name)
    assert_same(sites_from_cif(text), sites)
    assert_same(sites_of_atoms(ase.io.read(io.StringIO(text), format="cif")), sites)
    small = gemmi.make_small_structure_from_block(gemmi.cif.read_string(text).sole_block())
    assert len(small.get_all_unit_cell_sites()) == len(sites_from_cif(text))


@pytest.mark.parametrize("name", CRYSTALS)
def test_group_z_and_density_are_those_of_the_crystal(name: str) -> None:
    sites, (_, number, _) = EXAMPLES[name], CRYSTALS[name]
    text = sites_cif_text(sites, name)
    block = gemmi.cif.read_string(text).sole_block()
    assert int(block.find_value("_space_group_IT_number")) == number
    formula = parse_formula(gemmi.cif.as_string(block.find_value("_chemical_formula_sum")))
    z = int(block.find_value("_cell_formula_units_Z"))
    assert {e: z * n for e, n in formula.items()} == sites_from_cif(text).composition
    mass = sum(sites.atoms.get_masses())
    density = float(block.find_value("_exptl_crystal_density_diffrn"))
    assert density == pytest.approx(mass / sites.volume * 1.660539, rel=1e-3)


@pytest.mark.extra
@pytest.mark.filterwarnings("ignore:.*rounded to ideal values:UserWarning")
@pytest.mark.parametrize("name", EXAMPLES)
def test_pymatgen_matches_it_with_the_original(name: str) -> None:
    core = pytest.importorskip("pymatgen.core")
    matcher = pytest.importorskip("pymatgen.analysis.structure_matcher").StructureMatcher()
    sites = EXAMPLES[name]
    original = core.Structure(sites.lattice.numpy(), sites.numbers.tolist(), sites.frac.numpy())
    rms = matcher.get_rms_dist(core.Structure.from_str(sites_cif_text(sites, name), fmt="cif"), original)
    assert rms is not None
    assert rms[0] < 1e-4


def test_symmetry_is_looked_for_as_closely_as_asked() -> None:
    nearly = rattled(textbook("rutile"), 0.01)
    numbers = [
        gemmi.cif.read_string(sites_cif_text(nearly, "nearly", symprec=tolerance))
        .sole_block()
        .find_value("_space_group_IT_number")
        for tolerance in (1e-3, 0.1)
    ]
    assert numbers == ["1", "136"]


def test_energy_and_provenance_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "below" / "salt.cif"
    write_sites_cif(textbook("rock salt"), path, {"seed": 3, "command": "a 'b'\n c"}, energy=-3.39)
    block = gemmi.cif.read(str(path)).sole_block()
    assert block.name == "salt"
    assert float(block.find_value("_nucleate_energy_ev_per_atom")) == -3.39
    kept = {
        gemmi.cif.as_string(row[0]): gemmi.cif.as_string(row[1])
        for row in block.find("_nucleate_provenance_", ["key", "value"])
    }
    assert kept == {"seed": "3", "command": "a 'b' c"}
    (tmp_path / "file").touch()
    with pytest.raises(NucleateError, match="writable"):
        write_sites_cif(textbook("rock salt"), tmp_path / "file" / "salt.cif")
