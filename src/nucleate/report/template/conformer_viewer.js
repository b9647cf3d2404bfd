// Conformers of one molecule: the chosen one in the colours of its elements, others as thin lines.

const conformers = data.conformers;
const shown = { others: 10, hydrogens: true };
const graphOf = (index) => data.species[conformers[index].species];
/** Indices of the conformers of the chosen molecule, by rank. */
const siblings = () => conformers.map((_, i) => i).filter((i) => conformers[i].species === conformers[table.chosen].species);
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
const shownOthers = () => siblings().slice(0, shown.others).filter((i) => i !== table.chosen && drawable(i));

function drawConformers() {
  for (const index of shownOthers()) {
    const model = view3d.viewer.addModel();
    model.addAtoms(viewerAtoms(index, false, false));
    model.setStyle({}, { stick: { radius: 0.05, color: color("--muted"), opacity: 0.8 } });
  }
  const model = view3d.viewer.addModel();
  model.addAtoms(viewerAtoms(table.chosen, shown.hydrogens, true));
  const tone = { prop: "elem", map: elementColors() };
  model.setStyle({}, { stick: { radius: 0.12, colorscheme: tone }, sphere: { scale: 0.22, colorscheme: tone } });
}

/** Usual colours, with carbon and hydrogen as the page's ink has them, so that they show on light and dark. */
function elementColors() {
  const usual = globalThis.$3Dmol?.elementColors?.Jmol ?? {};
  return { ...usual, C: color("--accent"), H: color("--c8") };
}

function lookAtAll() {
  view3d.viewer.setView([0, 0, 0, 0, 0, 0, 0, 1]);
  view3d.viewer.zoomTo();
  view3d.viewer.zoom(ZOOM);
}

const explainConformer = () => (drawable(table.chosen) ? "" : `The coordinates of this conformer are not inside this page; they are in ${data.file}.`);

function offerOthers() {
  const most = siblings().length;
  const offers = [[0, "none"], ...[5, 10, 20, 50].filter((n) => n < most).map((n) => [n, `${n} lowest`]), [Infinity, "all"]];
  const wanted = offers.find(([n]) => n >= Math.min(shown.others, most)) ?? offers[0];
  byId("others").replaceChildren(...offers.map(([n, label]) => el("option", { value: String(n), selected: n === wanted[0] }, label)));
  shown.others = wanted[0];
}

function downloadXyz() {
  const c = conformers[table.chosen];
  const { elements } = graphOf(table.chosen);
  const lines = elements.map((e, i) => [e, ...[0, 1, 2].map((k) => (c.positions[3 * i + k] / data.scale).toFixed(4))].join(" "));
  const energy = isNumber(c.energy_kj_mol) ? ` energy_kj_mol=${c.energy_kj_mol}` : "";
  download(`${safeName(c.id)}.xyz`, `${elements.length}\n${safeName(c.id)}${energy}\n${lines.join("\n")}\n`, "chemical/x-xyz");
}

function startConformers() {
  startViewer({ draw: drawConformers, look: lookAtAll, explain: explainConformer });
  byId("others").addEventListener("change", () => { shown.others = Number(byId("others").value); drawView(true); });
  toggles("hydrogens", () => (shown.hydrogens = !shown.hydrogens));
  byId("download").addEventListener("click", downloadXyz);
}
