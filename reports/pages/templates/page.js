"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const WORST = data.statuses;
const SYMBOLS = data.symbols;
const CHANGES = data.changes;
// Checks that an entry names before it counts them.
const NAMED = 6;
const filters = document.getElementById("filters");
const grids = document.getElementById("grids");
const detail = document.getElementById("detail");
const rows = data.rows;

const statusOf = (row) => WORST[rows.status[row]];
const cellOf = (row) => data.cells[rows.cell[row]];
const worstOf = (some) => WORST[some.reduce((worst, row) => Math.min(worst, rows.status[row]), WORST.length - 1)];
const changeOf = (some) => {
  const found = some.map((row) => rows.change[row]).filter((change) => change >= 0);
  return found.length ? CHANGES[Math.min(...found)] : "";
};

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

const isPlain = (cell) => cell.opset !== null && cell.id === `${cell.architecture}-${cell.feature}-onnx${cell.opset}`;

// A group is one square of the matrix: the cells of an architecture and feature; a row is one check.
const groups = new Map();
const groupOf = new Map();
data.cells.forEach((cell) => {
  const key = `${cell.architecture}-${cell.feature}`;
  if (!groups.has(key)) {
    groups.set(key, { key, architecture: cell.architecture, feature: cell.feature, cells: [], rows: [] });
  }
  groups.get(key).cells.push(cell);
  groupOf.set(cell.id, groups.get(key));
});
rows.cell.forEach((cell, row) => {
  const group = groupOf.get(data.cells[cell].id);
  group.rows.push(row);
  (data.cells[cell].rows ||= []).push(row);
});
// Opsets as numbers, then those with another attention, then what has no opset.
const order = (cell) => [isPlain(cell) ? 0 : cell.opset === null ? 2 : 1, cell.opset];
for (const group of groups.values()) {
  group.cells.sort((one, other) => order(one)[0] - order(other)[0] || order(one)[1] - order(other)[1]);
}
const opsets = data.cells.map((cell) => cell.opset).filter((opset) => opset !== null);
const FIRST = opsets.reduce((one, other) => Math.min(one, other), Infinity);
const LAST = opsets.reduce((one, other) => Math.max(one, other), -Infinity);
const OPSETS = opsets.length ? Array.from({ length: LAST - FIRST + 1 }, (_, index) => FIRST + index) : [];
const shortName = (cell) => cell.id.slice(cell.architecture.length + cell.feature.length + 2);

function ranges(numbers) {
  const runs = [];
  for (const number of [...new Set(numbers)].sort((a, b) => a - b)) {
    const last = runs[runs.length - 1];
    if (last && last[1] === number - 1) last[1] = number;
    else runs.push([number, number]);
  }
  return runs.map(([from, to]) => (from === to ? `${from}` : `${from}–${to}`)).join(", ");
}

// The names of cells of one group: opsets as ranges.
function named(cells) {
  const plain = cells.filter(isPlain);
  const others = cells.filter((cell) => !isPlain(cell)).map(shortName);
  return [...(plain.length ? [`onnx${ranges(plain.map((cell) => cell.opset))}`] : []), ...others].join(", ");
}

