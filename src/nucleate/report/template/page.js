// What every page has: tiles, notes, settings, and a change of paper: dark, light, printed.

const run = mapping(data.run);
const molecule = mapping(run.molecule);
const root = document.documentElement;
const dark = matchMedia("(prefers-color-scheme: dark)");
const still = matchMedia("(prefers-reduced-motion: reduce)");
const repaints = [];

/** A colour of the style sheet as it is now. */
const color = (name) => getComputedStyle(root).getPropertyValue(name).trim();
const onPaper = () => root.classList.contains("paper");
const isDark = () => dark.matches && !onPaper();

/** What scripts have coloured or measured is drawn again for another light, for paper, and after it. */
const whenRepainted = (draw) => repaints.push(draw);

function startRepaints() {
  const repaint = () => repaints.forEach((draw) => draw());
  const paper = (is) => () => { root.classList.toggle("paper", is); repaint(); };
  dark.addEventListener("change", repaint);
  window.addEventListener("beforeprint", paper(true));
  window.addEventListener("afterprint", paper(false));
}

function tile(label, value, note) {
  return el("div", {}, el("dt", {}, label), el("dd", {}, value, note ? el("small", {}, note) : null));
}

function timeTile() {
  if (!isNumber(run.wall_seconds)) return null;
  return tile("Time", duration(run.wall_seconds), isNumber(run.cpu_seconds) ? `${duration(run.cpu_seconds)} of CPU` : null);
}

/** Tables within tables become rows named by the way to them. */
const flat = (table, before = "") => Object.entries(mapping(table)).flatMap(([name, value]) =>
  (Object.keys(mapping(value)).length ? flat(value, `${before}${name}: `) : [[`${before}${name}`, value]]));

function pairs(title, entries) {
  if (!entries.length) return null;
  const rows = entries.map(([name, value]) =>
    el("tr", {}, el("th", { scope: "row" }, name), el("td", { class: "text" }, name === "started" ? moment(value) : spoken(value))));
  return el("div", { class: entries.length < 16 ? "short" : null }, el("h3", {}, title), el("table", {}, el("tbody", {}, rows)));
}

/** The frame of a page; `origin` names the values of the run that stand beside its settings and versions. */
function drawFrame({ identity, tiles, about, origin }) {
  byId("identity").textContent = identity.filter(known).join(" · ");
  byId("tiles").append(...tiles.filter(Boolean));
  const made = [`nucleate ${run.nucleate ?? ""}`.trim(), moment(run.started)].filter(known).join(", ");
  byId("colophon").textContent = `${made}. ${about} This page makes no network requests.`;
  byId("command").textContent = run.command || "made by a program";
  const parts = [
    pairs("Run", flat(origin).filter(([, value]) => known(value))),
    pairs("Settings", flat(run.settings)),
    pairs("Versions", flat(run.versions)),
  ].filter(Boolean);
  byId("settings").append(...(parts.length ? parts : [el("p", { class: "muted" }, "Not known: run.json is missing or says nothing of them.")]));
  startRepaints();
}

function drawNotes(lines) {
  byId("notes-section").hidden = !lines.length;
  byId("notes").append(...lines.map((line) => el("li", {}, spoken(line))));
}

const notesOf = (value) => (Array.isArray(value) ? value.filter(known) : []);

function explainEmpty(text) {
  byId("empty").textContent = text;
  byId("empty").hidden = false;
}

/** The step that an arrow key takes along a list; none for other keys. */
const arrowStep = (event) => ({ ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key]);

/** Buttons and arrow keys of a plot that choose the next or the previous row. */
function startSteps(host, step) {
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  host.addEventListener("keydown", (event) => {
    const way = arrowStep(event);
    if (!way) return;
    step(way);
    event.preventDefault();
  });
}

function markSteps(index, total) {
  byId("previous").disabled = index <= 0;
  byId("next").disabled = index >= total - 1;
}
