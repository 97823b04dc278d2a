// The tables: numbers, verdicts and heat maps.

const headCell = (text, attributes = {}) => element("th", {scope: "col", ...attributes}, text);
const curveCell = (curve) => element("th", {scope: "row"}, element("span", {class: "name"}, swatch(curve), curve));
const grid = (head, rows, kind) =>
  element("table", {class: kind}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows));

// ---- the numbers

function drawNumbers(table, measure, relative) {
  const several = table.trainLengths.length > 1;
  const head = [headCell("curve"), several ? headCell("trained at") : null, ...table.lengths.map((length) =>
    table.trainLengths.includes(length) ? headCell(`${length}*`, {class: "at-training"}) : headCell(String(length)))];
  const rows = table.curves.map((curve) => element("tr", {"data-curve": curve},
    curveCell(curve), several ? element("td", {}, table.trained[curve].join(", ")) : null,
    ...table.lengths.map((length) => numberCell(table, curve, length, measure, relative))));
  byId("numbers-table").replaceChildren(grid(head, rows, "numbers"));
  const title = relative ? `${measure.title} against the control` : measure.title;
  byId("numbers-caption").textContent = `${title} · ${table.name} · ${table.facts}`;
  const notes = [
    "* marks the training length; – was not measured.",
    relative ? intervalNote(measure, true) : bounded(table, measure) ? `In brackets: ${intervalNote(measure, false)}` : "",
    table.verdicts.length ? `Marks: ${Object.entries(DATA.marks).map(([word, mark]) => `${mark} ${word}`).join(", ")}, as in Verdicts.` : "",
    ...table.notes,
  ];
  byId("numbers-notes").replaceChildren(...notes.filter(Boolean).map((note) => element("li", {}, note)));
}

const bounded = (table, measure) => table.curves.some((curve) => table.lengths.some((length) =>
  pointOf(table, curve, length, measure, false)?.low !== undefined));

function intervalNote(measure, relative) {
  if (relative && measure.share) return "The control is the value of the same curve at its training length on the same targets.";
  return relative
    ? "With a verdict, the difference is to the better control, with its 95 % interval. Without a verdict, it is to the value of the same curve at its training length on the same targets."
    : `the lowest and the highest seed if two or more have a value, otherwise the 95 % interval of ${measure.share ? "a share of examples (Wilson’s)" : "a bootstrap over documents"}.`;
}

function numberCell(table, curve, length, measure, relative) {
  const point = pointOf(table, curve, length, measure, relative);
  if (!point) return element("td", {class: "missing"}, "–");
  const parts = [];
  const verdict = verdictOf(table, curve, length);
  if (point.value !== null) {
    const mark = verdict && Object.hasOwn(DATA.marks, verdict.word)
      ? element("span", {class: `mark ${verdict.word}`, title: verdict.word, role: "img", "aria-label": verdict.word}, DATA.marks[verdict.word])
      : null;
    parts.push(element("span", {class: "value"}, mark, textOf(measure, relative, point.value)));
    if (point.low !== undefined) parts.push(element("span", {class: "interval"}, boundsOf(measure, relative, point)));
  }
  if (point.cell.failure) parts.push(element("span", {class: "failed"}, point.cell.failure));
  return element("td", parts.length ? {} : {class: "missing"}, ...(parts.length ? parts : ["–"]));
}

// ---- the verdicts

function drawVerdicts(table) { // on the targets of the selected table
  const place = byId("verdicts-table");
  if (!table.verdicts.length) {
    place.replaceChildren(element("p", {class: "quiet"}, "This table has no verdicts. Verdicts need the protocol same_targets at the training length and beyond, with controls."));
    return;
  }
  const of = (key) => [...new Set(table.verdicts.map((verdict) => verdict[key]))];
  const lengths = of("length").sort((a, b) => a - b);
  const usable = new Map(table.usable.map((one) => [one.curve, one]));
  const curves = [...new Set([...of("curve"), ...usable.keys()])].sort();
  const head = [headCell("curve"), ...lengths.map((length) => headCell(String(length))), headCell("usable length")];
  const rows = curves.map((curve) => {
    const last = usable.get(curve);
    const upTo = last && (last.at_least ? "≥ " : "") + last.length.toLocaleString("en-US") + (last.doubtful ? " ?" : "");
    return element("tr", {"data-curve": curve}, curveCell(curve),
      ...lengths.map((length) => verdictCell(verdictOf(table, curve, length))),
      element("td", {class: "usable"}, upTo || "–"));
  });
  place.replaceChildren(grid(head, rows, "verdicts"));
}

function verdictCell(verdict) {
  if (!verdict) return element("td", {class: "missing"}, "–");
  const {difference} = verdict;
  const show = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    showTip(box.right - 16, box.top + box.height / 2, ...verdictLines(verdict));
  };
  const kind = Object.hasOwn(DATA.marks, verdict.word) ? verdict.word : "none";
  const inner = [element("b", {}, verdict.word)];
  if (difference) {
    const {value, low, high} = difference;
    inner.push(element("span", {class: "value"}, percentOf(value), low === null ? "" : element("span", {class: "interval"}, ` ${percentsOf(low, high)}`)));
    if (difference.p !== null) inner.push(element("span", {class: "interval"}, pText(difference.p)));
  }
  return element("td", {}, element("button", {
    type: "button", class: `verdict ${kind}`, pointerenter: show, focus: show, click: show, pointerleave: hideTip, blur: hideTip,
  }, ...inner));
}

