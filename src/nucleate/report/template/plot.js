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

function horizontalAxis(frame, x, low, high, title) {
  const { values, decimals } = ticks(low, high, 7);
  const marks = values.map((value) =>
    svg("g", {},
      svg("line", { class: "gridline", x1: x(value), x2: x(value), y1: frame.top, y2: frame.bottom }),
      svg("text", { x: x(value), y: frame.bottom + 18, "text-anchor": "middle" }, fixed(value, decimals))));
  const middle = (frame.left + frame.right) / 2;
  return svg("g", {}, marks,
    svg("text", { class: "axis-title", x: middle, y: frame.bottom + 40, "text-anchor": "middle" }, title));
}

function verticalAxis(frame, y, low, high, title) {
  const { values, decimals } = ticks(low, high, 6);
  const marks = values.map((value) =>
    svg("g", {},
      svg("line", { class: "gridline", x1: frame.left, x2: frame.right, y1: y(value), y2: y(value) }),
      svg("text", { x: frame.left - 8, y: y(value) + 4, "text-anchor": "end" }, fixed(value, decimals))));
  const middle = (frame.top + frame.bottom) / 2;
  const turn = `rotate(-90 ${frame.left - 46} ${middle})`;
  return svg("g", {}, marks,
    svg("text", { class: "axis-title", x: frame.left - 46, y: middle, "text-anchor": "middle", transform: turn }, title));
}

const border = (frame) =>
  svg("rect", { class: "frame", x: frame.left, y: frame.top, width: frame.right - frame.left, height: frame.bottom - frame.top });

const SHAPES = [[0, 0], [4, 45], [4, 0], [3, 0], [3, 180], [6, 0], [5, 0], [4, 22], [0, 0]];

/** Path of mark number `kind` around the origin: a circle or a regular polygon of about the same area. */
function markPath(kind, radius) {
  const [sides, turn] = SHAPES[kind];
  if (sides === 0) return `M${-radius} 0a${radius} ${radius} 0 1 0 ${2 * radius} 0a${radius} ${radius} 0 1 0 ${-2 * radius} 0Z`;
  const reach = radius * Math.sqrt((2 * Math.PI) / (sides * Math.sin((2 * Math.PI) / sides)));
  const corners = Array.from({ length: sides }, (_, i) => {
    const angle = ((turn - 90 + (360 * i) / sides) * Math.PI) / 180;
    return `${(reach * Math.cos(angle)).toFixed(2)} ${(reach * Math.sin(angle)).toFixed(2)}`;
  });
  return `M${corners.join("L")}Z`;
}

/** Where a pointer event lies in the coordinates of an SVG drawing. */
function pointerIn(drawing, event) {
  const point = new DOMPoint(event.clientX, event.clientY);
  return point.matrixTransform(drawing.getScreenCTM().inverse());
}
