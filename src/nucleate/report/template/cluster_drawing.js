// A cluster as sticks and balls on a canvas, seen from afar; what is behind fades into the page.

const TONES = { // light page, dark page
  C: ["#4a525c", "#a9b4c0"], H: ["#b9c2cb", "#dfe5ea"], N: ["#2f5fd0", "#7ea2ff"], O: ["#cf3030", "#ff7b72"],
  S: ["#b08900", "#e8c547"], P: ["#d2691e", "#f0a35e"], F: ["#2f9e44", "#74d680"], Cl: ["#2b8a3e", "#69c46f"],
  Br: ["#8a3b1f", "#d0805f"], I: ["#7a2fa0", "#c58be0"],
};
const OTHER = ["#7a5c9e", "#c3a6e6"];
const MOLECULE_TONES = 8; // --c0 ... --c7
const view = { turn: null, zoom: 1, hydrogens: true, colours: "element", known: false };
const atomsEach = (data.elements ?? []).length;

const multiply = (a, b) => [0, 1, 2].map((i) => [0, 1, 2].map((j) => a[i][0] * b[0][j] + a[i][1] * b[1][j] + a[i][2] * b[2][j]));

function rotation(axis, angle) {
  const [c, s] = [Math.cos(angle), Math.sin(angle)];
  return axis === 0 ? [[1, 0, 0], [0, c, -s], [0, s, c]] : [[c, 0, s], [0, 1, 0], [-s, 0, c]];
}

const firstTurn = () => multiply(rotation(0, 0.35), rotation(1, -0.5));

/** Positions between two frames, in Å. */
function between(frames, time) {
  const at = Math.min(Math.floor(time), frames.length - 1);
  const [before, after] = [frames[at], frames[Math.min(at + 1, frames.length - 1)]];
  const share = time - at;
  return before.map((x, i) => (x + share * (after[i] - x)) / data.scale);
}

/** The colour of each atom; one list for all frames. */
function tones() {
  const page = isDark() ? 1 : 0;
  const own = Array.from({ length: MOLECULE_TONES }, (_, i) => color(`--c${i}`));
  return Array.from({ length: data.molecules * atomsEach }, (_, i) => {
    const element = data.elements[i % atomsEach];
    if (view.colours === "molecule" && element !== "H") return own[Math.floor(i / atomsEach) % MOLECULE_TONES];
    return (TONES[element] ?? OTHER)[page];
  });
}

/** Half bonds and atoms with their depth, as `paint` draws them. */
function shapes(positions, colours, thickness) {
  const turned = Float64Array.from(positions);
  const turn = view.turn;
  for (let i = 0; i < turned.length; i += 3) {
    const [x, y, z] = [positions[i], positions[i + 1], positions[i + 2]];
    for (let k = 0; k < 3; k++) turned[i + k] = turn[k][0] * x + turn[k][1] * y + turn[k][2] * z;
  }
  const kept = (atom) => view.hydrogens || data.elements[atom] !== "H";
  const found = [];
  for (let m = 0; m < data.molecules; m++) {
    const first = m * atomsEach;
    for (let a = 0; a < atomsEach; a++) {
      if (!kept(a)) continue;
      const [i, small] = [3 * (first + a), data.elements[a] === "H"];
      found.push({ depth: turned[i + 2], x: turned[i], y: turned[i + 1], radius: thickness * (small ? 1.0 : 1.6), colour: colours[first + a] });
    }
    for (let b = 0; b < data.bonds.length; b += 2) {
      const [p, q] = [data.bonds[b], data.bonds[b + 1]];
      if (!kept(p) || !kept(q)) continue;
      const [i, j] = [3 * (first + p), 3 * (first + q)];
      const middle = [0, 1, 2].map((k) => (turned[i + k] + turned[j + k]) / 2);
      for (const [end, atom] of [[i, p], [j, q]]) {
        found.push({
          depth: (turned[end + 2] + middle[2]) / 2 - 0.01, x: turned[end], y: turned[end + 1], toX: middle[0], toY: middle[1],
          radius: thickness, colour: colours[first + atom],
        });
      }
    }
  }
  return found;
}

/** How far the loose cluster and all frames reach from the middle (Å), so that nothing leaves the picture. */
function reachOf(frames) {
  let far = 1;
  for (const frame of frames) for (let i = 0; i < frame.length; i += 3) far = Math.max(far, Math.hypot(frame[i], frame[i + 1], frame[i + 2]));
  return far / data.scale;
}

function paint(canvas, drawn, reach) {
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const pen = canvas.getContext("2d");
  const scale = (view.zoom * Math.min(width, height)) / (2.08 * reach);
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.translate(width / 2, height / 2);
  pen.lineCap = "round";
  drawn.sort((a, b) => a.depth - b.depth);
  for (const shape of drawn) {
    pen.globalAlpha = 0.22 + 0.78 * Math.min(1, Math.max(0, (shape.depth / reach + 1) / 1.5));
    pen.beginPath();
    if (shape.toX === undefined) {
      pen.fillStyle = shape.colour;
      pen.arc(scale * shape.x, -scale * shape.y, scale * shape.radius, 0, 2 * Math.PI);
      pen.fill();
    } else {
      pen.strokeStyle = shape.colour;
      pen.lineWidth = 2 * scale * shape.radius;
      pen.moveTo(scale * shape.x, -scale * shape.y);
      pen.lineTo(scale * shape.toX, -scale * shape.toY);
      pen.stroke();
    }
  }
  pen.globalAlpha = 1;
}
