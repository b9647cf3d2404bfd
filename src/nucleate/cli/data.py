"""`nucleate data`: make, import and look at what generators learn from: crystals, clusters of them, conformers."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from nucleate.cli.options import AsJson, Resume, Seed, Workers, cores
from nucleate.cli.terminal import errors, leave_if, out, print_rows, progress_bar
from nucleate.errors import InputError

HELP = "Data to learn from: synthesize crystals, import CIF files, cut clusters, make conformers."

Folder = Annotated[Path, typer.Option("-o", "--output", help="Folder for the data set.")]


def synthesize(
    molecules: Annotated[Path, typer.Argument(help="A .smi or .csv list of molecules, plain or .gz.")],
    output: Folder,
    n: Annotated[int | None, typer.Option("-n", "--n", min=1, help="Molecules drawn from the list.")] = None,
    exclude: Annotated[
        list[Path] | None,
        typer.Option(help="Molecules to leave out: a list, CIFs, a data set. May be repeated."),
    ] = None,
    starts: Annotated[int, typer.Option(help="Starting packings for each molecule.")] = 1500,
    keep: Annotated[int, typer.Option(help="Crystals of one molecule at most.")] = 12,
    window: Annotated[float, typer.Option(help="kJ/mol above the lowest.")] = 12.0,
    conformers: Annotated[int, typer.Option(help="Conformers of each molecule.")] = 2,
    largest: Annotated[int, typer.Option(help="Atoms of a formula unit at most.")] = 60,
    time_limit: Annotated[float, typer.Option(help="Seconds for one molecule.")] = 120.0,
    workers: Workers = None,
    seed: Seed = 0,
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Search the crystals of many molecules and keep the low-energy ones.

    Example: nucleate data synthesize qm9.csv.gz -n 5000 -o data/synthetic --exclude cod_cif
    """
    from nucleate.pipeline.molecule_lists import excluded_keys, read_sample
    from nucleate.pipeline.synthesize import SynthesizeSettings
    from nucleate.pipeline.synthesize import synthesize as run

    settings = SynthesizeSettings(
        starts=starts, keep=keep, window=window, conformers=conformers, largest=largest, seed=seed,
        time_limit=time_limit, workers=cores() if workers is None else workers,
    )  # fmt: skip
    sample, excluded = read_sample(molecules, n, seed), excluded_keys(exclude or [])
    with progress_bar() as tell:
        result = run(sample, output, settings, excluded, resume, lambda i, m, note: tell("data", i, m, note))
    if as_json:
        _print_json(output, result, asked=result.asked, crystals=result.crystals)
    else:
        out.print(
            f"{result.crystals} crystals of {result.outcomes['done']} molecules in {output}", style="bold"
        )
        _show_outcomes(result.outcomes, result.asked, "molecules")
    leave_if(result.interrupted, "what is finished is kept", not result.crystals)


