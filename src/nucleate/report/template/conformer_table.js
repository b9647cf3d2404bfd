// Every conformer as a row, lowest first; rows choose.

const several = data.species.length > 1;
const COLUMNS = [
  ...(several ? [{ label: "Molecule", text: true, show: (c) => data.species[c.species].smiles || String(c.species + 1) }] : []),
  { label: "Rank", show: (c) => fixed(c.rank) },
  { label: "ΔE", unit: "kJ/mol", show: (c) => fixed(c.energy_kj_mol, 2) },
  { label: "Weight", unit: "298.15 K", show: (c) => share(c.boltzmann_weight) },
  { label: "Mirror images", unit: "of equal energy", show: (c) => fixed(c.mirror_images) },
  { label: "RMSD", unit: "Å, to the lowest", show: (c) => fixed(c.rmsd_A, 2) },
  { label: "Record", text: true, show: (c) => String(c.id ?? "–") },
];

function drawTable() {
  const heads = COLUMNS.map(({ label, unit, text }) =>
    el("th", { scope: "col", class: text ? "text" : null }, label, unit ? el("small", {}, unit) : null));
  byId("table").tHead.replaceChildren(el("tr", {}, heads));
  byId("table").tBodies[0].replaceChildren(...conformers.map((c, index) =>
    el("tr", { id: `row-${index}`, "data-index": index, tabindex: -1, "aria-selected": "false" },
      COLUMNS.map(({ show, text }) => el("td", { class: text ? "text" : null }, show(c))))));
}

function markRow() {
  for (const row of byId("table").tBodies[0].rows) {
    const here = Number(row.dataset.index) === chosen.index;
    row.setAttribute("aria-selected", String(here));
    row.tabIndex = here ? 0 : -1;
  }
}

function downloadTable() {
  const names = Object.keys(conformers[0] ?? {}).filter((name) => name !== "positions" && name !== "species");
  const cell = (value) => (isNumber(value) ? value : known(value) ? `"${String(value).replaceAll('"', '""')}"` : "");
  const lines = [names.join(","), ...conformers.map((c) => names.map((name) => cell(c[name])).join(","))];
  download(`${safeName(data.run.molecule?.name ?? "conformers")}.csv`, `${lines.join("\n")}\n`, "text/csv");
}

function startTable(choose) {
  drawTable();
  const body = byId("table").tBodies[0];
  body.addEventListener("click", (event) => choose(Number(event.target.closest("tr").dataset.index)));
  body.addEventListener("keydown", (event) => {
    const row = event.target.closest("tr[data-index]");
    const step = { ArrowDown: 1, ArrowUp: -1, Enter: 0 }[event.key];
    if (!row || step === undefined) return;
    choose(Number(row.dataset.index) + step);
    event.preventDefault();
    body.querySelector('[aria-selected="true"]')?.focus();
  });
  byId("download-table").addEventListener("click", downloadTable);
}
