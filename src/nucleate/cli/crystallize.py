"""`nucleate crystallize`: parse, call the verb, print what came of it."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from nucleate.cli.options import AsJson, Resume, Seed, Weights, use_threads
from nucleate.cli.terminal import leave_if, out, print_rows, progress_bar

SHOWN = 20  # rows of the table


def crystallize(
    source: Annotated[
        str,
        typer.Argument(
            help="Loose cluster (.xyz), SMILES, .mol or .sdf file, a .cif to compare with, a .csv of COD-Cluster17."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder for files and tables, by default results/NAME-cluster."),
    ] = None,
    n: Annotated[int, typer.Option("-n", "--n", help="Ordered clusters to make.")] = 10,
    molecules: Annotated[
        int, typer.Option(help="Molecules in the cluster, where the source leaves it open.")
    ] = 17,
    weights: Weights = None,
    steps: Annotated[int, typer.Option(help="Steps of the sampler.")] = 8,
    relax: Annotated[
        bool, typer.Option(help="Relax the clusters in the force field, in open space; surfaces rearrange.")
    ] = False,
    cell: Annotated[bool, typer.Option(help="Look for a lattice, and relax the crystal.")] = True,
    seed: Seed = 0,
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Order a loose cluster of molecules with a learned flow, and find the crystal in it.

    Example: nucleate crystallize "CC(=O)Oc1ccccc1C(=O)O" --molecules 17 -o aspirin

    Example: nucleate crystallize aspirin/loose.xyz -n 10 -o ordered

    Example: nucleate crystallize experiment.cif --seed 3 -o compared
    """
    from nucleate.pipeline.composition import default_name
    from nucleate.pipeline.crystallize import CrystallizeSettings
    from nucleate.pipeline.crystallize import crystallize as run

    settings = CrystallizeSettings(
        n=n, molecules=molecules, weights=weights, steps=steps, relax=relax, cell=cell, seed=seed
    )
    folder = output or Path("results") / f"{default_name(source, source)}-cluster"
    use_threads()
    with progress_bar() as tell:
        made = run(source, settings, folder, tell, resume)
    if as_json:
        print(json.dumps(made.run))
    else:
        _show(made.rows, made.run, folder)
    leave_if(made.run["interrupted"], f"{folder} holds what was made", not made.run["counts"]["made"])


def _show(rows: list[dict[str, Any]], run: dict[str, Any], folder: Path) -> None:

    print_rows([_line(row) for row in rows[:SHOWN]], False)
    if len(rows) > SHOWN:
        out.print(f"and {len(rows) - SHOWN} more in {folder / 'samples.parquet'}")
    counts = run["counts"]
    text = f"{counts['made']} of {counts['asked']} made, {counts['without_collisions']} without collisions"
    if "cells" in counts:
        text += f", {counts['cells']} with a lattice"
    if "like_the_truth" in counts:
        text += f", {counts['like_the_truth']} like the known cluster"
    out.print(text, style="bold")
    out.print(f"best first: {run['ranked_by']}", style="dim")
    for reason, count in [*run["failures"].items(), *run["without_cell"].items()]:
        out.print(f"{count} x {reason}", style="dim")
    for note in run["notes"]:
        out.print(f"note: {note}", style="dim")
    print(f"report: {folder / 'report.html'}")


def _line(row: dict[str, Any]) -> dict[str, Any]:
    """What a row is to a reader."""
    line = {"rank": row["rank"], "id": row["id"], "kJ/mol": row["energy_kj_mol"]}
    line |= {"collisions": row["collision_between"], "moved Å": row["moved_A"], "spread Å": row["spread_A"]}
    if row["matched"] is not None:
        line |= {"as known": f"{row['matched']}/{row['matched_of']}", "RMSD Å": row["rmsd_A"]}
    if row["cell"]:
        line |= {"group": row["cell_space_group"], "volume Å³": row["cell_volume_A3"]}
    if row["cell_matched"] is not None:
        line["packing"] = f"{row['cell_matched']}/15"
    return line | ({"failure": row["failure"]} if row["failure"] else {})
