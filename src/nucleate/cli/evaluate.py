"""`nucleate evaluate`: predictions beside known crystals and a random control."""

import json
import statistics
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from nucleate.cli.options import AsJson, Heavy, MatcherLimit, Resume, Seed, Workers, cores, names, numbers
from nucleate.cli.terminal import finite, leave_if, out, percent, progress_bar, share, short, show_end


def evaluate(
    predictions: Annotated[
        Path,
        typer.Argument(help="A folder of predict or generate, CIFs, extxyz, parquet, or a peer's output."),
    ],
    reference: Annotated[
        Path, typer.Option(help="The known crystals: CIF, folder of CIFs, extxyz, parquet.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Table of every sample.")] = Path(
        "evaluation.parquet"
    ),
    criteria: Annotated[
        str, typer.Option(help="strict15, strict20, strict30, ladder, loose, structurematcher.")
    ] = "strict15,strict20,ladder,loose",
    top: Annotated[str, typer.Option(help="Report hits among the first k samples.")] = "1,10",
    controls: Annotated[
        int | None,
        typer.Option(help="Random samples of each target; as many as were predicted unless given."),
    ] = None,
    heavy: Heavy = False,
    in_turn: Annotated[
        bool, typer.Option("--in-turn", help="Sample i belongs to reference i modulo their number.")
    ] = False,
    format: Annotated[
        str | None, typer.Option(help="Format of the predictions, if not told by them.")
    ] = None,
    time_limit: MatcherLimit = 30.0,
    workers: Workers = None,
    seed: Seed = 0,
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Judge predictions against known crystals, a random control beside them; --inorganic --help: without molecules.

    Example: nucleate evaluate results/aspirin --reference experiment.cif -o aspirin.parquet
    """
    from nucleate.pipeline.evaluate import EvaluateSettings
    from nucleate.pipeline.evaluate import evaluate as run

    settings = EvaluateSettings.model_validate(
        {
            "criteria": names(criteria), "top": numbers(top, "--top", int), "controls": controls,
            "heavy": heavy, "in_turn": in_turn, "format": format, "time_limit": time_limit,
            "workers": cores() if workers is None else workers, "seed": seed,
        }
    )  # fmt: skip
    with progress_bar() as tell:
        result = run(predictions, reference, settings, output, resume, tell)
    if as_json:
        print(json.dumps(result.as_json()))
    else:
        _show_evaluation(result, output)
    leave_if(bool(result.pending), f"{output} holds the targets that are done")


def _show_evaluation(result: Any, output: Path) -> None:
    """Found or not, then everything else; the control in the next column."""
    from nucleate.pipeline.evaluate import describe

    model, control = result.predictions, result.control
    out.print(
        f"{model.targets} targets, {model.asked} predictions, {control.asked} random controls", style="bold"
    )
    places = list(next(iter(model.scores.values())).at)
    table = Table("criterion", *(f"@{k}" for k in places), "RMSD", "rank", *(f"control @{k}" for k in places))
    table.box = None
    for name, score in model.scores.items():
        ranks = sorted(r for r in score.first.values() if r is not None)
        table.add_row(
            name, *(share(score.at[k]) for k in places), short(finite(score.rmsd)),
            f"{statistics.median(ranks):g}" if ranks else "",
            *(share(control.scores[name].at[k]) for k in places),
        )  # fmt: skip
    out.print(table)
    table = Table("samples", "predictions", "random control", box=None)
    for name in model.scores:
        table.add_row(f"like the reference, {name}", *(str(s.scores[name].samples) for s in (model, control)))
    for title, get in (
        ("volume, mean |error|", lambda s: percent(s.rmad, s.measured)),
        ("volume, bias", lambda s: percent(s.bias, s.measured)),
        ("density, mean |error|", lambda s: percent(s.density_error, s.measured)),
        ("with a clash", lambda s: str(s.clash)),
        ("crystals without one", lambda s: str(s.clash_free)),
        ("distinct", lambda s: str(s.unique)),
    ):
        table.add_row(title, get(model), get(control))
    out.print(table)
    for name in model.scores:
        out.print(describe(name), style="dim")
    out.print("RMSD in Å and median rank: of the targets that were found", style="dim")
    show_end(result, output)
