"""The offline report: one HTML file that holds the landscape, the packings, the patterns and the CIF files.

| file | what |
|---|---|
| `page` | `write_report`: a result folder -> `report.html` |
| `cluster_page` | `write_cluster_report`: the same for a folder of ordered clusters |
| `folder` | `Results`: what a result folder says, with every gap tolerated |
| `scene` | `Crystal` -> the atoms, bonds and hydrogen bonds that the viewer draws |
| `drawing` | SMILES -> inline SVG; space-group symbols as they are printed |
| `template/` | the page itself: HTML, CSS and the scripts, in the order of `page.SCRIPTS` |
| `vendor/` | 3Dmol.js with its licence |
"""

from pathlib import Path

from nucleate.report.cluster_page import write_cluster_report
from nucleate.report.folder import CRYSTALS, SAMPLES
from nucleate.report.page import write_report

__all__ = ["write_any_report", "write_cluster_report", "write_report"]


def write_any_report(folder: Path) -> Path:
    """Write the report that belongs to the tables of a result folder: ordered clusters, or else crystals."""
    clusters = (folder / SAMPLES).is_file() and not (folder / CRYSTALS).is_file()
    return write_cluster_report(folder) if clusters else write_report(folder)
