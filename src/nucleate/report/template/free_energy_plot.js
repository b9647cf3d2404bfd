// Lines over one x: a legend whose entries hide and show, a readout under the pointer or by arrow keys, values as CSV.

const FRAME = { width: 560, height: 380, left: 76, right: 546, top: 12, bottom: 324 };

/** Sub-paths over the points that have a value; nothing is drawn across a gap. */
function linePath(xs, ys, x, y) {
  let pen = "M";
  return xs.map((value, i) => {
    if (!isNumber(ys[i])) { pen = "M"; return ""; }
    const step = `${pen}${x(value).toFixed(1)} ${y(ys[i]).toFixed(1)}`;
    pen = "L";
    return step;
  }).join("");
}

/** The line closed at the bottom of the frame, a gap as zero. */
function areaPath(xs, ys, x, y) {
  const line = linePath(xs, ys.map((value) => (isNumber(value) ? value : 0)), x, y);
  return `${line}L${x(xs.at(-1)).toFixed(1)} ${FRAME.bottom}L${x(xs[0]).toFixed(1)} ${FRAME.bottom}Z`;
}

const strokeOf = (curve) => ({ class: "curve", stroke: `var(${curve.tone})`, "stroke-dasharray": curve.dash, "stroke-width": curve.width });

/** A short piece of the line, as the legend shows it. */
function sample(curve) {
  return svg("svg", { viewBox: "0 0 34 14", "aria-hidden": "true" },
    curve.area ? svg("rect", { class: curve.band ? "band" : "area", x: 0, width: 34, y: 2, height: 12, fill: `var(${curve.tone})` }) : null,
    svg("line", { ...strokeOf(curve), x1: 0, x2: 34, y1: curve.area ? 3 : 7, y2: curve.area ? 3 : 7 }));
}

/** Axes with the vertical title clear of long numbers. */
function axes(x, y, limits, titles) {
  const middle = (FRAME.top + FRAME.bottom) / 2;
  return [
    horizontalAxis(FRAME, x, ...limits.x, titles.x),
    verticalAxis(FRAME, y, ...limits.y, ""),
    svg("text", { class: "axis-title", x: 16, y: middle, "text-anchor": "middle", transform: `rotate(-90 16 ${middle})` }, titles.y),
  ];
}

/** What lies beyond the limits is cut off at the frame. */
function clipped(...children) {
  const [width, height] = [FRAME.right - FRAME.left, FRAME.bottom - FRAME.top];
  const box = { x: FRAME.left, y: FRAME.top, width, height, viewBox: `${FRAME.left} ${FRAME.top} ${width} ${height}` };
  return svg("svg", box, ...children);
}

/**
 * Draw a plot into the element of that id; returns a function that draws it again. It has `xs`; `curves` of
 * { label, tone, dash, width, area, ys } and, where files are to tell others, `told`; `titles` and `limits()` of x and y;
 * `show` with functions that print an x and a y; a `band` of { value, error, label, tone } and the x of a line, `zero`.
 */
