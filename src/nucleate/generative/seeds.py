"""One seed for each use of chance. Nothing is carried from use to use, so that any of them can be repeated alone."""

import hashlib

import torch


def seed_of(seed: int, *path: str | int) -> int:
    """A seed below 2^48 for one use, such as `seed_of(0, "noise", 17)`; the same on every machine."""
    text = "/".join(map(str, (seed, *path)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


def generator_of(seed: int, *path: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator for one use; what it draws depends on the kind of device too."""
    return torch.Generator(device).manual_seed(seed_of(seed, *path))
