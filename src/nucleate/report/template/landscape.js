// Energy over density, one mark a crystal; colour and shape tell the space group.

const LANDSCAPE = { height: 470, left: 62, right: 14, top: 14, bottom: 52 };
const OTHER = 8;

/** The eight most frequent space groups get their own mark; the rest share one. */
function groupKinds() {
  const totals = new Map();
  for (const c of crystals) totals.set(c.symbol, (totals.get(c.symbol) ?? 0) + 1);
  const ordered = [...totals].sort((a, b) => b[1] - a[1] || a[0].localeCompare(b[0]));
  const kinds = new Map(ordered.map(([symbol], i) => [symbol, Math.min(i, OTHER)]));
  return { kinds, ordered };
}

const groups = groupKinds();
const isDrawn = (c) => isNumber(c.energy) && isNumber(c.density);
const markSize = crystals.length > 200 ? 4 : 5.2;

function landscapeLimits(visible) {
  const densities = visible.map((i) => crystals[i].density);
  if (isNumber(data.reference?.density)) densities.push(data.reference.density);
  return { x: padded(densities), y: padded(visible.map((i) => crystals[i].energy), 0.06) };
}

function drawLandscape() {
  const host = byId("landscape");
  const highest = Number(byId("window").value) || Infinity;
  const visible = crystals.map((_, i) => i).filter((i) => isDrawn(crystals[i]) && crystals[i].energy <= highest);
  host.replaceChildren();
  describeLandscape(visible.length);
  if (!visible.length) return;
  const limits = landscapeLimits(visible);
  const frame = frameOf(host, LANDSCAPE);
  const x = scale(...limits.x, frame.left, frame.right);
  const y = scale(...limits.y, frame.bottom, frame.top);
  const place = (i) => [x(crystals[i].density), y(crystals[i].energy)];
  const matches = visible.filter((i) => crystals[i].match === true);
  host.append(drawingIn(frame, "Relative energy against density",
    horizontalAxis(frame, x, ...limits.x, "Density / g cm⁻³"),
    verticalAxis(frame, y, ...limits.y, "Relative energy / kJ mol⁻¹ per molecule"),
    border(frame),
    referenceLine(frame, x),
    [...visible].reverse().map((i) => landscapePoint(i, place(i))), // the best lie on top
    matches.map((i, k) => referenceRing(frame, place(i), k === 0)),
    svg("path", { id: "ring", class: "ring", d: markPath(0, 10), visibility: "hidden" })), tip);
  moveRing(host, table.chosen);
}

function landscapePoint(index, [x, y]) {
  const mark = markOf(groups.kinds.get(crystals[index].symbol), markSize);
  return svg("path", { class: "point", "data-index": index, ...mark, transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})` });
}

/** A ring around a crystal that matches the reference; the best of them is named. */
function referenceRing(frame, [x, y], named) {
  const onRight = x < frame.right - 90;
  return svg("g", {},
    svg("path", { class: "ring reference", d: markPath(0, 14), transform: `translate(${x} ${y})` }),
    named ? svg("text", { class: "reference-label", x: x + (onRight ? 18 : -18), y: y + 4, "text-anchor": onRight ? "start" : "end" }, "reference") : null);
}

/** The density of the reference structure, useful where no crystal matched it. */
function referenceLine(frame, scaled) {
  if (!isNumber(data.reference?.density)) return null;
  const x = scaled(data.reference.density);
  return svg("line", { class: "reference-line", x1: x, x2: x, y1: frame.top, y2: frame.bottom });
}

function describeLandscape(shown) {
  const missing = crystals.filter((c) => !isDrawn(c)).length;
  const parts = [`${count(shown)} of ${count(crystals.length)} crystals drawn.`];
  if (missing) parts.push(`${count(missing)} without an energy or density are only in the table.`);
  if (isNumber(data.reference?.density)) parts.push(`Dashed line: density of the reference, ${fixed(data.reference.density, 3)} g/cm³.`);
  parts.push("Click a point to choose its crystal, or use the arrow keys.");
  byId("landscape-note").textContent = parts.join(" ");
}

function drawLegend() {
  const rows = groups.ordered.slice(0, OTHER).map(([symbol, n]) => [symbol, n]);
  const rest = groups.ordered.slice(OTHER).reduce((sum, [, n]) => sum + n, 0);
  if (rest) rows.push([`${groups.ordered.length - OTHER} other groups`, rest]);
  byId("legend").replaceChildren(...rows.map(([symbol, n], kind) =>
    el("li", {},
      svg("svg", { viewBox: "-8 -8 16 16", "aria-hidden": "true" }, svg("path", markOf(kind, 5.5))),
      `${symbol} `, el("span", { class: "muted" }, count(n)))));
}

const summary = (c) =>
  `#${c.rank ?? "–"} · ${c.symbol} · ΔE ${fixed(c.energy, 2)} kJ/mol · ${fixed(c.density, 3)} g/cm³ · Z = ${fixed(c.z)}, Z′ = ${zPrime(c.z_prime)}`;

/** Energy windows that would hide something, besides "all". */
function offerWindows() {
  const energies = crystals.filter(isDrawn).map((c) => c.energy);
  const offers = [2, 5, 10, 20, 50].filter((limit) => energies.some((e) => e > limit) && energies.some((e) => e <= limit));
  byId("window").replaceChildren(
    el("option", { value: "" }, "all energies"),
    ...offers.map((limit) => el("option", { value: limit }, `up to ${limit} kJ/mol`)));
}

function startLandscape() {
  const host = byId("landscape");
  offerWindows();
  drawLegend();
  byId("window").addEventListener("change", drawLandscape);
  startMarks(host, select, (index) => summary(crystals[index]) + (crystals[index].match === true ? " · reference" : ""));
  keepDrawn(host, drawLandscape);
}
