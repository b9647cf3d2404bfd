"""Train a system by name on a folder of data: weights, what a model card needs, and a log.

settings file -> system -> network, batches -> fit -> weights.safetensors, model.json, log.csv, validation.csv
"""

import difflib
import json
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ValidationError
from torch import nn

from nucleate.errors import InputError
from nucleate.files import write_atomically
from nucleate.generative.checkpoint import group, read_tensors, refuse_other_network, write_tensors
from nucleate.generative.seeds import seed_of
from nucleate.generative.system import System
from nucleate.generative.team import Alone, FabricTeam, Team
from nucleate.generative.train_settings import TrainSettings
from nucleate.generative.training import Fitted, Progress, fit
from nucleate.pipeline.folders import hold_folder, make_folder
from nucleate.pipeline.provenance import provenance
from nucleate.pipeline.systems import system_named
from nucleate.reading import read_file, why
from nucleate.report.folder import finite

WEIGHTS, CARD = "weights.safetensors", "model.json"


@dataclass(frozen=True, eq=False)
class Trained:
    """What `train` wrote: the folder, and `model.json`."""

    folder: Path
    card: dict[str, Any]
    first: bool = True  # of several processes, the one that writes and speaks


def train(
    name: str,
    data: Path,
    folder: Path,
    *,
    settings: Path | None = None,
    network: str | None = None,
    resume: bool = False,
    minutes: float | None = None,
    start: Path | None = None,
    processes: int = 1,
    device: str = "auto",
    progress: Progress | None = None,
) -> Trained:
    """Train the system `name` on the folder `data` into `folder`.

    `settings` is a TOML file with the tables [training] and [model]; `network` replaces the setting of that name in
    [model]; `start` holds weights to begin from. Raises InputError for what cannot be used and where another run is
    under way in the folder, and NucleateError where training is lost (see `generative.training.fit`).
    """
    began = datetime.now(UTC).isoformat(timespec="seconds")
    system = system_named(name)
    training, model = read_settings(settings, system, {} if network is None else {"network": network})
    if not data.exists():
        raise InputError(f"--data: expected a folder or a table, found none at {data}")
    team = Alone(device) if processes == 1 else FabricTeam(processes, device)
    torch.manual_seed(seed_of(training.seed, "first weights"))
    lesson = system.prepare(model, data)
    if start is not None:
        load_weights(lesson.trainable.network, start)
    identity = {
        "system": name,
        "model": model.model_dump(mode="json"),
        "data": dict(lesson.about),
        "started_from": str(start) if start else None,
    }
    with _held(folder, team):
        fitted = fit(
            lesson.trainable, lesson.batches, training, folder,
            identity=identity, resume=resume, minutes=minutes, team=team, progress=progress,
        )  # fmt: skip
        about = {"data_folder": str(data), "started": began}
        card = finite(_card(identity, training, fitted, lesson.trainable.network, team) | about)
        if team.rank == 0:
            write_tensors(folder / WEIGHTS, fitted.weights, {"system": name, "model": identity["model"]})
            write_atomically(folder / CARD, json.dumps(card, indent=1) + "\n")
    return Trained(folder, card, team.rank == 0)


@contextmanager
def _held(folder: Path, team: Team) -> Iterator[None]:
    """The first process holds the folder for its team; where it cannot, all end."""
    with ExitStack() as held:
        refusal = None
        if team.rank == 0:
            try:
                held.enter_context(hold_folder(make_folder(folder)))
            except InputError as error:
                refusal = error
        refused = torch.tensor([float(refusal is not None)], device=team.device)
        team.add(refused)
        if refused.item():
            raise refusal or InputError(f"expected {folder} for the first process, which was refused it")
        yield


# ------------------------------------------------------------------ settings