function linePlot(id, plot) {
  const host = byId(id);
  const hidden = new Set();
  const tip = el("div", { class: "tooltip", role: "status", hidden: true });
  const state = { x: null, at: null };

  function draw() {
    const limits = plot.limits();
    const x = scale(...limits.x, FRAME.left, FRAME.right);
    const y = scale(...limits.y, FRAME.bottom, FRAME.top);
    const shown = plot.curves.filter((curve) => !hidden.has(curve));
    state.x = x;
    const drawing = svg("svg", { viewBox: `0 0 ${FRAME.width} ${FRAME.height}`, role: "img", "aria-label": `${plot.titles.y} against ${plot.titles.x}` },
      axes(x, y, limits, plot.titles),
      clipped(
        plot.band ? bandShapes(y) : null,
        isNumber(plot.zero) ? svg("line", { class: "zero", x1: x(plot.zero), x2: x(plot.zero), y1: FRAME.top, y2: FRAME.bottom }) : null,
        shown.filter((curve) => curve.area).map((curve) => svg("path", { class: "area", fill: `var(${curve.tone})`, d: areaPath(plot.xs, curve.ys, x, y) })),
        [...shown].reverse().map((curve) => svg("path", { ...strokeOf(curve), d: linePath(plot.xs, curve.ys, x, y) })),
        svg("line", { class: "cursor", y1: FRAME.top, y2: FRAME.bottom, visibility: "hidden" })),
      border(FRAME));
    host.replaceChildren(drawing, tip);
    read(null);
  }

  function bandShapes(y) {
    const { value, error, tone } = plot.band;
    const [top, bottom] = [y(value + error), y(value - error)];
    return [
      svg("rect", { class: "band", x: FRAME.left, width: FRAME.right - FRAME.left, y: top, height: Math.max(1, bottom - top), fill: `var(${tone})` }),
      svg("line", { x1: FRAME.left, x2: FRAME.right, y1: y(value), y2: y(value), stroke: `var(${tone})`, "stroke-width": 1 }),
    ];
  }

  /** The values at point number `at`, or none. */
  function read(at) {
    state.at = at;
    const cursor = host.querySelector(".cursor");
    tip.hidden = at === null;
    cursor.setAttribute("visibility", at === null ? "hidden" : "visible");
    if (at === null) return;
    const here = state.x(plot.xs[at]);
    cursor.setAttribute("x1", here);
    cursor.setAttribute("x2", here);
    const rows = plot.curves.filter((curve) => !hidden.has(curve)).map((curve) => `${curve.label}: ${plot.show.y(curve.ys[at])}`);
    tip.textContent = [plot.show.x(plot.xs[at]), ...rows].join("\n");
    const share = here / FRAME.width;
    const left = share * host.clientWidth + (share > 0.5 ? -tip.offsetWidth - 10 : 10);
    tip.style.left = `${Math.max(0, Math.min(left, host.clientWidth - tip.offsetWidth))}px`;
    tip.style.top = "8px";
  }

  function nearest(event) {
    const at = pointerIn(host.firstElementChild, event).x;
    const gaps = plot.xs.map((value) => Math.abs(state.x(value) - at));
    return gaps.indexOf(Math.min(...gaps));
  }

  function keys(event) {
    const last = plot.xs.length - 1;
    const now = state.at;
    const next = { ArrowRight: now === null ? 0 : now + 1, ArrowLeft: now === null ? last : now - 1, Home: 0, End: last }[event.key];
    if (event.key === "Escape") read(null);
    if (next === undefined) return;
    read(Math.max(0, Math.min(last, next)));
    event.preventDefault();
  }

  host.addEventListener("pointermove", (event) => read(nearest(event)));
  host.addEventListener("pointerleave", () => read(null));
  host.addEventListener("blur", () => read(null));
  host.addEventListener("keydown", keys);
  byId(`${id}-legend`).replaceChildren(...plot.curves.map((curve) => legendKey(curve, hidden, draw)), ...bandKey(plot.band));
  byId(`${id}-csv`).addEventListener("click", () => download(`${plot.file}.csv`, csv(plot), "text/csv"));
  byId(`${id}-section`).hidden = false;
  draw();
  return draw;
}

function legendKey(curve, hidden, draw) {
  const button = el("button", { type: "button", "aria-pressed": "true", title: "Hide or show" }, sample(curve), curve.label);
  button.addEventListener("click", () => {
    const gone = !hidden.has(curve);
    if (gone) hidden.add(curve); else hidden.delete(curve);
    button.setAttribute("aria-pressed", String(!gone));
    draw();
  });
  return el("li", {}, button);
}

const bandKey = (band) =>
  band ? [el("li", {}, el("span", { class: "key" }, sample({ ...band, area: true, band: true, width: 1 }), band.label))] : [];

const quoted = (text) => `"${String(text).replaceAll('"', '""')}"`;

function csv(plot) {
  const rows = plot.xs.map((x, i) => [x, ...plot.curves.map((curve) => (curve.told ?? curve.ys)[i] ?? "")].join(","));
  return `${[plot.titles.x, ...plot.curves.map((curve) => curve.label)].map(quoted).join(",")}\n${rows.join("\n")}\n`;
}
