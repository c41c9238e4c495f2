"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const WORST = data.statuses;
const SYMBOLS = { passed: "✓", failed: "✗", error: "!", xfailed: "~", xpassed: "↑", skipped: "–" };
const filters = document.getElementById("filters");
const matrix = document.getElementById("matrix");
const detail = document.getElementById("detail");

// The rows of each cell; a row is one check.
const rowsOf = data.cells.map(() => []);
data.rows.cell.forEach((cell, row) => rowsOf[cell].push(row));
const statusOf = (row) => WORST[data.rows.status[row]];

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function ranges(numbers) {
  const runs = [];
  for (const number of [...new Set(numbers)].sort((a, b) => a - b)) {
    const last = runs[runs.length - 1];
    if (last && last[1] === number - 1) last[1] = number;
    else runs.push([number, number]);
  }
  return runs.map(([from, to]) => (from === to ? `${from}` : `${from}–${to}`)).join(", ");
}

function chosen() {
  const wanted = Object.fromEntries(new FormData(filters));
  const rows = (cell) =>
    wanted.status ? rowsOf[cell].filter((row) => statusOf(row) === wanted.status) : rowsOf[cell];
  const found = new Map();
  data.cells.forEach((cell, index) => {
    if (!cell.architecture.includes(wanted.architecture.trim().toLowerCase())) return;
    if (["feature", "format", "runtime"].some((name) => wanted[name] && cell[name] !== wanted[name])) return;
    const some = rows(index);
    if (!some.length) return;
    const key = `${cell.architecture} ${cell.feature}`;
    if (!found.has(key)) found.set(key, { architecture: cell.architecture, feature: cell.feature, cells: [], rows: [] });
    const group = found.get(key);
    group.cells.push({ ...cell, worst: Math.min(...some.map((row) => data.rows.status[row])) });
    group.rows.push(...some);
  });
  return [...found.values()];
}

function strokes(cells) {
  return element("span", { className: "strokes" }, ...cells.map((cell) => element("i", { className: WORST[cell.worst] })));
}

function button(group) {
  const worst = WORST[Math.min(...group.cells.map((cell) => cell.worst))];
  const plain = group.cells.filter((cell) => cell.format === "onnx" && cell.attention === "eager");
  const others = group.cells.filter((cell) => !plain.includes(cell));
  const opsets = ranges(plain.map((cell) => cell.opset));
  // What stood in a device's place is never called by the device's name.
  const named = (cell) => (cell.runtime === "emulation" ? "emulation" : cell.format);
  const formats = [...new Set(others.map((cell) => (cell.format === "onnx" ? cell.attention : named(cell))))];
  const text = [`${SYMBOLS[worst]} ${opsets || formats.join(", ")}`, strokes(plain)];
  const made = element("button", { type: "button", className: worst, tabIndex: -1 }, ...text, strokes(others));
  const also = opsets ? `opsets ${opsets}${formats.length ? `, ${formats.join(", ")}` : ""}` : formats.join(", ");
  made.setAttribute("aria-label", `${group.architecture} ${group.feature}: ${worst}; ${also}; ${group.rows.length} checks`);
  made.addEventListener("click", () => show(group));
  return made;
}

function render() {
  const groups = chosen();
  const features = data.features.filter((feature) => groups.some((group) => group.feature === feature));
  const byName = new Map();
  for (const group of groups) {
    if (!byName.has(group.architecture)) byName.set(group.architecture, new Map());
    byName.get(group.architecture).set(group.feature, group);
  }
  const head = element("tr", {}, element("td"));
  for (const feature of features) head.append(element("th", { scope: "col" }, element("span", {}, feature)));
  const body = element("tbody");
  for (const name of [...byName.keys()].sort()) {
    const row = element("tr", {}, element("th", { scope: "row" }, name));
    for (const feature of features) {
      const group = byName.get(name).get(feature);
      row.append(element("td", {}, ...(group ? [button(group)] : [])));
    }
    body.append(row);
  }
  matrix.replaceChildren(element("thead", {}, head), body);
  const first = matrix.querySelector("button");
  if (first) first.tabIndex = 0;
  const checks = groups.reduce((sum, group) => sum + group.rows.length, 0);
  document.getElementById("shown").textContent =
    `${byName.size} architectures, ${groups.length} architecture × feature, ${checks.toLocaleString("en")} checks`;
}

