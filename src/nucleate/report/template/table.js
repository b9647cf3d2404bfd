// Every crystal as a row; headers sort, rows choose.

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
  { key: "match", label: "Reference", unit: "RMSD / Å", text: true, show: matchText },
];
const order = { key: "rank", down: false, rows: crystals.map((_, i) => i) };

function matchText(c) {
  const fit = isNumber(c.rmsd) ? ` ${fixed(c.rmsd, 2)}${isNumber(c.n_matched) ? ` (${c.n_matched})` : ""}` : "";
  if (c.match === true) return `match${fit}`;
  return c.match === false ? `no${fit}` : "–";
}

/** Compare by one column; rows without a value come last in both directions. */
function comparison(key, down) {
  return (i, j) => {
    const [p, q] = [crystals[i][key], crystals[j][key]];
    if (!known(p) || !known(q)) return known(q) - known(p) || i - j;
    const way = typeof p === "string" || typeof q === "string" ? String(p).localeCompare(String(q)) : p - q;
    return (down ? -way : way) || i - j;
  };
}

function sortBy(key) {
  order.down = order.key === key ? !order.down : key === "match";
  order.key = key;
  order.rows.sort(comparison(key, order.down));
  drawHead();
  const body = byId("table").tBodies[0];
  body.append(...order.rows.map((index) => rowOf(index)));
}

const rowOf = (index) => byId(`row-${index}`);

function drawHead() {
  const heads = COLUMNS.map(({ key, label, unit, text }) => {
    const active = order.key === key;
    const arrow = active ? (order.down ? " ▾" : " ▴") : "";
    const button = el("button", { type: "button", "data-sort": key }, label + arrow, unit ? el("small", {}, unit) : null);
    button.addEventListener("click", () => { sortBy(key); document.querySelector(`[data-sort="${key}"]`).focus(); });
    const direction = active ? (order.down ? "descending" : "ascending") : "none";
    return el("th", { scope: "col", class: text ? "text" : null, "aria-sort": direction }, button);
  });
  byId("table").tHead.replaceChildren(el("tr", {}, heads, el("th", { scope: "col", class: "text" }, el("span", {}, "File"))));
}

function tableRow(crystal, index) {
  const cells = COLUMNS.map((column) => {
    const kind = [column.text ? "text" : "", column.key === "match" && crystal.match === true ? "match" : ""].join(" ").trim();
    return el("td", { class: kind || null }, column.show(crystal));
  });
  return el("tr", { id: `row-${index}`, "data-index": index, tabindex: -1, "aria-selected": "false" }, cells, el("td", { class: "text" }, fileCell(crystal, index)));
}

/** A download where the CIF is inside the page, a link to the file beside it where there is one. */
function fileCell(crystal, index) {
  if (data.embedded[index]?.cif === null) return "missing";
  if (data.embedded[index]) return el("button", { type: "button", "data-download": index, "aria-label": `Download ${fileName(crystal)}` }, fileName(crystal));
  return el("a", { href: crystal.file.split("/").map(encodeURIComponent).join("/") }, crystal.file);
}

function downloadCif(index) {
  const text = data.embedded[index]?.cif;
  if (text) download(fileName(crystals[index]), text);
}

/** One file with a data block per crystal, in rank order; block names are made unique by the rank. */
function downloadAll() {
  const blocks = crystals.map((c, i) => data.embedded[i]?.cif?.replace(/^data_\S*/m, `data_${safeName(fileName(c).replace(/\.cif$/, ""))}`));
  const name = safeName(data.run.molecule?.name);
  download(`${name}.cif`, blocks.filter(Boolean).join("\n"));
}

function downloadTable() {
  const names = Object.keys(crystals[0] ?? {});
  const quoted = (value) => (known(value) ? `"${String(value).replaceAll('"', '""')}"` : "");
  const lines = [names.join(","), ...crystals.map((c) => names.map((name) => (isNumber(c[name]) ? c[name] : quoted(c[name]))).join(","))];
  download(`${safeName(data.run.molecule?.name)}.csv`, `${lines.join("\n")}\n`, "text/csv");
}

function markRow(scroll) {
  const body = byId("table").tBodies[0];
  for (const row of body.querySelectorAll('[aria-selected="true"]')) {
    row.setAttribute("aria-selected", "false");
    row.tabIndex = -1;
  }
  const row = rowOf(selected);
  if (!row) return;
  row.setAttribute("aria-selected", "true");
  row.tabIndex = 0;
  if (scroll) scrollInside(row, document.querySelector(".scroll"));
}

/** Bring a row into sight without moving the page. */
function scrollInside(row, box) {
  const [top, bottom] = [row.offsetTop - byId("table").tHead.offsetHeight, row.offsetTop + row.offsetHeight];
  if (top < box.scrollTop) box.scrollTop = top;
  else if (bottom > box.scrollTop + box.clientHeight) box.scrollTop = bottom - box.clientHeight;
}

function tableKeys(event) {
  const row = event.target.closest("tr[data-index]");
  if (!row || event.target.closest("button, a")) return;
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (event.key === "Enter" || event.key === " ") select(Number(row.dataset.index));
  else if (step) moveInTable(Number(row.dataset.index), step);
  else return;
  event.preventDefault();
}

function moveInTable(from, step) {
  const next = order.rows[order.rows.indexOf(from) + step];
  if (next === undefined) return;
  select(next);
  rowOf(next).focus({ preventScroll: true });
}

function startTable() {
  const body = byId("table").tBodies[0];
  body.append(...crystals.map(tableRow));
  drawHead();
  body.addEventListener("click", (event) => {
    const button = event.target.closest("[data-download]");
    if (button) downloadCif(Number(button.dataset.download));
    else if (!event.target.closest("a")) select(Number(event.target.closest("tr").dataset.index));
  });
  body.addEventListener("keydown", tableKeys);
  const inside = Object.values(data.embedded).filter((entry) => entry.cif).length;
  byId("table-note").textContent = inside < crystals.length
    ? `${count(inside)} of ${count(crystals.length)} CIF files are inside this page; the others are linked and lie beside it in cif/.`
    : "All CIF files are inside this page.";
  byId("download").addEventListener("click", () => downloadCif(selected));
  byId("download-all").addEventListener("click", downloadAll);
  byId("download-all").textContent = inside < crystals.length ? `Best ${inside} CIFs` : "All CIFs";
  byId("download-table").addEventListener("click", downloadTable);
  byId("download-pattern").addEventListener("click", downloadPattern);
}
