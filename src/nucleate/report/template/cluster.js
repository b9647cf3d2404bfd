// The header, the player, and what ties them to the table.

const PLAYED = 5000; // milliseconds of a whole trajectory
const player = { time: 0, playing: false, last: 0, frames: [], reach: 1, colours: [] };

function bestOf(name) {
  const values = samples.map((s) => s[name]).filter(isNumber);
  return values.length ? Math.min(...values) : null;
}

function drawHeader() {
  const counts = mapping(run.counts);
  const seen = (reasons) => Object.entries(mapping(reasons)).map(([reason, n]) => `${n} × ${reason}`);
  drawFrame({
    identity: [formulaText(molecule.formula), isNumber(data.molecules) ? `${data.molecules} molecules` : "", molecule.smiles],
    tiles: [
      tile("Samples", count(counts.made), isNumber(counts.asked) ? `of ${count(counts.asked)} asked for` : null),
      tile("Without collisions", count(counts.without_collisions), "of molecules"),
      isNumber(counts.cells) ? tile("Crystals", count(counts.cells), counts.cells ? "lattices found, relaxed" : "no lattice found") : null,
      withTruth ? tile("Best RMSD", `${fixed(bestOf("rmsd_A"), 2)} Å`, "from the known cluster") : null,
      timeTile(),
    ],
    about: "Generated structures.",
    origin: { nucleate: run.nucleate, started: run.started, seed: run.seed, method: run.method, weights: run.weights, source: run.source, SMILES: molecule.smiles },
  });
  byId("table-note").textContent = `Best first: ${run.ranked_by ?? "in order"}. Moved: root mean square over atoms from the loose cluster; spread: from the other samples.`;
  drawNotes([...notesOf(run.notes), ...seen(run.failures), ...seen(run.without_cell)]);
}

function summary(s) {
  const parts = [`#${s.rank ?? "–"}`, `sample ${s.id}`];
  if (isNumber(s.energy_kj_mol)) parts.push(`${fixed(s.energy_kj_mol, 1)} kJ/mol`);
  if (known(s.matched)) parts.push(`${s.matched} of ${s.matched_of} molecules as known, RMSD ${fixed(s.rmsd_A, 2)} Å`);
  return known(s.failure) ? `sample ${s.id}: ${s.failure}` : parts.join(" · ");
}

function draw() {
  const { frames, time } = player;
  if (!frames.length) return;
  const drawn = shapes(between(frames, still.matches ? Math.round(time) : time), player.colours, 0.17);
  if (view.known && data.truth) drawn.push(...shapes(data.truth.map((x) => x / data.scale), player.colours.map(() => color("--reference")), 0.07));
  paint(byId("stage"), drawn, player.reach);
  byId("frame").value = String(Math.round(time));
  const last = frames.length - 1;
  byId("clock").textContent = time <= 0 ? "loose" : time >= last ? "ordered" : `step ${Math.round(time)} of ${last}`;
}

function tick(now) {
  if (!player.playing) return;
  const last = player.frames.length - 1;
  player.time = Math.min(last, player.time + (Math.max(0, now - player.last) * last) / PLAYED); // a frame may be dated back
  player.last = now;
  draw();
  if (player.time >= last) play(false);
  else requestAnimationFrame(tick);
}

function play(wanted) {
  const last = player.frames.length - 1;
  player.playing = wanted && last > 0;
  if (player.playing && player.time >= last) player.time = 0;
  byId("play").textContent = player.playing ? "Pause" : "Play";
  if (!player.playing) return;
  player.last = performance.now();
  requestAnimationFrame(tick);
}

/** Show one sample everywhere. */
function choose(index) {
  if (!samples[index]) return;
  play(false);
  Object.assign(player, { time: 0, frames: data.embedded[index] ?? [] });
  player.reach = reachOf(player.frames);
  byId("frame").max = String(Math.max(0, player.frames.length - 1));
  byId("chosen").textContent = summary(samples[index]);
  markSteps(index, samples.length);
  byId("play").disabled = player.frames.length < 2;
  explainMissing(samples[index]);
  showRow(index);
  draw();
}

function explainMissing(sample) {
  const message = byId("stage-message");
  const missing = !player.frames.length;
  message.hidden = !missing;
  byId("stage").style.visibility = missing ? "hidden" : "visible";
  message.textContent = known(sample.failure)
    ? "There is no cluster: this sample failed."
    : `Only the best trajectories are inside this page; this one is in trajectory/${sample.id}.xyz.`;
}

function redress() {
  player.colours = tones();
  draw();
}

function turnBy(across, along) {
  view.turn = multiply(multiply(rotation(0, along), rotation(1, across)), view.turn);
  draw();
}

function zoomBy(factor) {
  view.zoom = Math.min(6, Math.max(0.4, view.zoom * factor));
  draw();
}

function stageKeys(event) {
  const turns = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15] }[event.key];
  const zoom = { "+": 1.15, "=": 1.15, "-": 1 / 1.15 }[event.key];
  if (turns) turnBy(...turns);
  else if (zoom) zoomBy(zoom);
  else if (event.key === " ") play(!player.playing);
  else return;
  event.preventDefault();
}

function startStage() {
  const stage = byId("stage");
  view.turn = firstTurn();
  stage.addEventListener("pointerdown", (event) => stage.setPointerCapture(event.pointerId));
  stage.addEventListener("pointermove", (event) => {
    if (event.buttons & 1) turnBy(event.movementX / 120, event.movementY / 120);
  });
  stage.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && document.activeElement !== stage) return; // the page scrolls until the picture is chosen
    zoomBy(Math.exp(-event.deltaY / 600));
    event.preventDefault();
  }, { passive: false });
  stage.addEventListener("keydown", stageKeys);
  new ResizeObserver(draw).observe(stage);
  whenRepainted(redress);
  byId("play").addEventListener("click", () => play(!player.playing));
  byId("frame").addEventListener("input", (event) => {
    play(false);
    player.time = Number(event.target.value);
    draw();
  });
}

function toggle(name, event) {
  view[name] = !view[name];
  event.currentTarget.setAttribute("aria-pressed", String(view[name]));
  draw();
}

function startButtons() {
  byId("hydrogens").addEventListener("click", (event) => toggle("hydrogens", event));
  byId("known").addEventListener("click", (event) => toggle("known", event));
  byId("known").hidden = !data.truth;
  document.querySelectorAll("[data-colours]").forEach((button) => button.addEventListener("click", () => {
    view.colours = button.dataset.colours;
    document.querySelectorAll("[data-colours]").forEach((b) => b.setAttribute("aria-pressed", String(b === button)));
    redress();
  }));
  byId("reset").addEventListener("click", () => { Object.assign(view, { turn: firstTurn(), zoom: 1 }); draw(); });
  byId("previous").addEventListener("click", () => choose(table.chosen - 1));
  byId("next").addEventListener("click", () => choose(table.chosen + 1));
  const inside = Object.keys(data.embedded).length;
  const held = inside < samples.length ? ` The trajectories of ${inside} of ${samples.length} samples are inside this page.` : "";
  byId("stage-note").textContent = `Drag or use the arrow keys to turn; space plays, plus and minus zoom.${held}`;
}

function start() {
  drawHeader();
  if (!samples.length) return explainEmpty("No cluster was made; the notes below say why.");
  byId("results").hidden = false;
  startTable(samples, COLUMNS, choose);
  startStage();
  startButtons();
  player.colours = tones();
  return choose(0);
}

start();
