// The three-dimensional view of 3Dmol.js: one drawing for a change, keys, paper, and a reason where there is no picture.

const view3d = { viewer: null, pending: 0, keep: true };
const HOST = byId("viewer");
const ZOOM = 1.65; // the viewer leaves wide margins

/** Do what is given and show it once. Left alone, the viewer paints after every single step. */
function inOneDrawing(act) {
  view3d.viewer.show = () => {}; // hides the method of the class
  try { act(); } finally { delete view3d.viewer.show; }
  view3d.viewer.render();
}

/** Draw the scene of now; `keepView` leaves the place of the eye. */
function drawView(keepView) {
  const kept = keepView && view3d.keep;
  clearTimeout(view3d.pending);
  view3d.keep = true;
  const reason = view3d.explain() || (view3d.viewer ? "" : "This browser offers no WebGL, which the three-dimensional view needs. Any viewer opens the files beside this page.");
  const message = byId("viewer-message");
  message.textContent = reason;
  message.hidden = !reason;
  HOST.querySelectorAll("canvas").forEach((canvas) => { canvas.style.visibility = reason ? "hidden" : "visible"; });
  if (reason) return;
  inOneDrawing(() => {
    view3d.viewer.clear();
    view3d.viewer.setBackgroundColor(color("--card"));
    view3d.draw();
    if (!kept) view3d.look();
  });
}

/** Draw when the page has answered: of many keys in a row only the last one makes a picture. */
function drawViewSoon(keepView) {
  clearTimeout(view3d.pending);
  view3d.keep &&= keepView;
  view3d.pending = setTimeout(() => drawView(true));
}

const hasPicture = () => view3d.viewer && byId("viewer-message").hidden;

function resetView() {
  if (hasPicture()) inOneDrawing(view3d.look);
}

function viewerKeys(event) {
  const turns = { ArrowLeft: [-8, "y"], ArrowRight: [8, "y"], ArrowUp: [-8, "x"], ArrowDown: [8, "x"] }[event.key];
  const zoom = { "+": 1.15, "=": 1.15, "-": 1 / 1.15 }[event.key];
  if (!hasPicture() || !(turns || zoom)) return;
  if (turns) view3d.viewer.rotate(...turns);
  else view3d.viewer.zoom(zoom);
  event.preventDefault();
}

/** A wheel scrolls the page until the picture is chosen; the viewer itself would take every turn of it. */
function holdWheel(event) {
  if (!event.ctrlKey && document.activeElement !== HOST) event.stopImmediatePropagation();
}

/** On paper an image stands in the place of the canvas, in the colours of paper. */
function repaintView() {
  if (!view3d.viewer) return;
  drawView(true);
  const image = byId("viewer-print");
  const printed = onPaper() && hasPicture();
  if (printed) image.src = view3d.viewer.pngURI();
  image.hidden = !printed;
  HOST.hidden = printed;
}

function offersWebGL() {
  const canvas = document.createElement("canvas");
  return Boolean(canvas.getContext("webgl2") || canvas.getContext("webgl"));
}

/** A button that turns a part of the picture on and off. */
function toggles(id, act) {
  byId(id).addEventListener("click", (event) => {
    event.currentTarget.setAttribute("aria-pressed", String(act()));
    drawView(true);
  });
}

/** `draw` adds the scene, `look` places the eye, `explain` says why there is no scene. */
function startViewer(steps) {
  Object.assign(view3d, steps);
  if (offersWebGL()) {
    view3d.viewer = $3Dmol.createViewer(HOST, { backgroundColor: color("--card"), antialias: true });
    view3d.viewer.setProjection("orthographic");
  }
  HOST.addEventListener("wheel", holdWheel, { capture: true });
  HOST.addEventListener("pointerdown", () => HOST.focus({ preventScroll: true }));
  HOST.addEventListener("keydown", viewerKeys);
  byId("reset").addEventListener("click", resetView);
  whenRepainted(repaintView);
}
