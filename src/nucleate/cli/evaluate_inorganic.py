"""`nucleate evaluate --inorganic`: parse, call the verb, print what came of it."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from nucleate.cli.options import AsJson, MatcherLimit, Resume, Seed, Workers, cores, numbers
from nucleate.cli.terminal import leave_if, out, progress_bar, share, show_end


def evaluate_inorganic(
    samples: Annotated[
        Path,
        typer.Argument(
            help="A folder of generate crystalflow, or a table (.parquet, .csv) with a column cif and, where crystals "
            "were asked for, target."
        ),
    ],
    reference: Annotated[Path, typer.Option(help="Table of known crystals: columns cif and material_id.")],
    inorganic: Annotated[
        bool, typer.Option("--inorganic", help="Crystals without molecules, compared by StructureMatcher.")
    ] = True,
    train: Annotated[
        Path | None, typer.Option(help="Table of the training, to tell what is novel. Without targets only.")
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Table of every sample.")] = Path(
        "evaluation.parquet"
    ),
    top: Annotated[str, typer.Option(help="Report what the first k samples find.")] = "1,20",
    controls: Annotated[
        int | None,
        typer.Option(help="Random samples of each target (without targets: of all); as many as given."),
    ] = None,
    metre: Annotated[
        bool | None,
        typer.Option("--metre/--no-metre", help="METRe and cRMSE; by default up to a million pairs."),
    ] = None,
    only_asked: Annotated[
        bool, typer.Option("--only-asked", help="Leave out references without a sample; they count else.")
    ] = False,
    time_limit: MatcherLimit = 30.0,
    workers: Workers = None,
    seed: Seed = 0,
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Judge inorganic crystals, a random control beside them: found or not; without targets, valid, unique and novel.

    Example: nucleate evaluate generated --reference mp20_test.parquet --inorganic --top 1,20
    """
    from nucleate.metrics.csp import CspScores
    from nucleate.pipeline.evaluate_inorganic import InorganicEvaluation
    from nucleate.pipeline.evaluate_inorganic import evaluate_inorganic as run

    settings = InorganicEvaluation.model_validate(
        {
            "top": numbers(top, "--top", int), "controls": controls, "everyone": metre,
            "only_asked": only_asked, "time_limit": time_limit, "seed": seed,
            "workers": cores() if workers is None else workers,
        }
    )  # fmt: skip
    with progress_bar() as tell:
        result = run(samples, reference, settings, train, output, resume, tell)
    if as_json:
        print(json.dumps(result.as_json()))
    else:
        (_show_csp if isinstance(result.predictions, CspScores) else _show_dng)(result)
        out.print(result.criterion, style="dim")
        show_end(result, output)
    leave_if(bool(result.pending), f"{output} holds the targets that are done")


def _show_csp(result: Any) -> None:
    """Found or not, with the control below each line; then by size; then the samples."""

    model, control = result.predictions, result.control
    out.print(
        f"{model.targets} targets, {model.asked} samples, {control.asked} random controls (true cell)",
        style="bold",
    )
    table = Table("", "any sample", "RMSE", "cRMSE", "valid samples", "RMSE", "cRMSE", box=None)
    for name, get in (("match rate", lambda s: s.own), ("METRe", lambda s: s.everyone)):
        for k in model.own:
            for label, scores in (("", get(model)), ("  random", get(control))):
                if scores is not None:
                    table.add_row(label or f"{name}, {k} sample{'s' * (k != '1')}", *_line(scores[k]))
    out.print(table)
    out.print(_by_size(model, control))
    _show_rates(
        result,
        [("sound structure", lambda s: s.structure), ("sound composition", lambda s: s.composition)],
    )
    out.print(
        "valid: structure and composition, of sample and reference. METRe: by any sample of the composition. RMSE over "
        "those found, cRMSE over all",
        style="dim",
    )


def _line(both: Any) -> list[str]:
    one = [str(both.any.found), _number(both.any.rmse), _number(both.any.crmse)]
    if both.valid is None:
        return [*one, "not known", "", ""]
    return [*one, str(both.valid.found), _number(both.valid.rmse), _number(both.valid.crmse)]


def _by_size(model: Any, control: Any) -> Table:

    heads = [f"{who} @{k}" for k in model.own for who in ("any", "RMSE", "valid", "random any")]
    table = Table("atoms", *heads, box=None)
    for label, scores in model.by_size.items():
        cells = []
        for k, both in scores.items():
            valid = "" if both.valid is None else share(both.valid.found)
            random = share(control.by_size[label][k].any.found)
            cells += [share(both.any.found), _number(both.any.rmse), valid, random]
        table.add_row(label, *cells)
    return table


def _show_dng(result: Any) -> None:

    model, control = result.predictions, result.control
    out.print(
        f"{model.asked} crystals from nothing, {control.asked} random controls (true cells)", style="bold"
    )
    _show_rates(
        result,
        [
            ("sound structure", lambda s: s.structure),
            ("sound composition", lambda s: s.composition),
            ("valid, both", lambda s: getattr(s, "valid", None)),
            ("unique", lambda s: getattr(s, "unique", None)),
            ("novel", lambda s: getattr(s, "novel", None)),
            ("valid, unique and novel", lambda s: getattr(s, "new", None)),
        ],
    )
    table = Table("distance from the references", "samples", "random control", box=None)
    for title, name in (("density g/cm³", "density"), ("number of elements", "elements")):
        table.add_row(title, *(f"{_number(getattr(s, name))} of {s.measured}" for s in (model, control)))
    out.print(table)


def _show_rates(result: Any, lines: list[tuple[str, Callable[[Any], Any]]]) -> None:

    table = Table("samples", "predictions", "random control", "references", box=None)
    for title, get in lines:
        cells = [get(s) for s in (result.predictions, result.control, result.real)]
        table.add_row(title, *("" if rate is None else str(rate) for rate in cells))
    out.print(table)


def _number(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else ""
