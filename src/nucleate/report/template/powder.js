// The simulated powder pattern; the reference, where given, hangs below it.

const POWDER = { height: 360, left: 32, right: 14, top: 14, bottom: 52 };
const readout = el("div", { class: "tooltip", role: "status", hidden: true });
let aim = null; // the angle under the pointer or the keys, and how to show it
const angleOf = (point) => data.powder.start + point * data.powder.step;
const spacing = (angle) => data.powder.wavelength / (2 * Math.sin((angle * Math.PI) / 360));

function profilePath(pattern, x, y) {
  const steps = pattern.map((value, i) => `${x(angleOf(i)).toFixed(1)} ${y(value).toFixed(1)}`);
  return `M${steps.join("L")}`;
}

function drawPowder() {
  const host = byId("powder");
  const pattern = inside(table.chosen)?.pattern;
  const reference = data.reference?.pattern;
  host.replaceChildren();
  aim = null;
  describePowder(pattern, reference);
  byId("download-pattern").disabled = !pattern;
  if (!pattern) return;
  const [low, high] = [angleOf(0), angleOf(pattern.length - 1)];
  const frame = frameOf(host, POWDER);
  const x = scale(low, high, frame.left, frame.right);
  const y = scale(reference ? -1060 : 0, 1060, frame.bottom, frame.top);
  const cursor = svg("line", { class: "cursor", y1: frame.top, y2: frame.bottom, visibility: "hidden" });
  const drawing = drawingIn(frame, "Intensity against diffraction angle",
    horizontalAxis(frame, x, low, high, "2θ / ° (Cu Kα₁)"),
    sideTitle(frame, "Intensity"),
    border(frame),
    svg("path", { class: "profile", d: profilePath(pattern, x, y) }),
    reference ? svg("path", { class: "profile reference", d: profilePath(reference.map((v) => -v), x, y) }) : null,
    reference ? svg("line", { class: "frame", x1: frame.left, x2: frame.right, y1: y(0), y2: y(0) }) : null,
    reference ? svg("text", { class: "reference-label", x: frame.right - 8, y: frame.bottom - 10, "text-anchor": "end" }, "reference") : null,
    cursor);
  host.append(drawing, readout);
  const share = scale(low, high, frame.left / frame.width, frame.right / frame.width);
  aim = { low, high, angle: null, share, x, cursor, drawing, at: scale(frame.left, frame.right, low, high) };
  readAngle(null);
}

/** Show an angle and its spacing; none outside the pattern. */
function readAngle(angle) {
  const outside = angle === null || angle < aim.low || angle > aim.high;
  aim.angle = outside ? null : angle;
  readout.hidden = outside;
  aim.cursor.setAttribute("visibility", outside ? "hidden" : "visible");
  if (outside) return;
  aim.cursor.setAttribute("x1", aim.x(angle));
  aim.cursor.setAttribute("x2", aim.x(angle));
  readout.textContent = `2θ ${fixed(angle, 2)}° · d ${fixed(spacing(angle), 3)} Å`;
  const share = aim.share(angle);
  readout.style.left = `${share * aim.drawing.clientWidth - (share > 0.6 ? readout.offsetWidth + 10 : -10)}px`;
  readout.style.top = "6px";
}

function powderKeys(event) {
  const step = { ArrowRight: 0.1, ArrowLeft: -0.1 }[event.key] * (event.shiftKey ? 10 : 1);
  if (!aim) return;
  if (event.key === "Escape") readAngle(null);
  if (!step) return;
  const from = aim.angle ?? (step > 0 ? aim.low - step : aim.high - step);
  readAngle(Math.max(aim.low, Math.min(aim.high, from + step)));
  event.preventDefault();
}

function startPowder() {
  const host = byId("powder");
  host.addEventListener("pointermove", (event) => { if (aim) readAngle(aim.at(pointerIn(aim.drawing, event).x)); });
  for (const name of ["pointerleave", "blur"]) host.addEventListener(name, () => { if (aim) readAngle(null); });
  host.addEventListener("keydown", powderKeys);
  byId("download-pattern").addEventListener("click", downloadPattern);
  keepDrawn(host, drawPowder);
}

function describePowder(pattern, reference) {
  const notes = [];
  if (!pattern) notes.push("No pattern: the structure of this crystal is not inside the page.");
  else notes.push("Calculated from the structure at its computed cell; a measured crystal is expanded by heat, so its peaks may be shifted.");
  if (pattern && reference) notes.push("The reference is drawn downwards.");
  if (data.reference?.problem) notes.push(`The reference could not be read: ${data.reference.problem}`);
  byId("powder-note").textContent = notes.join(" ");
}

function downloadPattern() {
  const pattern = inside(table.chosen)?.pattern ?? [];
  const lines = pattern.map((value, i) => `${angleOf(i).toFixed(3)} ${(value / 10).toFixed(1)}`);
  download(baseName(crystals[table.chosen].file).replace(/\.cif$/, ".xy"), `${lines.join("\n")}\n`, "text/plain");
}
