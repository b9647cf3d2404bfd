"""Training of anything that has a loss: batches in, averaged weights out, interrupted and taken up at will.

    batch and noise of (seed, step, k)  ->  mean gradient over k  ->  clip  ->  optimizers  ->  average of the weights

Every use of chance has a seed of its own (`seeds`), so there is no state of a random number generator to keep: a run
that was interrupted and resumed gives what an uninterrupted one gives, bit for bit on a CPU with the same number of
threads. A step is the mean over `micro_batches` batches, computed one after the other or by several processes (`team`).
What is trained is not known here (`Trainable`).
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from nucleate.errors import InputError, NucleateError
from nucleate.generative.average import Average
from nucleate.generative.checkpoint import group, in_group, read_tensors, refuse_other_network, write_tensors
from nucleate.generative.gradient import GradientVector
from nucleate.generative.interruption import Interruption
from nucleate.generative.optimizers import Optimizers
from nucleate.generative.seeds import generator_of, seed_of
from nucleate.generative.team import Alone, Team
from nucleate.generative.train_settings import FREE, TrainSettings, learning_rate
from nucleate.generative.training_log import CsvLog, Events, Means, Number
from nucleate.reading import why

CHECKPOINT = "checkpoint.safetensors"
FORMAT = 1  # of checkpoints
TELL_EVERY = 0.2  # s, between two words to a progress bar

Progress = Callable[[str, int, int, str], None]  # stage, done, asked, a word


@runtime_checkable
class Trainable(Protocol):
    """What is trained."""

    @property
    def network(self) -> nn.Module:
        """Everything that is learnt; `loss` calls it as a function. The training moves it to its device."""

    def loss(self, batch: Any, generator: torch.Generator) -> tuple[Tensor, Mapping[str, Number]]:
        """A scalar to lower, the mean over the batch, and numbers to log; all noise from the generator."""

    def validate(self, generator: torch.Generator) -> Mapping[str, float]:
        """Numbers that mean something on data not trained on: called with averaged weights, without gradients.

        The generator begins alike each time, so that the numbers can be compared. `{}` where there is nothing to say.
        """


@runtime_checkable
class Batches(Protocol):
    """Where batches come from; `epochs.EpochBatches` is one."""

    def batches(self, seed: int, start: int = 0, stride: int = 1) -> Iterator[Any]:
        """Batches number start, start + stride, ... of an endless sequence that the seed alone determines."""


@dataclass(frozen=True)
class Standing:
    """How far a training is."""

    step: int = 0
    updates: int = 0  # steps with a finite gradient; the others changed nothing
    bad: int = 0  # steps since the last of them
    seconds: float = 0.0  # wall time, all runs together
    cpu_seconds: float = 0.0  # of the first process
    metrics: Mapping[str, float] = field(default_factory=dict)  # of the last validation
    metrics_step: int | None = None
    best: float | None = None  # of the number that `monitor` names
    best_step: int | None = None


@dataclass(frozen=True, eq=False)
class Fitted:
    """What came of a training: averaged weights, of the best validation if `monitor` says what is best."""

    weights: dict[str, Tensor]
    standing: Standing
    stopped: Literal["steps", "minutes", "user"]

    @property
    def skipped(self) -> int:
        """Steps that were left out because their gradient was not finite."""
        return self.standing.step - self.standing.updates


def fit(
    trainable: Trainable,
    batches: Batches,
    settings: TrainSettings,
    folder: Path,
    *,
    identity: Mapping[str, Any] | None = None,
    resume: bool = False,
    minutes: float | None = None,
    team: Team | None = None,
    progress: Progress | None = None,
) -> Fitted:
    """Train until the steps are done, or for `minutes` from now, or until Ctrl-C or SIGTERM.

    The folder gets a checkpoint, `log.csv`, `validation.csv` and `tensorboard/`. With `resume` training goes on from
    the checkpoint, for which the settings and `identity` (JSON: what else was decided) must agree.

    Raises InputError where the folder holds a training and `resume` is not given, or `resume` is and the checkpoint
    is missing, damaged or of another training; NucleateError after too many steps without a finite gradient.
    """
    team = team or Alone()
    if settings.micro_batches % team.size:
        raise InputError(
            f"expected micro_batches that {team.size} processes can share evenly, got {settings.micro_batches}; "
            f"set it to a multiple of {team.size}"
        )
    deadline = math.inf if minutes is None else time.monotonic() + 60 * minutes
    half = settings.bf16 and team.device.type == "cuda"
    precision = half_precision(trainable.network, "cuda") if half else nullcontext()
    with _own_chance(), Interruption() as interruption, precision:
        stop = lambda: interruption.asked or time.monotonic() >= deadline  # noqa: E731
        training = Training(trainable, batches, settings, folder, team, identity or {}, progress)
        try:
            training.begin(resume)
            while training.standing.step < settings.steps:
                if training.step(stop):
                    return training.finish("user" if interruption.asked else "minutes")
            return training.finish("steps")
        finally:
            training.close()


class Training:
    """The state of one training, and what a step does to it."""

    def __init__(
        self,
        trainable: Trainable,
        batches: Batches,
        settings: TrainSettings,
        folder: Path,
        team: Team,
        identity: Mapping[str, Any],
        progress: Progress | None,
    ) -> None:
        self.trainable, self.settings, self.folder, self.team = trainable, settings, folder, team
        self.tell: Progress = progress or (lambda *_: None)
        about = {"format": FORMAT, "settings": settings.model_dump(mode="json", exclude=FREE), **identity}
        self.identity: dict[str, Any] = json.loads(json.dumps(about))
        self.network = trainable.network.to(team.device)
        _share(self.network, team)
        if settings.compile:
            self.network.compile()
        self.gradient = GradientVector(self.network.parameters(), spare=2)
        self.optimizers = Optimizers(self.network, settings)
        self.average = Average(self.network, settings.average)
        self.standing, self.means = Standing(), Means()
        self.best: dict[str, Tensor] = {}
        self._source = batches
        self._events: Events | None = None

    def begin(self, resume: bool) -> None:
        """Start from the checkpoint, or from nothing, with a first validation: better to fail now than later."""
        path = self.folder / CHECKPOINT
        if resume:
            self._load(path)
        elif self._any(path.exists()):  # all look before one of them writes
            raise InputError(
                f"{self.folder} holds a training already; go on with --resume, or choose another folder with -o"
            )
        now = self.standing
        self._zero = time.monotonic() - now.seconds, time.process_time() - now.cpu_seconds
        self._told = self._saved = time.monotonic()
        first = now.step * self.settings.micro_batches + self.team.rank
        self._batches = self._source.batches(self.settings.seed, first, self.team.size)
        if self.team.rank == 0:
            last = now.step if resume else -1
            self._log = CsvLog(self.folder / "log.csv", last)
            self._checks = CsvLog(self.folder / "validation.csv", last)
            self._events = Events(self.folder / "tensorboard", last, self.settings.tensorboard)
            if not resume:
                self._validate()
                self._save()

    def _any(self, mine: bool) -> bool:
        """Whether it is so in any process; none goes on before all have answered."""
        answers = torch.tensor([float(mine)], device=self.team.device)
        self.team.add(answers)
        return answers.item() > 0

    # ------------------------------------------------------------------ one step

    def step(self, stop: Callable[[], bool]) -> bool:
        """Go one step; true where any process wants to stop after it, the same in all of them."""
        rate = learning_rate(self.standing.step, self.settings)
        loss, length, stopping, numbers = self._backward(stop)
        good = math.isfinite(loss) and math.isfinite(length)
        if good:
            self._update(rate)
            for some in numbers:
                self.means.add(some)
            self.means.add({"loss": loss, "gradient": length})
        now = self.standing
        self.standing = replace(
            now, step=now.step + 1, updates=now.updates + good, bad=0 if good else now.bad + 1
        )
        if self.team.rank == 0:
            self._report(rate)
        if self.standing.bad >= self.settings.bad_steps:
            raise self._lost(loss, length)
        return stopping

    def _backward(self, stop: Callable[[], bool]) -> tuple[float, float, bool, list[dict[str, Number]]]:
        """Mean loss, length of its gradient before clipping, whether to stop; one exchange between processes."""
        total, seed, step = self.settings.micro_batches, self.settings.seed, self.standing.step
        self.gradient.clear()
        numbers = []
        for k in range(self.team.rank, total, self.team.size):
            _seed_globally(seed_of(seed, "global", step, k))  # of dropout and whatever else has no generator
            noise = generator_of(seed, "noise", step, k, device=self.team.device)
            loss, some = self.trainable.loss(self._next_batch(), noise)
            (loss / total).backward()
            self.gradient.spare[0] += loss.detach() / total
            numbers.append({n: v.detach() if isinstance(v, Tensor) else v for n, v in some.items()})
        self.gradient.spare[1] = float(stop())
        self.team.add(self.gradient.vector)
        length = self.gradient.clip(self.settings.clip)
        mean, stopping = self.gradient.spare.tolist()
        return mean, length.item(), stopping > 0, numbers

    def _next_batch(self) -> Any:
        for batch in self._batches:
            return on_device(batch, self.team.device)
        raise NucleateError("expected batches without end, got the end of them; let epoch follow epoch")

    def _update(self, rate: float) -> None:
        self.optimizers.step(rate / self.settings.learning_rate)
        self.average.update(self.standing.updates + 1)

    def _lost(self, loss: float, length: float) -> NucleateError:
        """Keep the weights, which are still good, and say what happened."""
        good = self.standing.step - self.standing.bad
        if self.team.rank == 0:
            self.standing = replace(self.standing, bad=0)
            self._save()
        return NucleateError(
            f"expected finite losses and gradients, got {self.settings.bad_steps} steps in a row without (last: "
            f"loss {loss:g}, gradient {length:g}). The weights of step {good} are in {self.folder / CHECKPOINT}; "
            "start from them with --from and a lower learning_rate, or look for bad data."
        )

    # ------------------------------------------------------------------ what the first process writes

    def _report(self, rate: float) -> None:
        now, settings = self.standing, self.settings
        if now.step % settings.log_every == 0 or now.step == settings.steps:
            self._write_row(rate)
        if now.step % settings.validate_every == 0 or now.step == settings.steps:
            self._validate()
        moment = time.monotonic()
        if moment - self._saved >= 60 * settings.checkpoint_minutes:
            self._save()
        if moment - self._told >= TELL_EVERY or now.step == settings.steps:
            self._told = moment
            self.tell("train", now.step, settings.steps, _words(now.metrics))

    def _write_row(self, rate: float) -> None:
        now = self._timed()
        row = {"step": now.step, "seconds": round(now.seconds, 3), "rate": rate}
        row |= {"skipped": now.step - now.updates, **self.means.take()}
        self._log.add(row)
        if self._events is not None:
            self._events.add("train", row)

    def _validate(self) -> None:
        """Measure the averaged weights, and keep them where they are the best so far."""
        step, metrics = self.standing.step, self.measured()
        now = replace(self.standing, metrics=metrics, metrics_step=step)
        row = {"step": step, "seconds": round(self._timed().seconds, 3), **metrics}
        self._checks.add(row)
        if self._events is not None:
            self._events.add("validation", row)
        if self.settings.monitor:
            value = self._monitored(metrics)
            if now.best is None or _better(value, now.best, self.settings.monitor_mode):
                now = replace(now, best=value, best_step=step)
                self.best = self.average.state_dict()
        self.standing = now

    def measured(self) -> dict[str, float]:
        """What the trainable says of its averaged weights."""
        seed, mode = self.settings.seed, self.network.training
        _seed_globally(seed_of(seed, "global validation"))
        with self.average.applied(), torch.no_grad():
            self.network.eval()
            try:
                noise = generator_of(seed, "validation", device=self.team.device)
                metrics = self.trainable.validate(noise)
            finally:
                self.network.train(mode)
        return {name: float(value) for name, value in metrics.items()}

    def _monitored(self, metrics: Mapping[str, float]) -> float:
        if self.settings.monitor not in metrics:
            known = ", ".join(metrics) or "none"
            raise InputError(
                f"monitor: expected a number of the validation ({known}), got {self.settings.monitor!r}"
            )
        return metrics[self.settings.monitor]

    def finish(self, stopped: Literal["steps", "minutes", "user"]) -> Fitted:
        """Write the checkpoint and hand over the weights; a run that was cut is measured where it was."""
        self.standing = self._timed()
        final = self.standing
        if self.team.rank == 0:
            self._save()
            if stopped == "minutes" and final.metrics_step != final.step:
                # not kept: a run that goes on from here must not differ from one that was never cut
                final = replace(final, metrics=self.measured(), metrics_step=final.step)
        return Fitted(self.best or self.average.state_dict(), final, stopped)

    def close(self) -> None:
        if self._events is not None:
            self._events.close()

    # ------------------------------------------------------------------ checkpoints

    def _timed(self) -> Standing:
        wall, cpu = self._zero
        return replace(self.standing, seconds=time.monotonic() - wall, cpu_seconds=time.process_time() - cpu)

    def _save(self) -> None:
        tensors = {
            **in_group("network", self.network.state_dict()),
            **in_group("average", self.average.state_dict()),
            **in_group("optimizer", self.optimizers.state()),
            **in_group("best", self.best),
        }
        means = {"sums": self.means.sums(), "counts": self.means.counts()}
        about = {"identity": self.identity, "standing": asdict(self._timed()), "means": means}
        write_tensors(self.folder / CHECKPOINT, tensors, about)
        self._saved = time.monotonic()

    def _load(self, path: Path) -> None:
        if not path.exists():
            raise InputError(
                f"--resume: expected a training in {path.parent}, found none; leave --resume out"
            )
        tensors, about = read_tensors(path)
        theirs = about.get("identity")
        _refuse_other_training(self.identity, theirs if isinstance(theirs, dict) else {}, path.parent)
        refuse_other_network(self.network.state_dict(), group("network", tensors), path)
        try:
            self.network.load_state_dict(group("network", tensors))
            self.average.load_state_dict(group("average", tensors))
            self.optimizers.load(group("optimizer", tensors))
            self.standing = TypeAdapter(Standing).validate_python(about["standing"])
            sums, counts = about["means"]["sums"], about["means"]["counts"]
            self.means = Means(
                TypeAdapter(dict[str, float]).validate_python(sums),
                TypeAdapter(dict[str, int]).validate_python(counts),
            )
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"expected a whole checkpoint in {path}, got one that lacks something ({why(error)}); delete it and "
                "train again",
                reason="damaged",
            ) from error
        self.best = group("best", tensors)


def on_device(batch: Any, device: torch.device) -> Any:
    """The batch with its tensors on the device, see `mapped`."""
    return batch if device.type == "cpu" else mapped(batch, lambda tensor: tensor.to(device))


def mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same with every tensor changed: in mappings, lists, tuples and dataclasses; the rest stays as it is."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {name: mapped(own, change) for name, own in value.items()}
    if isinstance(value, list | tuple):
        parts = [mapped(own, change) for own in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(
            value, **{f.name: mapped(getattr(value, f.name), change) for f in fields(value) if f.init}
        )
    return value


@torch.no_grad()
def _share(network: nn.Module, team: Team) -> None:
    """All processes begin with the weights of the first."""
    if team.size == 1:
        return
    for value in network.state_dict().values():
        if team.rank:
            value.zero_()
        team.add(value)


@contextmanager
def _own_chance() -> Iterator[None]:
    """torch's global random numbers are afterwards where they were before."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        yield


