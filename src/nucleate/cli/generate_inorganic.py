"""`nucleate generate crystalflow`: parse, call the verb, print what came of it."""

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from nucleate.cli.options import ENERGIES, AsJson, Resume, Seed, Weights, Workers, cores, one_of, use_threads
from nucleate.cli.terminal import leave_if, out, print_rows, progress_bar
from nucleate.errors import InputError

SHOWN = 20  # rows of the table


def generate_crystalflow(
    formula: Annotated[
        str | None, typer.Option(help="Such as TiO2 or Ca(OH)2. Without one the weights choose the atoms.")
    ] = None,
    formula_units: Annotated[int, typer.Option(help="Of the formula, in the cell that is generated.")] = 1,
    formula_list: Annotated[
        Path | None,
        typer.Option(
            help="Table (.csv, .parquet) with a column formula, or cif to take the contents of known crystals."
        ),
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for files and tables.")] = Path(
        "crystals"
    ),
    n: Annotated[int, typer.Option("-n", "--n", help="Samples; of a list, of each row.")] = 20,
    condition: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE of a property that the weights know, as in pressure=50; repeatable."),
    ] = None,
    guidance: Annotated[
        float, typer.Option(help="How hard to pull towards the conditions; 1 as learnt, 2 harder.")
    ] = 1.0,
    weights: Weights = None,
    steps: Annotated[int, typer.Option(help="Steps of the sampler.")] = 20,
    method: Annotated[
        str, one_of("euler", "heun", help="euler, or heun with two evaluations a step.")
    ] = "euler",
    anneal: Annotated[
        float, typer.Option(help="How much coordinates are hurried; 0: the learnt flow.")
    ] = 5.0,
    returns: Annotated[
        int | None,
        typer.Option(
            help="How often a walk goes back half the way; by default 4, or 0 where atoms are chosen."
        ),
    ] = None,
    relax: Annotated[
        str | None,
        one_of(*ENERGIES[1:], help="Energy model to relax with: chgnet, mace, ... or ase:module:Class."),
    ] = None,
    relax_steps: Annotated[int, typer.Option(help="Steps of a relaxation at most.")] = 200,
    workers: Workers = None,
    symprec: Annotated[float, typer.Option(help="Å: files are symmetric where crystals nearly are.")] = 0.1,
    seed: Seed = 0,
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Generate inorganic crystals with a learned flow.

    Example: nucleate generate crystalflow --formula TiO2 --formula-units 2 -n 20 -o titania

    Example: nucleate generate crystalflow -n 100 --weights dng.safetensors --condition band_gap=2 --guidance 2

    Example: nucleate generate crystalflow --formula-list test.parquet -n 1 --relax chgnet
    """
    from nucleate.pipeline.generate_inorganic import InorganicSettings, generate_inorganic

    settings = InorganicSettings.model_validate(
        {
            "formula": formula, "formula_units": formula_units, "formula_list": formula_list, "n": n,
            "condition": conditions(condition or []), "guidance": guidance, "weights": weights, "steps": steps,
            "method": method, "anneal": anneal, "returns": returns,
            "relax": relax, "relax_steps": relax_steps, "symprec": symprec, "seed": seed,
            "workers": cores() if workers is None else workers,
        }
    )  # fmt: skip
    use_threads()
    with progress_bar() as tell:
        made = generate_inorganic(settings, output, tell, resume)
    if as_json:
        print(json.dumps(made.run))
    else:
        _show(made.rows, made.run, output)
    leave_if(made.run["interrupted"], f"{output} holds what was made", not made.run["counts"]["built"])


def conditions(given: list[str]) -> dict[str, float]:
    """NAME=VALUE as a table. Raises InputError for anything else, and for a name given twice."""
    found: dict[str, float] = {}
    for text in given:
        name, _, value = text.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not name.strip() or not math.isfinite(number):
            raise InputError(
                f"--condition: expected NAME=VALUE with a number, as in pressure=50; got {text!r}"
            )
        if name.strip() in found:
            raise InputError(f"--condition: expected each property once, got {name.strip()} twice")
        found[name.strip()] = number
    return found


def _show(rows: list[dict[str, Any]], run: dict[str, Any], folder: Path) -> None:

    print_rows([_line(row) for row in rows[:SHOWN]], False)
    if len(rows) > SHOWN:
        out.print(f"and {len(rows) - SHOWN} more in {folder / 'samples.parquet'}")
    counts = run["counts"]
    text = f"{counts['built']} of {counts['asked']} built, {counts['overlapping']} with overlapping atoms, "
    text += f"{counts['distinct']} distinct"
    if "relaxed" in counts:
        text += f"; {counts['relaxed']} relaxed, {counts['converged']} of them to the end"
    out.print(text, style="bold")
    for reason, count in run["failures"].items():
        out.print(f"{count} x {reason}", style="dim")
    for note in run["notes"]:
        out.print(f"note: {note}", style="dim")
    out.print(f"wrote {folder / 'cif'} in {run['wall_seconds']:.1f} s")


def _line(row: dict[str, Any]) -> dict[str, Any]:
    """What a row is to a reader; energies by atom."""
    line = {"id": row["id"], "formula": row["formula"], "atoms": row["atoms"], "group": row["space_group"]}
    line |= {"volume Å³": row["volume_A3"], "g/cm³": row["density_g_cm3"], "shortest Å": row["shortest_A"]}
    line |= {"overlap": "yes" if row["overlap"] else ""}
    for name, key in (("before eV/atom", "energy_before_eV"), ("eV/atom", "energy_eV")):
        if row[key] is not None and row["atoms"]:
            line[name] = row[key] / row["atoms"]
    return line | ({"failure": row["failure"]} if row["failure"] else {})