function countText(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

// The matrix.

function accepts() {
  const wanted = Object.fromEntries(new FormData(filters));
  const text = wanted.message.trim().toLowerCase();
  const has = (message) => message.toLowerCase().includes(text);
  const errors = text && data.errors.map(has);
  const warnings = text && data.warnings.map(has);
  const cause = Number(wanted.cause || 0) - 1;
  const status = WORST.indexOf(wanted.status);
  const change = CHANGES.indexOf(wanted.change);
  const architecture = wanted.architecture.trim().toLowerCase();
  return {
    cell: (cell) =>
      cell.architecture.includes(architecture) &&
      ["feature", "format", "runtime"].every((name) => !wanted[name] || cell[name] === wanted[name]),
    row: (row) =>
      (status < 0 || rows.status[row] === status) &&
      (!wanted.change || (change < 0 ? rows.change[row] >= 0 : rows.change[row] === change)) &&
      (cause < 0 || rows.cause[row] === cause) &&
      (!text ||
        (rows.error[row] >= 0 && errors[rows.error[row]]) ||
        (data.verdicts[row] || []).some(has) ||
        (data.warned[row] || []).some((warning) => warnings[warning])),
  };
}

function chosen() {
  const { cell: fits, row: matches } = accepts();
  const found = [];
  for (const group of groups.values()) {
    const cells = [];
    for (const cell of group.cells) {
      if (!fits(cell)) continue;
      const some = cell.rows.filter(matches);
      if (some.length) cells.push({ cell, rows: some, worst: worstOf(some) });
    }
    if (cells.length) found.push({ ...group, chosen: cells, matching: cells.flatMap((each) => each.rows) });
  }
  return found;
}

// Strokes of equal width in the colours of statuses; null is a gap.
function stripes(statuses, slots) {
  const stops = statuses.map((status, index) => {
    const colour = status ? `var(--${status}-bar)` : "transparent";
    return `${colour} ${(index / slots) * 100}% ${((index + 1) / slots) * 100}%`;
  });
  const end = (statuses.length / slots) * 100;
  return `linear-gradient(to right, ${[...stops, `transparent ${end}%`].join(", ")})`;
}

function button(group) {
  const worst = worstOf(group.matching);
  const change = changeOf(group.matching);
  const plain = new Map();
  const others = [];
  for (const { cell, worst: status } of group.chosen) {
    if (isPlain(cell)) plain.set(cell.opset, status);
    else others.push(status);
  }
  const strip = element("i");
  const slots = Math.max(OPSETS.length, 10);
  const upper = stripes(OPSETS.map((opset) => plain.get(opset) || null), slots);
  strip.style.backgroundImage = `${upper}, ${stripes(others.slice(0, slots), slots)}`;
  const made = element("button", { type: "button", className: worst, tabIndex: -1 }, SYMBOLS[worst], strip);
  if (change) made.classList.add("changed");
  const told = WORST.map((status) => [status, group.chosen.filter((each) => each.worst === status)])
    .filter(([, some]) => some.length)
    .map(([status, some]) => `${status}: ${named(some.map((each) => each.cell))}`);
  const label = [...told, countText(group.matching.length, "check"), ...(change ? [change] : [])].join("; ");
  made.setAttribute("aria-label", `${group.architecture} ${group.feature}: ${label}`);
  made.title = `${group.architecture} ${group.feature}\n${label.replaceAll("; ", "\n")}`;
  made.dataset.key = group.key;
  return made;
}

function grid(kind, architectures, byName) {
  const own = architectures.filter((name) => byName.has(name));
  const features = data.features.filter((feature) => own.some((name) => byName.get(name).has(feature)));
  const title = Object.keys(data.kinds).length > 1 ? `${kind} ` : "";
  const head = element("tr", {}, element("th", { scope: "col" }, title, element("small", { className: "quiet" }, own.length)));
  for (const feature of features) head.append(element("th", { scope: "col" }, element("span", {}, feature)));
  const body = element("tbody");
  for (const name of own) {
    const row = element("tr", {}, element("th", { scope: "row", title: name }, name));
    for (const feature of features) {
      const group = byName.get(name).get(feature);
      row.append(element("td", {}, ...(group ? [button(group)] : [])));
    }
    body.append(row);
  }
  const table = element("table", {}, element("thead", {}, head), body);
  table.setAttribute("role", "grid");
  table.setAttribute("aria-label", `Architecture × feature: ${kind}`);
  const first = table.querySelector("button");
  if (first) first.tabIndex = 0;
  return { section: element("div", { className: "kind" }, table), columns: features.length };
}

function render() {
  const found = chosen();
  const byName = new Map();
  for (const group of found) {
    if (!byName.has(group.architecture)) byName.set(group.architecture, new Map());
    byName.get(group.architecture).set(group.feature, group);
  }
  const made = Object.entries(data.kinds)
    .filter(([, names]) => names.some((name) => byName.has(name)))
    .map(([kind, names]) => grid(kind, names, byName));
  // More columns than half a window has room for: narrower strokes, one grid beside none.
  grids.toggleAttribute("data-dense", made.some(({ columns }) => columns > 8));
  grids.style.setProperty("--strokes", Math.max(OPSETS.length, 10));
  grids.replaceChildren(...made.map(({ section }) => section));
  const checks = found.reduce((sum, group) => sum + group.matching.length, 0);
  document.getElementById("shown").textContent =
    `${countText(byName.size, "architecture")}, ${found.length} architecture × feature, ${countText(checks, "check")}`;
  for (const field of filters.elements) if (field.name) field.toggleAttribute("data-set", Boolean(field.value));
  fit();
}

// A grid that is wider than the window scrolls by itself, not the page.
function fit() {
  for (const section of grids.children) {
    section.classList.remove("wide");
    section.classList.toggle("wide", section.firstChild.offsetWidth > section.clientWidth);
  }
}

// Of each grid one button is in the tab order; arrows go to the next one there is.
grids.addEventListener("keydown", (event) => {
  const steps = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };
  const step = steps[event.key];
  const from = event.target.closest("td");
  if (!step || !from) return;
  event.preventDefault();
  const body = [...from.closest("tbody").rows];
  let row = body.indexOf(from.parentElement);
  let column = from.cellIndex;
  for (;;) {
    row += step[0];
    column += step[1];
    const cell = body[row] && body[row].cells[column];
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

// A square or a cell that is open has an address: #bert-masked-lm, #bert-masked-lm-onnx17.

let opener = null;

grids.addEventListener("click", (event) => {
  const made = event.target.closest("button");
  if (!made) return;
  opener = made;
  if (location.hash === `#${made.dataset.key}`) follow();
  else location.hash = made.dataset.key;
});

function follow() {
  const name = decodeURIComponent(location.hash.slice(1));
  const cell = data.cells.find((each) => each.id === name);
  const group = groups.get(name) || groupOf.get(name);
  if (group) return show(group, cell);
  if (detail.open) detail.close();
  const cause = /^(cause|warning)-\d+$/.test(name) && !document.getElementById(name);
  if (cause) for (const rest of document.querySelectorAll(".rest")) unfold(rest);
  const target = name && document.getElementById(name);
  if (cause && target) target.scrollIntoView();
  if (name && !target) {
    document.getElementById("shown").textContent = `#${name}: no such cell on this page`;
    document.getElementById("matrix").scrollIntoView();
  }
}

detail.addEventListener("close", () => {
  if (groups.has(decodeURIComponent(location.hash.slice(1))) || groupOf.has(decodeURIComponent(location.hash.slice(1)))) {
    history.replaceState(null, "", location.pathname + location.search);
  }
  if (opener && opener.isConnected) opener.focus();
});
detail.addEventListener("click", (event) => {
  if (event.target === detail) detail.close();
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
  if (Math.abs(value) >= 1e5) return value.toExponential(2);
  return value && Math.abs(value) < 1e-3 ? value.toExponential(1) : String(Number(value.toPrecision(3)));
}

function largest(some, column) {
  const values = some.map((row) => rows[column][row]).filter((value) => value !== null);
  return values.length ? values.reduce((one, other) => (Number(other) > Number(one) || other === "inf" ? other : one)) : null;
}

function figures(some) {
  const parts = [
    ["error ratio", largest(some, "ratio"), ""],
    ["largest difference", largest(some, "worst"), ""],
    ["", largest(some, "seconds"), "s"],
    ["peak", largest(some, "peak"), "MiB"],
  ];
  return parts
    .filter(([, value]) => value !== null)
    .map(([name, value, unit]) => [name, told(value), unit].filter(Boolean).join(" "))
    .join(" · ");
}

// What is not passed, or has something to say: one entry for all cells and checks with one message.
function entry(some, cell) {
  const [first] = some;
  const status = statusOf(first);
  const warned = data.warned[first] || [];
  const checks = [...new Set(some.map((row) => data.checks[rows.check[row]]))];
  const more = checks.length - NAMED;
  const names = more > 1 ? `${checks.slice(0, NAMED).join(", ")} and ${more} more` : checks.join(", ");
  const cells = data.cells.filter((each) => some.some((row) => cellOf(row) === each));
  const head = element("h3", {}, element("span", { className: `chip ${status}` }, `${SYMBOLS[status]} ${status}`), names);
  if (!cell) head.append(element("span", { className: "quiet" }, named(cells)));
  if (rows.change[first] >= 0) {
    const was = rows.was[first] < 0 ? "" : `, was ${WORST[rows.was[first]]}`;
    head.append(element("span", { className: "chip changed" }, `${CHANGES[rows.change[first]]}${was}`));
  }
  const made = element("article", { className: `check ${status}${warned.length ? " warned" : ""}` }, head);
  if (rows.error[first] >= 0) made.append(linked(data.errors[rows.error[first]]));
  const messages = new Set(some.map((row) => rows.error[row])).size;
  if (messages > 1) made.append(element("p", { className: "quiet" }, `${messages} messages that differ in names and numbers alone`));
  for (const warning of warned) made.append(linked(`⚠ ${data.warnings[warning]}`));
  for (const verdict of data.verdicts[first] || []) made.append(element("p", {}, verdict));
  if (status !== "skipped") made.append(element("p", { className: "quiet" }, figures(some)));
  if (status !== "passed" && status !== "skipped") {
    const command = `${data.command} -k "test_${data.checks[rows.check[first]]}[${cellOf(first).id}]"`;
    const again = element("p", { className: "again" }, element("code", {}, command));
    again.setAttribute("aria-label", "run it again");
    made.append(again);
  }
  if (rows.cause[first] >= 0) {
    const number = rows.cause[first] + 1;
    made.append(element("p", {}, element("a", { href: `#cause-${number}` }, `cause ${number}`)));
  }
  return made;
}

function passed(some) {
  const heads = ["cell", "check", "error ratio", "largest difference", "seconds", "peak, MiB"];
  const judged = some.some((row) => data.verdicts[row]);
  if (judged) heads.push("verdicts on axes");
  const head = element("tr", {}, ...heads.map((name) => element("th", { scope: "col" }, name)));
  const body = element("tbody");
  for (const row of some) {
    const values = ["ratio", "worst", "seconds", "peak"].map((name) => element("td", {}, told(rows[name][row])));
    const verdicts = (data.verdicts[row] || []).map((verdict) => element("div", {}, verdict));
    body.append(
      element(
        "tr",
        {},
        element("th", { scope: "row" }, shortName(cellOf(row))),
        element("td", {}, data.checks[rows.check[row]]),
        ...values,
        ...(judged ? [element("td", {}, ...verdicts)] : []),
      ),
    );
  }
  return element("div", { className: "scroll" }, element("table", { className: "figures" }, element("thead", {}, head), body));
}

// Builds what is inside only when it is opened.
function lazily(made, build) {
  made.addEventListener("toggle", () => made.open && made.children.length === 1 && made.append(build()), { once: true });
  return made;
}

function cellLinks(group, cell) {
  const link = (id, text, className, current) => {
    const made = element("a", { href: `#${id}`, className }, text);
    if (current) made.setAttribute("aria-current", "true");
    return made;
  };
  const made = element("nav", { className: "cells" }, link(group.key, "all cells", "everything", !cell));
  made.setAttribute("aria-label", "Cells");
  for (const each of group.cells) {
    const status = worstOf(each.rows);
    made.append(link(each.id, `${SYMBOLS[status]} ${shortName(each)}`, status, each === cell));
  }
  return made;
}

function show(group, cell) {
  const some = cell ? cell.rows : group.cells.flatMap((each) => each.rows);
  const quiet = (row) => statusOf(row) === "passed" && !data.warned[row] && rows.change[row] < 0;
  const loud = new Map();
  for (const row of some.filter((each) => !quiet(each))) {
    // Of a whole square, all that one cause did is one entry.
    const message = cell || rows.cause[row] < 0 ? `message ${rows.error[row]}` : `cause ${rows.cause[row]}`;
    const key = [rows.status[row], message, rows.change[row], rows.was[row], data.warned[row]].join(" ");
    if (!loud.has(key)) loud.set(key, []);
    loud.get(key).push(row);
  }
  const entries = [...loud.values()].sort((one, other) => rows.status[one[0]] - rows.status[other[0]]);
  const calm = some.filter(quiet);
  const parts = [cellLinks(group, cell), ...entries.map((each) => entry(each, cell))];
  if (calm.length) {
    const ratio = largest(calm, "ratio");
    const most = ratio === null ? "" : ` · largest error ratio ${told(ratio)}`;
    const summary = element("summary", {}, element("span", { className: "chip passed" }, `✓ ${calm.length} passed`), most);
    parts.push(lazily(element("details", {}, summary), () => passed(calm)));
  }
  for (const each of cell ? [cell] : group.cells) {
    for (const [name, text] of data.scripts[each.id] || []) {
      parts.push(element("details", {}, element("summary", {}, `reproducer ${name}`), element("pre", {}, text)));
    }
  }
  document.getElementById("detail-title").textContent = cell ? cell.id : `${group.architecture} ${group.feature}`;
  document.getElementById("detail-body").replaceChildren(...parts);
  if (!detail.open) detail.showModal();
  detail.scrollTop = 0;
}

// Causes: their cells and all beyond the largest are built when they are asked for.

function causeCells(number) {
  const made = element("dl", { className: "links" });
  for (const group of groups.values()) {
    const cells = group.cells.filter((cell) => cell.rows.some((row) => rows.cause[row] === number - 1));
    if (!cells.length) continue;
    const links = cells.map((cell) => element("a", { href: `#${cell.id}` }, shortName(cell)));
    made.append(element("dt", {}, `${group.architecture} ${group.feature}`), element("dd", {}, ...links));
  }
  return made;
}

function prepare(part) {
  for (const made of part.querySelectorAll(".causes pre")) made.replaceWith(linked(made.textContent));
  for (const made of part.querySelectorAll("details[data-cause]")) lazily(made, () => causeCells(Number(made.dataset.cause)));
}

function unfold(rest) {
  const template = rest.querySelector("template");
  if (template) {
    template.replaceWith(template.content);
    prepare(rest);
  }
  rest.open = true;
}

function filter(name, value) {
  filters.reset();
  // After the event of the reset, which draws the whole matrix.
  setTimeout(() => {
    filters.elements[name].value = value;
    render();
    document.getElementById("matrix").scrollIntoView();
  });
}

document.addEventListener("click", (event) => {
  const made = event.target.closest("button[data-cause], button[data-change]");
  if (!made) return;
  if (made.dataset.cause) filter("cause", made.dataset.cause);
  else filter("change", made.dataset.change);
});
for (const rest of document.querySelectorAll(".rest")) {
  rest.addEventListener("toggle", () => rest.open && unfold(rest));
}
prepare(document);

const options = {
  feature: data.features,
  format: [...new Set(data.cells.map((cell) => cell.format))],
  runtime: [...new Set(data.cells.map((cell) => cell.runtime))],
  status: WORST.filter((_, status) => rows.status.includes(status)),
  change: ["any change", ...CHANGES.filter((_, change) => rows.change.includes(change))],
};
for (const [name, values] of Object.entries(options)) {
  const field = filters.elements[name];
  if (field) {
    field.append(element("option", { value: "" }, "any"), ...values.map((value) => element("option", { value }, value)));
  }
}
const architectures = [...new Set(data.cells.map((cell) => cell.architecture))].sort();
document.getElementById("architectures").append(...architectures.map((value) => element("option", { value })));
document.getElementById("opsets").textContent = OPSETS.length ? `opsets ${ranges(OPSETS)}` : "opsets";
document.querySelectorAll(".sample i").forEach((strip) => {
  strip.style.backgroundImage = `${stripes(Array(10).fill("passed"), 10)}, ${stripes(Array(3).fill("passed"), 10)}`;
});
filters.addEventListener("input", render);
filters.addEventListener("submit", (event) => event.preventDefault());
// The fields are empty only after the event.
filters.addEventListener("reset", () => setTimeout(render));
addEventListener("hashchange", follow);
addEventListener("resize", fit);
render();
follow();
document.documentElement.dataset.ready = Math.round(performance.now());