// One cell of the grid is in the tab order; arrows go to the next one there is.
matrix.addEventListener("keydown", (event) => {
  const steps = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };
  const step = steps[event.key];
  const from = event.target.closest("td");
  if (!step || !from) return;
  event.preventDefault();
  const rows = [...matrix.tBodies[0].rows];
  let row = rows.indexOf(from.parentElement);
  let column = from.cellIndex;
  for (;;) {
    row += step[0];
    column += step[1];
    const cell = rows[row] && rows[row].cells[column];
    if (!cell) return;
    const next = column > 0 && cell.querySelector("button");
    if (next) {
      event.target.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
      return;
    }
  }
});

function linked(text) {
  const made = element("pre");
  for (const part of text.split(/(https?:\/\/[^\s;,)"'<>]+)/)) {
    if (/^https?:\/\//.test(part)) made.append(element("a", { href: part, rel: "noreferrer" }, part));
    else made.append(part);
  }
  return made;
}

function told(value) {
  if (value === null) return "";
  if (typeof value !== "number") return value;
  return value && Math.abs(value) < 1e-3 ? value.toExponential(1) : String(Number(value.toPrecision(3)));
}

function message(row) {
  const parts = [];
  const cell = data.cells[data.rows.cell[row]];
  const check = data.checks[data.rows.check[row]];
  const error = data.rows.error[row];
  if (error >= 0) parts.push(linked(data.errors[error]));
  for (const verdict of data.verdicts[row] || []) parts.push(element("div", {}, verdict));
  if (statusOf(row) !== "passed") {
    parts.push(element("div", {}, "run it again: ", element("code", {}, `${data.command} -k "test_${check}[${cell.id}]"`)));
  }
  return parts;
}

function show(group) {
  const rows = [...group.rows].sort((a, b) => data.rows.status[a] - data.rows.status[b] || a - b);
  const heads = ["cell", "check", "status", "error ratio", "largest difference", "seconds", "peak, MiB", "message"];
  const body = element("tbody");
  for (const row of rows) {
    const status = statusOf(row);
    const figures = ["ratio", "worst", "seconds", "peak"].map((name) => element("td", {}, told(data.rows[name][row])));
    body.append(
      element(
        "tr",
        {},
        element("th", { scope: "row" }, data.cells[data.rows.cell[row]].id),
        element("td", {}, data.checks[data.rows.check[row]]),
        element("td", { className: status }, `${SYMBOLS[status]} ${status}`),
        ...figures,
        element("td", {}, ...message(row)),
      ),
    );
  }
  const head = element("tr", {}, ...heads.map((name) => element("th", { scope: "col" }, name)));
  const parts = [element("table", {}, element("thead", {}, head), body)];
  for (const cell of group.cells) {
    for (const [name, text] of data.scripts[cell.id] || []) {
      parts.push(element("details", {}, element("summary", {}, `reproducer ${name}`), element("pre", {}, text)));
    }
  }
  document.getElementById("detail-title").textContent = `${group.architecture} ${group.feature}`;
  document.getElementById("detail-rows").replaceChildren(...parts);
  detail.showModal();
}

for (const name of ["feature", "format", "runtime", "status"]) {
  const values = name === "status" ? WORST : [...new Set(data.cells.map((cell) => cell[name]))];
  filters.elements[name].append(element("option", { value: "" }, "any"), ...values.map((v) => element("option", { value: v }, v)));
}
const names = [...new Set(data.cells.map((cell) => cell.architecture))].sort();
document.getElementById("architectures").append(...names.map((value) => element("option", { value })));
filters.addEventListener("input", render);
filters.addEventListener("submit", (event) => event.preventDefault());
// The fields are empty only after the event.
filters.addEventListener("reset", () => setTimeout(render));
render();
document.documentElement.dataset.ready = Math.round(performance.now());
