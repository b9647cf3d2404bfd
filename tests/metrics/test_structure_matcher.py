"""StructureMatcher behind worker processes: its laws, its numbers, and what happens when it misbehaves."""

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.io import read_crystal
from nucleate.crystal.sites import Sites
from nucleate.errors import InputError, NucleateError
from nucleate.metrics import structure_matcher
from nucleate.metrics.structure_matcher import (
    PRESETS,
    MatcherSettings,
    StructureMatch,
    StructureMatching,
    settings_named,
)
from nucleate.metrics.structure_worker import compare, impossible, reduced, volume_limits

DATA = Path(__file__).parents[1] / "data"
STAND_IN = Path(__file__).with_name("stand_in_matcher.py")
STOLS = (1.2, 0.8, 0.5, 0.3)


@pytest.fixture(scope="module")
def crystals() -> dict[str, Crystal]:
    names = ("2002929", "2003630", "4110681")  # P-1, P21 and P21/c; 24, 30 and 28 atoms
    return {name: read_crystal(DATA / f"cod_{name}.cif") for name in names}


@pytest.fixture(scope="module")
def matching():
    with StructureMatching("molcrystalflow") as open_matching:
        yield open_matching


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setattr(structure_matcher, "PROGRAM", STAND_IN)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noisy(crystal: Crystal, size: float, seed: int = 0) -> Crystal:
    """Each molecule shifted on its own by `size` Å times a normal variate in every direction."""
    shift = size * torch.randn(crystal.n_molecules, 3, dtype=torch.float64, generator=generator(seed))
    return crystal.replace(frac=crystal.frac + (shift @ torch.linalg.inv(crystal.lattice))[crystal.molecule])


def disguised(crystal: Crystal) -> Sites:
    """The same crystal in a supercell of another setting, with another origin and order of atoms."""
    setting = torch.tensor([[2.0, 0, 0], [1, 1, 0], [0, 1, -1]], dtype=torch.float64)  # determinant -2
    setting[2] *= -1
    steps = torch.cartesian_prod(*[torch.arange(-4.0, 5.0, dtype=torch.float64)] * 3)
    inside = steps @ torch.linalg.inv(setting)
    steps = steps[((inside > -1e-9) & (inside < 1 - 1e-9)).all(1)]
    assert len(steps) == 2
    frac = (crystal.frac + steps[:, None]).flatten(0, 1) @ torch.linalg.inv(setting)
    order = torch.randperm(len(frac), generator=generator())
    origin = torch.tensor([0.13, 0.71, 0.42], dtype=torch.float64)
    return Sites(setting @ crystal.lattice, (frac + origin)[order], crystal.numbers.repeat(2)[order])


def structure(crystal: Crystal) -> Structure:
    return Structure(crystal.lattice.numpy(), crystal.numbers.tolist(), crystal.frac.numpy())


# ---------------------------------------------------------------- laws


@pytest.mark.parametrize("name", PRESETS)
def test_a_crystal_matches_itself_at_every_stol(name, crystals):
    with StructureMatching(name) as one:
        answers = one.compare([(c, c) for c in crystals.values()])
    for answer in answers:
        assert answer.outcome == "matched"
        assert all(answer.matched.values())
        assert answer.rms == pytest.approx(0, abs=1e-6)
        assert answer.rms_angstrom == pytest.approx(0, abs=1e-6)


def test_setting_supercell_origin_and_order_do_not_matter(crystals, matching):
    atomic = [c.replace(molecule=torch.arange(len(c))) for c in crystals.values()]
    pairs = [(noisy(c, 0.05), x) for c in atomic for x in (c, disguised(c))]
    plain, hidden = (answers for answers in np.array(matching.compare(pairs), dtype=object).reshape(-1, 2).T)
    for one, other in zip(plain, hidden):
        assert one.is_match
        assert one.rms > 1e-3
        assert other.rms_at == pytest.approx(one.rms_at, abs=1e-6)
        assert other.angstrom_at == pytest.approx(one.angstrom_at, abs=1e-6)


