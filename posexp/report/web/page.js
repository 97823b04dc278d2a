// The page: its options, which are stored in the address so that a link opens the same view, and drawing.

const view = {};

function readView() { // from the address; missing or invalid options get their default
  const params = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
  const pick = (key, options, otherwise = options[0]) => (options.includes(params.get(key)) ? params.get(key) : otherwise);
  view.table = pick("table", DATA.tables.map((table) => table.key));
  view.measure = pick("measure", Object.keys(MEASURES), null); // null: the table's metric
  view.relative = params.get("relative") === "1";
  view.off = new Set(params.getAll("off"));
  view.heat = pick("heat", Object.keys(HEAT_SCALES));
  view.lines = pick("lines", ["all", "differing"]);
  view.find = params.get("find") || "";
}

function writeView() {
  const params = new URLSearchParams();
  if (view.table !== DATA.tables[0].key) params.set("table", view.table);
  if (view.measure) params.set("measure", view.measure);
  if (view.relative) params.set("relative", "1");
  for (const curve of view.off) params.append("off", curve);
  if (view.heat !== "loss") params.set("heat", view.heat);
  if (view.lines !== "all") params.set("lines", view.lines);
  if (view.find) params.set("find", view.find);
  try {
    history.replaceState(null, "", `#${params}`);
  } catch { /* frames without an address raise */ }
}

function change(key, value) {
  view[key] = value;
  writeView();
  if (key === "find") findRuns(view.find);
  else if (key === "heat") drawHeatSection();
  else if (key === "lines") drawLines();
  else drawTable();
}

function chosen() { // the table, and the options of the view that it supports
  const table = DATA.tables.find((one) => one.key === view.table);
  const names = measuresOf(table);
  const name = [view.measure, table.measure, names[0]].find((one) => names.includes(one)) || "ppl";
  const why = !table.comparable
    ? "Each length scores its own targets, so there is no control"
    : table.curves.every((curve) => !controlOf(table, curve)) ? "No curve of this table has a value at its training length" : null;
  return {table, names, name, measure: MEASURES[name], relative: view.relative && !why, why};
}

function drawTable() {
  const {table, names, name, measure, relative, why} = chosen();
  byId("table").value = table.key;
  choiceKeepingFocus("measure", names.map((value) => ({value, title: MEASURES[value].title})), name);
  choiceKeepingFocus("scale", [
    {value: "", title: "Absolute"}, {value: "1", title: "Relative to control", why},
  ], relative ? "1" : "", (value) => change("relative", value === "1"));
  byId("facts").textContent = table.facts;
  drawLegend(table, measure, relative);
  drawChart(table, measure, relative, view.off);
  drawNumbers(table, measure, relative);
  drawVerdicts(table);
  byId("chart-note").replaceChildren(...noteOf(table, measure, relative, why).map((text) => element("span", {}, text)));
}

function choiceKeepingFocus(id, options, value, choose = (picked) => change(id, picked)) {
  const node = byId(id), focused = node.contains(document.activeElement) ? document.activeElement.dataset.value : null;
  choice(node, options, value, choose);
  if (focused !== null) [...node.children].find((button) => button.dataset.value === focused)?.focus();
}

function noteOf(table, measure, relative, why) {
  const shown = table.curves.filter((curve) => !view.off.has(curve));
  const lost = shown.filter((curve) => table.lengths.some((length) => cellOf(table, curve, length)?.nll !== undefined) &&
    table.lengths.every((length) => (pointOf(table, curve, length, measure, relative) || {value: null}).value === null));
  const bands = shown.some((curve) => table.lengths.some((length) => measure.share || cellOf(table, curve, length)?.spread));
  return [
    why ? `${why}.` : "",
    relative ? intervalNote(measure, true) : bands ? `Band: ${measure.share ? intervalNote(measure, false) : "the lowest and the highest seed."}` : "",
    lost.length ? `Not drawn, without ${relative ? "a value at the training length" : "this metric"}: ${lost.join(", ")}.` : "",
    table.curves.some((curve) => table.lengths.some((length) => cellOf(table, curve, length)?.failure)) ? "× marks missing values." : "",
    shown.some((curve) => table.lengths.some((length) => verdictOf(table, curve, length)?.word === "breaks")) ? "Hollow points mark the verdict breaks." : "",
  ].filter(Boolean);
}

