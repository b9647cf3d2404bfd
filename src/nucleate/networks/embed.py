"""Numbers as features: Gaussians of a distance, waves of a time or of a periodic coordinate, standard scores."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nucleate.errors import InputError

TIME_STEPS = 1024  # a time in [0, 1] is told apart to about one part in this


def gaussian_basis(
    distance: Float[Tensor, "*n"], centres: Float[Tensor, " basis"]
) -> Float[Tensor, "*n basis"]:
    """Gaussians as wide (standard deviation) as their evenly spaced centres are apart; units cancel."""
    narrow = 0.5**0.5 / (centres[1] - centres[0])
    exponent = (distance[..., None] * narrow - centres * narrow).square().neg()
    return torch.exp(exponent.clamp_min(-80))  # below that floats are denormal, and ten times slower


def smooth_cutoff(distance: Float[Tensor, "*n"], cutoff: float) -> Float[Tensor, "*n"]:
    """(1 + cos(pi d / cutoff)) / 2 inside the cut-off, 0 outside: no jump in value or slope."""
    return torch.where(distance < cutoff, 0.5 + 0.5 * torch.cos(math.pi / cutoff * distance), 0.0)


def time_waves(t: Float[Tensor, "*n"], width: int) -> Float[Tensor, "*n width"]:
    """sin and cos of a time in [0, 1] at `width`/2 geometrically spaced frequencies (Ho et al. 2020).

    Raises ValueError for an odd width.
    """
    if width % 2 or width < 4:
        raise ValueError(f"expected an even width of at least 4 (a sine and a cosine each), got {width}")
    exponent = torch.linspace(0, 1, width // 2, dtype=t.dtype, device=t.device)
    angle = TIME_STEPS * t[..., None] * 10000**-exponent
    return torch.cat([angle.sin(), angle.cos()], -1)


def periodic_waves(difference: Float[Tensor, "*n d"], harmonics: int) -> Float[Tensor, "*n waves"]:
    """sin and cos of 2 pi k d for k = 1 .. `harmonics`: features of a difference on the torus, period 1.

    The sines are odd in the difference and the cosines even, so that (i, j) and (j, i) are told apart and
    nothing jumps at a cell face. waves = 2 * d * harmonics.
    """
    k = torch.arange(1, harmonics + 1, dtype=difference.dtype, device=difference.device)
    angle = (2 * math.pi * difference[..., None] * k).flatten(-2)
    return torch.cat([angle.sin(), angle.cos()], -1)


class Standardise(nn.Module):
    """(x - mean) / scale by column. Mean and scale are `fit` to data once and stored with the weights."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.mean: Tensor
        self.scale: Tensor

    def fit(self, values: Float[Tensor, "rows width"]) -> None:
        """Take mean and standard deviation of the rows; a column without spread keeps the scale 1.

        Raises InputError for values that are missing (not finite) or fewer than two rows.
        """
        if len(values) < 2 or not values.isfinite().all():
            bad = torch.nonzero(~values.isfinite().all(0)).flatten().tolist()
            raise InputError(
                f"expected at least two rows of finite values to standardise, got {len(values)} rows with "
                f"missing values in columns {bad}; leave those rows out and count them"
            )
        spread = values.double().std(0)
        self.mean.copy_(values.double().mean(0))
        self.scale.copy_(torch.where(spread > 1e-6, spread, 1.0))

    def forward(self, values: Float[Tensor, "*n width"]) -> Float[Tensor, "*n width"]:
        return (values - self.mean) / self.scale


def own_precision(like: Tensor) -> torch.autocast:
    """For geometry: autocast would multiply even 3x3 matrices in half precision."""
    return torch.autocast(like.device.type, enabled=False)
