// The header, what each plot shows, notes and settings.

const best = data.estimates.at(-1) ?? null;
const kelvin = (value) => (isNumber(value) ? `${fixed(value, Number.isInteger(value) ? 0 : 1)} K` : null);
const [base, target] = [kelvin(run.base_K), kelvin(run.target_K)];
const safe = safeName(molecule.name, "free_energy");

function cellText(rows) {
  const whole = Array.isArray(rows) && rows.length === 3 && rows.every((row) => Array.isArray(row) && row.length === 3 && row.every(isNumber));
  return whole ? `cell ${rows.map((row) => fixed(Math.hypot(...row), 2)).join(" × ")} Å` : null;
}

const TOLD = new Set(["molecule", "crystal", "settings", "versions", "notes", "command", "base_K", "target_K"]);

function drawHeader() {
  const crystal = mapping(run.crystal);
  drawFrame({
    identity: [base && target ? `${base} to ${target}` : base ?? target, molecules ? `${count(molecules)} molecules` : null, cellText(crystal.cell_A), crystal.source, known(molecule.smiles) ? `SMILES ${molecule.smiles}` : null],
    tiles: best ? tilesOf(best) : [],
    about: "Configurational free energies of rigid molecules.",
    origin: Object.fromEntries(Object.entries(run).filter(([name]) => !TOLD.has(name))),
  });
  if (best) drawAnswer();
  drawNotes(notesOf(run.notes));
}

function tilesOf(estimate) {
  const { name, words } = methodOf(estimate.method);
  return [
    tile("Per molecule", `${perMolecule(estimate)} kT`),
    tile("Method", name, words.split(": ")[1]),
    isNumber(estimate.effective_share) ? tile("Effective share", percent(estimate.effective_share, 1), isNumber(estimate.frames) ? `of ${count(estimate.frames)} frames` : null) : null,
    isNumber(estimate.gap_kT) ? tile("Gap", `${fixed(estimate.gap_kT, 2)} kT`, "a perfect map has 0") : null,
    timeTile(),
  ];
}

function drawAnswer() {
  const of = base && target ? `F(${target}) − F(${base})` : "Difference";
  byId("identity").after(
    el("p", { id: "answer", class: best.overlaps ? "answer" : "answer bad" }, `${of} = ${withError(best.difference_kT, best.error_kT)} kT`),
    el("p", { id: "meaning", class: "muted small" }, "Configurational, F = −ln ∫ exp(−E / kT) over places and turns of rigid molecules in a fixed cell, each F in kT of its own temperature."));
  byId("warning").textContent = `⚠ ${WARNING} ${isNumber(best.effective_share) ? `The weights of ${percent(best.effective_share, 1)} of the frames decide; the` : "The"} difference above may be off by far more than its error. Take a better map, or more temperatures between.`;
  byId("warning").hidden = best.overlaps;
}

const MAPPED = { flow: "7 4", harmonic: "2 3", fep: "1 5" };
const REWEIGHTED = { flow: null, harmonic: "12 3 2 3", fep: "16 3 2 3 2 3" };

/** How a curve of a state is drawn: dynamics as areas, mapped and weighted frames as lines. */
function styleOf({ state, method, y }) {
  const { name, tone } = methodOf(method);
  const by = known(method) && method !== "mbar" ? `, ${name.toLowerCase()}` : "";
  return { ys: y, ...({
    base: { label: `Dynamics, ${base ?? "before"}`, tone: "--other", dash: "1 3", area: true, width: 1.6 },
    sampled: { label: `Dynamics, ${target ?? "target"}`, tone: "--mbar", dash: null, area: true, width: 1 },
    mapped: { label: `Mapped${by}`, tone, dash: MAPPED[method] ?? "4 3" },
    reweighted: { label: `Weighted${by}`, tone, dash: REWEIGHTED[method] ?? null },
  }[state] ?? { label: name, tone, dash: methodOf(method).dash }) };
}

/** Every number of some curves. */
const valuesOf = (curves) => curves.flatMap((curve) => curve.y).filter(isNumber);

function drawDensities(id, heading, titles, note, { unit = "", digits = 2, zero }) {
  const plot = data.plots[id];
  if (!plot) return;
  const top = Math.max(1e-12, ...valuesOf(plot.curves));
  linePlot(id, heading, note, {
    file: `${safe}_${id}`, xs: plot.x, curves: plot.curves.map(styleOf), titles, zero,
    limits: () => ({ x: [plot.x[0], plot.x.at(-1)], y: [0, 1.06 * top] }),
    show: { x: (value) => `${titles.x.split(/[ ,(]/)[0]} ${fixed(value, digits)}${unit}`, y: (value) => fixed(value, 3) },
  });
}

