// The header, what became of the shapes, and what ties the views together.

const FATES = [
  ["asked", "shapes asked of the method"], ["made", "made, equal ones once"], ["mirrored", "taken as their mirror images, which have the right stereo"],
  ["wrong_stereo", "refused: wrong stereo"], ["unsound", "refused: torn bonds or atoms on top of each other"],
  ["out_of_time", "not optimised: out of time"], ["not_converged", "not converged"], ["lost_stereo", "lost their stereo in the optimisation"],
  ["lost_bonds", "lost their bonds in the optimisation"], ["other_diastereomer", "another diastereomer"], ["alike", "like a lower one"],
  ["beyond", "beyond the number or window asked for"], ["handed_over", "conformers handed over"],
];

function drawHeader() {
  const counts = mapping(run.counts);
  const energies = conformers.map((c) => c.energy_kj_mol).filter(isNumber);
  const models = [...new Set(conformers.map((c) => c.energy_model).filter(known))];
  const methods = [...new Set(conformers.map((c) => c.method).filter(known))];
  drawFrame({
    identity: [formulaText(molecule.formula), isNumber(molecule.n_atoms) ? `${molecule.n_atoms} atoms` : "", molecule.smiles],
    tiles: [
      tile("Conformers", count(conformers.length), isNumber(counts.made) ? `of ${count(counts.made)} shapes made` : null),
      energies.length && !several ? tile("Within 5 kJ/mol", count(energies.filter((e) => e <= 5).length), "of the lowest") : null,
      conformers.length && !several ? tile("Weight of the lowest", share(conformers[0].boltzmann_weight), "at 298.15 K") : null,
      several ? tile("Molecules", count(data.species.length)) : null,
      methods.length ? tile("Shapes from", methods.join(", ")) : null,
      models.length ? tile("Energies from", models.map((m) => m.split(",")[0]).join("; "), models.map((m) => m.split(",").slice(1).join(",").trim()).filter(Boolean).join("; ")) : null,
      timeTile(),
    ],
    about: "Generated structures; energies are relative, of one molecule by itself. Viewer: 3Dmol.js 2.5.5 (BSD-3-Clause).",
    origin: { nucleate: run.nucleate, started: run.started, seed: run.seed, source: run.source, SMILES: molecule.smiles },
  });
  byId("table-note").textContent = `Lowest first; all are in ${data.file}. RMSD: of heavy atoms, equal ones exchanged where that fits better.`;
  drawNotes([...notesOf(run.notes), ...(data.unreadable ? [`${count(data.unreadable)} records of ${data.file} could not be read.`] : [])]);
}

function drawFate() {
  const counts = mapping(run.counts);
  const rows = FATES.filter(([name]) => isNumber(counts[name]) && (counts[name] || ["asked", "made", "handed_over"].includes(name)));
  byId("fate").append(rows.length
    ? el("table", {}, el("tbody", {}, rows.map(([name, label]) => el("tr", {}, el("th", { scope: "row" }, label), el("td", {}, count(counts[name]))))))
    : el("p", { class: "muted small" }, "Not known: run.json is missing or says nothing of it."));
}

/** Show one conformer everywhere. */
function choose(index) {
  if (!conformers[index]) return;
  const other = conformers[index].species !== conformers[table.chosen].species;
  showRow(index);
  byId("chosen").textContent = summary(conformers[index]);
  byId("download").disabled = !drawable(index);
  byId("species").value = String(conformers[index].species);
  markSteps(index, conformers.length);
  if (other) { offerOthers(); drawEnergies(); }
  markPoint();
  drawViewSoon(!other);
}

function offerSpecies() {
  byId("species-label").hidden = !several;
  byId("species").append(...data.species.map((s, k) => el("option", { value: String(k) }, s.smiles || String(k + 1))));
  byId("species").addEventListener("change", (event) => choose(conformers.findIndex((c) => c.species === Number(event.target.value))));
}

function describeViewer() {
  const held = conformers.filter((_, i) => drawable(i)).length;
  const some = held < conformers.length ? ` The coordinates of ${count(held)} of ${count(conformers.length)} conformers are inside this page.` : "";
  byId("viewer-note").textContent = `Drag or use the arrow keys to turn, the wheel or plus and minus to zoom. Others are grey, without hydrogens on carbon.${some}`;
}

function start() {
  drawHeader();
  drawFate();
  if (!conformers.length) return explainEmpty(`${data.file} holds no conformer that can be read.`);
  byId("results").hidden = false;
  startTable(conformers, COLUMNS, choose);
  startConformers();
  startEnergies(choose);
  startSteps(byId("energies"), (way) => choose(table.chosen + way));
  offerSpecies();
  offerOthers();
  describeViewer();
  choose(0);
  return drawView(false);
}

start();
