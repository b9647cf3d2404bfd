// Elements, numbers and files. Text from the data enters the page only as text nodes and attributes.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const SVG_NAMESPACE = "http://www.w3.org/2000/svg"; // a name, not a request

function fillElement(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

const el = (tag, attributes, ...children) => fillElement(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) =>
  fillElement(document.createElementNS(SVG_NAMESPACE, tag), attributes, children);

const known = (value) => value !== null && value !== undefined && value !== "";
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

/** A number with fixed decimals and a true minus sign; a dash where there is none. */
function fixed(value, decimals = 0) {
  if (!isNumber(value)) return "–";
  const text = value.toFixed(decimals);
  return (Number(text) === 0 ? text.replace("-", "") : text).replace("-", "−");
}

const count = (value) => (isNumber(value) ? value.toLocaleString("en-US") : "–");

/** A share with one decimal where whole percents would hide something. */
function percent(part, whole) {
  if (!isNumber(part) || !(whole > 0)) return "–";
  const share = (100 * part) / whole;
  return `${share.toFixed(share === 100 || (share >= 10 && share < 99) ? 0 : 1)} %`;
}

/** Seconds as a person says them. */
function duration(seconds) {
  if (!isNumber(seconds)) return "–";
  if (seconds < 100) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 6000) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

/** Z' as a fraction where it is one. */
function zPrime(value) {
  const fraction = { 0.5: "½", 0.25: "¼", 0.75: "¾", 0.333: "⅓", 0.667: "⅔", 0.167: "⅙", 0.125: "⅛" }[value];
  return fraction ?? (isNumber(value) ? String(value) : "–");
}

/** A formula with its numbers below the line. */
const formulaText = (text) => String(text ?? "").replace(/(?<=[A-Za-z)\]])\d+/g, (digits) => [...digits].map((d) => "₀₁₂₃₄₅₆₇₈₉"[d]).join(""));

/** A moment as a person writes it, where it is one in UTC. */
const moment = (text) => String(text ?? "").replace(/^(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\d(?:\.\d+)?(?:Z|\+00:00)$/, "$1 $2 UTC");

/** A value of any kind as text; a dash where there is none. */
const spoken = (value) => (value !== null && typeof value === "object" ? JSON.stringify(value) : known(value) ? String(value) : "–");

/** Named values of a table, also where a damaged file has something else in its place. */
const mapping = (value) => (value !== null && typeof value === "object" && !Array.isArray(value) ? value : {});

const quoted = (value) => (isNumber(value) ? value : known(value) ? `"${String(value).replaceAll('"', '""')}"` : "");
const csvText = (names, rows) => `${[names, ...rows].map((row) => row.map(quoted).join(",")).join("\n")}\n`;

function download(name, text, type = "chemical/x-cif") {
  const address = URL.createObjectURL(new Blob([text], { type }));
  const link = el("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

const baseName = (path) => String(path).split("/").pop();
/** A path relative to the page as an address. */
const address = (path) => String(path).split("/").map(encodeURIComponent).join("/");
const safeName = (text, otherwise = "results") => String(text || otherwise).replace(/[^\w.-]+/g, "_").slice(0, 60);
