"""Energy models in their own processes: laws, failures, clean ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from nucleate.crystal.crystal import Crystal
from nucleate.errors import EnergyModelError, InputError
from nucleate.physics.adapters import ADAPTERS
from nucleate.physics.energy import ENERGY_MODELS, Energy, EnergyModel, ProcessSettings, energy_model
from nucleate.physics.process import ProcessModel
from nucleate.physics.relax_atoms import RelaxAtomsSettings, connectivity_changes, relax_atoms
from nucleate.physics.self_test import self_test, supercell
from nucleate.testing import assert_energy_model

STAND_INS = str(Path(__file__).with_name("stand_ins.py"))
QUICK = ProcessSettings(time_limit=20)


def crystal(
    a: float = 6.0, numbers: tuple[int, ...] = (6, 8, 1, 7), charges: list[int] | None = None
) -> Crystal:
    """A small skewed cell of unbonded atoms."""
    frac = torch.tensor(
        [[0.1, 0.1, 0.1], [0.4, 0.2, 0.3], [0.7, 0.6, 0.5], [0.2, 0.7, 0.8]], dtype=torch.float64
    )
    return Crystal(
        lattice=torch.tensor([[a, 0, 0], [0.4, 5.5, 0], [0.3, -0.5, 5.2]], dtype=torch.float64),
        frac=frac,
        numbers=torch.tensor(numbers),
        molecule=torch.arange(4),
        bonds=torch.zeros(0, 2, dtype=torch.long),
        charges=None if charges is None else torch.tensor(charges),
    )


def stand_in(name: str, process: ProcessSettings = QUICK, **options: Any) -> ProcessModel:
    model = energy_model(f"ase:{STAND_INS}:{name}", options=options, process=process)
    assert isinstance(model, ProcessModel)
    return model


@pytest.fixture(scope="module")
def springs():
    with stand_in("Springs") as model:
        yield model


def test_laws_hold_for_a_calculator_in_its_process(springs):
    assert assert_energy_model(springs, crystal()).force < 1e-4


@pytest.mark.parametrize(
    ("flaw", "word"),
    [({"force_factor": 1.1}, "force"), ({"stress_factor": 0.9}, "stress"), ({"drift": 0.01}, "call to call")],
)
def test_self_test_finds_flaws(flaw, word):
    with stand_in("Springs", strength=20.0, **flaw) as model:
        broken = self_test(model, crystal()).broken()
    assert any(word in law for law in broken), broken


def test_supercell_is_the_same_crystal():
    double = supercell(crystal())
    assert double.density == pytest.approx(crystal().density)
    assert double.n_molecules == 2 * crystal().n_molecules


def test_ase_calculator_by_import_path_with_options_in_the_name():
    name = 'ase:ase.calculators.lj:LennardJones:{"sigma": 2.5, "epsilon": 0.01, "rc": 6.0, "smooth": true}'
    with energy_model(name, process=QUICK) as model:
        assert_energy_model(model, crystal())


def test_model_without_stress_says_none():
    with stand_in("NoStress") as model:
        [answer] = model.evaluate([crystal()], gradient=True)
    assert answer.ok
    assert answer.stress is None
    assert answer.forces is not None


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("segfault", "crashed: killed by SIGSEGV"),
        ("exit", "crashed: exit code 3"),
        ("raise", "IndexError"),
        ("nan", "not a finite number"),
    ],
)
def test_one_failure_costs_nobody_else(how, reason, springs):
    batch = [crystal(6.0), crystal(4.0), crystal(6.1)]
    with stand_in("Misbehaving", how=how) as model:
        answers = model.evaluate(batch)
    expected = springs.evaluate(batch)
    assert reason in (answers[1].failure or "")
    assert answers[1].energy is None
    assert [answers[i].energy for i in (0, 2)] == [expected[i].energy for i in (0, 2)]


def test_a_hang_is_stopped_at_its_time_limit():
    with stand_in("Misbehaving", ProcessSettings(time_limit=1.5), how="hang") as model:
        started = time.monotonic()
        answers = model.evaluate([crystal(4.0), crystal(6.0)])
    assert answers[0].failure == "timed out after 1.5 s"
    assert answers[1].ok
    assert time.monotonic() - started < 15


def test_programs_that_a_model_started_end_with_it(tmp_path):
    note = tmp_path / "pid"
    with stand_in("Misbehaving", how="external", note=str(note)) as model:
        [answer] = model.evaluate([crystal(4.0)])
        assert answer.failure == "crashed: exit code 4"
        assert _gone(int(note.read_text()))


def test_several_workers_keep_the_order():
    batch = [crystal(5.5 + 0.1 * i) for i in range(6)] + [crystal(4.0)]
    with (
        stand_in("Misbehaving", ProcessSettings(workers=2), how="exit") as model,
        stand_in("Springs") as single,
    ):
        several, one = model.evaluate(batch), single.evaluate(batch)
    assert [a.energy for a in several[:-1]] == [a.energy for a in one[:-1]]
    assert not several[-1].ok


def _pid(model: ProcessModel) -> int:
    process = model._workers[0]._process
    assert process is not None
    return process.pid


def _gone(pid: int, patience: float = 10.0) -> bool:
    """True once no process has this id."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        stat = Path(f"/proc/{pid}/stat")
        if stat.exists() and ") Z " in stat.read_text():
            return True  # dead, only its adoptive parent has not looked yet
        time.sleep(0.05)
    return False


