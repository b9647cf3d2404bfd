// The header, what became of the shapes, and what ties the views together.

const FATES = [
  ["asked", "shapes asked of the method"], ["made", "made, equal ones once"], ["mirrored", "taken as their mirror images, which have the right stereo"],
  ["wrong_stereo", "refused: wrong stereo"], ["unsound", "refused: torn bonds or atoms on top of each other"],
  ["out_of_time", "not optimised: out of time"], ["not_converged", "not converged"], ["lost_stereo", "lost their stereo in the optimisation"],
  ["lost_bonds", "lost their bonds in the optimisation"], ["other_diastereomer", "another diastereomer"], ["alike", "like a lower one"],
  ["beyond", "beyond the number or window asked for"], ["handed_over", "conformers handed over"],
];

function tile(label, value, note) {
  return el("div", {}, el("dt", {}, label), el("dd", {}, value, note ? el("small", {}, note) : null));
}

function drawHeader() {
  const run = data.run;
  const molecule = run.molecule ?? {};
  const counts = run.counts ?? {};
  byId("identity").textContent = [molecule.formula, isNumber(molecule.n_atoms) ? `${molecule.n_atoms} atoms` : "", molecule.smiles].filter(known).join(" · ");
  const energies = conformers.map((c) => c.energy_kj_mol).filter(isNumber);
  const models = [...new Set(conformers.map((c) => c.energy_model).filter(known))];
  const methods = [...new Set(conformers.map((c) => c.method).filter(known))];
  const tiles = [
    tile("Conformers", count(conformers.length), isNumber(counts.made) ? `of ${count(counts.made)} shapes made` : null),
    energies.length && !several ? tile("Within 5 kJ/mol", count(energies.filter((e) => e <= 5).length), "of the lowest") : null,
    conformers.length && !several ? tile("Weight of the lowest", share(conformers[0].boltzmann_weight), "at 298.15 K") : null,
    several ? tile("Molecules", count(data.species.length)) : null,
    methods.length ? tile("Shapes from", methods.join(", ")) : null,
    models.length ? tile("Energies from", models.map((m) => m.split(",")[0]).join("; "), models.map((m) => m.split(",").slice(1).join(",").trim()).filter(Boolean).join("; ")) : null,
    isNumber(run.wall_seconds) ? tile("Time", duration(run.wall_seconds), isNumber(run.cpu_seconds) ? `${duration(run.cpu_seconds)} of CPU` : null) : null,
  ];
  byId("tiles").append(...tiles.filter(Boolean));
  byId("colophon").textContent = `${[`nucleate ${run.nucleate ?? ""}`.trim(), run.started].filter(known).join(", ")}. Generated structures; energies are relative, of one molecule by itself. Viewer: 3Dmol.js 2.5.5 (BSD-3-Clause). This page makes no network requests.`;
  byId("command").textContent = run.command || "made by a program";
  byId("table-note").textContent = `Lowest first; all are in ${data.file}. RMSD: of heavy atoms, equal ones exchanged where that fits better.`;
}

function drawFate() {
  const counts = data.run.counts ?? {};
  const rows = FATES.filter(([name]) => isNumber(counts[name]) && (counts[name] || ["asked", "made", "handed_over"].includes(name)));
  byId("fate").append(rows.length
    ? el("table", {}, el("tbody", {}, rows.map(([name, label]) => el("tr", {}, el("th", { scope: "row" }, label), el("td", {}, count(counts[name]))))))
    : el("p", { class: "muted small" }, "Not known: run.json is missing or says nothing of it."));
}

function drawNotes() {
  const lines = Array.isArray(data.run.notes) ? [...data.run.notes] : [];
  if (data.unreadable) lines.push(`${count(data.unreadable)} records of ${data.file} could not be read.`);
  byId("notes").append(...(lines.length ? lines : ["Nothing to say."]).map((line) => el("li", {}, String(line))));
  const entries = { ...(data.run.settings ?? {}), source: data.run.source };
  const rows = Object.entries(entries).map(([name, value]) =>
    el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, known(value) ? String(value) : "–")));
  byId("settings").append(el("table", {}, el("tbody", {}, rows)));
}

/** Show one conformer everywhere. */
function choose(index) {
  if (!conformers[index]) return;
  const before = conformers[chosen.index].species;
  chosen.index = index;
  const other = conformers[index].species !== before;
  byId("chosen").textContent = summary(conformers[index]);
  byId("previous").disabled = index === 0;
  byId("next").disabled = index === conformers.length - 1;
  byId("download").disabled = !drawable(index);
  byId("species").value = String(conformers[index].species);
  if (other) { offerOthers(); drawEnergies(); }
  markPoint();
  markRow();
  drawConformers(!other);
}

function offerSpecies() {
  byId("species-label").hidden = !several;
  byId("species").append(...data.species.map((s, k) => el("option", { value: String(k) }, s.smiles || String(k + 1))));
  byId("species").addEventListener("change", (event) => choose(conformers.findIndex((c) => c.species === Number(event.target.value))));
}

function arrowKeys(event) {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (!step) return;
  choose(chosen.index + step);
  event.preventDefault();
}

function start() {
  drawHeader();
  drawFate();
  drawNotes();
  if (!conformers.length) {
    byId("empty").textContent = `${data.file} holds no conformer that can be read.`;
    byId("empty").hidden = false;
    return;
  }
  byId("results").hidden = false;
  startViewer();
  startTable(choose);
  startEnergies(choose);
  offerSpecies();
  offerOthers();
  drawEnergies();
  byId("energies").addEventListener("keydown", arrowKeys);
  byId("previous").addEventListener("click", () => choose(chosen.index - 1));
  byId("next").addEventListener("click", () => choose(chosen.index + 1));
  const inside = conformers.filter((_, i) => drawable(i)).length;
  const held = inside < conformers.length ? ` The coordinates of ${count(inside)} of ${count(conformers.length)} conformers are inside this page.` : "";
  byId("viewer-note").textContent = `Drag to turn, scroll to zoom. Others are grey, without hydrogens on carbon.${held}`;
  choose(0);
  resetView();
}

start();
