"""The command line: parse, call one verb, print what came of it.

Exit codes: 0 done, 2 the input cannot be used, 1 anything else. Errors are one line on stderr.
"""

import json
import math
import os
import statistics
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from nucleate import __version__
from nucleate.cli_conform import conform
from nucleate.cli_crystallize import crystallize
from nucleate.cli_data import data
from nucleate.cli_free_energy import free_energy
from nucleate.cli_inorganic import Commands
from nucleate.cli_train import train
from nucleate.errors import InputError, NucleateError

app = typer.Typer(
    cls=Commands,
    help="From a molecule to its crystals.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(data, name="data")
errors = Console(stderr=True, markup=False, highlight=False)  # SMILES such as c1cc[nH]c1 are no markup
# a table that is piped is not cut to the width of a terminal that is not there
out = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 200)

UsageError: type[Any] = typer.BadParameter.__mro__[1]  # of click, wherever this version of typer keeps it
INTERRUPTED = 130  # what typer makes of Ctrl-C

Files = Annotated[list[Path], typer.Argument(help="CIF files, or folders that hold some.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Seed = Annotated[int, typer.Option(min=0, max=2**31 - 1, help="The same seed gives the same files.")]
GeneratorName = Annotated[
    str,
    typer.Option(help="random, molcrystalflow (learned), mixture, or auto: a mixture where the weights can."),
]
WeightsFile = Annotated[Path | None, typer.Option(help="What nucleate train wrote, for a learned generator.")]
EnergyName = Annotated[
    str, typer.Option(help="forcefield, gfn1, gfn2, chgnet, mace, orb, uma, aimnet2 or ase:module:Class.")
]


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@app.command()
def predict(
    molecule: Annotated[str, typer.Argument(help="SMILES, a .sdf/.mol/.xyz/.cif file, or a .smi/.csv list.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder; by default results/NAME.")
    ] = None,
    n: Annotated[int, typer.Option("-n", "--n", help="Starting packings to try.")] = 5000,
    z: Annotated[str | None, typer.Option("--z", help="Formula units in the cell, as in 2,4.")] = None,
    z_prime: Annotated[str | None, typer.Option("--z-prime", help="0.5, 1 or 2, or several: 1,2.")] = None,
    space_groups: Annotated[
        str, typer.Option(help="common, or numbers and symbols: 14,2,P212121.")
    ] = "common",
    generator: GeneratorName = "auto",
    weights: WeightsFile = None,
    energy: Annotated[
        str | None,
        typer.Option(help="Energy model for the final order; by default CHGNet + D3 if installed."),
    ] = None,
    charges: Annotated[str, typer.Option(help="mmff, or esp (fitted by pyscf, better order).")] = "mmff",
    conformers: Annotated[
        str, typer.Option(help="Where shapes of the molecule come from: etkdg (RDKit) or confgf (learned).")
    ] = "etkdg",
    reference: Annotated[Path | None, typer.Option(help="CIF of a known crystal to look for.")] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Time to stop after, as in 90s, 10m, 2h (without compiling, which the first run does once)."
        ),
    ] = None,
    keep: Annotated[int, typer.Option(help="Crystals to hand over at most.")] = 100,
    relax_steps: Annotated[int, typer.Option(help="All-atom steps of the shortlist with --energy.")] = 0,
    sequence: Annotated[str, typer.Option(help="sobol or random numbers for the starts.")] = "sobol",
    workers: Annotated[int | None, typer.Option(help="Processes; by default one for each core.")] = None,
    name: Annotated[str | None, typer.Option(help="What to call the molecule.")] = None,
    seed: Seed = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run of the folder.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Predict the crystals of a molecule: ranked CIF files and an offline report.

    Example: nucleate predict "CC(=O)Oc1ccccc1C(=O)O" -o results/aspirin --budget 10m
    """
    from nucleate.pipeline.predict import PredictSettings

    settings = PredictSettings.model_validate(
        {
            "n": n,
            "z": _numbers(z, "--z", int),
            "z_prime": _numbers(z_prime, "--z-prime", float),
            "space_groups": space_groups,
            "generator": generator,
            "weights": weights,
            "energy": energy,
            "charges": charges,
            "conform": {"conformers": conformers},
            "reference": reference,
            "budget": _seconds(budget),
            "keep": keep,
            "rank": {"relax_steps": relax_steps},
            "sequence": sequence,
            "workers": _cores() if workers is None else workers,
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
    if result.run["interrupted"]:
        errors.print(
            f"interrupted; what was found is in {result.folder}, and --resume goes on", style="yellow"
        )
        raise typer.Exit(1)


def _predict_list(path: Path, settings: Any, output: Path | None, resume: bool, as_json: bool) -> None:
    from nucleate.pipeline.predict_list import predict_list

    with progress_bar() as tell:
        summary = predict_list(path, settings, output or Path("results") / path.stem, resume, tell)
    _show_list(summary, as_json)
    interrupted = summary[-1]["failure"] == "interrupted"
    if interrupted:
        errors.print("interrupted; --resume goes on", style="yellow")
    if interrupted or all(row["failure"] for row in summary):
        raise typer.Exit(1)


def _show_list(summary: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(summary))
        return
    table = Table("name", "crystals", "lowest kJ/mol", "space group", "seconds", "failure", box=None)
    for row in summary:
        table.add_row(
            *(
                _short(row.get(k))
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


app.command()(conform)


@app.command()
def generate(
    molecule: Annotated[str, typer.Argument(help="SMILES or a molecule file.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the CIF files.")] = Path(
        "packings"
    ),
    n: Annotated[int, typer.Option("-n", "--n", help="Packings to generate.")] = 20,
    z: Annotated[str | None, typer.Option("--z", help="Formula units in the cell, as in 2,4.")] = None,
    space_groups: Annotated[
        str, typer.Option(help="common, or numbers and symbols: 14,2,P212121.")
    ] = "common",
    generator: GeneratorName = "random",
    weights: WeightsFile = None,
    press: Annotated[bool, typer.Option(help="Press overlaps away.")] = True,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Generate packings without minimising them; inorganic crystals: nucleate generate crystalflow --help.

    Example: nucleate generate "c1ccccc1" -n 50 --space-groups Pbca -o benzene
    """
    from nucleate.pipeline.generate_files import GenerateSettings, generate_files, statistics

    settings = GenerateSettings.model_validate(
        {
            "n": n, "z": _numbers(z, "--z", int), "space_groups": space_groups, "generator": generator,
            "weights": weights, "press": press, "seed": seed,
        }
    )  # fmt: skip
    rows = generate_files(molecule, output, settings)
    if as_json:
        _print_rows(rows, as_json)
        return
    _print_rows([{k: v for k, v in row.items() if not k.endswith("_drawn")} for row in rows], as_json)
    for line in statistics(rows):
        out.print(line, style="dim")
    out.print(f"wrote {output}")


@app.command()
def relax(
    files: Files,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the relaxed CIF files.")] = Path(
        "relaxed"
    ),
    energy: EnergyName = "forcefield",
    max_steps: Annotated[int, typer.Option(help="Steps at most.")] = 200,
    time_limit: Annotated[float, typer.Option(help="Seconds for one structure.")] = 600.0,
    workers: Annotated[int, typer.Option(help="Processes.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Relax crystals: rigid molecules in the force field, all atoms with any other model.

    Example: nucleate relax results/aspirin/cif/0001.cif --energy gfn1 -o relaxed
    """
    from nucleate.pipeline.crystal_files import relax_files
    from nucleate.pipeline.relax import RelaxSettings

    settings = RelaxSettings(energy=energy, max_steps=max_steps, time_limit=time_limit, workers=workers)
    with progress_bar() as tell:
        rows = relax_files(files, output, settings, lambda i, m: tell("relax", i, m, ""))
    _print_rows(rows, as_json, f"wrote {output}")


@app.command()
def rank(files: Files, energy: EnergyName = "forcefield", as_json: AsJson = False) -> None:
    """Order crystals of one substance by energy, as they are.

    Example: nucleate rank results/aspirin/cif --energy chgnet
    """
    from nucleate.pipeline.crystal_files import rank_files

    _print_rows(rank_files(files, energy), as_json)


@app.command()
def deduplicate(
    files: Files,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder to copy the representatives to.")
    ] = None,
    n: Annotated[int, typer.Option("-n", min=1, max=200, help="Molecules that must all agree.")] = 20,
    rmsd: Annotated[float, typer.Option(help="Largest RMSD of them in Å.")] = 0.5,
    mirror: Annotated[bool, typer.Option(help="Mirror images count as the same.")] = True,
    energy_window: Annotated[
        float | None, typer.Option(help="Largest difference of the files' energies in kJ/mol.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; by default one for each core.")] = None,
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
        workers=_cores() if workers is None else workers,
    )
    with progress_bar() as tell:
        rows = deduplicate_files(files, settings, lambda i, m: tell("pairs", i, m, ""), output).rows
    if as_json:
        _print_rows(rows, as_json)
        return
    _print_rows([{k: v for k, v in row.items() if k != "criterion"} for row in rows], as_json)
    clusters = {row["cluster"] for row in rows if "cluster" in row}
    out.print(f"{len(clusters)} distinct of {len(rows)} files", style="bold")
    out.print(settings.criterion, style="dim")
    if output is not None:
        out.print(f"wrote {output}")


@app.command()
def match(
    reference: Annotated[Path, typer.Argument(help="CIF file.")],
    others: Annotated[list[Path], typer.Argument(help="Crystals to compare: files or folders.")],
    preset: Annotated[
        str, typer.Option(help="Criteria: strict15, strict20, strict30, ladder, loose, structurematcher.")
    ] = "strict15",
    n: Annotated[int | None, typer.Option("-n", min=1, max=200, help="A cluster size of your own.")] = None,
    distance: Annotated[
        float | None, typer.Option(help="Relative tolerance of your own, with -n.  [default: 0.2]")
    ] = None,
    angle: Annotated[
        float | None, typer.Option(help="Tolerance in degrees of your own, with -n.  [default: 20]")
    ] = None,
    mirror: Annotated[bool, typer.Option(help="Mirror images count as the same.")] = True,
    heavy: Annotated[bool, typer.Option("--heavy", help="StructureMatcher without hydrogens.")] = False,
    time_limit: Annotated[float, typer.Option(help="Seconds for a pair in StructureMatcher.")] = 30.0,
    workers: Annotated[int, typer.Option(min=1, help="Processes for StructureMatcher.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Compare packings with a reference: how many molecules agree, and how well.

    Example: nucleate match experiment.cif results/aspirin/cif --preset strict20
    """
    from dataclasses import replace

    from nucleate.metrics.criteria import CRITERIA, criterion
    from nucleate.metrics.structure_matcher import settings_named
    from nucleate.pipeline.match import match_files, own_criterion

    names = _names(preset)
    matcher = "structurematcher" in names
    if not names:
        raise InputError(f"expected some of {', '.join(CRITERIA)}, structurematcher; got none")
    if matcher and not mirror:
        raise InputError("expected --mirror with structurematcher, which takes mirror images for the same")
    if n is None and (distance is not None or angle is not None):
        raise InputError("expected -n beside --distance and --angle; a preset has tolerances of its own")
    if n is not None and names != ("strict15",):
        raise InputError(f"expected -n or --preset, got both: -n {n} and {preset}")
    criteria = [criterion(name) for name in names if name != "structurematcher"]
    if n is not None:
        criteria = [own_criterion(n, 0.2 if distance is None else distance, 20.0 if angle is None else angle)]
    criteria = [replace(c, mirror=mirror) for c in criteria]
    settings = settings_named("molcrystalflow", **({"heavy": True} if heavy else {})) if matcher else None
    rows = match_files(reference, others, criteria, settings, time_limit, workers)
    if as_json:
        _print_rows(rows, as_json)
        return
    _print_rows([_match_line(row) for row in rows], as_json)
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
        "RMSD Å": _finite(row["rmsd_A"]),
        "RMSD_1 Å": _finite(row["rmsd_1_A"]),
        "mirrored": "yes" if row["mirrored"] else "",
        "why not": row["reason"],
    }


@app.command()
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
    heavy: Annotated[bool, typer.Option("--heavy", help="StructureMatcher without hydrogens.")] = False,
    in_turn: Annotated[
        bool, typer.Option("--in-turn", help="Sample i belongs to reference i modulo their number.")
    ] = False,
    format: Annotated[
        str | None, typer.Option(help="Format of the predictions, if not told by them.")
    ] = None,
    time_limit: Annotated[float, typer.Option(help="Seconds for a pair in StructureMatcher.")] = 30.0,
    workers: Annotated[int | None, typer.Option(help="Processes for StructureMatcher.")] = None,
    seed: Seed = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted evaluation.")] = False,
    as_json: AsJson = False,
) -> None:
    """Judge predictions against known crystals, a random control beside them; --inorganic --help: without molecules.

    Example: nucleate evaluate results/aspirin --reference experiment.cif -o aspirin.parquet
    """
    from nucleate.pipeline.evaluate import EvaluateSettings
    from nucleate.pipeline.evaluate import evaluate as run

    settings = EvaluateSettings.model_validate(
        {
            "criteria": _names(criteria), "top": _numbers(top, "--top", int), "controls": controls,
            "heavy": heavy, "in_turn": in_turn, "format": format, "time_limit": time_limit,
            "workers": _cores() if workers is None else workers, "seed": seed,
        }
    )  # fmt: skip
    with progress_bar() as tell:
        result = run(predictions, reference, settings, output, resume, tell)
    if as_json:
        print(json.dumps(result.as_json()))
    else:
        _show_evaluation(result, output)
    if result.pending:
        errors.print(
            f"interrupted; {output} holds the targets that are done, and --resume goes on", style="yellow"
        )
        raise typer.Exit(1)


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
            name, *(_share(score.at[k]) for k in places), _short(_finite(score.rmsd)),
            f"{statistics.median(ranks):g}" if ranks else "",
            *(_share(control.scores[name].at[k]) for k in places),
        )  # fmt: skip
    out.print(table)
    table = Table("samples", "predictions", "random control", box=None)
    for name in model.scores:
        table.add_row(f"like the reference, {name}", *(str(s.scores[name].samples) for s in (model, control)))
    for title, get in (
        ("volume, mean |error|", lambda s: _percent(s.rmad, s.measured)),
        ("volume, bias", lambda s: _percent(s.bias, s.measured)),
        ("density, mean |error|", lambda s: _percent(s.density_error, s.measured)),
        ("with a clash", lambda s: str(s.clash)),
        ("crystals without one", lambda s: str(s.clash_free)),
        ("distinct", lambda s: str(s.unique)),
    ):
        table.add_row(title, get(model), get(control))
    out.print(table)
    for name in model.scores:
        out.print(describe(name), style="dim")
    out.print("RMSD in Å and median rank: of the targets that were found", style="dim")
    _show_end(result, output)


