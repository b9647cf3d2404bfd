// The columns of conformers.

const several = data.species.length > 1;
const COLUMNS = [
  ...(several ? [{ key: "smiles", label: "Molecule", text: true, show: (c) => data.species[c.species].smiles || String(c.species + 1) }] : []),
  { key: "rank", label: "Rank", show: (c) => fixed(c.rank) },
  { key: "energy_kj_mol", label: "ΔE", unit: "kJ/mol", show: (c) => fixed(c.energy_kj_mol, 2) },
  { key: "boltzmann_weight", label: "Weight", unit: "298.15 K", falls: true, show: (c) => share(c.boltzmann_weight) },
  { key: "mirror_images", label: "Mirror images", unit: "of equal energy", show: (c) => fixed(c.mirror_images) },
  { key: "rmsd_A", label: "RMSD", unit: "Å, to the lowest", show: (c) => fixed(c.rmsd_A, 2) },
  { key: "id", label: "Record", text: true, show: (c) => String(c.id ?? "–") },
];
