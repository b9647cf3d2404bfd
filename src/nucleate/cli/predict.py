"""`nucleate predict`: one molecule or a list of them, to ranked crystals and a report."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from nucleate.cli.options import (
    ENERGIES,
    SHAPES,
    AsJson,
    Budget,
    GeneratorName,
    MoleculeName,
    Resume,
    Seed,
    SpaceGroups,
    Weights,
    Workers,
    Z,
    cores,
    numbers,
    one_of,
    seconds,
)  # fmt: skip
from nucleate.cli.terminal import leave_if, out, progress_bar, short


def predict(
    molecule: Annotated[str, typer.Argument(help="SMILES, a .sdf/.mol/.xyz/.cif file, or a .smi/.csv list.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder; by default results/NAME.")
    ] = None,
    n: Annotated[int, typer.Option("-n", "--n", help="Starting packings to try.")] = 5000,
    z: Z = None,
    z_prime: Annotated[str | None, typer.Option("--z-prime", help="0.5, 1 or 2, or several: 1,2.")] = None,
    space_groups: SpaceGroups = "common",
    generator: GeneratorName = "auto",
    weights: Weights = None,
    energy: Annotated[
        str | None,
        one_of(*ENERGIES, help="Energy model for the final order; by default CHGNet + D3 if installed."),
    ] = None,
    charges: Annotated[
        str, one_of("mmff", "esp", help="mmff, or esp (fitted by pyscf, better order).")
    ] = "mmff",
    conformers: Annotated[
        str,
        one_of(*SHAPES, help="Where shapes of the molecule come from: etkdg (RDKit) or confgf (learned)."),
    ] = "etkdg",
    reference: Annotated[Path | None, typer.Option(help="CIF of a known crystal to look for.")] = None,
    budget: Budget = None,
    keep: Annotated[int, typer.Option(help="Crystals to hand over at most.")] = 100,
    relax_steps: Annotated[int, typer.Option(help="All-atom steps of the shortlist with --energy.")] = 0,
    sequence: Annotated[
        str, one_of("sobol", "random", help="sobol or random numbers for the starts.")
    ] = "sobol",
    workers: Workers = None,
    name: MoleculeName = None,
    seed: Seed = 0,
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Predict the crystals of a molecule: ranked CIF files and an offline report.

    Example: nucleate predict "CC(=O)Oc1ccccc1C(=O)O" -o results/aspirin --budget 10m
    """
    from nucleate.pipeline.predict import PredictSettings

    settings = PredictSettings.model_validate(
        {
            "n": n,
            "z": numbers(z, "--z", int),
            "z_prime": numbers(z_prime, "--z-prime", float),
            "space_groups": space_groups,
            "generator": generator,
            "weights": weights,
            "energy": energy,
            "charges": charges,
            "conform": {"conformers": conformers},
            "reference": reference,
            "budget": seconds(budget),
            "keep": keep,
            "rank": {"relax_steps": relax_steps},
            "sequence": sequence,
            "workers": cores() if workers is None else workers,
            "seed": seed,
        }
    )
    if Path(molecule).suffix.lower() in (".smi", ".csv"):
        _predict_list(Path(molecule), settings, output, resume, as_json)
        return
    _predict_one(molecule, settings, output, name, resume, as_json)


def _predict_one(
    source: str, settings: Any, output: Path | None, name: str | None, resume: bool, as_json: bool
) -> None:
    from nucleate.pipeline.predict import predict as run

    with progress_bar() as tell:
        result = run(source, settings, output, name=name, resume=resume, progress=tell)
    if as_json:
        print(json.dumps(result.run))
    else:
        show(result.rows, result.run, result.folder)
    leave_if(result.run["interrupted"], f"{result.folder} holds what was found")


def _predict_list(path: Path, settings: Any, output: Path | None, resume: bool, as_json: bool) -> None:
    from nucleate.pipeline.predict_list import predict_list

    with progress_bar() as tell:
        summary = predict_list(path, settings, output or Path("results") / path.stem, resume, tell)
    _show_list(summary, as_json)
    nothing = all(row["failure"] for row in summary)
    leave_if(summary[-1]["failure"] == "interrupted", "finished molecules are kept", nothing)


def _show_list(summary: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(summary))
        return
    table = Table("name", "crystals", "lowest kJ/mol", "space group", "seconds", "failure", box=None)
    for row in summary:
        table.add_row(
            *(
                short(row.get(k))
                for k in (
                    "name",
                    "crystals",
                    "lattice_energy_kj_mol",
                    "space_group_symbol",
                    "seconds",
                    "failure",
                )
            )
        )
    out.print(table)


def show(rows: list[dict[str, Any]], run: dict[str, Any], folder: Path) -> None:
    """The ten best crystals and where everything is."""
    counts = run["counts"]
    head = f"{run['molecule']['name']}: {counts['distinct']} distinct minima from {counts['asked']} starts"
    out.print(f"{head} in {run['wall_seconds']:.0f} s (energies: {run['energy_model']})", style="bold")
    if rows:
        out.print(_best_ten(rows))
    else:
        out.print(f"no crystal {'yet' if run['interrupted'] else 'survived'}; run.json counts every start")
    reference = run.get("reference")
    if reference:
        text = (
            f"found at rank {reference['rank']}, RMSD_15 {reference['rmsd']:.2f} Å"
            if reference["found"]
            else "not found"
        )
        out.print(f"reference {reference['file']}: {text} ({reference['criterion']})")
    for note in run["notes"]:
        out.print(f"note: {note}", style="dim")
    out.print(run["convergence"]["text"], style="dim")
    print(f"report: {folder / 'report.html'}")


def _best_ten(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("rank", "kJ/mol", "lattice", "g/cm³", "group", "Z", "Z'", "found", "reference"):
        table.add_column(column, justify="left" if column == "group" else "right")
    for row in rows[:10]:
        matched = "" if row["n_matched"] is None else f"{row['n_matched']}/15"
        if row["rmsd_n"] is not None:
            matched += f" {row['rmsd_n']:.2f} Å"
        table.add_row(
            str(row["rank"]), f"{row['energy_kj_mol']:.2f}", f"{row['lattice_energy_kj_mol']:.1f}",
            f"{row['density_g_cm3']:.3f}", row["space_group_symbol"], str(row["z"]), f"{row['z_prime']:g}",
            str(row["n_duplicates"] + 1), matched,
        )  # fmt: skip
    return table
