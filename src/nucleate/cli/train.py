"""`nucleate train`: parse, call the verb, print what came of it."""

import json
from pathlib import Path
from typing import Annotated

import typer

from nucleate.cli.options import AsJson, Budget, Resume, minutes, one_of, use_threads
from nucleate.cli.terminal import errors, out, progress_bar
from nucleate.errors import InputError
from nucleate.pipeline.systems import SYSTEMS, system_named


def train(
    name: Annotated[
        str,
        typer.Argument(
            autocompletion=lambda: list(SYSTEMS),
            help=f"What to train: {', '.join(SYSTEMS)}; or module:NAME of a System of your own.",
        ),
    ],
    data: Annotated[Path | None, typer.Option(help="Folder (or table) of the data to learn from.")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder; by default trained/NAME.")
    ] = None,
    settings: Annotated[
        Path | None, typer.Option(help="TOML file with the tables training and model.")
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(help="pose or pairnet; molcrystalnet or cspnet (published); sets model.network."),
    ] = None,
    start: Annotated[
        Path | None, typer.Option("--from", help="Weights to begin with: weights or checkpoint.safetensors.")
    ] = None,
    budget: Budget = None,
    processes: Annotated[int, typer.Option(min=1, help="GPUs, or CPU processes where there is none.")] = 1,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of each; by default all cores are shared.")
    ] = None,
    device: Annotated[str, one_of("auto", "cpu", "cuda", help="auto, cpu, or cuda.")] = "auto",
    resume: Resume = False,
    print_settings: Annotated[
        bool, typer.Option("--print-settings", help="Print all settings with their defaults, and leave.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train a generative model: weights, a model card and a log.

    Example: nucleate train molcrystalflow --data data/synthetic -o trained/first --budget 60m
    """
    from nucleate.pipeline.train import WEIGHTS, settings_text
    from nucleate.pipeline.train import train as run

    if print_settings:
        print(settings_text(system_named(name)))
        return
    if data is None:
        raise InputError("--data: expected the folder of the data to learn from, got none")
    limit = minutes(budget)
    use_threads(threads, processes)
    with progress_bar() as tell:
        trained = run(
            name, data, output or Path("trained") / name.partition(":")[0], settings=settings, network=network,
            resume=resume, minutes=limit, start=start, processes=processes, device=device, progress=tell,
        )  # fmt: skip
    card = trained.card
    if not trained.first:
        return
    if as_json:
        print(json.dumps(card))
    else:
        out.print(
            f"{card['step']} of {card['training']['steps']} steps in {card['seconds']:.0f} s", style="bold"
        )
        for key, value in card["metrics"].items():
            out.print(f"{key} {value:.4g} (validation at step {card['metrics_step']})")
        out.print(f"wrote {trained.folder / WEIGHTS}")
    if card["stopped"] != "steps":
        why = "budget" if card["stopped"] == "minutes" else card["stopped"]
        errors.print(f"stopped ({why}); --resume goes on", style="yellow")
    if card["stopped"] == "user":
        raise typer.Exit(1)
