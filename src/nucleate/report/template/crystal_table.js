// The columns of crystals, and their files.

const crystals = data.crystals;
const inside = (index) => data.embedded[index];

const COLUMNS = [
  { key: "rank", label: "Rank", show: (c) => fixed(c.rank) },
  { key: "energy", label: "ΔE", unit: "kJ/mol", show: (c) => fixed(c.energy, 2) },
  { key: "lattice_energy", label: "Lattice energy", unit: "kJ/mol", show: (c) => fixed(c.lattice_energy, 1) },
  { key: "density", label: "Density", unit: "g/cm³", show: (c) => fixed(c.density, 3) },
  { key: "volume", label: "V / molecule", unit: "Å³", show: (c) => fixed(c.volume, 1) },
  { key: "symbol", label: "Space group", text: true, show: (c) => c.symbol },
  { key: "z", label: "Z", show: (c) => fixed(c.z) },
  { key: "z_prime", label: "Z′", show: (c) => zPrime(c.z_prime) },
  { key: "duplicates", label: "Duplicates", unit: "found", show: (c) => fixed(c.duplicates) },
  { key: "conformer", label: "Conformer", show: (c) => (known(c.conformer) ? String(c.conformer) : "–") },
  { key: "match", label: "Reference", unit: "RMSD / Å", text: true, falls: true, show: matchText, kind: (c) => (c.match === true ? "match" : "") },
  { label: "File", text: true, show: fileCell, file: true },
];

function matchText(c) {
  const fit = isNumber(c.rmsd) ? ` ${fixed(c.rmsd, 2)}${isNumber(c.n_matched) ? ` (${c.n_matched})` : ""}` : "";
  if (c.match === true) return `match${fit}`;
  return c.match === false ? `no${fit}` : "–";
}

/** A download where the CIF is inside the page, a link to the file beside it where there is one. */
function fileCell(crystal, index) {
  if (inside(index)?.cif === null) return "missing";
  if (!inside(index)) return fileLink(crystal.file, crystal.file);
  const name = baseName(crystal.file);
  const button = el("button", { type: "button", "data-download": index, "aria-label": `Download ${name}` }, name);
  button.addEventListener("click", () => downloadCif(index));
  return button;
}

function downloadCif(index) {
  const text = inside(index)?.cif;
  if (text) download(baseName(crystals[index].file), text);
}

/** One file with a data block per crystal, in rank order; block names are made unique by the rank. */
function downloadAll() {
  const blocks = crystals.map((c, i) => inside(i)?.cif?.replace(/^data_\S*/m, `data_${safeName(baseName(c.file).replace(/\.cif$/, ""))}`));
  download(`${safeName(molecule.name, "crystals")}.cif`, blocks.filter(Boolean).join("\n"));
}

function startCrystals(choose) {
  startTable(crystals, COLUMNS, choose);
  const held = Object.values(data.embedded).filter((entry) => entry.cif).length;
  byId("table-note").textContent = held < crystals.length
    ? `${count(held)} of ${count(crystals.length)} CIF files are inside this page; the others are linked and lie beside it in cif/.`
    : "All CIF files are inside this page.";
  const all = el("button", { id: "download-all", type: "button" }, held < crystals.length ? `Best ${count(held)} CIFs` : "All CIFs");
  all.addEventListener("click", downloadAll);
  byId("download-table").after(all);
  byId("download").addEventListener("click", () => downloadCif(table.chosen));
}
