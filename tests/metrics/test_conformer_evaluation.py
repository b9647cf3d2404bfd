"""Scores of conformers: rows of good, wrong and missing ones, and what they add up to."""

import json
import math

import pytest
import torch
from rdkit import Chem
from rdkit.Chem import rdDistGeom

from nucleate.crystal.molecule import Molecule
from nucleate.errors import InputError
from nucleate.metrics.conformer_evaluation import judge_conformers, summarise_conformers
from nucleate.metrics.rate import Rate


def embedded(smiles: str, count: int) -> Molecule:
    graph = Chem.AddHs(Chem.MolFromSmiles(smiles))
    rdDistGeom.EmbedMultipleConfs(graph, count, randomSeed=1)
    return Molecule(graph, torch.stack([torch.from_numpy(c.GetPositions()) for c in graph.GetConformers()]))


ALANINOL = embedded("C[C@H](N)CO", 6)


def test_the_references_themselves_have_no_error() -> None:
    row = judge_conformers("model", ALANINOL, ALANINOL.conformers.flip(0), 6, 0.01, seconds=3.0, calls=50)
    assert (row["cov_r"], row["cov_p"], row["failure"], row["wrong_stereo"]) == (1.0, 1.0, None, 0)
    assert max(row["mat_r_A"], row["mat_p_A"]) < 1e-6
    assert (row["references"], row["asked"], row["made"], row["calls"]) == (6, 6, 6, 50)


def test_mirror_images_are_wrong_stereo_and_far() -> None:
    made = torch.cat([ALANINOL.conformers[:4], -ALANINOL.conformers[4:]])
    row = judge_conformers("model", ALANINOL, made, 6, 0.01)
    assert row["wrong_stereo"] == 2
    assert row["cov_p"] == pytest.approx(4 / 6)
    assert row["failure"] is None
    strict = judge_conformers("model", ALANINOL, made, 6, 10.0, right_only=True)
    assert (strict["made"], strict["wrong_stereo"], strict["failure"]) == (6, 2, "too few")
    assert strict["cov_p"] == pytest.approx(4 / 6)  # at 10 Å all would do, but two are thrown away
    equal = judge_conformers("model", ALANINOL, made, 6, 0.01, mirror=True)
    assert (equal["cov_p"], equal["wrong_stereo"]) == (1.0, 2)


def test_what_is_not_finite_was_not_made() -> None:
    made = ALANINOL.conformers.clone()
    made[2, 0, 0] = torch.inf
    row = judge_conformers("model", ALANINOL, made, 6, 0.01)
    assert (row["made"], row["failure"]) == (5, "not finite: 1 of 6")
    assert row["cov_p"] == pytest.approx(5 / 6)


def test_positions_of_another_molecule_are_refused() -> None:
    with pytest.raises(InputError, match="atoms of"):
        judge_conformers("model", ALANINOL, ALANINOL.conformers[:, 1:], 6)


def test_scores_keep_every_molecule() -> None:
    good = judge_conformers("model", ALANINOL, ALANINOL.conformers, 6, 0.01, seconds=1.2, calls=40)
    wrong = judge_conformers("model", ALANINOL, -ALANINOL.conformers, 6, 0.01, seconds=1.2, calls=50)
    none = judge_conformers(
        "model", ALANINOL, None, 6, 0.01, failure="out of time: 60 s", seconds=2.4, calls=0
    )
    other = judge_conformers("etkdg", ALANINOL, ALANINOL.conformers, 6, 0.01)
    scores = summarise_conformers([good, other, wrong, none], "model", 3)
    assert (scores.molecules, scores.conformers, scores.wrong_stereo) == (
        Rate(2, 3),
        Rate(12, 18),
        Rate(6, 12),
    )
    assert scores.failures == {"out of time": 1}
    assert scores.cov_r.mean == pytest.approx(1 / 3)
    assert scores.cov_r.median == 0.0
    assert scores.mat_r.mean == pytest.approx((good["mat_r_A"] + wrong["mat_r_A"] + none["mat_r_A"]) / 3)
    assert none["mat_r_A"] > wrong["mat_r_A"] > 0.1
    assert (scores.seconds, scores.calls) == (pytest.approx(0.4), pytest.approx(30))
    assert json.loads(json.dumps(scores.as_json()))["conformers"] == {"hits": 12, "asked": 18}
    plain = summarise_conformers([other], "etkdg").as_json()
    assert (plain["seconds"], plain["calls"]) == (None, None)


def test_a_molecule_left_out_is_noticed() -> None:
    row = judge_conformers("model", ALANINOL, ALANINOL.conformers, 6)
    with pytest.raises(InputError, match="each of 2 molecules"):
        summarise_conformers([row], "model", 2)
    assert math.isnan(summarise_conformers([], "model").cov_r.mean)
