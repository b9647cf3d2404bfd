// Relative energies by rank, and behind them how often each conformer is met at room temperature.

const ENERGIES = { width: 640, height: 400, left: 62, right: 578, top: 14, bottom: 340 };
const tip = el("div", { class: "tooltip", hidden: true });
const hasEnergy = (index) => isNumber(conformers[index].energy_kj_mol);

function summary(c) {
  const parts = [`#${c.rank ?? "–"}`];
  if (isNumber(c.energy_kj_mol)) parts.push(`ΔE ${fixed(c.energy_kj_mol, 2)} kJ/mol`);
  if (isNumber(c.boltzmann_weight)) parts.push(`weight ${share(c.boltzmann_weight)}`);
  if (isNumber(c.rmsd_A) && c.rank !== 1) parts.push(`${fixed(c.rmsd_A, 2)} Å from the lowest`);
  return parts.join(" · ");
}

const share = (weight) => (isNumber(weight) ? `${(100 * weight).toFixed(1)} %` : "–");

function drawEnergies() {
  const host = byId("energies");
  const shown = siblings().filter(hasEnergy);
  host.replaceChildren();
  const missing = siblings().length - shown.length;
  const parts = shown.length
    ? ["Points: relative energy, left. Bars: Boltzmann weight at 298.15 K, right; a conformer whose mirror image is another one counts twice. Click to choose."]
    : ["No energies: no model knows this molecule."];
  if (missing && shown.length) parts.push(`${count(missing)} without an energy are only in the table.`);
  byId("energies-note").textContent = parts.join(" ");
  if (!shown.length) return;
  const highest = Math.max(1, ...shown.map((i) => conformers[i].energy_kj_mol));
  const heaviest = Math.max(0.01, ...shown.map((i) => conformers[i].boltzmann_weight ?? 0));
  const x = scale(0.5, shown.length + 0.5, ENERGIES.left, ENERGIES.right);
  const y = scale(-0.04 * highest, 1.06 * highest, ENERGIES.bottom, ENERGIES.top);
  const z = scale(0, 106 * heaviest, ENERGIES.bottom, ENERGIES.top);
  host.append(svg("svg", { viewBox: `0 0 ${ENERGIES.width} ${ENERGIES.height}`, role: "img", "aria-label": "Relative energy and weight by rank" },
    verticalAxis(ENERGIES, y, 0, 1.06 * highest, "Relative energy / kJ mol⁻¹"),
    rankAxis(x, shown.length), weightAxis(z, 100 * heaviest),
    shown.map((index, k) => weightBar(index, x, z, k)),
    border(ENERGIES),
    shown.map((index, k) => svg("path", {
      class: "point", "data-index": index, d: markPath(0, shown.length > 60 ? 3.5 : 5.5), fill: "var(--c0)",
      transform: `translate(${x(k + 1).toFixed(1)} ${y(conformers[index].energy_kj_mol).toFixed(1)})`,
    })),
    svg("path", { id: "ring", class: "ring", d: markPath(0, 9), visibility: "hidden" })), tip);
  markPoint();
}

function rankAxis(x, n) {
  const { values } = ticks(1, Math.max(n, 2), Math.min(n, 8));
  const whole = [...new Set([1, ...values.filter((v) => Number.isInteger(v) && v <= n)])];
  const middle = (ENERGIES.left + ENERGIES.right) / 2;
  return svg("g", {},
    whole.map((v) => svg("text", { x: x(v), y: ENERGIES.bottom + 18, "text-anchor": "middle" }, fixed(v))),
    svg("text", { class: "axis-title", x: middle, y: ENERGIES.bottom + 42, "text-anchor": "middle" }, "Rank"));
}

function weightAxis(z, highest) {
  const { values, decimals } = ticks(0, highest, 4);
  const middle = (ENERGIES.top + ENERGIES.bottom) / 2;
  const turn = `rotate(90 ${ENERGIES.right + 52} ${middle})`;
  return svg("g", {},
    values.map((v) => svg("text", { x: ENERGIES.right + 8, y: z(v) + 4 }, fixed(v, decimals))),
    svg("text", { class: "right-title", x: ENERGIES.right + 52, y: middle, "text-anchor": "middle", transform: turn }, "Boltzmann weight / %"));
}

function weightBar(index, x, z, k) {
  const weight = conformers[index].boltzmann_weight;
  if (!isNumber(weight)) return null;
  const width = Math.min(34, 0.7 * (x(2) - x(1)));
  const top = z(100 * weight);
  return svg("rect", { class: "weight", "data-index": index, x: x(k + 1) - width / 2, width, y: top, height: Math.max(0, ENERGIES.bottom - top) });
}

function markPoint() {
  const ring = byId("ring");
  if (!ring) return;
  const point = byId("energies").querySelector(`.point[data-index="${chosen.index}"]`);
  ring.setAttribute("visibility", point ? "visible" : "hidden");
  if (point) ring.setAttribute("transform", point.getAttribute("transform"));
  byId("energies").querySelectorAll(".weight").forEach((bar) => bar.classList.toggle("chosen-bar", Number(bar.dataset.index) === chosen.index));
}

function showTip(mark) {
  const host = byId("energies");
  tip.textContent = summary(conformers[Number(mark.dataset.index)]);
  tip.hidden = false;
  const [box, at] = [host.getBoundingClientRect(), mark.getBoundingClientRect()];
  const left = at.left + at.width / 2 - box.left - tip.offsetWidth / 2;
  tip.style.left = `${Math.max(0, Math.min(left, box.width - tip.offsetWidth))}px`;
  tip.style.top = `${Math.max(0, at.top - box.top - tip.offsetHeight - 8)}px`;
}

function startEnergies(choose) {
  const host = byId("energies");
  host.addEventListener("click", (event) => {
    if (event.target.dataset.index !== undefined) choose(Number(event.target.dataset.index));
  });
  host.addEventListener("pointerover", (event) => {
    if (event.target.dataset.index !== undefined) showTip(event.target);
    else tip.hidden = true;
  });
  host.addEventListener("pointerleave", () => { tip.hidden = true; });
}
