"""`nucleate conform`: parse, call the verb, print what came of it."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from nucleate.cli.options import SHAPES, AsJson, MoleculeName, Seed, Weights, one_of, use_threads
from nucleate.cli.terminal import out, print_rows, progress_bar

SHOWN = 20  # rows of the table


def conform(
    molecule: Annotated[str, typer.Argument(help="SMILES or a molecule file (.sdf, .mol, .xyz, .cif).")],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="Folder, by default results/NAME-conformers; or the .sdf file to write."
        ),
    ] = None,
    n: Annotated[int, typer.Option("-n", "--n", help="Conformers at most.")] = 20,
    method: Annotated[
        str, one_of(*SHAPES, help="Where shapes come from: etkdg (RDKit) or confgf (learned).")
    ] = "etkdg",
    sampler: Annotated[
        str, one_of("fast", "ald", help="Of confgf: fast, or ald (annealed Langevin, as published).")
    ] = "fast",
    weights: Weights = None,
    samples: Annotated[
        int | None, typer.Option(help="Shapes to start from; by default by the rotatable bonds.")
    ] = None,
    optimise: Annotated[
        str, one_of("none", "mmff", "gfn2", help="none, mmff (MMFF94) or gfn2 (GFN2-xTB).")
    ] = "mmff",
    window: Annotated[
        float | None, typer.Option(help="Largest energy above the lowest in kJ/mol; by default any.")
    ] = None,
    time_limit: Annotated[float, typer.Option(help="Seconds for one molecule.")] = 120.0,
    name: MoleculeName = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Find the conformers of a molecule: an SDF file with energies, and an offline report.

    Example: nucleate conform "CC(C)Cc1ccc(cc1)[C@H](C)C(=O)O" -n 20 -o ibuprofen

    Example: nucleate conform "OCC(O)CO" --optimise gfn2 -o glycerol.sdf
    """
    from nucleate.pipeline.conform_files import conform_files
    from nucleate.pipeline.ensemble import EnsembleSettings

    settings = EnsembleSettings.model_validate(
        {
            "n": n, "method": method, "sampler": sampler, "weights": weights, "samples": samples,
            "optimise": optimise, "window": window, "time_limit": time_limit, "seed": seed,
        }
    )  # fmt: skip
    if method != "etkdg":
        use_threads()
    with progress_bar() as tell:
        made = conform_files(molecule, output, settings, name, tell)
    if as_json:
        print(json.dumps(made.run))
    else:
        _show(made.rows, made.run, made.sdf, made.report)


def _show(rows: list[dict[str, Any]], run: dict[str, Any], sdf: Path, report: Path | None) -> None:

    several = len(run["molecule"]["species"]) > 1
    print_rows([_line(row, several) for row in rows[:SHOWN]], False)
    if len(rows) > SHOWN:
        out.print(f"and {len(rows) - SHOWN} more in {sdf}")
    counts = run["counts"]
    text = f"{counts['handed_over']} conformers from {counts['made']} shapes ({counts['asked']} asked for)"
    out.print(f"{text} in {run['wall_seconds']:.0f} s", style="bold")
    for model in dict.fromkeys(row["energy_model"] for row in rows):
        out.print(f"energies: {model}; weights at {run['temperature_K']} K", style="dim")
    for key, says in LOST.items():
        if counts.get(key):
            out.print(f"{counts[key]} x {says}", style="dim")
    for note in run["notes"]:
        out.print(f"note: {note}", style="dim")
    print(f"wrote {sdf}" if report is None else f"report: {report}")


LOST = {
    "wrong_stereo": "refused: wrong stereo",
    "unsound": "refused: torn bonds or atoms on top of each other",
    "not_converged": "not converged",
    "lost_stereo": "lost their stereo in the optimisation",
    "lost_bonds": "lost their bonds in the optimisation",
}


def _line(row: dict[str, Any], several: bool) -> dict[str, Any]:
    """What a row is to a reader."""
    line: dict[str, Any] = {"molecule": row["smiles"]} if several else {}
    weight = row["boltzmann_weight"]
    line |= {"rank": row["rank"], "kJ/mol": row["energy_kj_mol"]}
    line |= {"weight": None if weight is None else f"{100 * weight:.1f} %", "images": row["mirror_images"]}
    return line | {"RMSD Å": row["rmsd_A"]}
