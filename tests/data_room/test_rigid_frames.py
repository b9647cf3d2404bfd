"""Frames of rigid molecules: files give back what was written, and refuse what is something else."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from nucleate.data.rigid_frames import RigidFrames, how_made, joined, read_frames, write_frames
from nucleate.errors import InputError
from nucleate.physics.rigid_sites import TIP4P_EW, TIP4P_ICE


def some_frames(n: int = 5, temperature: float = 250.0) -> RigidFrames:
    generator = torch.Generator().manual_seed(n)
    places, turns, energies = (
        torch.randn(n, *shape, generator=generator, dtype=torch.float64) for shape in ((3, 3), (3, 4), ())
    )
    cell = torch.diag(torch.tensor([7.0, 8.0, 9.0], dtype=torch.float64))
    return RigidFrames(TIP4P_EW, cell, temperature, places, turns, energies)


def equal(a: RigidFrames, b: RigidFrames) -> bool:
    return all(
        torch.equal(getattr(a, name), getattr(b, name)) for name in ("cell", "places", "turns", "energies")
    )


def test_files_give_back_what_was_written(tmp_path: Path) -> None:
    frames = some_frames()
    write_frames(frames, tmp_path / "new" / "frames.safetensors", {"seed": 3})
    back = read_frames(tmp_path / "new" / "frames.safetensors")
    assert equal(frames, back)
    assert back.temperature == 250.0
    assert back.molecule.name == "TIP4P-Ew"
    assert torch.equal(back.molecule.masses, TIP4P_EW.masses)
    assert how_made(tmp_path / "new" / "frames.safetensors") == {"seed": 3}


def test_parts_of_frames_join_to_the_whole(tmp_path: Path) -> None:
    frames = some_frames()
    parts = [frames.part(slice(0, 2)), frames.part(slice(2, None))]
    assert [len(part) for part in parts] == [2, 3]
    assert equal(joined(parts), frames)
    write_frames(parts[1], tmp_path / "part.safetensors")  # a view is written as what it shows
    assert equal(read_frames(tmp_path / "part.safetensors"), parts[1])
    with pytest.raises(InputError, match="one temperature"):
        joined([parts[0], replace(parts[1], temperature=100.0)])
    with pytest.raises(InputError, match="one crystal"):
        joined([parts[0], replace(parts[1], molecule=TIP4P_ICE)])


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "frames.safetensors"
    with pytest.raises(InputError, match="found none"):
        read_frames(path)
    path.write_text("a text")
    with pytest.raises(InputError, match="whole file"):
        read_frames(path)
    save_file({"places": torch.zeros(3)}, path)
    with pytest.raises(InputError, match="something else"):
        read_frames(path)
    write_frames(some_frames(), path)
    tensors, metadata = load_file(path), {"nucleate": safe_open(path, "pt").metadata()["nucleate"]}
    for missing in ("places", "molecule/charges"):
        rest = {name: tensor for name, tensor in tensors.items() if name != missing}
        save_file(rest, path, metadata)
        with pytest.raises(InputError, match=f"frames with '{missing}'"):
            read_frames(path)
    write_frames(some_frames(), path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(InputError, match="whole file"):
        read_frames(path)


def test_atoms_of_exp6_and_mirror_images_are_kept(tmp_path: Path) -> None:
    """And make another crystal of it."""
    frames, path = some_frames(), tmp_path / "frames.safetensors"
    exp6 = torch.rand(4, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64) + 1
    hands = torch.tensor([1.0, -1, 1], dtype=torch.float64)
    other = replace(frames, molecule=replace(TIP4P_EW, exp6=exp6), hands=hands)
    write_frames(other, path)
    back = read_frames(path)
    assert back.molecule.exp6 is not None
    assert torch.equal(back.molecule.exp6, exp6)
    assert back.hands is not None
    assert torch.equal(back.hands, hands)
    assert len(joined([other, back])) == 10
    assert torch.equal(joined([other, back]).potential.hands, hands)
    for unlike in (
        frames,
        replace(other, hands=-hands),
        replace(other, molecule=replace(TIP4P_EW, exp6=2 * exp6)),
    ):
        with pytest.raises(InputError, match="one crystal"):
            joined([other, unlike])
    write_frames(frames, path)
    assert read_frames(path).hands is None
    assert read_frames(path).molecule.exp6 is None
    write_frames(other, path)
    with safe_open(path, "pt") as file:
        tensors, about = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    save_file(tensors | {"hands": hands[:2].clone()}, path, about)
    with pytest.raises(InputError, match=r"hands of shape \(3,\)"):
        read_frames(path)
