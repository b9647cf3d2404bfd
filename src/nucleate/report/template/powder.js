// The simulated powder pattern; the reference, where given, hangs below it.

const POWDER = { width: 640, height: 340, left: 24, right: 626, top: 14, bottom: 288 };
const readout = el("div", { class: "tooltip", hidden: true });
const angleOf = (point) => data.powder.start + point * data.powder.step;
const spacing = (angle) => data.powder.wavelength / (2 * Math.sin((angle * Math.PI) / 360));

function profilePath(pattern, x, y) {
  const steps = pattern.map((value, i) => `${x(angleOf(i)).toFixed(1)} ${y(value).toFixed(1)}`);
  return `M${steps.join("L")}`;
}

function drawPowder() {
  const host = byId("powder");
  const pattern = data.embedded[selected]?.pattern;
  const reference = data.reference?.pattern;
  host.replaceChildren();
  describePowder(pattern, reference);
  byId("download-pattern").disabled = !pattern;
  if (!pattern) return;
  const [low, high] = [angleOf(0), angleOf(pattern.length - 1)];
  const x = scale(low, high, POWDER.left, POWDER.right);
  const y = scale(reference ? -1060 : 0, 1060, POWDER.bottom, POWDER.top);
  const middle = y(0);
  const drawing = svg("svg", { viewBox: `0 0 ${POWDER.width} ${POWDER.height}`, role: "img", "aria-label": "Intensity against diffraction angle" },
    horizontalAxis(POWDER, x, low, high, "2θ / ° (Cu Kα₁)"),
    border(POWDER),
    svg("path", { class: "profile", d: profilePath(pattern, x, y) }),
    reference ? svg("path", { class: "profile reference", d: profilePath(reference.map((v) => -v), x, y) }) : null,
    reference ? svg("line", { class: "frame", x1: POWDER.left, x2: POWDER.right, y1: middle, y2: middle }) : null,
    reference ? svg("text", { class: "reference-label", x: POWDER.right - 8, y: POWDER.bottom - 10, "text-anchor": "end" }, "reference") : null,
    svg("line", { class: "cursor", y1: POWDER.top, y2: POWDER.bottom, visibility: "hidden" }));
  host.append(drawing, readout);
  drawing.addEventListener("pointermove", (event) => showReadout(drawing, event, low, high));
  drawing.addEventListener("pointerleave", () => { readout.hidden = true; });
}

function showReadout(drawing, event, low, high) {
  const at = pointerIn(drawing, event).x;
  const angle = scale(POWDER.left, POWDER.right, low, high)(at);
  const cursor = drawing.querySelector(".cursor");
  const inside = angle >= low && angle <= high;
  cursor.setAttribute("visibility", inside ? "visible" : "hidden");
  cursor.setAttribute("x1", at);
  cursor.setAttribute("x2", at);
  readout.hidden = !inside;
  readout.textContent = `2θ ${fixed(angle, 2)}° · d ${fixed(spacing(angle), 3)} Å`;
  const share = at / POWDER.width;
  readout.style.left = `${share * drawing.clientWidth - (share > 0.7 ? readout.offsetWidth + 10 : -10)}px`;
  readout.style.top = "6px";
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
  const pattern = data.embedded[selected]?.pattern ?? [];
  const lines = pattern.map((value, i) => `${angleOf(i).toFixed(3)} ${(value / 10).toFixed(1)}`);
  download(fileName(crystals[selected]).replace(/\.cif$/, ".xy"), `${lines.join("\n")}\n`, "text/plain");
}
