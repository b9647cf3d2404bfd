// How the crystals were found: stages, space groups, time, failures.

const nothing = (text) => el("p", { class: "muted" }, text);

function meter(value, largest, kind = "") {
  const width = isNumber(value) && largest > 0 ? (100 * value) / largest : 0;
  return el("td", { class: `meter-cell ${kind}`.trim(), "aria-hidden": "true" }, el("div", { class: "meter" }, width > 0 ? el("span", { style: `width:${width}%` }) : null));
}

const largestOf = (values) => values.filter(isNumber).reduce((a, b) => Math.max(a, b), 0);

function barTable(heads, rows) {
  const head = el("thead", {}, el("tr", {}, heads.map((h, i) => el("th", { scope: "col", class: i === 0 ? "text" : null, colspan: h.span }, h.label))));
  return el("table", { class: "bars" }, head, el("tbody", {}, rows));
}

function drawFunnel() {
  const names = { asked: "Asked for", generated: "Generated", clash_free: "Free of clashes", converged: "Converged", distinct: "Distinct" };
  const counts = run.counts ?? {};
  const stages = Object.keys(names).filter((key) => isNumber(counts[key]));
  if (!stages.length) return byId("funnel").replaceChildren(nothing("No counts in run.json."));
  const whole = largestOf(stages.map((key) => counts[key]));
  const rows = stages.map((key) =>
    el("tr", {}, el("th", { scope: "row" }, names[key]), meter(counts[key], whole), el("td", {}, count(counts[key])), el("td", { class: "muted" }, percent(counts[key], counts[stages[0]]))));
  return byId("funnel").replaceChildren(barTable([{ label: "Stage" }, { label: "", span: 1 }, { label: "Structures" }, { label: "Share" }], rows));
}

function drawConvergence() {
  const convergence = run.convergence ?? {};
  const parts = [];
  if (known(convergence.text)) parts.push(convergence.text);
  else if (isNumber(convergence.lowest_found_again)) parts.push(`The lowest minima were found ${count(convergence.lowest_found_again)} times again.`);
  if (isNumber(convergence.good_turing_unseen)) parts.push(`Chance that the next minimum would be a new one (Good–Turing): ${percent(convergence.good_turing_unseen, 1)}.`);
  byId("convergence").textContent = parts.join(" ");
}

function drawGroups() {
  const groupsFound = Object.entries(run.space_groups ?? {}).map(([number, g]) => ({ number, ...g }));
  if (!groupsFound.length) return byId("groups").replaceChildren(nothing("No space-group counts in run.json."));
  groupsFound.sort((a, b) => (b.distinct ?? 0) - (a.distinct ?? 0) || (b.starts ?? 0) - (a.starts ?? 0));
  const [starts, distinct] = ["starts", "distinct"].map((key) => largestOf(groupsFound.map((g) => g[key])));
  const rows = groupsFound.map((g) =>
    el("tr", {}, el("th", { scope: "row" }, `${g.symbol} `, el("span", { class: "muted" }, `(${g.number})`)),
      meter(g.starts, starts, "two"), el("td", {}, count(g.starts)), meter(g.distinct, distinct, "two"), el("td", {}, count(g.distinct))));
  return byId("groups").replaceChildren(
    barTable([{ label: "Group" }, { label: "Starts", span: 2 }, { label: "Distinct crystals", span: 2 }], rows),
    el("p", { class: "muted small" }, "Each pair of columns has its own scale. A crystal counts in the group that it ended in."));
}

function drawTimings() {
  const timings = Object.entries(run.timings ?? {}).filter(([, seconds]) => isNumber(seconds));
  const whole = largestOf(timings.map(([, seconds]) => seconds));
  const rows = timings.map(([stage, seconds]) =>
    el("tr", {}, el("th", { scope: "row" }, stage.replaceAll("_", " ")), meter(seconds, whole), el("td", {}, duration(seconds))));
  const totals = [["Wall time", run.wall_seconds], ["CPU time", run.cpu_seconds]].filter(([, s]) => isNumber(s));
  const line = el("p", { class: "small" }, totals.map(([name, s]) => `${name} ${duration(s)}`).join(" · "));
  byId("timings").replaceChildren(rows.length ? barTable([{ label: "Stage" }, { label: "", span: 1 }, { label: "Time" }], rows) : nothing("No timings in run.json."), line);
}

function drawFailures() {
  const failures = Object.entries(run.failures ?? {}).filter(([, n]) => isNumber(n) && n > 0);
  if (!failures.length) return byId("failures").replaceChildren(nothing(run.failures ? "Nothing failed." : "No failure counts in run.json."));
  failures.sort((a, b) => b[1] - a[1]);
  const whole = largestOf(failures.map(([, n]) => n));
  const rows = failures.map(([reason, n]) => el("tr", {}, el("th", { scope: "row" }, reason), meter(n, whole), el("td", {}, count(n))));
  return byId("failures").replaceChildren(barTable([{ label: "Reason" }, { label: "", span: 1 }, { label: "Structures" }], rows));
}

function drawSearch() {
  drawFunnel();
  drawConvergence();
  drawGroups();
  drawTimings();
  drawFailures();
}