def test_close_leaves_no_process_and_the_model_can_start_again():
    model = stand_in("Springs")
    first = model.evaluate([crystal()])[0].energy
    pid = _pid(model)
    assert not _gone(pid, patience=0.2)
    model.close()
    model.close()
    assert _gone(pid)
    assert model.evaluate([crystal()])[0].energy == first
    model.close()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_orphans_when_the_parent_is_interrupted_or_killed(how, tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_energy_models import ProcessSettings, _pid, crystal, stand_in\n"
        "model = stand_in('Misbehaving', ProcessSettings(time_limit=500), how='hang')\n"
        "assert model.evaluate([crystal(6.0)])[0].ok\n"
        "print(_pid(model), flush=True)\n"
        "model.evaluate([crystal(4.0)])\n"
    )
    command = [sys.executable, str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        try:
            assert parent.stdout is not None
            worker = int(parent.stdout.readline())
            time.sleep(0.3)
            assert not _gone(worker, patience=0.1)
            parent.send_signal(how)
            assert parent.wait(timeout=20) != 0
        finally:
            parent.kill()  # or leaving the block would wait for ever
    assert _gone(worker)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(InputError, match=r"chgnet.*gfn1.*ase:module:Class.*'gnf1'"):
        energy_model("gnf1")


def test_what_is_no_calculator_is_refused_at_the_start():
    with (
        energy_model("ase:os:getcwd", process=QUICK) as model,
        pytest.raises(EnergyModelError, match="expected an ASE calculator from getcwd, got str"),
    ):
        model.start()


@pytest.mark.parametrize("name", ["ase", "ase:emt", "ase::X", "ase:ase.calculators.lj:not a name"])
def test_malformed_ase_name(name):
    with pytest.raises(InputError, match="expected ase:module:Class"):
        energy_model(name)


def test_unreadable_options():
    with pytest.raises(InputError, match="as JSON"):
        energy_model("chgnet:{dispersion: no}")


def test_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr("nucleate.physics.energy._installed", lambda _: False)
    for name, word in [
        ("gfn1", r"nucleate\[xtb\]"),
        ("chgnet", r"nucleate\[chgnet\]"),
        ("mace", "mace-torch"),
    ]:
        with pytest.raises(InputError, match=f"pip install .*{word}"):
            energy_model(name)


@pytest.mark.parametrize(
    ("name", "words"),
    [("not_there", "'a_package_that_nobody_has' is not installed"), ("Nothing", "no attribute 'Nothing'")],
)
def test_a_model_that_cannot_start_says_why(name, words):
    with stand_in(name) as model, pytest.raises(EnergyModelError, match=words):
        model.evaluate([crystal()])


def test_settings_are_checked(tmp_path):
    with pytest.raises(InputError, match="positive"):
        ProcessSettings(time_limit=0)
    with pytest.raises(InputError, match="Python interpreter"):
        ProcessSettings(python=tmp_path / "python")


def test_another_interpreter_runs_the_worker():
    with stand_in("Springs", ProcessSettings(python=Path(sys.executable))) as model:
        assert model.evaluate([crystal()])[0].ok


def test_elements_and_charges_are_refused_by_name(monkeypatch):
    monkeypatch.setattr("nucleate.physics.energy._installed", lambda _: True)
    model = energy_model("mace")
    answers = [
        model.capability.refusal(c) for c in (crystal(numbers=(6, 26, 1, 92)), crystal(charges=[1, 0, 0, 0]))
    ]
    assert "no parameters for Fe, U" in (answers[0] or "")
    assert "add up to +1" in (answers[1] or "")
    assert model.capability.refusal(crystal(charges=[1, -1, 0, 0])) is None
    assert energy_model('mace:{"family": "mp"}').capability.elements is None


def test_every_entry_has_a_factory_and_an_honest_record(monkeypatch):
    monkeypatch.setattr("nucleate.physics.energy._installed", lambda _: True)
    for name in set(ENERGY_MODELS) - {"ase", "forcefield"}:
        record = energy_model(name).capability
        assert record.licence
        assert record.citation
    assert all("Not run" in a.capability.notes for a in ADAPTERS.values())


PACKAGES = {
    "mace": {
        "mace/__init__.py": "",
        "mace/calculators.py": "def mace_off(device, default_dtype): return S()\n",
    },
    "orb": {
        "orb_models/__init__.py": "",
        "orb_models/forcefield/__init__.py": "",
        "orb_models/forcefield/pretrained.py": (
            "def orb_v3_conservative_inf_omat(device, precision): return 'network', 'adapter'\n"
        ),
        "orb_models/forcefield/inference/__init__.py": "",
        "orb_models/forcefield/inference/calculator.py": (
            "def ORBCalculator(network, atoms_adapter, device):\n"
            "    assert (network, atoms_adapter) == ('network', 'adapter')\n"
            "    return S()\n"
        ),
    },
    "uma": {
        "fairchem/core/__init__.py": (
            "class pretrained_mlip:\n"
            "    get_predict_unit = staticmethod(lambda name, device: name)\n"
            "class FAIRChemCalculator(S):\n"
            "    def __init__(self, unit, task_name):\n"
            "        assert task_name == 'omc'\n"
            "        super().__init__()\n"
            "    def calculate(self, atoms, *more):\n"
            "        assert atoms.info == {'charge': 0, 'spin': 0}, atoms.info\n"
            "        super().calculate(atoms, *more)\n"
        )
    },
    "aimnet2": {
        "aimnet/__init__.py": "",
        "aimnet/calculators.py": (
            "class AIMNet2Calculator:\n"
            "    def __init__(self, name): self.method = None\n"
            "    def set_lrcoulomb_method(self, method): self.method = method\n"
            "def AIMNet2ASE(base):\n"
            "    assert base.method == 'ewald'\n"
            "    return S()\n"
        ),
    },
}


@pytest.mark.parametrize("name", PACKAGES)
def test_adapters_on_stand_ins_of_their_packages(name, tmp_path, monkeypatch):
    # The builders call the interfaces that the packages' documentation shows; these have just those.
    for path, text in PACKAGES[name].items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("from stand_ins import Springs as S\n" + text if text else "")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parent}")
    monkeypatch.setattr("nucleate.physics.energy._installed", lambda _: True)
    with energy_model(name, process=QUICK) as model:
        assert_energy_model(model, crystal())