def _seed_globally(seed: int) -> None:
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed(seed)


@contextmanager
def half_precision(network: nn.Module, device: str) -> Iterator[None]:
    """The network alone computes in bfloat16 (autocast) and answers in float32: geometry and loss stay exact."""
    own, lower = network.forward, torch.autocast(device, torch.bfloat16)

    def forward(*arguments: Any, **named: Any) -> Any:
        with lower:
            answer = own(*arguments, **named)
        return mapped(answer, lambda tensor: tensor.float() if tensor.dtype == torch.bfloat16 else tensor)

    network.forward = forward
    try:
        yield
    finally:
        network.forward = own


def _refuse_other_training(ours: dict[str, Any], theirs: dict[str, Any], folder: Path) -> None:
    """Raise InputError that names what differs, one level down."""
    different = []
    for key in sorted(ours.keys() | theirs.keys()):
        here, there = ours.get(key), theirs.get(key)
        if isinstance(here, dict) and isinstance(there, dict):
            names = sorted(here.keys() | there.keys())
            different += [
                f"{n} is {there.get(n)}, not {here.get(n)}" for n in names if here.get(n) != there.get(n)
            ]
        elif here != there:
            different.append(f"{key} is {there}, not {here}")
    if different:
        raise InputError(
            f"{folder} holds another training ({'; '.join(different)}). Repeat its settings, or choose another folder."
        )


def _better(value: float, best: float, mode: Literal["min", "max"]) -> bool:
    """NaN is never better, and anything is better than NaN."""
    if math.isnan(best):
        return not math.isnan(value)
    return value < best if mode == "min" else value > best


def _words(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
