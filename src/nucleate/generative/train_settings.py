"""How to train, whatever the model; and the learning rate of every step."""

import math
from typing import Literal

from pydantic import (
    BaseModel,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

# a resumed training may have others of these: they do not change its weights
FREE = {"log_every", "validate_every", "checkpoint_minutes", "bad_steps", "tensorboard"}


class TrainSettings(BaseModel, frozen=True, extra="forbid"):
    """Settings of the training loop; the descriptions are what `nucleate train --print-settings` prints."""

    steps: PositiveInt = Field(
        20_000, description="optimizer steps; the schedule of the learning rate ends there"
    )
    micro_batches: PositiveInt = Field(
        1, description="batches whose mean gradient is a step; processes share them"
    )
    optimizer: Literal["adamw", "muon"] = Field(
        "adamw", description="of hidden matrices: adamw or muon; adamw of all other parameters"
    )
    learning_rate: PositiveFloat = Field(1e-3, description="highest, of AdamW")
    matrix_rate: PositiveFloat = Field(0.02, description="highest, of Muon")
    final_rate: float = Field(
        0.01, ge=0, le=1, description="share of the learning rate that the last step has"
    )
    warm_up: NonNegativeInt = Field(500, description="steps until the learning rate is highest")
    weight_decay: NonNegativeFloat = Field(0.01, description="of matrices; vectors (biases, norms) have none")
    betas: tuple[float, float] = Field((0.9, 0.99), description="of AdamW")
    clip: PositiveFloat = Field(1.0, description="longest gradient")
    average: float = Field(0.999, ge=0, lt=1, description="decay of the average of the weights")
    seed: NonNegativeInt = Field(
        0, lt=2**31, description="of the first weights, the order of the data, the noise"
    )
    bf16: bool = Field(True, description="compute the network in bfloat16 on a GPU; a CPU uses float32")
    compile: bool = Field(False, description="compile the network with torch.compile")
    log_every: PositiveInt = Field(50, description="steps between rows of log.csv")
    validate_every: PositiveInt = Field(1000, description="steps between rows of validation.csv")
    checkpoint_minutes: PositiveFloat = Field(10.0, description="what a crash may cost")
    bad_steps: PositiveInt = Field(
        20, description="steps in a row without a finite gradient, before giving up"
    )
    monitor: str = Field(
        "", description="number of the validation to choose the weights by; none: the last ones"
    )
    monitor_mode: Literal["min", "max"] = Field("min", description="whether less or more of it is better")
    tensorboard: bool = Field(True, description="write event files, where the package is installed")

    @model_validator(mode="after")
    def _check(self) -> "TrainSettings":
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"expected betas in [0, 1), got {self.betas}")
        return self


def learning_rate(step: int, settings: TrainSettings) -> float:
    """Rate of step s = 0, 1, ...: linear up to the highest, r, then half a cosine down to the share f of it.

        r (s + 1) / w   for s < w,    r (f + (1 - f) (1 + cos(π (s - w) / (n - 1 - w))) / 2)   after that,

    with n steps and w of them to warm up (SGDR, arXiv 1608.03983, equation 5, one period).
    """
    n, w, f = settings.steps, settings.warm_up, settings.final_rate
    if step < w:
        return settings.learning_rate * (step + 1) / w
    fall = min(1.0, (step - w) / max(1, n - 1 - w))
    return settings.learning_rate * (f + (1 - f) * (1 + math.cos(math.pi * fall)) / 2)