def test_mirror_images_match(crystals, matching):
    # In P21 the mirror image is another crystal, but cells of either handedness are tried.
    chiral = crystals["2003630"]
    [answer] = matching.compare([(chiral, chiral.replace(frac=-chiral.frac))])
    assert answer.rms == pytest.approx(0, abs=1e-6)


def test_a_rigid_shift_gives_the_rms_worked_out_by_hand(crystals, matching):
    # A part f of the atoms moves by t, the others by nothing: without the mean, sqrt(f (1 - f)) |t| is left.
    crystal = crystals["4110681"]
    assert crystal.n_molecules == 2
    shift = torch.tensor([0.12, -0.05, 0.08], dtype=torch.float64)
    moved = crystal.frac + (crystal.molecule == 0)[:, None] * (shift @ torch.linalg.inv(crystal.lattice))
    [answer] = matching.compare([(crystal, crystal.replace(frac=moved))])
    angstrom = math.sqrt(1 / 2 * 1 / 2) * float(shift.norm())
    assert answer.rms_angstrom == pytest.approx(angstrom, rel=1e-6)
    assert answer.rms == pytest.approx(angstrom / (crystal.volume / len(crystal)) ** (1 / 3), rel=1e-6)


def test_the_length_of_unequal_cells_is_that_of_their_mean(crystals):
    # Cells scaled by 1 and 1.06: the mean lattice is scaled by 1.03; with `scale` it is the geometric mean.
    crystal = crystals["2003630"]
    large = noisy(crystal, 0.1).replace(lattice=1.06 * crystal.lattice)
    length = (crystal.volume / len(crystal)) ** (1 / 3)
    for scale, mean in ((False, 1.03), (True, math.sqrt(1.06))):
        with StructureMatching(settings_named("molcrystalflow", scale=scale)) as one:
            [answer] = one.compare([(crystal, large)])
        assert answer.rms_angstrom / answer.rms == pytest.approx(mean * length, rel=1e-9)


def test_density_matters_unless_it_is_scaled_away(crystals):
    crystal = crystals["2002929"]
    pair = (crystal, crystal.replace(lattice=1.5 * crystal.lattice))
    with StructureMatching("crystalflow") as scaled, StructureMatching("molcrystalflow") as plain:
        assert scaled.compare([pair])[0].rms == pytest.approx(0, abs=1e-6)
        [answer] = plain.compare([pair])
    assert answer.outcome == "different"
    assert "more than the tolerances of lengths and angles allow" in answer.reason


def test_hydrogens_may_be_left_out(crystals, matching):
    crystal = crystals["2003630"]
    heavy = crystal.numbers > 1
    bare = Sites(crystal.lattice, crystal.frac[heavy], crystal.numbers[heavy])
    wild = noisy(crystal.replace(molecule=torch.arange(len(crystal))), 0.2)
    placed = crystal.replace(frac=torch.where(heavy[:, None], crystal.frac, wild.frac))
    with StructureMatching(settings_named("molcrystalflow", heavy=True)) as without:
        assert [a.rms < 1e-6 for a in without.compare([(crystal, bare), (crystal, placed)])] == [True, True]
    missing, displaced = matching.compare([(crystal, bare), (crystal, placed)])
    assert missing.reason == "compositions differ"
    assert displaced.rms > 0.01


def test_a_crystal_of_hydrogen_alone_keeps_it():
    lattice = 4 * torch.eye(3, dtype=torch.float64)
    frac = torch.tensor([[0, 0, 0], [0.1, 0.1, 0.1]], dtype=torch.float64)
    hydrogen = Sites(lattice, frac, torch.tensor([1, 1]))
    with StructureMatching(settings_named("molcrystalflow", heavy=True)) as without:
        assert without.compare([(hydrogen, hydrogen)])[0].is_match


# ---------------------------------------------------------------- the answers are pymatgen's


