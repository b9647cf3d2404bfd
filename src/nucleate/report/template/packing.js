// The packing: whole molecules with the bonds that the file gives, the cell, hydrogen bonds.

const AXES = ["a", "b", "c"];
const shown = { cells: 1, hydrogenBonds: true, hydrogens: true };
const vector = (x, y, z) => ({ x, y, z });
const cross = (p, q) => [p[1] * q[2] - p[2] * q[1], p[2] * q[0] - p[0] * q[2], p[0] * q[1] - p[1] * q[0]];
const dot = (p, q) => p[0] * q[0] + p[1] * q[1] + p[2] * q[2];
const unit = (p) => p.map((x) => x / Math.hypot(...p));

const latticeRow = (scene, i) => scene.lattice.slice(3 * i, 3 * i + 3);

/** Cartesian shift (Å) of a fractional vector. */
function cartesian(scene, [u, v, w]) {
  return [0, 1, 2].map((i) => u * scene.lattice[i] + v * scene.lattice[3 + i] + w * scene.lattice[6 + i]);
}

function cellShifts(n) {
  const shifts = [];
  for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) for (let k = 0; k < n; k++) shifts.push([i, j, k]);
  return shifts;
}

const atomPosition = (scene, atom, shift = [0, 0, 0]) =>
  cartesian(scene, shift).map((x, i) => x + scene.positions[3 * atom + i]);

function bondPartners(scene) {
  const partners = scene.elements.map(() => []);
  for (let i = 0; i < scene.bonds.length; i += 2) {
    partners[scene.bonds[i]].push(scene.bonds[i + 1]);
    partners[scene.bonds[i + 1]].push(scene.bonds[i]);
  }
  return partners;
}

/** Atoms in the viewer's form for all shown cells; bonds never leave a molecule, so they repeat with it. */
function viewerAtoms(scene, shifts) {
  const partners = bondPartners(scene);
  const keep = scene.elements.map((e) => shown.hydrogens || e !== "H");
  const position = new Map(scene.elements.map((_, i) => i).filter((i) => keep[i]).map((atom, place) => [atom, place]));
  return shifts.flatMap((shift, copy) =>
    [...position.keys()].map((atom) => {
      const [x, y, z] = atomPosition(scene, atom, shift);
      const bonds = partners[atom].filter((b) => keep[b]).map((b) => copy * position.size + position.get(b));
      return { elem: scene.elements[atom], x, y, z, bonds, bondOrder: bonds.map(() => 1), serial: atom };
    }));
}

/** What is drawn in one colour is one shape, as each of them has large buffers of its own. */
const shapeOf = (tone) => view3d.viewer.addShape({ color: color(tone) });

function drawCells(scene, shifts) {
  const lines = Object.fromEntries(["--muted", "--axis-a", "--axis-b", "--axis-c"].map((tone) => [tone, shapeOf(tone)]));
  const edges = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]];
  for (const shift of shifts) {
    for (const corner of edges) {
      for (const axis of [0, 1, 2].filter((i) => corner[i] === 0)) {
        const start = corner.map((x, i) => x + shift[i]);
        const end = start.map((x, i) => x + (i === axis ? 1 : 0));
        const origin = start.every((x) => x === 0);
        lines[origin ? `--axis-${AXES[axis]}` : "--muted"].addCylinder({
          start: vector(...cartesian(scene, start)), end: vector(...cartesian(scene, end)), radius: origin ? 0.06 : 0.03,
        });
      }
    }
  }
}

function drawAxisLabels(scene) {
  AXES.forEach((name, i) => {
    const tip = latticeRow(scene, i).map((x) => x * 1.06);
    view3d.viewer.addLabel(name, {
      position: vector(...tip), fontColor: color(`--axis-${name}`), fontSize: 16, showBackground: false, alignment: "center",
    });
  });
}

