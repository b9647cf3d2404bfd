"""`nucleate free-energy`: parse, call the verb, print what came of it."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from nucleate.cli.options import AsJson, Resume, Seed, minutes, one_of
from nucleate.cli.terminal import out, print_rows, progress_bar


def free_energy(
    crystal: Annotated[str, typer.Argument(help="ice-xi, or a CIF file of a crystal of one rigid molecule.")],
    n: Annotated[int, typer.Option("-n", "--n", help="Molecules of ice-xi: 16, 128 or 432.")] = 16,
    water: Annotated[
        str, one_of("tip4p-ew", "tip4p-ice", help="Of ice-xi: tip4p-ew or tip4p-ice.")
    ] = "tip4p-ew",
    t_base: Annotated[float, typer.Option(help="K, where dynamics sample.")] = 250.0,
    t_target: Annotated[float, typer.Option(help="K, the temperature to go to.")] = 100.0,
    method: Annotated[
        str,
        one_of(
            "flow",
            "harmonic",
            "fep",
            "mbar",
            help="flow, harmonic (scaling alone), fep (no map) or mbar (a ladder of dynamics).",
        ),
    ] = "flow",
    frames: Annotated[int, typer.Option(help="Frames at each temperature, 0.5 ps apart.")] = 4000,
    temperatures: Annotated[int, typer.Option(help="Of mbar's ladder, both ends included.")] = 5,
    sampler: Annotated[
        str,
        one_of(
            "auto",
            "openmm",
            "own",
            help="auto, openmm, or own (Hamiltonian Monte Carlo, any rigid molecule).",
        ),
    ] = "auto",
    weights: Annotated[
        Path | None,
        typer.Option(help="A flow that nucleate train rigid_body_flow made; else one is trained."),
    ] = None,
    steps: Annotated[int, typer.Option(help="Of training.")] = 800,
    budget: Annotated[str | None, typer.Option(help="Of training at most, as in 90s, 10m, 2h.")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder, by default results/NAME-free-energy.")
    ] = None,
    resume: Resume = False,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Find the free energy of a crystal at one temperature against another, and samples there.

    Example: nucleate free-energy ice-xi --n 16 --t-base 250 --t-target 100 -o ice

    Example: nucleate free-energy urea.cif --t-base 300 --t-target 200 --method harmonic --frames 500
    """
    from nucleate.pipeline.free_energy import FreeEnergySettings
    from nucleate.pipeline.free_energy import free_energy as run

    settings = FreeEnergySettings.model_validate(
        {
            "t_base": t_base, "t_target": t_target, "method": method, "sampler": sampler, "frames": frames,
            "temperatures": temperatures, "steps": steps, "minutes": minutes(budget), "seed": seed,
        }
    )  # fmt: skip
    with progress_bar() as tell:
        made = run(crystal, n, water, settings, output, weights, resume, tell)
    if as_json:
        print(json.dumps(made.record))
    else:
        _show(made.record, made.folder)


def _show(record: dict[str, Any], folder: Path) -> None:

    print_rows([_line(row) for row in record["estimates"]], False)
    out.print(
        f"F({record['target_K']:g} K) - F({record['base_K']:g} K), each over its own kT, configurational; "
        f"{record['crystal']['molecules']} molecules",
        style="dim",
    )
    for note in record["notes"]:
        out.print(f"note: {note}", style="dim")
    print(f"report: {folder / 'report.html'}")


def _line(row: dict[str, Any]) -> dict[str, Any]:
    """What a row is to a reader."""
    gap = row["gap_kT"]
    return {
        "method": row["method"],
        "difference, kT": f"{row['difference_kT']:.3f} ± {row['error_kT']:.3f}",
        "a molecule, kT": f"{row['per_molecule_kT']:.4f}",
        "frames that count": f"{100 * row['effective_share']:.1f} %",
        "gap, kT": "" if gap is None else f"{gap:.2f}",
        "frames": row["frames"],
    }
