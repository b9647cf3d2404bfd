// The header, the player, and what ties them to the table.

const PLAYED = 5000; // milliseconds of a whole trajectory
const player = { sample: 0, time: 0, playing: false, last: 0, frames: [], reach: 1, colours: [] };

function tile(label, value, note) {
  return el("div", {}, el("dt", {}, label), el("dd", {}, value, note ? el("small", {}, note) : null));
}

function bestOf(name) {
  const values = samples.map((s) => s[name]).filter(isNumber);
  return values.length ? Math.min(...values) : null;
}

function drawHeader() {
  const run = data.run;
  const molecule = run.molecule ?? {};
  const counts = run.counts ?? {};
  const identity = [molecule.formula, isNumber(data.molecules) ? `${data.molecules} molecules` : "", molecule.smiles];
  byId("identity").textContent = identity.filter(known).join(" · ");
  const tiles = [
    tile("Samples", count(counts.made), isNumber(counts.asked) ? `of ${count(counts.asked)} asked for` : null),
    tile("Without collisions", count(counts.without_collisions), "of molecules"),
    isNumber(counts.cells) ? tile("Crystals", count(counts.cells), counts.cells ? "lattices found, relaxed" : "no lattice found") : null,
    withTruth ? tile("Best RMSD", `${fixed(bestOf("rmsd_A"), 2)} Å`, "from the known cluster") : null,
    isNumber(run.wall_seconds) ? tile("Time", duration(run.wall_seconds), isNumber(run.cpu_seconds) ? `${duration(run.cpu_seconds)} of CPU` : null) : null,
  ];
  byId("tiles").append(...tiles.filter(Boolean));
  byId("colophon").textContent = `${[`nucleate ${run.nucleate ?? ""}`.trim(), run.started].filter(known).join(", ")}. Generated structures. This page makes no network requests.`;
  byId("command").textContent = run.command || "made by a program";
  byId("table-note").textContent = `Best first: ${run.ranked_by ?? "in order"}. Moved: root mean square over atoms from the loose cluster; spread: from the other samples.`;
}

function drawNotes() {
  const run = data.run;
  const counted = (table) => Object.entries(table ?? {}).map(([reason, n]) => `${n} × ${reason}`);
  const lines = [...(Array.isArray(run.notes) ? run.notes : []), ...counted(run.failures), ...counted(run.without_cell)];
  byId("notes").append(...(lines.length ? lines : ["Nothing to say."]).map((line) => el("li", {}, String(line))));
  const entries = { ...(run.settings ?? {}), method: run.method, weights: run.weights?.digest, source: run.source };
  const rows = Object.entries(entries).map(([name, value]) =>
    el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, known(value) ? String(value) : "–")));
  byId("settings").append(el("table", {}, el("tbody", {}, rows)));
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
  const drawn = shapes(between(frames, time), player.colours, 0.17);
  if (view.known && data.truth) drawn.push(...shapes(data.truth.map((x) => x / data.scale), player.colours.map(() => css("--reference")), 0.07));
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
  byId("play").setAttribute("aria-pressed", String(player.playing));
  if (!player.playing) return;
  player.last = performance.now();
  requestAnimationFrame(tick);
}

/** Show one sample everywhere. */
function choose(index) {
  if (!samples[index]) return;
  play(false);
  Object.assign(player, { sample: index, time: 0, frames: data.embedded[index] ?? [] });
  player.reach = reachOf(player.frames);
  byId("frame").max = String(Math.max(0, player.frames.length - 1));
  byId("chosen").textContent = summary(samples[index]);
  byId("previous").disabled = index === 0;
  byId("next").disabled = index === samples.length - 1;
  byId("play").disabled = player.frames.length < 2;
  explainMissing(samples[index]);
  markRow(index);
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
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redress);
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
  byId("previous").addEventListener("click", () => choose(player.sample - 1));
  byId("next").addEventListener("click", () => choose(player.sample + 1));
  const inside = Object.keys(data.embedded).length;
  const held = inside < samples.length ? ` The trajectories of ${inside} of ${samples.length} samples are inside this page.` : "";
  byId("stage-note").textContent = `Drag to turn; space plays, plus and minus zoom.${held}`;
}

function start() {
  drawHeader();
  drawNotes();
  if (!samples.length) {
    byId("empty").textContent = "No cluster was made; the notes below say why.";
    byId("empty").hidden = false;
    return;
  }
  byId("results").hidden = false;
  startStage();
  startButtons();
  player.colours = tones();
  startTable(choose);
  choose(0);
}

start();
