"""`nucleate generate`: packings of a molecule, not minimised."""

from pathlib import Path
from typing import Annotated

import typer

from nucleate.cli.options import AsJson, GeneratorName, Seed, SpaceGroups, Weights, Z, numbers
from nucleate.cli.terminal import out, print_rows


def generate(
    molecule: Annotated[str, typer.Argument(help="SMILES or a molecule file.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the CIF files.")] = Path(
        "packings"
    ),
    n: Annotated[int, typer.Option("-n", "--n", help="Packings to generate.")] = 20,
    z: Z = None,
    space_groups: SpaceGroups = "common",
    generator: GeneratorName = "random",
    weights: Weights = None,
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
            "n": n, "z": numbers(z, "--z", int), "space_groups": space_groups, "generator": generator,
            "weights": weights, "press": press, "seed": seed,
        }
    )  # fmt: skip
    rows = generate_files(molecule, output, settings)
    if as_json:
        print_rows(rows, as_json)
        return
    print_rows([{k: v for k, v in row.items() if not k.endswith("_drawn")} for row in rows], as_json)
    for line in statistics(rows):
        out.print(line, style="dim")
    out.print(f"wrote {output}")