const errorOf = (estimate) => (isNumber(estimate?.error_kT) ? Math.abs(estimate.error_kT) : 0);
const reliable = (method) => data.estimates.find((e) => e.method === method)?.overlaps ?? true;

/** Limits around the best: curves of estimates that overlap fit in, after the first fifth of the frames. */
function near(curves, centre) {
  const late = curves.filter((c) => reliable(c.method) || c.method === best?.method).flatMap((c) => c.y.slice(Math.floor(c.y.length / 5))).filter(isNumber);
  const reach = Math.max(4 * errorOf(best), ...late.map((value) => Math.abs(value - centre)));
  return padded([centre - reach, centre + reach], 0.06);
}

function drawConvergence() {
  const plot = data.plots.convergence;
  if (!plot) return;
  const last = plot.curves.at(-1).y.filter(isNumber).at(-1);
  const centre = best ? best.difference_kT : last;
  const view = { every: false };
  const limits = () => (view.every ? padded([centre, ...valuesOf(plot.curves)]) : near(plot.curves, centre));
  const less = (value) => (isNumber(value) ? value - centre : null);
  const decimals = Math.max(2, decimalsOf(errorOf(best)));
  const band = best && isNumber(best.error_kT) ? { value: 0, error: errorOf(best), label: "Final ± standard error", tone: methodOf(best.method).tone, dash: null } : null;
  const curves = plot.curves.map(styleOf).map((curve) => ({ ...curve, ys: curve.ys.map(less), told: curve.ys }));
  const outside = plot.curves.filter((c) => c.y.filter(isNumber).every((value) => value < limits()[0] || value > limits()[1]));
  const told = outside.map((c) => `${methodOf(c.method).name.toLowerCase()} (${fixed(c.y.filter(isNumber).at(-1), 1)} kT)`);
  const note = [told.length ? `Outside the picture: ${told.join(", ")}.` : "", "The estimate from the first frames alone; it should settle inside the band long before the end."].filter(Boolean).join(" ");
  const redraw = linePlot("convergence", "Convergence", note, {
    file: `${safe}_convergence`, xs: plot.x, curves, band,
    titles: { x: "Frames, from the first on", y: `Estimate less ${centre < 0 ? `(${fixed(centre, decimals)})` : fixed(centre, decimals)} / kT` },
    limits: () => ({ x: [0, 1.02 * Math.max(...plot.x)], y: limits().map(less) }),
    show: { x: (value) => `${count(value)} frames`, y: (value) => (isNumber(value) ? `${fixed(value + centre, decimals)} kT` : "–") },
  });
  if (valuesOf(plot.curves).some((value) => value < limits()[0] || value > limits()[1])) offerEvery(view, redraw);
}

/** A button that makes room for curves outside the picture. */
function offerEvery(view, redraw) {
  const button = el("button", { id: "convergence-all", type: "button", "aria-pressed": "false" }, "Every curve");
  button.addEventListener("click", () => {
    view.every = !view.every;
    button.setAttribute("aria-pressed", String(view.every));
    redraw();
  });
  byId("convergence-csv").before(button);
}

function drawPlots() {
  drawDensities("energies", "Energies before and after", { x: "Potential energy / kJ mol⁻¹ per molecule", y: "Probability density / mol kJ⁻¹" },
    "Mapped: frames of the base after the map. Weighted: the same with their weights, which should give the energies of the target.", { unit: " kJ/mol" });
  drawDensities("work", "Weights of the frames", { x: "Log weight, ln(w / mean w)", y: "Probability density" },
    "At 0 a mapped frame counts once; a perfect map brings every frame there. The estimate rests on the frames at the right end; where few lie there, it is not to be trusted.", { zero: 0 });
  drawDensities("radial", "Neighbours by distance", { x: "Distance r / Å", y: `Radial distribution, ${molecule.smiles === "O" ? "O to O" : "of molecules"}` },
    "Neighbours at a distance, against a gas of equal density. Weighted frames should agree with those of the target.", { unit: " Å" });
  drawConvergence();
}

function start() {
  drawHeader();
  drawEstimates();
  drawPlots();
  drawLadder();
  if (best === null) explainEmpty(`${data.file} holds no estimate. The run may have been interrupted; run it again with --resume.`);
}

start();
