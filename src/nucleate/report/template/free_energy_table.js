// Estimates as rows, best last; the ladder of temperatures and how far its steps overlap.

const METHODS = {
  fep: { name: "No map", words: "No map: plain perturbation", tone: "--fep", dash: "2 4" },
  harmonic: { name: "Harmonic map", words: "Harmonic map: displacements scaled", tone: "--harmonic", dash: "8 4" },
  flow: { name: "Flow", words: "Flow: a learnt map", tone: "--flow", dash: null },
  bar: { name: "Both ways", words: "Harmonic map both ways: Bennett's ratio", tone: "--other", dash: "4 3" },
  mbar: { name: "Ladder", words: "Ladder of temperatures: MBAR", tone: "--mbar", dash: "10 3 2 3" },
};
const methodOf = (name) => METHODS[name] ?? { name: String(name), words: String(name), tone: "--other", dash: "5 3" };
const WARNING = "Too little overlap: the error means nothing.";
const LOW_OVERLAP = 0.03; // of neighbours in a ladder (Klimovich et al. 2015)

/** Decimals that show two digits of an error. */
const decimalsOf = (error) => (error > 0 ? Math.max(0, Math.min(6, 1 - Math.floor(Math.log10(error)))) : 3);

/** A value with its error, as far as each is known. */
function withError(value, error) {
  if (!isNumber(error)) return fixed(value, 3);
  return `${fixed(value, decimalsOf(error))} ± ${fixed(error, decimalsOf(error))}`;
}

const { molecules: many } = mapping(run.crystal);
const molecules = isNumber(many) && many > 0 ? many : null;

function perMolecule(e) {
  const value = e.per_molecule_kT ?? (molecules ? e.difference_kT / molecules : null);
  return isNumber(value) ? withError(value, isNumber(e.error_kT) && molecules ? e.error_kT / molecules : null) : "–";
}

const ESTIMATE_COLUMNS = [
  { label: "Difference", unit: "kT, ± standard error", show: (e) => withError(e.difference_kT, e.error_kT) },
  { label: "Per molecule", unit: "kT", show: perMolecule },
  { label: "Effective share", unit: "of the frames", show: (e) => percent(e.effective_share, 1) },
  { label: "Gap", unit: "kT above the difference", show: (e) => fixed(e.gap_kT, 2) },
  { label: "Frames", show: (e) => count(e.frames) },
];

function estimateRows(estimate, index) {
  const taken = index === data.estimates.length - 1;
  const kinds = [taken ? "taken" : "", estimate.overlaps ? "" : "bad"].filter(Boolean).join(" ");
  const row = el("tr", { class: kinds || null },
    el("th", { scope: "row" }, methodOf(estimate.method).words, taken && estimate.overlaps ? el("small", {}, " (best)") : null),
    ESTIMATE_COLUMNS.map(({ show }) => el("td", {}, show(estimate))));
  const why = el("tr", { class: "why" }, el("td", { colspan: ESTIMATE_COLUMNS.length + 1 }, `⚠ ${WARNING}`));
  return estimate.overlaps ? [row] : [row, why];
}

const headOf = (columns) => columns.map(({ label, unit, text }) => el("th", { scope: "col", class: text ? "text" : null }, label, unit ? el("small", {}, unit) : null));

function drawEstimates() {
  if (!data.estimates.length) return;
  byId("estimates-section").hidden = false;
  byId("estimates").tHead.append(el("tr", {}, headOf([{ label: "Method", text: true }, ...ESTIMATE_COLUMNS])));
  byId("estimates").tBodies[0].append(...data.estimates.flatMap(estimateRows));
  byId("estimates-note").textContent = "Effective share: Kish's effective number of frames over their number. Gap: how far mapped frames are from those of the target (Kullback and Leibler); a perfect map has 0.";
}

function drawLadder() {
  const ladder = data.ladder;
  if (!ladder) return;
  byId("ladder-section").hidden = false;
  const from = `from ${fixed(ladder.temperatures_K[0], 0)} K, kT`;
  const columns = [
    { label: "Temperature", unit: "K", show: (k) => fixed(ladder.temperatures_K[k], 1) },
    ladder.differences_kT && { label: "Difference", unit: from, show: (k) => (k ? withError(ladder.differences_kT[k], ladder.errors_kT?.[k]) : "0") },
    ladder.frames && { label: "Frames", show: (k) => count(ladder.frames[k]) },
    ladder.independent && { label: "Independent", unit: "frames", show: (k) => count(ladder.independent[k]) },
  ].filter(Boolean);
  byId("ladder").tHead.append(el("tr", {}, headOf(columns)));
  byId("ladder").tBodies[0].append(...ladder.temperatures_K.map((_, k) => el("tr", {}, columns.map(({ show }) => el("td", {}, show(k))))));
  if (ladder.overlap) drawOverlap(ladder);
}

function drawOverlap({ temperatures_K, overlap }) {
  const neighbours = temperatures_K.slice(1).map((_, k) => overlap[k][k + 1]).filter(isNumber);
  const least = neighbours.length ? Math.min(...neighbours) : null;
  const names = temperatures_K.map((t) => fixed(t, 0));
  byId("overlap-part").hidden = false;
  byId("overlap").tHead.append(el("tr", {}, el("td", {}), names.map((name) => el("th", { scope: "col" }, name))));
  byId("overlap").tBodies[0].append(...overlap.map((row, i) => el("tr", {}, el("th", { scope: "row" }, names[i]), row.map((value, j) => overlapCell(value, Math.abs(i - j) === 1)))));
  if (least === null) return;
  const text = `Least overlap of neighbours: ${fixed(least, 3)}.`;
  byId("ladder-note").textContent = least < LOW_OVERLAP ? `⚠ ${text} Below ${LOW_OVERLAP} the ladder has a gap: put more temperatures between.` : `${text} Above ${LOW_OVERLAP} steps are close enough.`;
  byId("ladder-note").classList.toggle("match", least < LOW_OVERLAP);
}

function overlapCell(value, neighbour) {
  const cell = el("td", { class: neighbour && value < LOW_OVERLAP ? "low" : null }, fixed(value, 2));
  const depth = isNumber(value) ? 55 * Math.sqrt(Math.max(0, Math.min(1, value))) : 0; // percent of the accent; the root shows small ones
  cell.style.background = `color-mix(in srgb, var(--accent) ${depth.toFixed(0)}%, transparent)`;
  return cell;
}
