// Every sample as a row, best first; rows choose.

const samples = data.samples;
const withTruth = samples.some((s) => known(s.matched));
const withCells = data.run.settings?.cell !== false;
const COLUMNS = [
  { label: "Rank", show: (s) => fixed(s.rank) },
  { label: "Sample", show: (s) => String(s.id), text: true },
  { label: "Energy", unit: "kJ/mol", show: (s) => fixed(s.energy_kj_mol, 1) },
  { label: "Collisions", unit: "of atom pairs", show: (s) => collisions(s.collision_between) },
  { label: "Neighbours", unit: "at Å", show: (s) => fixed(s.neighbour_A, 2) },
  { label: "Moved", unit: "Å", show: (s) => fixed(s.moved_A, 2) },
  { label: "Spread", unit: "Å", show: (s) => fixed(s.spread_A, 2) },
  ...(withTruth ? [
    { label: "As known", unit: "molecules", show: (s) => (known(s.matched) ? `${s.matched} of ${s.matched_of}` : "–") },
    { label: "RMSD", unit: "Å", show: (s) => fixed(s.rmsd_A, 2) },
  ] : []),
  ...(withCells ? [
    { label: "Crystal", text: true, show: (s) => (known(s.cell) ? String(s.cell_space_group ?? "yes") : "no lattice") },
    { label: "V / molecule", unit: "Å³", show: (s) => fixed(s.cell_volume_A3, 1) },
  ] : []),
  ...(samples.some((s) => known(s.cell_matched)) ? [
    { label: "Packing", unit: "of 15", show: (s) => fixed(s.cell_matched) },
  ] : []),
];

const collisions = (share) => (isNumber(share) ? (share === 0 ? "none" : `${(100 * share).toFixed(3)} %`) : "–");

function drawTable() {
  const heads = COLUMNS.map(({ label, unit, text }) =>
    el("th", { scope: "col", class: text ? "text" : null }, label, unit ? el("small", {}, unit) : null));
  byId("table").tHead.replaceChildren(el("tr", {}, heads, el("th", { scope: "col", class: "text" }, "Files")));
  byId("table").tBodies[0].replaceChildren(...samples.map(tableRow));
}

function tableRow(sample, index) {
  const cells = COLUMNS.map(({ show, text }) => el("td", { class: text ? "text" : null }, show(sample)));
  const links = [sample.file, sample.cell].filter(known).map((path) =>
    el("a", { href: String(path).split("/").map(encodeURIComponent).join("/") }, String(path).split("/").pop()));
  const files = links.flatMap((link, i) => (i ? [" ", link] : [link]));
  return el("tr", { id: `row-${index}`, "data-index": index, tabindex: -1, "aria-selected": "false" },
    cells, el("td", { class: "text" }, files.length ? files : String(sample.failure ?? "missing")));
}

function markRow(selected) {
  for (const row of byId("table").tBodies[0].rows) {
    const chosen = Number(row.dataset.index) === selected;
    row.setAttribute("aria-selected", String(chosen));
    row.tabIndex = chosen ? 0 : -1;
  }
}

function downloadTable() {
  const names = Object.keys(samples[0] ?? {});
  const cell = (value) => (isNumber(value) ? value : known(value) ? `"${String(value).replaceAll('"', '""')}"` : "");
  const lines = [names.join(","), ...samples.map((s) => names.map((name) => cell(s[name])).join(","))];
  download(`${safeName(data.run.molecule?.name)}.csv`, `${lines.join("\n")}\n`, "text/csv");
}

function startTable(choose) {
  drawTable();
  const body = byId("table").tBodies[0];
  body.addEventListener("click", (event) => {
    if (!event.target.closest("a")) choose(Number(event.target.closest("tr").dataset.index));
  });
  body.addEventListener("keydown", (event) => {
    const row = event.target.closest("tr[data-index]");
    if (!row || event.target.closest("a")) return;
    const step = { ArrowDown: 1, ArrowUp: -1, Enter: 0 }[event.key];
    if (step === undefined) return;
    choose(Number(row.dataset.index) + step);
    event.preventDefault();
    body.querySelector('[aria-selected="true"]')?.focus();
  });
  byId("download-table").addEventListener("click", downloadTable);
}
