// The columns of samples, and their files.

const samples = data.samples;
const withTruth = samples.some((s) => known(s.matched));
const withCells = mapping(run.settings).cell !== false;
const COLUMNS = [
  { key: "rank", label: "Rank", show: (s) => fixed(s.rank) },
  { key: "id", label: "Sample", show: (s) => String(s.id), text: true },
  { key: "energy_kj_mol", label: "Energy", unit: "kJ/mol", show: (s) => fixed(s.energy_kj_mol, 1) },
  { key: "collision_between", label: "Collisions", unit: "of atom pairs", show: (s) => collisions(s.collision_between) },
  { key: "neighbour_A", label: "Neighbours", unit: "at Å", show: (s) => fixed(s.neighbour_A, 2) },
  { key: "moved_A", label: "Moved", unit: "Å", show: (s) => fixed(s.moved_A, 2) },
  { key: "spread_A", label: "Spread", unit: "Å", show: (s) => fixed(s.spread_A, 2) },
  ...(withTruth ? [
    { key: "matched", label: "As known", unit: "molecules", falls: true, show: (s) => (known(s.matched) ? `${s.matched} of ${s.matched_of}` : "–") },
    { key: "rmsd_A", label: "RMSD", unit: "Å", show: (s) => fixed(s.rmsd_A, 2) },
  ] : []),
  ...(withCells ? [
    { key: "cell_space_group", label: "Crystal", text: true, show: (s) => (known(s.cell) ? String(s.cell_space_group ?? "yes") : "no lattice") },
    { key: "cell_volume_A3", label: "V / molecule", unit: "Å³", show: (s) => fixed(s.cell_volume_A3, 1) },
  ] : []),
  ...(samples.some((s) => known(s.cell_matched)) ? [
    { key: "cell_matched", label: "Packing", unit: "of 15", falls: true, show: (s) => fixed(s.cell_matched) },
  ] : []),
  { label: "Files", text: true, show: fileCell, file: true },
];

const collisions = (share) => (isNumber(share) ? (share === 0 ? "none" : `${(100 * share).toFixed(3)} %`) : "–");

/** Links to the cluster and its crystal, or why there is none. */
function fileCell(sample) {
  const links = [sample.file, sample.cell].filter(known).map((path) => fileLink(path));
  return links.length ? links.flatMap((link, i) => (i ? [" ", link] : [link])) : String(sample.failure ?? "missing");
}
