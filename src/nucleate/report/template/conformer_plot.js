// Relative energies by rank, and behind them how often each conformer is met at room temperature.

const ENERGIES = { height: 430, left: 56, right: 62, top: 14, bottom: 52 };
const hasEnergy = (index) => isNumber(conformers[index].energy_kj_mol);

function summary(c) {
  const parts = [`#${c.rank ?? "–"}`];
  if (isNumber(c.energy_kj_mol)) parts.push(`ΔE ${fixed(c.energy_kj_mol, 2)} kJ/mol`);
  if (isNumber(c.boltzmann_weight)) parts.push(`weight ${share(c.boltzmann_weight)}`);
  if (isNumber(c.rmsd_A) && c.rank !== 1) parts.push(`${fixed(c.rmsd_A, 2)} Å from the lowest`);
  return parts.join(" · ");
}

const share = (weight) => (isNumber(weight) ? `${(100 * weight).toFixed(1)} %` : "–");

function describeEnergies(drawn) {
  const missing = siblings().length - drawn;
  const parts = drawn
    ? ["Boltzmann weights at 298.15 K; a conformer whose mirror image is another one counts twice. Click to choose, or use the arrow keys."]
    : ["No energies: no model knows this molecule."];
  if (missing && drawn) parts.push(`${count(missing)} without an energy are only in the table.`);
  byId("energies-note").textContent = parts.join(" ");
}

function drawEnergies() {
  const host = byId("energies");
  const drawn = siblings().filter(hasEnergy);
  host.replaceChildren();
  describeEnergies(drawn.length);
  if (!drawn.length) return;
  const highest = Math.max(1, ...drawn.map((i) => conformers[i].energy_kj_mol));
  const heaviest = Math.max(0.01, ...drawn.map((i) => conformers[i].boltzmann_weight ?? 0));
  const frame = frameOf(host, ENERGIES);
  const x = scale(0.5, drawn.length + 0.5, frame.left, frame.right);
  const y = scale(-0.04 * highest, 1.06 * highest, frame.bottom, frame.top);
  const z = scale(0, 106 * heaviest, frame.bottom, frame.top);
  const spot = (index, k) => `translate(${x(k + 1).toFixed(1)} ${y(conformers[index].energy_kj_mol).toFixed(1)})`;
  host.append(drawingIn(frame, "Relative energy and weight by rank",
    verticalAxis(frame, y, 0, 1.06 * highest, "Relative energy / kJ mol⁻¹"),
    rankAxis(frame, x, drawn.length), weightAxis(frame, z, 100 * heaviest),
    drawn.map((index, k) => weightBar(frame, index, x, z, k)),
    border(frame),
    drawn.map((index, k) => svg("path", { class: "point", "data-index": index, ...markOf(0, drawn.length > 60 ? 3.5 : 5.5), transform: spot(index, k) })),
    svg("path", { id: "ring", class: "ring", d: markPath(0, 9), visibility: "hidden" })), tip);
  markPoint();
}

function rankAxis(frame, x, n) {
  const { values } = ticks(1, Math.max(n, 2), Math.min(n, 8));
  const whole = [...new Set([1, ...values.filter((v) => Number.isInteger(v) && v <= n && x(v) - x(1) > 24)])];
  return svg("g", {},
    whole.map((v) => svg("text", { x: x(v), y: frame.bottom + 18, "text-anchor": "middle" }, fixed(v))),
    bottomTitle(frame, "Rank"));
}

function weightAxis(frame, z, highest) {
  const { values, decimals } = ticks(0, highest, 4);
  return svg("g", {},
    values.map((v) => svg("text", { x: frame.right + 8, y: z(v) + 4 }, fixed(v, decimals))),
    sideTitle(frame, "Boltzmann weight / %", frame.width - 14, 90));
}

function weightBar(frame, index, x, z, k) {
  const weight = conformers[index].boltzmann_weight;
  if (!isNumber(weight)) return null;
  const width = Math.min(34, 0.7 * (x(2) - x(1)));
  const top = z(100 * weight);
  return svg("rect", { class: "weight", "data-index": index, x: x(k + 1) - width / 2, width, y: top, height: Math.max(0, frame.bottom - top) });
}

function markPoint() {
  moveRing(byId("energies"), table.chosen);
  byId("energies").querySelectorAll(".weight").forEach((bar) => bar.classList.toggle("chosen-bar", Number(bar.dataset.index) === table.chosen));
}

function drawLegend() {
  const box = (...shapes) => svg("svg", { viewBox: "-8 -8 16 16", "aria-hidden": "true" }, shapes);
  byId("legend").append(
    el("li", {}, box(svg("path", markOf(0, 5.5))), "Relative energy, left"),
    el("li", {}, box(svg("rect", { class: "weight-key", x: -5, y: -7, width: 10, height: 14 })), "Boltzmann weight, right"));
}

function startEnergies(choose) {
  drawLegend();
  startMarks(byId("energies"), choose, (index) => summary(conformers[index]));
  keepDrawn(byId("energies"), drawEnergies);
}