def _show_end(result: Any, output: Path) -> None:
    """What failed, and what must be known to read the numbers; of any evaluation."""
    for reason, count in result.predictions.failures.items():
        out.print(f"failed: {count} x {reason}")
    for warning in result.warnings:
        out.print(f"warning: {warning}")
    out.print(f"wrote {output}")


def _share(rate: Any) -> str:
    return f"{rate.hits}/{rate.asked}"


def _percent(value: float, measured: int) -> str:
    return f"{100 * value:.1f} % of {measured}" if measured else "unknown"


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="What predict, crystallize, conform or free-energy wrote.")],
) -> None:
    """Write report.html again from a result folder.

    Example: nucleate report results/aspirin
    """
    from nucleate.report import write_any_report

    print(write_any_report(folder))


app.command()(train)
app.command()(crystallize)
app.command("free-energy")(free_energy)


# ------------------------------------------------------------------ options and output


def _numbers(text: str | None, option: str, kind: type) -> tuple[Any, ...] | None:
    if text is None:
        return None
    try:
        numbers = tuple(kind(part) for part in text.split(",") if part.strip())
    except ValueError:
        numbers = ()
    if not numbers:
        raise InputError(f"{option}: expected numbers separated by commas, as in 1,2; got {text!r}")
    return numbers


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    units = {"s": 1, "m": 60, "h": 3600}
    number, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1)
    try:
        value = float(number) * unit
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise InputError(f"--budget: expected a time such as 90s, 10m or 2h; got {text!r}")
    return value


