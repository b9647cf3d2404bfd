"""A folder of `nucleate crystallize` -> one HTML file that needs no network: how loose clusters become ordered.

Rules are those of `page`: data as JSON, scripts inside, a content security policy that forbids every request.
"""

from pathlib import Path
from typing import Any

import gemmi
from jaxtyping import Float
from torch import Tensor

from nucleate.crystal.cluster_xyz import read_cluster_xyz, read_trajectory
from nucleate.files import write_atomically
from nucleate.report.folder import SAMPLES, Results, read_results
from nucleate.report.one_file import Layout, one_file

LAYOUT = Layout(
    "cluster",
    "crystallized clusters",
    f"<code>{SAMPLES}</code>, <code>cluster/</code> and <code>trajectory/</code>",
    ("helpers", "page", "table", "cluster_drawing", "cluster_table", "cluster"),
    rows="Samples",
)
SHOWN = (  # columns of samples.parquet in the page
    *(
        "id",
        "rank",
        "energy_kj_mol",
        "collision_between",
        "neighbour_A",
        "moved_A",
        "spread_A",
        "relaxed",
        "failure",
    ),
    *("matched", "matched_of", "rmsd_A", "pm_center_permuted_A"),
    *("cell_space_group", "cell_volume_A3", "cell_matched", "cell_rmsd_A", "cell_failure", "cell", "file"),
)
SCALE = 100  # positions are sent in hundredths of an Å


def write_cluster_report(folder: Path, max_embedded: int = 12) -> Path:
    """Write `folder/report.html` from samples.parquet, the XYZ files and run.json; returns its path.

    The trajectories of the best `max_embedded` samples are inside the page, which says so. Raises InputError where the
    folder holds no samples.
    """
    results = read_results(Path(folder), SAMPLES)
    target = results.folder / "report.html"
    write_atomically(target, one_file(LAYOUT, _payload(results, max_embedded), results.run))
    return target


def _payload(results: Results, max_embedded: int) -> dict[str, Any]:
    """Everything the scripts show, as JSON-ready values."""
    samples = [{name: row.get(name) for name in SHOWN} for row in results.rows]
    payload: dict[str, Any] = {"run": results.run, "samples": samples, "embedded": {}, "scale": SCALE}
    if not (loose := results.folder / "loose.xyz").is_file():
        return payload
    molecules = int(results.run.get("molecules") or 17)
    cluster = read_cluster_xyz(loose, molecules)
    centre = cluster.centroids.mean(0)
    payload |= {
        "molecules": molecules,
        "elements": [gemmi.Element(z).name for z in cluster.numbers.tolist()],
        "bonds": cluster.bonds.flatten().tolist(),
        "loose": _flat(cluster.positions - centre),
    }
    if (truth := results.folder / "truth.xyz").is_file():
        payload["truth"] = _flat(read_trajectory(truth, molecules)[1][0] - centre)
    for index, row in enumerate(results.rows[:max_embedded]):
        path = results.folder / f"trajectory/{row.get('id')}.xyz"
        if row.get("trajectory") and path.is_file():
            frames = read_trajectory(path, molecules)[1] - centre
            payload["embedded"][index] = [_flat(frame) for frame in frames]
    return payload


def _flat(positions: Float[Tensor, "molecules atoms 3"]) -> list[int]:
    return (SCALE * positions).round().long().flatten().tolist()
