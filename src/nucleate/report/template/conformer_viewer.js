// Conformers of one molecule in three dimensions: the chosen one in the colours of its elements, others as thin lines.

const conformers = data.conformers;
const view3d = { viewer: null, others: 10, hydrogens: true, species: null };
const chosen = { index: 0 };
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const graphOf = (index) => data.species[conformers[index].species];
/** Indices of the conformers of the chosen molecule, by rank. */
const siblings = () => conformers.map((_, i) => i).filter((i) => conformers[i].species === conformers[chosen.index].species);
const drawable = (index) => Array.isArray(conformers[index]?.positions);

/** True for atoms that are drawn: hydrogens on carbon say little in a bundle. */
function keptAtoms(graph, all) {
  const partner = graph.elements.map(() => null);
  for (const [i, j] of graph.bonds) { partner[i] ??= j; partner[j] ??= i; }
  return graph.elements.map((e, i) => e !== "H" || all || partner[i] === null || graph.elements[partner[i]] !== "C");
}

function viewerAtoms(index, all, orders) {
  const graph = graphOf(index);
  const keep = keptAtoms(graph, all);
  const place = new Map(graph.elements.map((_, i) => i).filter((i) => keep[i]).map((atom, k) => [atom, k]));
  const atoms = [...place.keys()].map((atom) => {
    const [x, y, z] = [0, 1, 2].map((k) => conformers[index].positions[3 * atom + k] / data.scale);
    return { elem: graph.elements[atom], x, y, z, bonds: [], bondOrder: [], serial: atom };
  });
  for (const [i, j, order] of graph.bonds) {
    if (!keep[i] || !keep[j]) continue;
    for (const [from, to] of [[i, j], [j, i]]) {
      atoms[place.get(from)].bonds.push(place.get(to));
      atoms[place.get(from)].bondOrder.push(orders ? order : 1);
    }
  }
  return atoms;
}

/** Others that are drawn behind the chosen one: the lowest so many. */
const shownOthers = () => siblings().slice(0, view3d.others).filter((i) => i !== chosen.index && drawable(i));

function drawConformers(keepView) {
  explainMissing();
  if (!view3d.viewer) return;
  view3d.viewer.clear();
  view3d.viewer.setBackgroundColor(color("--card"));
  for (const index of shownOthers()) {
    const model = view3d.viewer.addModel();
    model.addAtoms(viewerAtoms(index, false, false));
    model.setStyle({}, { stick: { radius: 0.05, color: color("--muted"), opacity: 0.8 } });
  }
  if (drawable(chosen.index)) {
    const model = view3d.viewer.addModel();
    model.addAtoms(viewerAtoms(chosen.index, view3d.hydrogens, true));
    const tone = { prop: "elem", map: elementColors() };
    model.setStyle({}, { stick: { radius: 0.12, colorscheme: tone }, sphere: { scale: 0.22, colorscheme: tone } });
  }
  if (keepView) view3d.viewer.render();
  else resetView();
}

/** Usual colours, with carbon and hydrogen as the page's ink has them, so that they show on light and dark. */
function elementColors() {
  const usual = globalThis.$3Dmol?.elementColors?.Jmol ?? {};
  return { ...usual, C: color("--accent"), H: color("--c8") };
}

function resetView() {
  if (!view3d.viewer) return;
  view3d.viewer.setView([0, 0, 0, 0, 0, 0, 0, 1]);
  view3d.viewer.zoomTo();
  view3d.viewer.zoom(1.35); // the viewer leaves wide margins
  view3d.viewer.render();
}

function explainMissing() {
  const message = byId("viewer-message");
  let text = "";
  if (!view3d.viewer) text = "This browser offers no WebGL, which the three-dimensional view needs. The SDF file opens in any molecule viewer.";
  else if (!drawable(chosen.index)) text = `The coordinates of this conformer are not inside this page; they are in ${data.file}.`;
  message.textContent = text;
  message.hidden = !text;
  byId("viewer").querySelectorAll("canvas").forEach((canvas) => { canvas.style.visibility = text ? "hidden" : "visible"; });
}

function offersWebGL() {
  const canvas = document.createElement("canvas");
  return Boolean(canvas.getContext("webgl2") || canvas.getContext("webgl"));
}

function offerOthers() {
  const most = siblings().length;
  const offers = [[0, "none"], ...[5, 10, 20, 50].filter((n) => n < most).map((n) => [n, `${n} lowest`]), [Infinity, "all"]];
  const wanted = offers.find(([n]) => n >= Math.min(view3d.others, most)) ?? offers[0];
  byId("others").replaceChildren(...offers.map(([n, label]) => el("option", { value: String(n), selected: n === wanted[0] }, label)));
  view3d.others = wanted[0];
}

function downloadXyz() {
  const c = conformers[chosen.index];
  const { elements } = graphOf(chosen.index);
  const lines = elements.map((e, i) => [e, ...[0, 1, 2].map((k) => (c.positions[3 * i + k] / data.scale).toFixed(4))].join(" "));
  const energy = isNumber(c.energy_kj_mol) ? ` energy_kj_mol=${c.energy_kj_mol}` : "";
  download(`${safeName(c.id)}.xyz`, `${elements.length}\n${safeName(c.id)}${energy}\n${lines.join("\n")}\n`, "chemical/x-xyz");
}

function printPicture() {
  if (!view3d.viewer || !drawable(chosen.index)) return;
  byId("viewer-print").src = view3d.viewer.pngURI();
  byId("viewer-print").hidden = false;
  byId("viewer").hidden = true;
}

function endPrint() {
  byId("viewer-print").hidden = true;
  byId("viewer").hidden = false;
}

function startViewer() {
  if (offersWebGL()) {
    view3d.viewer = $3Dmol.createViewer(byId("viewer"), { backgroundColor: color("--card"), antialias: true });
    view3d.viewer.setProjection("orthographic");
  }
  byId("others").addEventListener("change", () => { view3d.others = Number(byId("others").value); drawConformers(true); });
  byId("hydrogens").addEventListener("click", (event) => {
    view3d.hydrogens = !view3d.hydrogens;
    event.currentTarget.setAttribute("aria-pressed", String(view3d.hydrogens));
    drawConformers(true);
  });
  byId("reset").addEventListener("click", resetView);
  byId("download").addEventListener("click", downloadXyz);
  window.addEventListener("beforeprint", printPicture);
  window.addEventListener("afterprint", endPrint);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawConformers(true));
}