def read_settings(
    path: Path | None, system: System, options: Mapping[str, Any] | None = None
) -> tuple[TrainSettings, BaseModel]:
    """Settings of the training and of the model; defaults without a file. Raises InputError with file and key.

    `options` of the command line replace those of the same name in [model].
    """
    tables: dict[str, Any] = {}
    if path is not None:
        try:
            tables = tomllib.loads(read_file(path, "settings").decode("utf-8"))
        except InputError:
            raise
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"expected settings as TOML in {path}, got: {why(error)}", "unreadable"
            ) from None
    known: dict[str, type[BaseModel]] = {"training": TrainSettings, "model": system.settings}
    for name, content in tables.items():
        if name not in known or not isinstance(content, dict):
            raise InputError(f"{path}: expected the tables [training] and [model], got {name!r}")
    training, model = (_checked(kind, tables.get(name, {}), name, path) for name, kind in known.items())
    if options:
        given = {**tables.get("model", {}), **options}
        return training, _checked(system.settings, given, "model", "the command line")
    return training, model


def _checked(kind: type[BaseModel], values: dict[str, Any], table: str, path: Path | str | None) -> Any:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "settings"
        if first["type"] == "extra_forbidden":
            near = difflib.get_close_matches(key, kind.model_fields, 1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(kind.model_fields)}"
            raise InputError(f"{path}: [{table}] has no setting {key!r}; {hint}", "unknown setting") from None
        message = first["msg"].removeprefix("Value error, ")
        raise InputError(
            f"{path}: [{table}] {key}: {message[:1].lower()}{message[1:]}, got {first['input']!r}"
        ) from None


def settings_text(system: System) -> str:
    """All settings with their defaults and what they mean, as a file that `read_settings` reads."""
    tables: dict[str, type[BaseModel]] = {"training": TrainSettings, "model": system.settings}
    return "\n".join(line for name, kind in tables.items() for line in (f"[{name}]", *_lines(kind, name), ""))


def _lines(kind: type[BaseModel], prefix: str) -> list[str]:
    """A line `key = default  # meaning` for each field; nested settings are tables behind it."""
    lines, nested = [], []
    for name, field in kind.model_fields.items():
        default = field.get_default(call_default_factory=True, validated_data={})
        note = f"  # {field.description}" if field.description else ""
        if isinstance(default, BaseModel):
            nested += ["", f"[{prefix}.{name}]", *_lines(type(default), f"{prefix}.{name}")]
        elif default is None or field.is_required():
            lines.append(f"# {name} ={note or '  # not set'}")
        else:
            lines.append(f"{name} = {_toml(default)}{note}")
    return lines + nested


def _toml(value: Any) -> str:
    """A plain value; JSON writes numbers, booleans, strings and lists as TOML does."""
    return json.dumps(str(value) if isinstance(value, Path) else value)


# ------------------------------------------------------------------ weights and the card


def load_weights(network: nn.Module, path: Path) -> None:
    """Put the weights of a file (`weights.safetensors`, or the average in a checkpoint) into a network.

    Raises InputError where the file is missing or damaged, or holds the weights of another network.
    """
    tensors, about = read_tensors(path)
    weights = group("average", tensors) if "standing" in about else tensors
    refuse_other_network(network.state_dict(), weights, path)
    network.load_state_dict(weights)


def _card(
    identity: dict[str, Any], settings: TrainSettings, fitted: Fitted, network: nn.Module, team: Team
) -> dict[str, Any]:
    """What must be known to judge the weights and to make them again."""
    standing = asdict(fitted.standing)
    del standing["bad"]
    return {
        **provenance("torch", "numpy"),
        **identity,
        "training": settings.model_dump(mode="json"),
        "parameters": sum(p.numel() for p in network.parameters()),
        **standing,
        "skipped": fitted.skipped,
        "stopped": fitted.stopped,
        "weights_step": fitted.standing.best_step if settings.monitor else fitted.standing.step,
        "device": torch.cuda.get_device_name(team.device) if team.device.type == "cuda" else "cpu",
        "processes": team.size,
        "threads": torch.get_num_threads(),
    }
