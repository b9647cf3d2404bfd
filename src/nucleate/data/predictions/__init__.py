"""Predictions of crystals, whoever made them: files -> `Sample`s -> targets.

    path --reader--> Entry (atoms, energy, target) --molecules--> Sample (crystal or failure)
         --targets--> samples of each reference

| file | what |
|---|---|
| `sample` | `Sample`, what every reader ends in; chemistry of a crystal |
| `molecules` | whole molecules from bare atoms, also where they overlap |
| `cif` `xyz` `genarris` `tables` | one file a format, with the names it relies on |
| `reader` | `read_predictions`, `count_asked`: which files, which format |
| `targets` | `read_references`, `assign_targets`, `asked_for` |
"""

from nucleate.data.predictions.reader import READERS, Asked, count_asked, detect_format, read_predictions
from nucleate.data.predictions.sample import Sample
from nucleate.data.predictions.targets import (
    Assignment,
    asked_for,
    assign_targets,
    in_turn,
    molecules_of,
    read_references,
)

__all__ = [
    "READERS",
    "Asked",
    "Assignment",
    "Sample",
    "asked_for",
    "assign_targets",
    "count_asked",
    "detect_format",
    "in_turn",
    "molecules_of",
    "read_predictions",
    "read_references",
]