function verdictLines(verdict) {
  const nats = (value) => signed(value, 3);
  const lines = [heading(verdict.curve), line(`${verdict.length.toLocaleString("en-US")} tokens of context before a target`, "quiet")];
  if (verdict.difference) {
    const {difference} = verdict;
    lines.push(line(`${estimateText(difference, nats)} nats per token against the ${verdict.control} control`));
    if (difference.p !== null) lines.push(line(`${pText(difference.p)}, two-sided`));
    lines.push(line(`${counted(difference.seeds, "seed")}, ${counted(difference.documents, "document")}`, "quiet"));
  }
  lines.push(verdict.shuffled
    ? line(`shuffled beyond the training length: ${estimateText(verdict.shuffled, nats)} nats${verdict.shuffled.p === null ? "" : `, ${pText(verdict.shuffled.p)}`}`)
    : line("shuffled: not measured", "quiet"));
  return lines;
}

// ---- heat maps

const VIRIDIS = ["440154", "482878", "3e4989", "31688e", "26828e", "1f9e89", "35b779", "6ece58", "b5de2b", "fde725"]
  .map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));
function heatColour(share) { // for 0 to 1; perceptually uniform and safe for colour-blind readers
  const at = Math.min(Math.max(share, 0), 1) * (VIRIDIS.length - 1), i = Math.min(Math.floor(at), VIRIDIS.length - 2);
  return `rgb(${VIRIDIS[i].map((channel, k) => Math.round(channel + (VIRIDIS[i + 1][k] - channel) * (at - i))).join(" ")})`;
}

const HEAT_SCALES = {
  loss: {title: "Loss", why: "nats per token"},
  above: {title: "Above the lowest of the column", why: "nats per token above the best curve at this context"},
};
const heatTables = () => DATA.tables.filter((table) => table.heat && table.cells.some((row) => row.some((cell) => cell && cell.nll !== undefined)));

function drawHeat(scale) {
  const found = heatTables();
  byId("heat").hidden = !found.length;
  byId("heat-maps").replaceChildren(...found.map((table) => heatMap(table, scale)));
}

function heatMap(table, scale) {
  const lowest = table.lengths.map((_, j) => Math.min(...table.cells.map((row) => (row[j] && row[j].nll !== undefined ? row[j].nll : Infinity))));
  const valueOf = (cell, j) => (cell && cell.nll !== undefined ? cell.nll - (scale === "above" ? lowest[j] : 0) : null);
  const all = table.cells.flatMap((row) => row.map(valueOf)).filter((value) => value !== null);
  const low = Math.min(...all), high = Math.max(...all), text = (value) => value.toFixed(3);
  const cross = (curve, cell, j) => {
    const value = valueOf(cell, j), length = table.lengths[j];
    if (!cell) return element("td", {class: "heat-none"});
    if (value === null) return element("td", {class: "heat-failed", "data-length": length}, "×");
    return element("td", {
      class: "heat", "data-length": length, style: {background: heatColour(high > low ? (value - low) / (high - low) : 0)},
    }, element("span", {class: "unseen"}, text(value)));
  };
  const head = [headCell("curve"), ...table.lengths.map((length) =>
    headCell(table.trainLengths.includes(length) ? `${length}*` : String(length), {class: table.trainLengths.includes(length) ? "at-training" : null}))];
  const rows = table.curves.map((curve, i) => element("tr", {"data-curve": curve}, curveCell(curve), ...table.cells[i].map((cell, j) => cross(curve, cell, j))));
  const map = grid(head, rows, "heat-map");
  const show = (event) => {
    const cell = event.target.closest("td[data-length]");
    if (!cell) return hideTip();
    const curve = cell.closest("tr").dataset.curve, length = Number(cell.dataset.length), box = cell.getBoundingClientRect();
    const lines = describe(table, curve, length, MEASURES.nll, false);
    const value = valueOf(cellOf(table, curve, length), table.lengths.indexOf(length));
    if (scale === "above" && value !== null) lines.push(line(`${text(value)} above the lowest of the column`, "quiet"));
    showTip(box.right, box.top + box.height / 2, ...lines);
  };
  map.addEventListener("pointerover", show);
  map.addEventListener("pointerleave", hideTip);
  const stops = [...Array(19).keys()].map((i) => heatColour(i / 18)).join(", ");
  const legend = element("div", {class: "heat-legend small quiet"},
    element("span", {}, text(low)), element("span", {class: "bar", style: {background: `linear-gradient(to right, ${stops})`}}),
    element("span", {}, text(high)), element("span", {}, HEAT_SCALES[scale].why));
  return element("div", {class: "card"}, element("h3", {}, table.name), element("p", {class: "quiet"}, `${table.axis} · ${table.facts}`),
    legend, element("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": `${table.name}, heat map`}, map));
}