def test_every_number_is_what_pymatgen_gives_at_that_stol(crystals, matching):
    # One pair for each end of the ladder: matched everywhere, in part, nowhere, and with another cell.
    one = crystals["2003630"]
    stretched = one.replace(lattice=one.lattice * torch.tensor([[1.1], [0.95], [1.02]], dtype=torch.float64))
    others = [noisy(one, 0.2), noisy(one, 1.0), noisy(one, 3.0), stretched]
    seen = set()
    for other, answer in zip(others, matching.compare([(one, other) for other in others])):
        for stol, rms in zip(answer.settings.stols, answer.rms_at):
            plain = StructureMatcher(ltol=0.3, stol=stol, angle_tol=10, scale=False)
            found = plain.get_rms_dist(structure(one), structure(other))
            assert rms == pytest.approx(math.nan if found is None else found[0], rel=1e-9, nan_ok=True)
            seen.add(found is None)
    assert seen == {True, False}


def test_the_order_of_a_pair_is_that_of_the_published_code(stand_in):
    # The stand-in's RMS is the first axis of the crystal that came first, its RMS in Å that of the second.
    pair = (_deed(6, 3.0), _deed(6, 4.0))
    for name, order in (("molcrystalflow", (3.0, 4.0)), ("crystalflow", (4.0, 3.0))):
        with StructureMatching(settings_named(name, stols=(1.0, 0.5))) as one:
            [answer] = one.compare([pair])
        assert (answer.rms, answer.rms_angstrom) == order


def test_a_narrower_stol_never_matches_where_a_wider_one_does_not(crystals, matching):
    pairs = [
        (c, noisy(c, size, seed)) for c in crystals.values() for size in (0.3, 0.8, 1.5) for seed in range(4)
    ]
    ladders = [tuple(answer.matched.values()) for answer in matching.compare(pairs)]
    assert all(sorted(ladder, reverse=True) == list(ladder) for ladder in ladders)
    assert len(set(ladders)) >= 3  # or the noise was too small or too large to show anything


def test_prechecks_never_refuse_what_pymatgen_would_match():
    # One atom in a cell, so that the cells alone decide; each length and angle changed about as far as allowed.
    rng = np.random.default_rng(0)
    wide = StructureMatcher(ltol=0.3, stol=100, angle_tol=10, scale=False)
    matched = refused = 0
    for _ in range(80):
        lengths, angles = rng.uniform(3, 8, 3), rng.uniform(65, 115, 3)
        factor = rng.uniform(1.1, 1.6) ** rng.choice([-1, 1]) * rng.uniform(0.97, 1.03, 3)
        cells = [(lengths, angles), (lengths * factor, angles + rng.uniform(-11, 11, 3))]
        if min(np.linalg.det(Lattice.from_parameters(*a, *b).matrix) for a, b in cells) < 10:
            continue
        one, other = (
            reduced(Lattice.from_parameters(*a, *b).matrix.tolist(), [[0.0, 0.0, 0.0]], [6]) for a, b in cells
        )
        match = wide.get_rms_dist(one, other) is not None
        reason = impossible(one, other, 0.3, 10, scale=False)
        assert not (match and reason), reason
        matched, refused = matched + match, refused + bool(reason)
    assert matched > 10
    assert refused > 10


def test_volume_limits_are_those_of_a_fine_search():
    rng = np.random.default_rng(1)
    for _ in range(40):
        lattice = Lattice.from_parameters(*rng.uniform(3, 9, 3), *rng.uniform(62, 118, 3))
        low, high = volume_limits(lattice, 0.3, 10)
        x, y, z = np.meshgrid(
            *np.cos(np.radians(np.array(lattice.angles)[:, None] + np.linspace(-10, 10, 21))), indexing="ij"
        )
        gram = np.maximum(1 - x * x - y * y - z * z + 2 * x * y * z, 0)
        box = np.prod(lattice.lengths)
        assert box * gram.max() ** 0.5 * 1.3**3 <= high <= box * (gram.max() + 3e-3) ** 0.5 * 1.3**3
        assert low == pytest.approx(box * gram.min() ** 0.5 / 1.3**3, rel=1e-4)


