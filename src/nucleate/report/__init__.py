"""The offline report: one HTML file that holds the landscape, the packings, the patterns and the CIF files.

| file | what |
|---|---|
| `page` | `write_report`: a result folder -> `report.html` |
| `cluster_page` | `write_cluster_report`: the same for a folder of ordered clusters |
| `conformer_page` | `write_conformer_report`: the same for a folder of conformers |
| `free_energy_page` | `write_free_energy_report`: the same for the free energy of a crystal at two temperatures |
| `one_file` | `Layout`, the frame that all pages share, scripts and data -> one page |
| `folder` | `Results`: what a result folder says, with every gap tolerated |
| `scene` | `Crystal` -> the atoms, bonds and hydrogen bonds that the viewer draws |
| `drawing` | SMILES -> inline SVG; space-group symbols as they are printed |
| `template/` | the pages themselves: HTML, CSS and the scripts, in the order of each page's `LAYOUT` |
| `vendor/` | 3Dmol.js with its licence |
"""

from pathlib import Path

from nucleate.report.cluster_page import write_cluster_report
from nucleate.report.conformer_page import write_conformer_report
from nucleate.report.folder import CONFORMERS, CRYSTALS, FREE_ENERGY, SAMPLES
from nucleate.report.free_energy_page import write_free_energy_report
from nucleate.report.page import write_report

__all__ = [
    "write_any_report",
    "write_cluster_report",
    "write_conformer_report",
    "write_free_energy_report",
    "write_report",
]


def write_any_report(folder: Path) -> Path:
    """Write the report that belongs to what a result folder holds.

    Crystals, or else clusters, or else conformers, or else a free energy.
    """
    writers = {
        CRYSTALS: write_report,
        SAMPLES: write_cluster_report,
        CONFORMERS: write_conformer_report,
        FREE_ENERGY: write_free_energy_report,
    }
    return next((write for name, write in writers.items() if (folder / name).is_file()), write_report)(folder)
