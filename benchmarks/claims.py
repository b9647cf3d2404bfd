"""The README's table of what works, from one command: run the benchmarks behind it, keep what they print, write it.

    python benchmarks/claims.py                                                    what is claimed, and what it needs
    python benchmarks/claims.py NAME ... [--cifs FOLDER --index CSV ...]           run these (`all`: whatever can run)
    python benchmarks/claims.py --readme                                           write the table into README.md

    claims.toml --run--> benchmarks/printed/NAME.txt --figures--> numbers in the text --> README.md

A claim without a file in printed/ stands as it was written by hand, from a run before there was this script. Speeds
want a quiet machine. `make bench` runs what needs no data and writes the README.
"""

import argparse
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
PRINTED = HERE / "printed"
README = HERE.parent / "README.md"
BEGIN, END = "<!-- claims -->\n", "<!-- end of claims -->\n"
DATA = {
    "cifs": "CIF files of the COD",
    "index": "their table: cod_id, formula_unit, space_group, z_prime, split",
    "dft": "crystals relaxed by DFT, extended XYZ",
    "landscapes": "extended XYZ files of published landscapes",
}


@dataclass(frozen=True)
class Claim:
    """A row of the table. `run` are command lines of this folder; without any, the tests print what is claimed."""

    name: str
    what: str
    measured: str
    printed_by: str = ""
    run: tuple[str, ...] = ()
    minutes: float = 0.0
    figures: tuple[tuple[str, str], ...] = ()

    @property
    def needs(self) -> list[str]:
        """The data that the commands ask for."""
        return [name for name in DATA if any(f"{{{name}}}" in line for line in self.run)]

    @property
    def printed(self) -> Path:
        return PRINTED / f"{self.name}.txt"

    def text(self) -> str:
        """`measured` with its figures. Raises ValueError where one is not in what was printed."""
        if not self.figures:
            return self.measured
        said, found = self.printed.read_text(encoding="utf-8"), {}
        for name, pattern in self.figures:
            match = re.search(pattern, said)
            if match is None:
                raise ValueError(
                    f"{self.printed.name}: expected {pattern!r} for {name}; run it again, or mend the pattern"
                )
            found[name] = match[1]
        return self.measured.format(**found)


def claims() -> list[Claim]:
    table = tomllib.loads((HERE / "claims.toml").read_text(encoding="utf-8"))["claim"]
    return [
        Claim(**{**row, "run": tuple(row.get("run", ())), "figures": tuple(row.get("figures", {}).items())})
        for row in table
    ]


def table(rows: Iterable[Claim]) -> str:
    head = "| what | measured | printed by |\n|---|---|---|\n"
    return head + "".join(f"| {row.what} | {row.text()} | {row.printed_by} |\n" for row in rows)


def with_table(readme: str) -> str:
    """The README with the table of today between its two marks."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + table(claims()) + END + after


def run(claim: Claim, places: dict[str, str]) -> bool:
    """Print and keep what the commands of a claim print; nothing is kept of one that fails."""
    said, before, started = [], os.times(), time.monotonic()
    with tempfile.TemporaryDirectory() as out:
        for line in claim.run:
            words = shlex.split(line.format(**places, out=out))
            print(f"$ {claim.name}: python benchmarks/{shlex.join(words)}", flush=True)
            done = subprocess.run(
                [sys.executable, str(HERE / words[0]), *words[1:]],
                capture_output=True,
                text=True,
                cwd=HERE.parent,
            )
            print(done.stdout, flush=True)
            if done.returncode:
                print(f"failed: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
                return False
            said.append(f"$ python benchmarks/{line}\n{done.stdout}")
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    said.append(
        f"\n{used:.0f} CPU-seconds, {time.monotonic() - started:.0f} s; commit {commit()}, {machine()}\n"
    )
    PRINTED.mkdir(exist_ok=True)
    claim.printed.write_text("".join(said), encoding="utf-8")
    return True


def commit() -> str:
    asked = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(asked, capture_output=True, text=True, cwd=HERE).stdout.strip() or "unknown"


def machine() -> str:
    return f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="of claims, or all")
    parser.add_argument("--readme", action="store_true", help="write the table into README.md")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="with all: leave out what takes longer"
    )
    for name, about in DATA.items():
        parser.add_argument(f"--{name}", default="", help=about)
    options = parser.parse_args()
    places = {name: getattr(options, name) for name in DATA if getattr(options, name)}
    known = {claim.name: claim for claim in claims()}
    if unknown := set(options.names) - set(known) - {"all"}:
        parser.error(f"expected claims out of {', '.join(known)}; got {', '.join(sorted(unknown))}")
    if not options.names and not options.readme:
        for claim in known.values():
            kept = "printed" if claim.printed.exists() else "by hand"
            head = f"{claim.name:22s} {kept:8s} {claim.minutes:4g} min  {', '.join(claim.needs):14s}"
            print(head, " ; ".join(claim.run))
        return 0
    every = "all" in options.names
    asked = [
        c
        for c in known.values()
        if c.run and (c.name in options.names or (every and c.minutes <= options.minutes))
    ]
    failed = []
    for claim in asked:
        if missing := [name for name in claim.needs if name not in places]:
            print(f"{claim.name}: left out, needs --{' --'.join(missing)}")
        elif not run(claim, places):
            failed.append(claim.name)
    if options.readme:
        README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