def test_unequal_primitive_cells_are_told_by_their_contents(crystals, matching):
    # A molecule displaced in every other cell: the same composition, but a primitive cell twice as large.
    crystal = crystals["2002929"]
    twice = disguised(crystal)
    frac = twice.frac.clone()
    frac[0] += torch.tensor([0.1, 0.1, 0.1])
    [answer] = matching.compare([(crystal, Sites(twice.lattice, frac, twice.numbers))])
    assert answer.outcome == "different"
    assert answer.reason.startswith("primitive cells of ")


def test_nothing_is_tried_at_smaller_stols_once_no_atoms_come_within_reach():
    lattice = np.diag([4.0, 5.0, 6.0]).tolist()
    one = reduced(lattice, [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]], [6, 8])
    other = reduced(lattice, [[0.0, 0.0, 0.0], [0.5, 0.0, 0.5]], [6, 8])
    answer = compare(one, other, ltol=0.1, angle_tol=5, scale=False, stols=(0.2, 0.1))
    assert answer["rms"] == [None, None]
    assert answer["reason"] == "no lattice and translation brings the atoms together"


# ---------------------------------------------------------------- worker processes


def test_one_and_two_workers_give_the_same(crystals):
    pairs = [(a, noisy(b, 0.3)) for a in crystals.values() for b in crystals.values()]
    answers: list[list[StructureMatch]] = []
    for workers in (1, 2):
        told: list[tuple[int, int]] = []
        with StructureMatching("molcrystalflow", workers=workers) as several:
            answers.append(several.compare(pairs, lambda done, total, told=told: told.append((done, total))))
        assert told == [(k, 9) for k in range(1, 10)]
    key = [[(a.outcome, str(a.rms_at), str(a.angstrom_at), a.reason) for a in some] for some in answers]
    assert key[0] == key[1]
    assert {a.outcome for a in answers[0]} == {"matched", "different"}


def test_crystals_are_sent_again_after_they_were_forgotten(crystals, matching, monkeypatch):
    many = [noisy(crystals["2002929"], 0.1, seed) for seed in range(4)]
    pairs = [(a, b) for a in many for b in many]
    expected = [a.rms for a in matching.compare(pairs)]
    monkeypatch.setattr(structure_matcher, "HELD", 2)
    assert [a.rms for a in matching.compare(pairs)] == expected


def test_a_pair_that_takes_too_long_is_a_timeout_and_its_process_is_killed(crystals):
    crystal = crystals["2003630"]
    with StructureMatching("molcrystalflow", time_limit=1e-4) as hasty:
        answers = hasty.compare([(crystal, noisy(crystal, 0.5, seed)) for seed in range(2)])
        assert [a.outcome for a in answers] == ["timeout", "timeout"]
        assert answers[0].reason == "timed out after 0.0001 s"
        assert not answers[0].is_match
        assert not any(answers[0].matched.values())
        assert math.isnan(answers[0].rms)
        assert math.isnan(answers[0].rms_angstrom)
        assert hasty._workers[0].worker._process is None
        hasty.time_limit = 30
        assert hasty.compare([(crystal, crystal)])[0].is_match


def _deed(number: int, a: float = 5.0) -> Sites:
    """Four atoms; the first says what the stand-in does when this is the second crystal of a pair."""
    numbers = [number, *(z for z in (6, 7, 8, 9) if z != number)]
    return Sites(
        a * torch.eye(3, dtype=torch.float64), torch.zeros(4, 3, dtype=torch.float64), torch.tensor(numbers)
    )


