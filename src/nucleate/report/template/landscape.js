// Energy over density, one mark a crystal; colour and shape tell the space group.

const LANDSCAPE = { width: 640, height: 470, left: 66, right: 626, top: 14, bottom: 418 };
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
const kindOf = (crystal) => groups.kinds.get(crystal.symbol);
const drawable = (c) => isNumber(c.energy) && isNumber(c.density);
const tip = el("div", { class: "tooltip", role: "status", hidden: true });
const markSize = crystals.length > 200 ? 4 : 5.2;
let place = null; // the scales of the drawn landscape

function landscapeLimits(visible) {
  const densities = visible.map((c) => c.density);
  if (isNumber(data.reference?.density)) densities.push(data.reference.density);
  const energies = visible.map((c) => c.energy);
  return { x: padded(densities), y: padded(energies, 0.06) };
}

function drawLandscape() {
  const host = byId("landscape");
  const highest = Number(byId("window").value) || Infinity;
  const visible = crystals.filter((c) => drawable(c) && c.energy <= highest);
  host.replaceChildren();
  describeLandscape(visible.length);
  if (!visible.length) return;
  const limits = landscapeLimits(visible);
  place = {
    x: scale(...limits.x, LANDSCAPE.left, LANDSCAPE.right),
    y: scale(...limits.y, LANDSCAPE.bottom, LANDSCAPE.top),
    visible: new Set(visible),
  };
  const drawing = svg("svg", { viewBox: `0 0 ${LANDSCAPE.width} ${LANDSCAPE.height}`, role: "img", "aria-label": "Relative energy against density" },
    horizontalAxis(LANDSCAPE, place.x, ...limits.x, "Density / g cm⁻³"),
    verticalAxis(LANDSCAPE, place.y, ...limits.y, "Relative energy / kJ mol⁻¹ per molecule"),
    border(LANDSCAPE),
    referenceLine(),
    [...visible].reverse().map(landscapePoint), // the best lie on top
    visible.filter((c) => c.match === true).map(referenceRing),
    svg("path", { id: "ring", class: "ring", d: markPath(0, 10), visibility: "hidden" }));
  host.append(drawing, tip);
  moveRing();
}

function landscapePoint(crystal) {
  const kind = kindOf(crystal);
  return svg("path", {
    class: "point", "data-index": crystals.indexOf(crystal), d: markPath(kind, markSize), fill: `var(--c${kind})`,
    transform: `translate(${place.x(crystal.density).toFixed(1)} ${place.y(crystal.energy).toFixed(1)})`,
  });
}

function referenceRing(crystal) {
  const [x, y] = [place.x(crystal.density), place.y(crystal.energy)];
  const onRight = x < LANDSCAPE.right - 110;
  return svg("g", {},
    svg("path", { class: "ring reference", d: markPath(0, 14), transform: `translate(${x} ${y})` }),
    svg("text", { class: "reference-label", x: x + (onRight ? 18 : -18), y: y + 4, "text-anchor": onRight ? "start" : "end" }, "reference"));
}

/** The density of the reference structure, useful where no crystal matched it. */
function referenceLine() {
  const density = data.reference?.density;
  if (!isNumber(density)) return null;
  const x = place.x(density);
  return svg("line", { class: "reference-line", x1: x, x2: x, y1: LANDSCAPE.top, y2: LANDSCAPE.bottom });
}

function describeLandscape(shown) {
  const missing = crystals.filter((c) => !drawable(c)).length;
  const parts = [`${count(shown)} of ${count(crystals.length)} crystals drawn.`];
  if (missing) parts.push(`${count(missing)} without an energy or density are only in the table.`);
  if (isNumber(data.reference?.density)) parts.push(`Dashed line: density of the reference, ${fixed(data.reference.density, 3)} g/cm³.`);
  parts.push("Click a point to choose its crystal.");
  byId("landscape-note").textContent = parts.join(" ");
}

function drawLegend() {
  const rows = groups.ordered.slice(0, OTHER).map(([symbol, n]) => [symbol, n]);
  const rest = groups.ordered.slice(OTHER).reduce((sum, [, n]) => sum + n, 0);
  if (rest) rows.push([`${groups.ordered.length - OTHER} other groups`, rest]);
  byId("legend").replaceChildren(...rows.map(([symbol, n], kind) =>
    el("li", {},
      svg("svg", { viewBox: "-8 -8 16 16", "aria-hidden": "true" }, svg("path", { d: markPath(kind, 5.5), fill: `var(--c${kind})` })),
      `${symbol} `, el("span", { class: "muted" }, count(n)))));
}

const summary = (c) =>
  `#${c.rank ?? "–"} · ${c.symbol} · ΔE ${fixed(c.energy, 2)} kJ/mol · ${fixed(c.density, 3)} g/cm³ · Z = ${fixed(c.z)}, Z′ = ${zPrime(c.z_prime)}`;

function showTip(point) {
  const host = byId("landscape");
  const crystal = crystals[Number(point.dataset.index)];
  tip.textContent = summary(crystal) + (crystal.match === true ? " · reference" : "");
  tip.hidden = false;
  const [box, mark] = [host.getBoundingClientRect(), point.getBoundingClientRect()];
  const left = mark.left + mark.width / 2 - box.left - tip.offsetWidth / 2;
  tip.style.left = `${Math.max(0, Math.min(left, box.width - tip.offsetWidth))}px`;
  tip.style.top = `${Math.max(0, mark.top - box.top - tip.offsetHeight - 8)}px`;
}

function moveRing() {
  const ring = byId("ring");
  const crystal = crystals[selected];
  if (!ring) return;
  const here = crystal && place.visible.has(crystal);
  ring.setAttribute("visibility", here ? "visible" : "hidden");
  if (here) ring.setAttribute("transform", `translate(${place.x(crystal.density)} ${place.y(crystal.energy)})`);
}

/** Energy windows that would hide something, besides "all". */
function offerWindows() {
  const energies = crystals.filter(drawable).map((c) => c.energy);
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
  host.addEventListener("click", (event) => {
    if (event.target.dataset.index !== undefined) select(Number(event.target.dataset.index));
  });
  host.addEventListener("pointerover", (event) => {
    if (event.target.classList.contains("point")) showTip(event.target);
    else tip.hidden = true;
  });
  host.addEventListener("pointerleave", () => { tip.hidden = true; });
  host.addEventListener("keydown", arrowKeys);
  drawLandscape();
}
