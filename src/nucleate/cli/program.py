"""The program: its commands in order, and how errors become one line on stderr and an exit code.

Exit codes: 0 done, 2 the input cannot be used, 1 anything else.
"""

import os
import signal
import sys
import warnings
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError
from typer.core import TyperCommand, TyperGroup

from nucleate import __version__
from nucleate.cli.bench import bench
from nucleate.cli.conform import conform
from nucleate.cli.crystal_files import deduplicate, match, rank, relax, report
from nucleate.cli.crystallize import crystallize
from nucleate.cli.data import DATA, HELP
from nucleate.cli.evaluate import evaluate
from nucleate.cli.evaluate_inorganic import evaluate_inorganic
from nucleate.cli.free_energy import free_energy
from nucleate.cli.generate import generate
from nucleate.cli.generate_inorganic import generate_crystalflow
from nucleate.cli.guide import guide
from nucleate.cli.predict import predict
from nucleate.cli.train import train
from nucleate.errors import InputError, NucleateError

UsageError: type[Any] = typer.BadParameter.__mro__[1]  # of click, wherever this version of typer keeps it
INTERRUPTED = 130  # what typer makes of Ctrl-C


class Verb(TyperCommand):
    """A command that computes. PyTorch takes a second to import, so it waits until something is really run."""

    def invoke(self, ctx: Any) -> Any:
        import torch

        torch.set_num_threads(1)  # most tensors are small; the work is shared among processes instead
        return super().invoke(ctx)


class Commands(TyperGroup):
    """The commands of the program; `generate crystalflow` and `evaluate --inorganic` have options of their own."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        if args[:2] == ["generate", "crystalflow"]:
            return "generate crystalflow", _alone(generate_crystalflow), args[2:]
        if args[:1] == ["evaluate"] and "--inorganic" in args:
            return "evaluate", _alone(evaluate_inorganic), args[1:]
        return super().resolve_command(ctx, args)


def _alone(verb: Any) -> Any:
    """A command that the list of commands does not show."""
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
    single.command(cls=Verb)(verb)
    return typer.main.get_command(single)


app = typer.Typer(
    cls=Commands, help="From a molecule to its crystals.", pretty_exceptions_enable=False, rich_markup_mode="rich"
)  # fmt: skip
data = typer.Typer(help=HELP)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


PANELS = {  # as the help shows them
    "From a molecule, a formula or a crystal": (predict, conform, generate, crystallize, free_energy),
    "With crystals in files": (relax, rank, deduplicate, match, evaluate, report),
    "To learn, and to help": (train, bench),
}
for panel, verbs in PANELS.items():
    for verb in verbs:
        app.command(cls=Verb, rich_help_panel=panel)(verb)
for step in DATA:
    data.command(step.__name__.rstrip("_"), cls=Verb)(step)
app.add_typer(data, name="data", rich_help_panel=panel)
app.command(rich_help_panel=panel)(guide)


def _explain(error: ValidationError) -> str:
    """The first complaint of pydantic as one line: option, what was expected, what came."""
    first = error.errors()[0]
    names = [part for part in first["loc"] if isinstance(part, str) and not part.startswith("literal")]
    option = "--" + names[-1].replace("_", "-")
    message = first["msg"].removeprefix("Value error, ")
    return f"{option}: {message[:1].lower()}{message[1:]}, got {first['input']!r}"


def _help_of(error: Any) -> str:
    """The command that was misused, as far as it is known."""
    return "nucleate" if error.ctx is None else str(error.ctx.command_path)


def _fail(message: str, code: int) -> NoReturn:
    print(f"nucleate: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def main() -> None:
    """Run the program; turn errors that we understand into one line and an exit code."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait must not spin on a busy machine
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)  # type: ignore[assignment]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what a batch system sends: as Ctrl-C
    arguments = sys.argv[1:]
    try:
        code = app(arguments or ["--help"], standalone_mode=False)
    except UsageError as error:
        _fail(f"{error.format_message().rstrip('.')}. See {_help_of(error)} --help.", 2)
    except InputError as error:
        _fail(str(error), 2)
    except ValidationError as error:
        _fail(_explain(error), 2)
    except (NucleateError, OSError) as error:
        _fail(str(error), 1)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    if code == INTERRUPTED:
        _fail("interrupted; a search keeps its finished units, and predict --resume goes on", 1)
    sys.exit(code or (0 if arguments else 2))


if __name__ == "__main__":
    main()