def import_(
    files: Annotated[list[Path], typer.Argument(help="CIF files, or folders that hold some.")],
    output: Folder,
    splits: Annotated[
        Path | None, typer.Option(help="CSV with cod_id and split; by default 80/10/10 % of molecules.")
    ] = None,
    source: Annotated[str, typer.Option(help="What to call the origin of the crystals.")] = "cod",
    largest: Annotated[int, typer.Option(help="Atoms of the asymmetric unit at most.")] = 500,
    bodies: Annotated[int, typer.Option(help="Molecules of the asymmetric unit at most.")] = 16,
    time_limit: Annotated[float, typer.Option(help="Seconds for one file.")] = 120.0,
    workers: Workers = None,
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Turn experimental crystals into data sets train, val and test, split by molecule.

    Example: nucleate data import cod_cif -o data/cod
    """
    from nucleate.pipeline.import_crystals import RECORD, ImportSettings, import_crystals

    settings = ImportSettings(
        largest=largest, bodies=bodies, source=source, time_limit=time_limit,
        workers=cores() if workers is None else workers,
    )  # fmt: skip
    with progress_bar() as tell:
        result = import_crystals(
            files, output, settings, splits, resume, lambda i, m, note: tell("import", i, m, note)
        )
    crystals = sum(result.splits.values())
    if as_json:
        about = {"splits": result.splits, "moved": result.moved, "largest_error_A": result.error}
        _print_json(output, result, crystals=crystals, **about)
    else:
        _show_places(f"{crystals} crystals in {output}", result.splits)
        _show_outcomes(result.outcomes, result.outcomes.total(), "files")
        out.print(f"rebuilt to {result.error:.1e} Å or better")
        if result.moved:
            out.print(
                f"note: {len(result.moved)} in another split than the table's, for the sake of their molecules"
            )
        out.print(f"{output / RECORD} says what became of every file")
    leave_if(result.interrupted, "what is finished is kept", not crystals)


def clusters(
    source: Annotated[
        Path,
        typer.Argument(help="A folder of CIFs, a data set of crystals, or the folders of COD-Cluster17."),
    ],
    output: Folder,
    n: Annotated[int | None, typer.Option("-n", "--n", min=1, help="Crystals drawn from the source.")] = None,
    size: Annotated[int, typer.Option(min=2, help="Molecules of a cluster.")] = 17,
    lowest: Annotated[
        bool, typer.Option("--lowest", help="Only the lowest crystal known of each molecule.")
    ] = False,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Cut clusters out of crystals of one kind of molecule: one and its nearest neighbours.

    Example: nucleate data clusters data/cod -o data/clusters
    """
    from nucleate.pipeline.cluster_data import RECORD, ClusterSettings, make_clusters

    settings = ClusterSettings(size=size, n=n, lowest=lowest, seed=seed)
    with progress_bar() as tell:
        made = make_clusters(source, output, settings, lambda i, m, note: tell("clusters", i, m, note))
    if as_json:
        _print_json(output, made, asked=made.asked, splits=made.splits)
    else:
        _show_places(f"{made.clusters} clusters in {output}", made.splits)
        _show_outcomes(made.outcomes, made.asked, "crystals")
        out.print(f"{output / RECORD} says what was left out, and why")
    if made.interrupted:
        errors.print("interrupted; what is finished is kept", style="yellow")
    if made.interrupted or not made.clusters:
        raise typer.Exit(1)


def conformers(
    source: Annotated[
        Path,
        typer.Argument(help="A .smi or .csv list (also .gz); or an SDF file, a pickle, a folder of pickles."),
    ],
    output: Folder,
    n: Annotated[int | None, typer.Option("-n", "--n", min=1, help="Molecules drawn from the list.")] = None,
    exclude: Annotated[
        list[Path] | None,
        typer.Option(help="Molecules to leave out: a list, CIFs, a data set. May be repeated."),
    ] = None,
    optimise: Annotated[str, typer.Option(help="mmff, gfn2 (needs tblite) or none.")] = "mmff",
    keep: Annotated[
        int | None, typer.Option(min=1, help="Conformers of a molecule; by default 5, all of a file.")
    ] = None,
    embed: Annotated[
        int | None,
        typer.Option(min=1, help="Shapes to start from; by default 20 a rotatable bond, 10 to 200."),
    ] = None,
    window: Annotated[float, typer.Option(help="kJ/mol above the lowest.")] = 25.0,
    distance: Annotated[float, typer.Option(help="Å, heavy-atom RMSD below which two are one.")] = 0.125,
    mirrors: Annotated[
        bool, typer.Option(help="Mirror images are conformers too, where there are no stereocentres.")
    ] = True,
    split: Annotated[
        str | None, typer.Option(help="One split for all, such as test; by default 80/10/10 % of molecules.")
    ] = None,
    time_limit: Annotated[float, typer.Option(help="Seconds for one molecule.")] = 60.0,
    workers: Workers = None,
    seed: Seed = 0,
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Compute the conformers of many molecules, or convert those of other programs and data sets.

    Example: nucleate data conformers qm9.csv.gz -n 5000 -o data/conformers --exclude test.csv
    """
    from nucleate.data.conformer_sources import is_source
    from nucleate.pipeline.conformer_data import ConformerDataSettings, make_conformers
    from nucleate.pipeline.conformer_import import ConformerImportSettings, import_conformers
    from nucleate.pipeline.conformer_shards import DONE, RECORD
    from nucleate.pipeline.molecule_lists import excluded_keys, read_sample

    excluded = excluded_keys(exclude or [])
    with progress_bar() as tell:
        if is_source(source):
            if n or embed or resume or optimise != "mmff":
                raise InputError(
                    f"expected --keep, --exclude and --split only, as {source.name} is converted as it is; "
                    "-n, --embed, --optimise and --resume are for lists of SMILES"
                )
            taken = ConformerImportSettings(keep=keep)
            made = import_conformers(
                source, output, taken, excluded, split, lambda i, m, note: tell("read", i, m, note)
            )
        else:
            settings = ConformerDataSettings(
                embed=embed, optimise=optimise, keep=keep or 5, window=window, distance=distance,  # type: ignore[arg-type]
                mirrors=mirrors, time_limit=time_limit, seed=seed, workers=cores() if workers is None else workers,
            )  # fmt: skip
            sample = read_sample(source, n, seed)
            made = make_conformers(
                sample, output, settings, excluded, split, resume,
                lambda i, m, note: tell("conformers", i, m, note),
            )  # fmt: skip
    if as_json:
        about = {"splits": made.splits, "conformers": made.conformers, "shapes": made.counts}
        _print_json(output, made, asked=made.asked, **about)
    else:
        title = f"{made.conformers} conformers of {made.outcomes[DONE]} molecules in {output}"
        _show_places(title, made.splits)
        _show_outcomes(made.outcomes, made.asked, "molecules")
        out.print(f"{output / RECORD} says what was left out, and why")
    leave_if(made.interrupted, "what is finished is kept", not made.conformers)


def statistics(
    folder: Annotated[Path, typer.Argument(help="A data set, or a folder of data sets (train, val, test).")],
    reference: Annotated[Path | None, typer.Option(help="Another one to show beside it.")] = None,
    lowest: Annotated[
        bool, typer.Option("--lowest", help="Only the lowest crystal known of each molecule.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Count molecules, space groups, densities, volumes and energies; two data sets side by side.

    Example: nucleate data statistics data/synthetic --reference data/cod --lowest
    """
    from nucleate.pipeline.data_statistics import comparison, data_statistics, table

    places = [folder, *([] if reference is None else [reference])]
    found = [data_statistics(place, lowest) for place in places]
    apart = comparison(*found) if len(found) > 1 else None
    if as_json:
        print(json.dumps([{"folder": str(p), **f.as_json()} for p, f in zip(places, found)] + _apart(apart)))
        return
    names = [str(place) if places.count(place) == 1 else f"{place} ({k})" for k, place in enumerate(places)]
    print_rows(table(dict(zip(names, found))), as_json)
    out.print("mean ± standard deviation (5 / 50 / 95 % below)", style="dim")
    if apart:
        text = ", ".join(f"{name.replace('_', ' ')} {value:.2f}" for name, value in apart.items())
        out.print(f"apart (0 alike, 1 nothing in common): {text}")


def _apart(values: dict[str, float] | None) -> list[dict[str, Any]]:
    return (
        [] if values is None else [{"apart": {k: v if math.isfinite(v) else None for k, v in values.items()}}]
    )


def _print_json(folder: Path, made: Any, **about: Any) -> None:
    outcomes = dict(made.outcomes.most_common())
    print(json.dumps({"folder": str(folder), "outcomes": outcomes, **about, "interrupted": made.interrupted}))


def _show_places(title: str, splits: dict[str, int]) -> None:
    places = ", ".join(f"{name} {count}" for name, count in splits.items())
    out.print(f"{title}: {places or 'none'}", style="bold")


def _show_outcomes(outcomes: Counter[str], asked: int, what: str) -> None:
    """How many of each, the commonest first, out of all that were asked for."""

    for outcome, count in outcomes.most_common():
        out.print(f"  {count:>6} {outcome}")
    if missing := asked - outcomes.total():
        out.print(f"  {missing:>6} not yet begun")
    out.print(f"  {asked:>6} {what}")


DATA = (synthesize, import_, clusters, conformers, statistics)
