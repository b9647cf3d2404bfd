"""What a system has to say to be trained by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from nucleate.generative.training import Batches, Trainable


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a system makes of a folder of data. `about` is JSON for the model card: source, licence, counts, split."""

    trainable: Trainable
    batches: Batches
    about: Mapping[str, Any]


@dataclass(frozen=True)
class System:
    """Something that can be trained.

    `settings` (pydantic, frozen, unknown keys refused, a default for each) are those of the model and its data.
    `prepare(settings, data)` reads the folder `data` and builds the network, whose first weights it draws from torch's
    global generator, which is seeded by then. Raises InputError for data that cannot be used.
    """

    settings: type[BaseModel]
    prepare: Callable[[Any, Path], Lesson]