def _cores() -> int:
    try:
        return max(1, len(os.sched_getaffinity(0)))
    except AttributeError:  # not on every system
        return max(1, os.cpu_count() or 1)


@contextmanager
def progress_bar() -> Iterator[Any]:
    """A function (stage, done, asked, note) that draws bars with the time left on a terminal, and is silent else."""
    if not errors.is_terminal:
        yield lambda *_: None
        return
    columns = (
        TextColumn("{task.description:<8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    with Progress(*columns, console=errors, transient=True) as bars:
        tasks: dict[str, Any] = {}

        def tell(stage: str, done: int, asked: int, note: str) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=asked, note="")
            bars.update(tasks[stage], completed=done, total=asked)
            if note:
                bars.update(tasks[stage], note=note)

        yield tell


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


def _print_rows(rows: list[dict[str, Any]], as_json: bool, last: str = "") -> None:
    if as_json:
        print(json.dumps([{k: _finite(v) for k, v in row.items()} for row in rows]))
        return
    if rows:
        names = list(dict.fromkeys(name for row in rows for name in row))  # a failure has few of them
        table = Table(*names, box=None, pad_edge=False)
        for row in rows:
            table.add_row(*(_short(row.get(name)) for name in names))
        out.print(table)
    if last:
        out.print(last)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _short(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _explain(error: ValidationError) -> str:
    """The first complaint of pydantic as one line: option, what was expected, what came."""
    first = error.errors()[0]
    names = [part for part in first["loc"] if isinstance(part, str) and not part.startswith("literal")]
    option = "--" + names[-1].replace("_", "-")
    message = first["msg"].removeprefix("Value error, ")
    return f"{option}: {message[:1].lower()}{message[1:]}, got {first['input']!r}"


def _help_of(error: Any) -> str:
    """The command that was misused, as far as it is known."""
    return "nucleate" if error.ctx is None else str(error.ctx.command_path)


def _fail(message: str, code: int) -> NoReturn:
    print(f"nucleate: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def main() -> None:
    """Run the program; turn errors that we understand into one line and an exit code."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait must not spin on a busy machine
    import torch

    torch.set_num_threads(1)  # tensors here are small; the work is shared among processes instead
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)  # type: ignore[assignment]
    arguments = sys.argv[1:]
    try:
        code = app(arguments or ["--help"], standalone_mode=False)
    except UsageError as error:
        _fail(f"{error.format_message().rstrip('.')}. See {_help_of(error)} --help.", 2)
    except InputError as error:
        _fail(str(error), 2)
    except ValidationError as error:
        _fail(_explain(error), 2)
    except (NucleateError, OSError) as error:
        _fail(str(error), 1)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    if code == INTERRUPTED:
        _fail("interrupted; a search keeps its finished units, and predict --resume goes on", 1)
    sys.exit(code or (0 if arguments else 2))


if __name__ == "__main__":
    main()