// ---- the legend: a button per curve, in order of the last value

const buttons = new Map();
function drawLegend(table, measure, relative) {
  const endOf = (curve) => {
    const values = table.lengths.map((length) => (pointOf(table, curve, length, measure, relative) || {}).value).filter((value) => typeof value === "number");
    return values.length ? values.at(-1) : Infinity;
  };
  const ends = new Map(table.curves.map((curve) => [curve, endOf(curve)]));
  const order = [...table.curves].sort((a, b) => (ends.get(a) === ends.get(b) ? 0 : ends.get(b) - ends.get(a)));
  const place = byId("schemes");
  for (const curve of order) if (!buttons.has(curve)) buttons.set(curve, legendButton(curve));
  const wanted = order.map((curve) => buttons.get(curve));
  if (wanted.length !== place.children.length || wanted.some((button, i) => place.children[i] !== button)) place.replaceChildren(...wanted);
  for (const curve of order) buttons.get(curve).setAttribute("aria-pressed", String(!view.off.has(curve)));
  byId("figure").classList.toggle("many", order.length > MANY);
}

function legendButton(curve) {
  return element("button", {
    type: "button", class: "scheme", "data-curve": curve, "aria-pressed": "true",
    click: () => {
      if (!view.off.delete(curve)) view.off.add(curve);
      change("off", view.off);
    },
    dblclick: () => change("off", new Set(chosen().table.curves.filter((other) => other !== curve))),
    title: "click: show or hide; double click: show only this curve", pointerenter: () => highlight(curve), pointerleave: () => highlight(null),
  }, swatch(curve), element("span", {}, curve));
}

// ---- heat map, runs and start

function drawHeatSection() {
  choiceKeepingFocus("heat-scale", Object.entries(HEAT_SCALES).map(([value, {title}]) => ({value, title})), view.heat, (value) => change("heat", value));
  drawHeat(view.heat);
}

function drawLines() {
  choiceKeepingFocus("lines", [{value: "all", title: "All"}, {value: "differing", title: "Only what differs"}], view.lines, (value) => change("lines", value));
  byId("run-list").classList.toggle("differing", view.lines === "differing");
}

function drawAll() {
  readView();
  drawTable();
  drawHeatSection();
  drawLines();
  byId("find").value = view.find;
  findRuns(view.find);
}

function start() {
  const curves = new Set(DATA.tables.flatMap((table) => table.curves));
  byId("summary").textContent = [
    counted(curves.size, "curve"), DATA.runs.length ? counted(DATA.runs.length, "run") : "",
    DATA.tables[0].trainedAt, DATA.made.date || "",
  ].filter(Boolean).join(" · ");
  byId("answer").textContent = DATA.answer;
  byId("made").replaceChildren(...Object.entries(DATA.made).map(([key, value]) => element("div", {}, element("dt", {}, key), element("dd", {}, value))));
  byId("table").replaceChildren(...DATA.tables.map((table) => element("option", {value: table.key}, table.name + (sameName(table) ? ` · ${table.facts}` : ""))));
  byId("table").addEventListener("change", (event) => change("table", event.target.value));
  byId("find").addEventListener("input", (event) => change("find", event.target.value));
  byId("all").addEventListener("click", () => change("off", new Set()));
  byId("none").addEventListener("click", () => change("off", new Set(chosen().table.curves)));
  drawRuns();
  drawAll();
  for (const link of document.querySelectorAll("nav a")) {
    const section = document.querySelector(link.getAttribute("href"));
    link.hidden = section.hidden;
    link.addEventListener("click", (event) => { // the address stores the view and must not change
      event.preventDefault();
      section.scrollIntoView();
      section.setAttribute("tabindex", "-1");
      section.focus({preventScroll: true});
    });
  }
  let width = byId("plot").clientWidth;
  new ResizeObserver(() => {
    if (byId("plot").clientWidth === width) return;
    width = byId("plot").clientWidth;
    chart.draw();
  }).observe(byId("plot"));
  addEventListener("hashchange", drawAll);
  addEventListener("scroll", hideTip, {passive: true});
  addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });
}

const sameName = (table) => DATA.tables.some((other) => other !== table && other.name === table.name);
start();