def water_pair(length: float = 1.2) -> Crystal:
    """Two water molecules, bonds too long, the first one's H3 pointing at the other's O4."""
    x = torch.tensor(
        [[0, 0, 0], [0, length, 0], [length, 0, 0], [2.7, 0, 0], [3.3, 0.75, 0], [3.3, -0.75, 0]],
        dtype=torch.float64,
    )
    lattice = torch.diag(torch.tensor([7.0, 6.0, 5.0], dtype=torch.float64))
    return Crystal(
        lattice=lattice,
        frac=x @ torch.linalg.inv(lattice),
        numbers=torch.tensor([8, 1, 1, 8, 1, 1]),
        molecule=torch.tensor([0, 0, 0, 1, 1, 1]),
        bonds=torch.tensor([[0, 1], [0, 2], [3, 4], [3, 5]]),
    )


HELD: dict[str, Any] = {
    "pairs": [[0, 1], [0, 2], [3, 4], [3, 5], [0, 3]],
    "lengths": [0.96, 0.96, 0.96, 0.96, 2.8],
}
FIXED_CELL = RelaxAtomsSettings(fmax=0.01, free_cell=False, max_steps=200)


@pytest.mark.parametrize("optimiser", ["fire", "lbfgs"])
def test_relaxation_finds_the_minimum_and_keeps_the_molecules(optimiser):
    settings = FIXED_CELL.model_copy(update={"optimiser": optimiser})
    with stand_in("Bonds", **HELD) as model:
        [end] = relax_atoms([water_pair()], model, settings)
        [energy] = model.evaluate([end.crystal], gradient=True)
    assert end.converged
    assert end.connectivity_kept
    assert end.reason == ""
    assert end.energy == pytest.approx(energy.energy, abs=1e-9)
    assert energy.forces is not None
    assert energy.forces.norm(dim=1).max() <= 0.01
    lengths = (end.crystal.positions[[1, 2]] - end.crystal.positions[0]).norm(dim=1)
    torch.testing.assert_close(lengths, torch.full((2,), 0.96, dtype=torch.float64), atol=2e-3, rtol=0)


