// The header, the chosen crystal, and what ties the views together.

function referenceTile() {
  const reference = data.reference;
  if (!reference) return null;
  const fit = [isNumber(reference.rmsd) ? `RMSD ${fixed(reference.rmsd, 2)} Å` : "", isNumber(reference.n_matched) ? `${reference.n_matched} molecules` : ""];
  const note = fit.filter(Boolean).join(", ") || reference.file;
  return tile("Reference", reference.found ? `found, rank ${fixed(reference.rank)}` : "not found", note);
}

/** What the crystals of the page were chosen from. */
function searched(counts) {
  if (!isNumber(counts.asked)) return null;
  const starts = `${count(counts.asked)} starts`;
  return isNumber(counts.distinct) ? `of ${count(counts.distinct)} distinct, ${starts}` : `from ${starts}`;
}

function drawHeader() {
  const close = crystals.filter((c) => isNumber(c.energy) && c.energy <= 5).length;
  const best = crystals[0];
  drawFrame({
    identity: [formulaText(molecule.formula), isNumber(molecule.n_atoms) ? `${molecule.n_atoms} atoms` : "", molecule.smiles],
    tiles: [
      tile("Crystals", count(crystals.length), searched(mapping(run.counts))),
      best ? tile("Lowest in energy", best.symbol, `${fixed(best.density, 3)} g/cm³, ${fixed(best.lattice_energy, 1)} kJ/mol`) : null,
      best ? tile("Within 5 kJ/mol", count(close), "of the lowest, per molecule") : null,
      referenceTile(),
      timeTile(),
      known(run.energy_model) ? tile("Energies from", String(run.energy_model)) : null,
    ],
    about: "Predicted structures; energies are relative, per molecule. Packing view: 3Dmol.js 2.5.5 (BSD-3-Clause).",
    origin: { nucleate: run.nucleate, started: run.started, seed: run.seed, generator: mapping(run.generator).name, weights: mapping(run.generator).digest, "energy model": run.energy_model, SMILES: molecule.smiles },
  });
  drawNotes([...(run.interrupted === true ? ["The search was interrupted; more starts may give more crystals."] : []), ...notesOf(run.notes)]);
}

/** Cell lengths (Å) and angles (degrees) as a crystallographer writes them. */
function cellText(scene) {
  const rows = [0, 1, 2].map((i) => latticeRow(scene, i));
  const lengths = rows.map((row) => fixed(Math.hypot(...row), 3)).join(", ");
  const angles = [[1, 2], [0, 2], [0, 1]].map(([i, j]) => (Math.acos(dot(unit(rows[i]), unit(rows[j]))) * 180) / Math.PI);
  return [`${lengths} Å`, `${angles.map((angle) => fixed(angle, 2)).join(", ")}°`];
}

function drawDetails() {
  const c = crystals[table.chosen];
  const scene = chosenScene();
  const [lengths, angles] = scene ? cellText(scene) : ["–", "–"];
  const donors = scene ? `${scene.hydrogen_bonds.length / 5} in the cell` : "–";
  const entries = [
    ["Rank", fixed(c.rank)], ["Relative energy", `${fixed(c.energy, 2)} kJ/mol`], ["Lattice energy", `${fixed(c.lattice_energy, 1)} kJ/mol`],
    ["Density", `${fixed(c.density, 3)} g/cm³`], ["Volume per molecule", `${fixed(c.volume, 1)} Å³`], ["Space group", `${c.symbol} (${c.number ?? "–"})`],
    ["Z, Z′", `${fixed(c.z)}, ${zPrime(c.z_prime)}`], ["a, b, c", lengths], ["α, β, γ", angles], ["Hydrogen bonds", donors],
    ["Duplicates found", fixed(c.duplicates)], ["Conformer", spoken(c.conformer)], ["Generator, seed", `${spoken(c.generator)}, ${spoken(c.seed)}`],
    ["Reference", matchText(c)], ["File", c.file],
  ];
  if (c.clash === true) entries.push(["Warning", "atoms closer than a contact allows"]);
  byId("details").replaceChildren(...entries.map(([term, value]) => el("div", {}, el("dt", {}, term), el("dd", {}, value))));
}

/** Show one crystal everywhere. */
function select(index) {
  if (!crystals[index]) return;
  showRow(index);
  byId("chosen").textContent = summary(crystals[index]);
  byId("download").disabled = !inside(index)?.cif;
  markSteps(index, crystals.length);
  moveRing(byId("landscape"), index);
  drawDetails();
  drawPowder();
  drawViewSoon(false);
  rememberInAddress(crystals[index]);
}

/** So that a link or a reload shows the same crystal. */
function rememberInAddress(crystal) {
  history.replaceState(null, "", `#rank=${crystal.rank ?? ""}`);
}

function selectFromAddress() {
  const rank = Number(/^#rank=(\d+)$/.exec(location.hash)?.[1]);
  select(Math.max(0, crystals.findIndex((c) => c.rank === rank)));
}

function start() {
  drawHeader();
  drawSearch();
  if (!crystals.length) {
    const { asked } = mapping(run.counts);
    return explainEmpty(`No crystal was found${isNumber(asked) ? ` out of ${count(asked)} starts` : ""}. The stages and failures below say where the structures were lost; a longer search (a larger --n or --budget) or other space groups may help.`);
  }
  byId("results").hidden = false;
  startCrystals(select);
  startPacking();
  startLandscape();
  startPowder();
  startSteps(byId("landscape"), (way) => select(table.chosen + way));
  window.addEventListener("hashchange", selectFromAddress);
  return selectFromAddress();
}

start();
