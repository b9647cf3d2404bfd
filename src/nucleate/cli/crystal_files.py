"""`nucleate relax`, `rank`, `deduplicate`, `match`, and `report`: verbs that take what is in files."""

from pathlib import Path
from typing import Annotated, Any

import typer

from nucleate.cli.options import (
    AsJson,
    EnergyName,
    Files,
    Heavy,
    MatcherLimit,
    Mirror,
    Workers,
    cores,
    names,
)  # fmt: skip
from nucleate.cli.terminal import finite, out, print_rows, progress_bar
from nucleate.errors import InputError


def relax(
    files: Files,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the relaxed CIF files.")] = Path(
        "relaxed"
    ),
    energy: EnergyName = "forcefield",
    max_steps: Annotated[int, typer.Option(help="Steps at most.")] = 200,
    time_limit: Annotated[float, typer.Option(help="Seconds for one structure.")] = 600.0,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Relax crystals: rigid molecules in the force field, all atoms with any other model.

    Example: nucleate relax results/aspirin/cif/0001.cif -o relaxed

    Example: nucleate relax results/aspirin/cif/0002.cif --energy gfn1 --max-steps 20 -o all-atom
    """
    from nucleate.pipeline.crystal_files import relax_files
    from nucleate.pipeline.relax import RelaxSettings

    settings = RelaxSettings(
        energy=energy,
        max_steps=max_steps,
        time_limit=time_limit,
        workers=cores() if workers is None else workers,
    )
    with progress_bar() as tell:
        rows = relax_files(files, output, settings, lambda i, m: tell("relax", i, m, ""))
    print_rows(rows, as_json, f"wrote {output}")


def rank(files: Files, energy: EnergyName = "forcefield", as_json: AsJson = False) -> None:
    """Order crystals of one substance by energy, as they are.

    Example: nucleate rank results/aspirin/cif
    """
    from nucleate.pipeline.crystal_files import rank_files

    print_rows(rank_files(files, energy), as_json)
    if energy == "forcefield" and not as_json:
        out.print(
            "between molecules only: where molecules differ in shape, rank with another --energy (predict adds "
            "the energies of its conformers)",
            style="dim",
        )


def deduplicate(
    files: Files,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder to copy the representatives to.")
    ] = None,
    n: Annotated[int, typer.Option("-n", "--n", min=1, max=200, help="Molecules that must all agree.")] = 20,
    rmsd: Annotated[float, typer.Option(help="Largest RMSD of them in Å.")] = 0.5,
    mirror: Mirror = True,
    energy_window: Annotated[
        float | None, typer.Option(help="Largest difference of the files' energies in kJ/mol.")
    ] = None,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Group equal crystals; the lowest in energy (or the first) stands for each group.

    Example: nucleate deduplicate results/aspirin/cif -o distinct
    """
    from nucleate.metrics.duplicates import DuplicateSettings
    from nucleate.pipeline.deduplicate_files import deduplicate_files

    settings = DuplicateSettings(
        n=n,
        rmsd=rmsd,
        mirror=mirror,
        energy_window=energy_window,
        workers=cores() if workers is None else workers,
    )
    with progress_bar() as tell:
        rows = deduplicate_files(files, settings, lambda i, m: tell("pairs", i, m, ""), output).rows
    if as_json:
        print_rows(rows, as_json)
        return
    print_rows([{k: v for k, v in row.items() if k != "criterion"} for row in rows], as_json)
    clusters = {row["cluster"] for row in rows if "cluster" in row}
    out.print(f"{len(clusters)} distinct of {len(rows)} files", style="bold")
    out.print(settings.criterion, style="dim")
    if output is not None:
        out.print(f"wrote {output}")


def match(
    reference: Annotated[Path, typer.Argument(help="CIF file.")],
    others: Annotated[list[Path], typer.Argument(help="Crystals to compare: files or folders.")],
    preset: Annotated[
        str, typer.Option(help="Criteria: strict15, strict20, strict30, ladder, loose, structurematcher.")
    ] = "strict15",
    n: Annotated[
        int | None, typer.Option("-n", "--n", min=1, max=200, help="A cluster size of your own.")
    ] = None,
    distance: Annotated[
        float | None, typer.Option(help="Relative tolerance of your own, with -n.  [default: 0.2]")
    ] = None,
    angle: Annotated[
        float | None, typer.Option(help="Tolerance in degrees of your own, with -n.  [default: 20]")
    ] = None,
    mirror: Mirror = True,
    heavy: Heavy = False,
    time_limit: MatcherLimit = 30.0,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Compare packings with a reference: how many molecules agree, and how well.

    Example: nucleate match experiment.cif results/aspirin/cif --preset strict20
    """
    from dataclasses import replace

    from nucleate.metrics.criteria import CRITERIA, criterion
    from nucleate.metrics.structure_matcher import settings_named
    from nucleate.pipeline.match import match_files, own_criterion

    asked = names(preset)
    matcher = "structurematcher" in asked
    if not asked:
        raise InputError(f"expected some of {', '.join(CRITERIA)}, structurematcher; got none")
    if matcher and not mirror:
        raise InputError("expected --mirror with structurematcher, which takes mirror images for the same")
    if n is None and (distance is not None or angle is not None):
        raise InputError("expected -n beside --distance and --angle; a preset has tolerances of its own")
    if n is not None and asked != ("strict15",):
        raise InputError(f"expected -n or --preset, got both: -n {n} and {preset}")
    criteria = [criterion(name) for name in asked if name != "structurematcher"]
    if n is not None:
        criteria = [own_criterion(n, 0.2 if distance is None else distance, 20.0 if angle is None else angle)]
    criteria = [replace(c, mirror=mirror) for c in criteria]
    settings = settings_named("molcrystalflow", **({"heavy": True} if heavy else {})) if matcher else None
    rows = match_files(
        reference, others, criteria, settings, time_limit, cores() if workers is None else workers
    )
    if as_json:
        print_rows(rows, as_json)
        return
    print_rows([_match_line(row) for row in rows], as_json)
    for c in criteria:
        out.print(str(c), style="dim")
    if settings is not None:
        text = f"structurematcher-STOL (ltol {settings.ltol:g}, angle {settings.angle:g}°, no scaling)"
        out.print(text, style="dim")


def _match_line(row: dict[str, Any]) -> dict[str, Any]:
    """A row without the motion, which is for programs."""
    return {
        "file": row["file"],
        "criterion": row["criterion"],
        "same": "yes" if row["same"] else "no",
        "matched": "" if row["of"] is None else f"{row['matched']}/{row['of']}",
        "RMSD Å": finite(row["rmsd_A"]),
        "RMSD_1 Å": finite(row["rmsd_1_A"]),
        "mirrored": "yes" if row["mirrored"] else "",
        "why not": row["reason"],
    }


def report(
    folder: Annotated[Path, typer.Argument(help="What predict, crystallize, conform or free-energy wrote.")],
) -> None:
    """Write report.html again from a result folder.

    Example: nucleate report results/aspirin
    """
    from nucleate.report import write_any_report

    print(write_any_report(folder))