/** Dashed lines to acceptors, from donors where hydrogens are hidden; those that leave the cells end in space. */
function drawHydrogenBonds(scene, shifts) {
  const partners = bondPartners(scene);
  const lines = shapeOf("--c0");
  for (let i = 0; i < scene.hydrogen_bonds.length; i += 5) {
    const [hydrogen, acceptor, ...step] = scene.hydrogen_bonds.slice(i, i + 5);
    for (const shift of shifts) {
      lines.addDashedCylinder({
        start: vector(...atomPosition(scene, shown.hydrogens ? hydrogen : partners[hydrogen][0], shift)),
        end: vector(...atomPosition(scene, acceptor, shift.map((s, k) => s + step[k]))),
        radius: 0.05, dashLength: 0.2, gapLength: 0.16,
      });
    }
  }
}

/** Quaternion of the rotation whose rows are the given right-handed axes (Shepperd's choice of the largest term). */
function quaternion([x, y, z]) {
  const m = [x, y, z];
  const trace = m[0][0] + m[1][1] + m[2][2];
  if (trace > 0) {
    const s = 2 * Math.sqrt(trace + 1);
    return [(m[2][1] - m[1][2]) / s, (m[0][2] - m[2][0]) / s, (m[1][0] - m[0][1]) / s, s / 4];
  }
  const i = [0, 1, 2].reduce((best, k) => (m[k][k] > m[best][best] ? k : best), 0);
  const [j, k] = [(i + 1) % 3, (i + 2) % 3];
  const s = 2 * Math.sqrt(1 + m[i][i] - m[j][j] - m[k][k]);
  const q = [0, 0, 0, (m[k][j] - m[j][k]) / s];
  q[i] = s / 4;
  q[j] = (m[i][j] + m[j][i]) / s;
  q[k] = (m[i][k] + m[k][i]) / s;
  return q;
}

/** Look along a cell axis with the next axis to the right. */
function lookAlong(axis) {
  const scene = chosenScene();
  const z = unit(latticeRow(scene, axis));
  const next = latticeRow(scene, (axis + 1) % 3);
  const x = unit(next.map((value, i) => value - dot(next, z) * z[i]));
  const turn = quaternion([x, cross(z, x), z]);
  const view = view3d.viewer.getView();
  view3d.viewer.setView([...view.slice(0, 4), ...turn]);
  view3d.viewer.zoomTo();
  view3d.viewer.zoom(ZOOM);
}

const shortestAxis = (scene) =>
  [0, 1, 2].reduce((best, i) => (Math.hypot(...latticeRow(scene, i)) < Math.hypot(...latticeRow(scene, best)) ? i : best), 0);
const chosenScene = () => inside(table.chosen)?.scene;

function drawPacking() {
  const scene = chosenScene();
  const shifts = cellShifts(shown.cells);
  view3d.viewer.addModel().addAtoms(viewerAtoms(scene, shifts));
  view3d.viewer.setStyle({}, { stick: { radius: 0.13 }, sphere: { scale: 0.2 } });
  drawCells(scene, shifts);
  drawAxisLabels(scene);
  if (shown.hydrogenBonds) drawHydrogenBonds(scene, shifts);
}

function explainPacking() {
  const entry = inside(table.chosen);
  if (!entry) return `Only the best ${count(data.max_embedded)} crystals are drawn inside this page; this one is in ${crystals[table.chosen].file}.`;
  return entry.scene ? "" : `The packing cannot be drawn: ${entry.problem}.`.replace(/\.\.$/, ".");
}

function chooseCells(button) {
  shown.cells = Number(button.dataset.cells);
  document.querySelectorAll("[data-cells]").forEach((b) => b.setAttribute("aria-pressed", String(b === button)));
  drawView(false);
}

function startPacking() {
  startViewer({ draw: drawPacking, look: () => lookAlong(shortestAxis(chosenScene())), explain: explainPacking });
  document.querySelectorAll("[data-cells]").forEach((b) => b.addEventListener("click", () => chooseCells(b)));
  document.querySelectorAll("[data-axis]").forEach((b) => b.addEventListener("click", () => {
    if (hasPicture()) inOneDrawing(() => lookAlong(Number(b.dataset.axis)));
  }));
  toggles("bonds", () => (shown.hydrogenBonds = !shown.hydrogenBonds));
  toggles("hydrogens", () => (shown.hydrogens = !shown.hydrogens));
}