def test_relaxation_of_the_cell_meets_both_tolerances():
    frac = torch.tensor([[0, 0, 0], [0.5, 0.5, 0.03], [0.5, 0.02, 0.5], [0, 0.5, 0.48]], dtype=torch.float64)
    lattice = torch.tensor([[4.2, 0, 0], [0.1, 4.0, 0], [-0.1, 0.1, 3.9]], dtype=torch.float64)
    start = crystal().replace(frac=frac, lattice=lattice)
    options = {"sigma": 2.5, "epsilon": 0.05, "rc": 6.0, "smooth": True}
    settings = RelaxAtomsSettings(fmax=0.02, smax=2e-4)
    with energy_model("ase:ase.calculators.lj:LennardJones", options=options, process=QUICK) as model:
        [end] = relax_atoms([start], model, settings)
        [energy] = model.evaluate([end.crystal], gradient=True)
    assert end.converged, end.reason
    assert energy.forces is not None
    assert energy.stress is not None
    assert energy.forces.norm(dim=1).max() <= 0.02
    assert energy.stress.norm(dim=1).max() <= 2e-4
    assert end.crystal.volume < start.volume - 2


def test_a_proton_transfer_is_detected_and_named():
    moved: dict[str, Any] = {
        "pairs": [[0, 1], [2, 3], [3, 4], [3, 5], [0, 3]],
        "lengths": [0.96, 0.96, 0.96, 0.96, 3.2],
    }
    with stand_in("Bonds", **moved) as model:
        [end] = relax_atoms([water_pair()], model, FIXED_CELL)
    assert end.converged
    assert not end.connectivity_kept
    assert "proton H3 moved from O1 to O4" in end.reason


def test_broken_and_new_bonds_are_named():
    start = water_pair(0.96)
    apart, together = start.frac.clone(), start.frac.clone()
    apart[1, 1] += 2.0 / 6.0
    together[3:, 0] -= 1.3 / 7.0
    assert connectivity_changes(start, start) == []
    assert connectivity_changes(start, start.replace(frac=apart)) == ["bond O1-H2 broke"]
    assert any(
        change.startswith("new bond") for change in connectivity_changes(start, start.replace(frac=together))
    )


def test_a_bond_through_the_cell_face_is_new_when_the_image_comes_near():
    start = water_pair(0.96)
    squeezed = start.replace(lattice=torch.diag(torch.tensor([7.0, 6.0, 1.0], dtype=torch.float64)))
    assert any("new bond O1-O1" in change for change in connectivity_changes(start, squeezed))


def test_relaxation_reports_limits_and_failures():
    with stand_in("Bonds", **HELD) as model:
        [short] = relax_atoms([water_pair()], model, FIXED_CELL.model_copy(update={"max_steps": 2}))
        [late] = relax_atoms([water_pair()], model, FIXED_CELL.model_copy(update={"time_limit": 1e-6}))
    assert not short.converged
    assert short.reason == "not converged in 2 steps"
    assert short.energy is not None
    assert late.reason.startswith("stopped after")
    with stand_in("Misbehaving", how="exit") as model:
        dead, alive = relax_atoms([crystal(4.0), crystal(6.0)], model)
    assert dead.reason.startswith("crashed")
    assert dead.energy is None
    assert alive.energy is not None


class InProcess(EnergyModel):
    """A model without a process, around the same pair potential."""

    def __init__(self) -> None:
        self.name, self.model = "in process", stand_in("Bonds", **HELD)
        self.capability = self.model.capability

    def evaluate(self, crystals, *, gradient=False) -> list[Energy]:
        return self.model.evaluate(crystals, gradient=gradient)

    def close(self) -> None:
        self.model.close()


def test_any_energy_model_relaxes_not_only_processes():
    with InProcess() as model, stand_in("Bonds", **HELD) as direct:
        [here] = relax_atoms([water_pair()], model, FIXED_CELL)
        [there] = relax_atoms([water_pair()], direct, FIXED_CELL)
    assert here.converged
    torch.testing.assert_close(here.crystal.positions, there.crystal.positions, atol=1e-9, rtol=0)