TWO = MatcherSettings("two", stols=(0.5, 1.0))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failure_costs_only_its_own_pair(workers, stand_in):
    deeds = (6, 8, 6, 9, 7, 6)  # in the words of the stand-in: good, crash, good, fail, hang, good
    with StructureMatching(TWO, workers=workers, time_limit=1.0) as wild:
        # The reference is the same object throughout: a new process has to be told of it again.
        reference = _deed(6, 2.0)
        answers = wild.compare([(reference, _deed(number, 3.0 + k)) for k, number in enumerate(deeds)])
    outcomes = ["matched", "failed", "matched", "failed", "timeout", "matched"]
    assert [a.outcome for a in answers] == outcomes
    assert [answers[k].rms_at[0] for k in (0, 2, 5)] == [2.0, 2.0, 2.0]
    assert [answers[k].angstrom_at[0] for k in (0, 2, 5)] == [3.0, 5.0, 8.0]
    assert answers[1].reason == "crashed: killed by SIGSEGV"
    assert answers[3].reason == "ZeroDivisionError: no such luck"
    assert all(a.seconds > 0 for a in answers)


@pytest.mark.parametrize(("how", "workers"), [(signal.SIGINT, 1), (signal.SIGINT, 2), (signal.SIGKILL, 2)])
def test_no_orphans_when_interrupted_or_killed(how, workers, tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        "import sys, threading, time\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\n"
        "import torch\n"
        "from nucleate.crystal.sites import Sites\n"
        "from nucleate.metrics import structure_matcher as s\n"
        f"s.PROGRAM = Path({str(STAND_IN)!r})\n"
        "eye, zero = torch.eye(3).double(), torch.zeros(1, 3).double()\n"
        "def site(z): return Sites(eye, zero, torch.tensor([z]))\n"
        f"m = s.StructureMatching(workers={workers}, time_limit=500)\n"
        "def tell():\n"
        f"    while len(m._workers) < {workers} or any(w._starts == 0 for w in m._workers): time.sleep(0.02)\n"
        "    print(*[w.worker._process.pid for w in m._workers], flush=True)\n"
        "threading.Thread(target=tell, daemon=True).start()\n"
        "m.compare([(site(7), site(7)) for _ in range(8)])\n"
    )
    command = [sys.executable, str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        try:
            assert parent.stdout is not None
            pids = [int(pid) for pid in parent.stdout.readline().split()]
            assert len(pids) == workers
            time.sleep(0.2)
            parent.send_signal(how)
            assert parent.wait(timeout=20) != 0
        finally:
            parent.kill()
    assert all(_gone(pid) for pid in pids)


def _gone(pid: int, patience: float = 10.0) -> bool:
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


# ---------------------------------------------------------------- bad input


def test_other_compositions_start_no_process(crystals, stand_in):
    with StructureMatching() as idle:
        [answer] = idle.compare([(crystals["2002929"], crystals["2003630"])])
        assert idle.compare([]) == []
        assert idle._workers == []
    assert (answer.outcome, answer.reason) == ("different", "compositions differ")


def test_bad_settings_are_refused_by_name():
    with pytest.raises(InputError, match="molcrystalflow, crystalflow, got 'compack'"):
        StructureMatching("compack")
    with pytest.raises(InputError, match=r"expected changes of .* got colour"):
        settings_named("molcrystalflow", colour="red")
    with pytest.raises(InputError, match="at least one stol"):
        settings_named("molcrystalflow", stols=())
    with pytest.raises(InputError, match="positive time limit"):
        StructureMatching(time_limit=0)
    assert settings_named("molcrystalflow", heavy=True).name == "molcrystalflow heavy=True"
    assert PRESETS["molcrystalflow"].stols == STOLS


def test_without_pymatgen_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r'pip install "nucleate\[matching\]"'):
        StructureMatching()


def test_a_process_that_cannot_start_says_why(tmp_path, monkeypatch, crystals):
    program = tmp_path / "program.py"
    program.write_text("import a_package_that_nobody_has\n")
    monkeypatch.setattr(structure_matcher, "PROGRAM", program)
    crystal = crystals["2002929"]
    with StructureMatching() as broken, pytest.raises(NucleateError, match="a_package_that_nobody_has"):
        broken.compare([(crystal, crystal)])
