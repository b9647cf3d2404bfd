// Axes and marks shared by the plots.

/** Round tick values that cover [low, high]; about `wanted` of them. */
function ticks(low, high, wanted = 6) {
  const rough = (high - low) / wanted || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((m) => m * power >= rough * 0.999);
  const first = Math.ceil(low / step - 1e-9);
  const values = [];
  for (let i = first; i * step <= high + 1e-9 * step; i++) values.push(i * step);
  return { values, decimals: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

const scale = (low, high, from, to) => (value) => from + ((value - low) / (high - low || 1)) * (to - from);

/** Limits with a margin; a single value gets room around it. */
function padded(values, share = 0.05) {
  const low = values.reduce((a, b) => Math.min(a, b));
  const high = values.reduce((a, b) => Math.max(a, b));
  const margin = (high - low) * share || Math.abs(high) * share || 1;
  return [low - margin, high + margin];
}

/**
 * The drawing area of a plot in pixels, so that text has the same size on every screen; on paper plots have one width.
 * `around` gives the room for axes on each side and the height that is wanted.
 */
function frameOf(host, around) {
  const width = onPaper() ? 460 : Math.max(260, Math.floor(host.clientWidth));
  const height = Math.min(around.height, onPaper() ? 320 : Math.max(330, 0.8 * width));
  return { width, height, left: around.left, right: width - around.right, top: around.top, bottom: height - around.bottom };
}

/** Draw into a host, and again where its width or the light changes. */
function keepDrawn(host, draw) {
  let width = host.clientWidth;
  new ResizeObserver(() => {
    if (host.clientWidth === width || onPaper()) return;
    width = host.clientWidth;
    draw();
  }).observe(host);
  whenRepainted(draw);
  draw();
}

const drawingIn = (frame, label, ...children) =>
  svg("svg", { viewBox: `0 0 ${frame.width} ${frame.height}`, role: "img", "aria-label": label }, ...children);

/** Text along the left or the right edge of a plot. */
function sideTitle(frame, text, x = 14, turn = -90) {
  const middle = (frame.top + frame.bottom) / 2;
  return svg("text", { class: "axis-title", x, y: middle, "text-anchor": "middle", transform: `rotate(${turn} ${x} ${middle})` }, text);
}

const bottomTitle = (frame, text) =>
  svg("text", { class: "axis-title", x: (frame.left + frame.right) / 2, y: frame.bottom + 40, "text-anchor": "middle" }, text);

function horizontalAxis(frame, x, low, high, title) {
  const { values, decimals } = ticks(low, high, Math.max(3, Math.min(7, (frame.right - frame.left) / 75)));
  const marks = values.map((value) =>
    svg("g", {},
      svg("line", { class: "gridline", x1: x(value), x2: x(value), y1: frame.top, y2: frame.bottom }),
      svg("text", { x: x(value), y: frame.bottom + 18, "text-anchor": "middle" }, fixed(value, decimals))));
  return svg("g", {}, marks, bottomTitle(frame, title));
}

function verticalAxis(frame, y, low, high, title) {
  const { values, decimals } = ticks(low, high, 6);
  const marks = values.map((value) =>
    svg("g", {},
      svg("line", { class: "gridline", x1: frame.left, x2: frame.right, y1: y(value), y2: y(value) }),
      svg("text", { x: frame.left - 8, y: y(value) + 4, "text-anchor": "end" }, fixed(value, decimals))));
  return svg("g", {}, marks, sideTitle(frame, title));
}

const border = (frame) =>
  svg("rect", { class: "frame", x: frame.left, y: frame.top, width: frame.right - frame.left, height: frame.bottom - frame.top });

// Corners, turn in degrees, and for stars how far in the inner corners lie: marks that differ without their colours.
const SHAPES = [[0], [4, 45], [3, 0], [4, 0, 0.4], [3, 180], [4, 0], [4, 45, 0.4], [5, 0, 0.4], [0]];
const HOLLOW = 8; // the last is an empty circle

/** Path of mark number `kind` around the origin, all of about the same area: a circle, a polygon or a star. */
function markPath(kind, radius) {
  const [points, turn, inner] = SHAPES[kind];
  if (points === 0) return `M${-radius} 0a${radius} ${radius} 0 1 0 ${2 * radius} 0a${radius} ${radius} 0 1 0 ${-2 * radius} 0Z`;
  const n = inner ? 2 * points : points;
  const area = (n / 2) * (inner ?? 1) * Math.sin((2 * Math.PI) / n); // of a polygon or star that reaches out to 1
  const reach = radius * Math.sqrt(Math.PI / area);
  const corners = Array.from({ length: n }, (_, i) => {
    const angle = ((turn - 90 + (360 * i) / n) * Math.PI) / 180;
    const far = reach * (inner && i % 2 ? inner : 1);
    return `${(far * Math.cos(angle)).toFixed(2)} ${(far * Math.sin(angle)).toFixed(2)}`;
  });
  return `M${corners.join("L")}Z`;
}

/** Attributes of a mark: filled, or an empty outline for the last kind. */
function markOf(kind, radius) {
  const tone = `var(--c${kind})`;
  const hollow = kind === HOLLOW;
  return { d: markPath(kind, hollow ? radius - 0.7 : radius), fill: hollow ? "var(--card)" : tone, style: hollow ? `stroke:${tone};stroke-width:1.8` : null };
}

// The values of the mark under the pointer, or of the chosen one after an arrow key; Escape takes them away.
const tip = el("div", { class: "tooltip", role: "status", hidden: true });

function placeTip(host, mark, text) {
  tip.textContent = text;
  tip.hidden = false;
  const [box, at] = [host.getBoundingClientRect(), mark.getBoundingClientRect()];
  const left = at.left + at.width / 2 - box.left - tip.offsetWidth / 2;
  const above = at.top - box.top - tip.offsetHeight - 8;
  tip.style.left = `${Math.max(0, Math.min(left, box.width - tip.offsetWidth))}px`;
  tip.style.top = `${above < 0 ? at.bottom - box.top + 8 : above}px`;
}

/** Marks with a `data-index` choose by a click and tell about themselves under the pointer. */
function startMarks(host, choose, words) {
  const indexOf = (event) => (event.target.dataset.index === undefined ? null : Number(event.target.dataset.index));
  host.addEventListener("click", (event) => {
    if (indexOf(event) !== null) choose(indexOf(event));
  });
  host.addEventListener("pointerover", (event) => {
    if (indexOf(event) === null) tip.hidden = true;
    else placeTip(host, event.target, words(indexOf(event)));
  });
  const hide = () => { tip.hidden = true; };
  host.addEventListener("pointerleave", hide);
  host.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
}

/** A ring around the mark of that index, where it is drawn. */
function moveRing(host, index) {
  const ring = byId("ring");
  if (!ring) return;
  const mark = host.querySelector(`.point[data-index="${index}"]`);
  ring.setAttribute("visibility", mark ? "visible" : "hidden");
  if (mark) ring.setAttribute("transform", mark.getAttribute("transform"));
}

/** Where a pointer event lies in the coordinates of an SVG drawing. */
function pointerIn(drawing, event) {
  const point = new DOMPoint(event.clientX, event.clientY);
  return point.matrixTransform(drawing.getScreenCTM().inverse());
}
