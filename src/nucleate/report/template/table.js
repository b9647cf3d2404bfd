// Rows of results: headers sort, rows choose, and no more than a hundred stand in the page at once.

const ROWS = 100; // on one page of the table: a thousand would make every step of the whole page slow
const table = { rows: [], columns: [], order: [], key: "rank", down: false, page: 0, chosen: 0, choose: null };

const rowOf = (index) => byId(`row-${index}`);
const pageOf = (index) => Math.floor(table.order.indexOf(index) / ROWS);

const alphabet = new Intl.Collator("en", { numeric: true });

/** Compare by one column; rows without a value come last in both directions. */
function comparison(key, down) {
  return (i, j) => {
    const [p, q] = [table.rows[i][key], table.rows[j][key]];
    if (!known(p) || !known(q)) return known(q) - known(p) || i - j;
    const way = typeof p === "string" || typeof q === "string" ? alphabet.compare(String(p), String(q)) : p - q;
    return (down ? -way : way) || i - j;
  };
}

function sortBy(key) {
  const { falls } = table.columns.find((column) => column.key === key);
  table.down = table.key === key ? !table.down : Boolean(falls);
  table.key = key;
  table.order.sort(comparison(key, table.down));
  markHead();
  showRows(0);
}

function drawHead() {
  const heads = table.columns.map(({ key, label, unit, text, file }) => {
    const words = [label, unit ? el("small", {}, unit) : null];
    const kind = [text ? "text" : "", file ? "file" : ""].join(" ").trim() || null;
    if (!key || onPaper()) return el("th", { scope: "col", class: kind }, el("span", {}, words));
    const button = el("button", { type: "button", "data-sort": key }, el("span", { class: "arrow", "aria-hidden": "true" }), words);
    button.addEventListener("click", () => sortBy(key));
    return el("th", { scope: "col", class: kind, "aria-sort": "none" }, button);
  });
  byId("table").tHead.replaceChildren(el("tr", {}, heads));
  markHead();
}

function markHead() {
  for (const button of byId("table").tHead.querySelectorAll("[data-sort]")) {
    const here = button.dataset.sort === table.key;
    button.parentElement.setAttribute("aria-sort", here ? (table.down ? "descending" : "ascending") : "none");
    button.firstChild.textContent = here ? (table.down ? "▾" : "▴") : "";
  }
}

function tableRow(index, place) {
  const row = table.rows[index];
  const cells = table.columns.map(({ text, file, show, kind }) =>
    el("td", { class: [text ? "text" : "", file ? "file" : "", kind?.(row) ?? ""].join(" ").trim() || null }, show(row, index)));
  return el("tr", { id: `row-${index}`, "data-index": index, "aria-rowindex": place + 2, tabindex: -1, "aria-selected": "false" }, cells);
}

/** Put one page of the rows into the table. */
function showRows(page) {
  const [first, total] = [page * ROWS, table.rows.length];
  table.page = page;
  byId("table").tBodies[0].replaceChildren(...table.order.slice(first, first + ROWS).map((index, i) => tableRow(index, first + i)));
  byId("table").closest(".scroll").scrollTop = 0;
  byId("page-rows").textContent = `Rows ${count(first + 1)} to ${count(Math.min(total, first + ROWS))} of ${count(total)}`;
  byId("page-back").disabled = page === 0;
  byId("page-on").disabled = first + ROWS >= total;
  markRow();
}

/** Mark the chosen row; Tab reaches it, or else the first one. */
function markRow() {
  const body = byId("table").tBodies[0];
  for (const row of body.querySelectorAll('[aria-selected="true"], [tabindex="0"]')) {
    row.setAttribute("aria-selected", "false");
    row.tabIndex = -1;
  }
  const row = rowOf(table.chosen);
  row?.setAttribute("aria-selected", "true");
  (row ?? body.rows[0]).tabIndex = 0;
}

/** The chosen row, brought into sight inside the table without moving the page. */
function showRow(index) {
  table.chosen = index;
  if (pageOf(index) === table.page) markRow();
  else showRows(pageOf(index));
  const [row, box] = [rowOf(index), byId("table").closest(".scroll")];
  const [top, bottom] = [row.offsetTop - byId("table").tHead.offsetHeight, row.offsetTop + row.offsetHeight];
  if (top < box.scrollTop) box.scrollTop = top;
  else if (bottom > box.scrollTop + box.clientHeight) box.scrollTop = bottom - box.clientHeight;
}

function tableKeys(event) {
  const row = event.target.closest("tr[data-index]");
  if (!row || event.target.closest("button, a")) return;
  const [place, last] = [table.order.indexOf(Number(row.dataset.index)), table.order.length - 1];
  const next = { ArrowDown: place + 1, ArrowUp: place - 1, Home: 0, End: last, PageDown: place + 10, PageUp: place - 10, Enter: place, " ": place }[event.key];
  if (next === undefined) return;
  event.preventDefault();
  const index = table.order[Math.max(0, Math.min(last, next))];
  table.choose(index);
  rowOf(index).focus({ preventScroll: true });
}

/** Columns have a `label` and `show(row, index)`; those with a `key` sort, from the largest on where it `falls`; a `file` is not printed. */
function startTable(rows, columns, choose) {
  Object.assign(table, { rows, columns, choose, order: rows.map((_, i) => i) });
  const body = byId("table").tBodies[0];
  byId("table").setAttribute("aria-rowcount", rows.length + 1);
  drawHead();
  whenRepainted(drawHead); // a head that stands again on every sheet shows no buttons
  showRows(0);
  byId("pager").hidden = rows.length <= ROWS;
  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr[data-index]");
    if (row && !event.target.closest("button, a")) choose(Number(row.dataset.index));
  });
  body.addEventListener("keydown", tableKeys);
  byId("page-back").addEventListener("click", () => showRows(table.page - 1));
  byId("page-on").addEventListener("click", () => showRows(table.page + 1));
  const names = Object.keys(rows[0]).filter((name) => !["positions", "species"].includes(name));
  byId("download-table").addEventListener("click", () =>
    download(`${safeName(molecule.name)}.csv`, csvText(names, rows.map((row) => names.map((name) => row[name]))), "text/csv"));
}

const fileLink = (path, words = baseName(path)) => el("a", { href: address(path) }, words);
