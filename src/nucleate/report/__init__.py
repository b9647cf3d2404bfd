"""The offline report: one HTML file that holds the landscape, the packings, the patterns and the CIF files.

| file | what |
|---|---|
| `page` | `write_report`: a result folder -> `report.html` |
| `folder` | `Results`: what a result folder says, with every gap tolerated |
| `scene` | `Crystal` -> the atoms, bonds and hydrogen bonds that the viewer draws |
| `drawing` | SMILES -> inline SVG; space-group symbols as they are printed |
| `template/` | the page itself: HTML, CSS and the scripts, in the order of `page.SCRIPTS` |
| `vendor/` | 3Dmol.js with its licence |
"""

from nucleate.report.page import write_report

__all__ = ["write_report"]
