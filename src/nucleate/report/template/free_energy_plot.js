// Lines over one x: a legend whose entries hide and show, a readout under the pointer or by arrow keys, values as CSV.

const ROOM = { height: 390, left: 70, right: 14, top: 12, bottom: 52 };

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

/** The line closed at the bottom, a gap as zero. */
function areaPath(xs, ys, x, y, bottom) {
  const line = linePath(xs, ys.map((value) => (isNumber(value) ? value : 0)), x, y);
  return `${line}L${x(xs.at(-1)).toFixed(1)} ${bottom}L${x(xs[0]).toFixed(1)} ${bottom}Z`;
}

const strokeOf = (curve) => ({ class: "curve", stroke: `var(${curve.tone})`, "stroke-dasharray": curve.dash, "stroke-width": curve.width });

/** A short piece of the line, as the legend shows it. */
function sample(curve) {
  return svg("svg", { viewBox: "0 0 34 14", "aria-hidden": "true" },
    curve.area ? svg("rect", { class: curve.band ? "band" : "area", x: 0, width: 34, y: 2, height: 12, fill: `var(${curve.tone})` }) : null,
    svg("line", { ...strokeOf(curve), x1: 0, x2: 34, y1: curve.area ? 3 : 7, y2: curve.area ? 3 : 7 }));
}

/** What lies beyond the limits is cut off at the frame. */
function clipped(frame, ...children) {
  const [width, height] = [frame.right - frame.left, frame.bottom - frame.top];
  const box = { x: frame.left, y: frame.top, width, height, viewBox: `${frame.left} ${frame.top} ${width} ${height}` };
  return svg("svg", box, ...children);
}

/** The card of a plot: heading, legend, drawing, note. */
function plotCard(id, heading, note, label) {
  const button = el("button", { id: `${id}-csv`, type: "button", "aria-label": `CSV: values of ${heading}` }, "CSV");
  byId("plots").append(el("section", { id: `${id}-section`, class: "card", "aria-labelledby": `${id}-heading` },
    el("div", { class: "bar" }, el("h2", { id: `${id}-heading` }, heading), el("div", { class: "buttons" }, button)),
    el("ul", { id: `${id}-legend`, class: "legend keys" }),
    el("div", { id, class: "plot", tabindex: 0, role: "application", "aria-label": `${label}. Left and right arrow keys read values.` }),
    el("p", { id: `${id}-note`, class: "muted small" }, note)));
}

/**
 * Add a plot with that id; returns a function that draws it again. It has `xs`; `curves` of
 * { label, tone, dash, width, area, ys } and, where files are to tell others, `told`; `titles` and `limits()` of x and y;
 * `show` with functions that print an x and a y; a `band` of { value, error, label, tone } and the x of a line, `zero`.
 */
function linePlot(id, heading, note, plot) {
  const label = `${plot.titles.y} against ${plot.titles.x}`;
  plotCard(id, heading, note, label);
  const host = byId(id);
  const hidden = new Set();
  const readout = el("div", { class: "tooltip", role: "status", hidden: true });
  const state = { x: null, at: null, width: 1 };

  function draw() {
    const limits = plot.limits();
    const frame = frameOf(host, ROOM);
    const x = scale(...limits.x, frame.left, frame.right);
    const y = scale(...limits.y, frame.bottom, frame.top);
    const shown = plot.curves.filter((curve) => !hidden.has(curve));
    Object.assign(state, { x, width: frame.width });
    host.replaceChildren(drawingIn(frame, label,
      horizontalAxis(frame, x, ...limits.x, plot.titles.x),
      verticalAxis(frame, y, ...limits.y, plot.titles.y),
      clipped(frame,
        plot.band ? bandShapes(frame, y) : null,
        isNumber(plot.zero) ? svg("line", { class: "zero", x1: x(plot.zero), x2: x(plot.zero), y1: frame.top, y2: frame.bottom }) : null,
        shown.filter((curve) => curve.area).map((curve) => svg("path", { class: "area", fill: `var(${curve.tone})`, d: areaPath(plot.xs, curve.ys, x, y, frame.bottom) })),
        [...shown].reverse().map((curve) => svg("path", { ...strokeOf(curve), d: linePath(plot.xs, curve.ys, x, y) })),
        svg("line", { class: "cursor", y1: frame.top, y2: frame.bottom, visibility: "hidden" })),
      border(frame)), readout);
    read(null);
  }

  function bandShapes(frame, y) {
    const { value, error, tone } = plot.band;
    const [top, bottom] = [y(value + error), y(value - error)];
    return [
      svg("rect", { class: "band", x: frame.left, width: frame.right - frame.left, y: top, height: Math.max(1, bottom - top), fill: `var(${tone})` }),
      svg("line", { x1: frame.left, x2: frame.right, y1: y(value), y2: y(value), stroke: `var(${tone})`, "stroke-width": 1 }),
    ];
  }

  /** The values at point number `at`, or none. */
  function read(at) {
    state.at = at;
    const cursor = host.querySelector(".cursor");
    readout.hidden = at === null;
    cursor.setAttribute("visibility", at === null ? "hidden" : "visible");
    if (at === null) return;
    const here = state.x(plot.xs[at]);
    cursor.setAttribute("x1", here);
    cursor.setAttribute("x2", here);
    const rows = plot.curves.filter((curve) => !hidden.has(curve)).map((curve) => `${curve.label}: ${plot.show.y(curve.ys[at])}`);
    readout.textContent = [plot.show.x(plot.xs[at]), ...rows].join("\n");
    const share = here / state.width;
    const left = share * host.clientWidth + (share > 0.5 ? -readout.offsetWidth - 10 : 10);
    readout.style.left = `${Math.max(0, Math.min(left, host.clientWidth - readout.offsetWidth))}px`;
    readout.style.top = "8px";
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
  byId(`${id}-csv`).addEventListener("click", () => download(`${plot.file}.csv`, csvOf(plot), "text/csv"));
  keepDrawn(host, draw);
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

const csvOf = (plot) =>
  csvText([plot.titles.x, ...plot.curves.map((curve) => curve.label)], plot.xs.map((x, i) => [x, ...plot.curves.map((curve) => (curve.told ?? curve.ys)[i])]));
