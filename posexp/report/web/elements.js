"use strict";
// Helpers of the other scripts: data, elements, formats of numbers, and the value of a curve at a length.
// Names are untrusted. They become text nodes and attribute values, never HTML.

const DATA = JSON.parse(document.getElementById("data").textContent);
const SVG = document.getElementById("chart").namespaceURI;
const byId = (id) => document.getElementById(id);

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined) continue;
    if (key === "style") for (const [name, text] of Object.entries(value)) node.style.setProperty(name, text);
    else if (typeof value === "function") node.addEventListener(key, value);
    else node.setAttribute(key, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}
const element = (name, attributes = {}, ...children) => fill(document.createElement(name), attributes, children);
const shape = (name, attributes = {}, ...children) => fill(document.createElementNS(SVG, name), attributes, children);

// ---- numbers as text

function number(value) { // as in table.md: four significant digits, and two from ten thousand on
  if (value >= 9999.5) return value.toExponential(1).replace(/\+(\d)$/, "+0$1");
  const digits = value > 0 ? 3 - Math.floor(Math.log10(value)) : 3;
  return value.toFixed(Math.min(Math.max(0, digits), 20));
}

function signed(value, digits) {
  const text = Math.abs(value).toFixed(digits);
  return Number(text) === 0 ? text : (value < 0 ? "−" : "+") + text;
}

function percentOf(nats) { // the change of perplexity for a change of loss
  const percent = 100 * Math.expm1(Math.min(nats, 700));
  if (percent >= 99999.5) return `+${number(percent)} %`;
  if (Math.abs(percent) < 99.95) return `${signed(percent, 1)} %`;
  return `+${Math.round(percent).toLocaleString("en-US")} %`;
}

// An interval with the percent signs removed: [+27.0, +35.8]
const percentsOf = (low, high) => `[${percentOf(low).replace(" %", "")}, ${percentOf(high).replace(" %", "")}]`;

const times = (ratio) => `×${number(ratio)}`;
const counted = (count, noun) => `${count.toLocaleString("en-US")} ${noun}${count === 1 ? "" : "s"}`;

function tickText(tick) { // 20, 22.5, 1,000; from a million on 10⁶
  if (Math.abs(tick) < 1e6) return tick.toLocaleString("en-US", {maximumFractionDigits: 6}).replace("-", "−");
  const [mantissa, exponent] = tick.toExponential(2).split("e");
  const power = "10" + [...String(Number(exponent))].map((digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]).join("");
  return Number(mantissa) === 1 ? power : `${Number(mantissa)}×${power}`;
}

// ---- measures
// `loss` converts nats to the metric's scale, for values and for differences.

const MEASURES = {
  ppl: {
    title: "Perplexity", axis: "perplexity (log scale)", relativeAxis: "perplexity, times the control’s (log scale)",
    log: true, has: (cell) => cell.nll !== undefined, loss: (nats) => Math.exp(nats), text: number, relativeText: times,
  },
  nll: {
    title: "Loss", axis: "loss, nats per token", relativeAxis: "loss less the control’s, nats per token",
    has: (cell) => cell.nll !== undefined, loss: (nats) => nats,
    text: (value) => value.toFixed(3), relativeText: (value) => signed(value, 3),
  },
  bits_per_byte: {
    title: "Bits per byte", axis: "bits per byte", relativeAxis: "bits per byte less the control’s",
    has: (cell) => cell.bits_per_byte !== undefined && cell.nll > 0, loss: (nats, cell) => nats * (cell.bits_per_byte / cell.nll),
    text: (value) => value.toFixed(3), relativeText: (value) => signed(value, 3),
  },
  accuracy: share("accuracy", "Accuracy", "targets with the highest probability, %"),
  exact_match: share("exact_match", "Exact match", "exact match, % of examples"),
};

function share(key, title, axis) {
  return {
    title, axis, relativeAxis: `${axis}, less the control’s`, share: key, has: (cell) => cell[key] !== undefined,
    text: (value) => `${value.toFixed(1)} %`, relativeText: (value) => signed(value, 1),
  };
}

const measuresOf = (table) =>
  Object.keys(MEASURES).filter((name) => table.cells.some((row) => row.some((cell) => cell && MEASURES[name].has(cell))));

// ---- cells and verdicts

const cellOf = (table, curve, length) => {
  const row = table.cells[table.curves.indexOf(curve)];
  return row ? row[table.lengths.indexOf(length)] : null;
};
const verdictOf = (table, curve, length) => table.verdicts.find((one) => one.curve === curve && one.length === length);

function controlOf(table, curve) { // the cropped control: the same curve at its training length, on the same targets
  const trained = table.trained[curve];
  return table.comparable && trained.length === 1 ? cellOf(table, curve, trained[0]) : null;
}

// Returns {cell, value, low, high, control}. value is null if the cell lacks the metric or the control.
function pointOf(table, curve, length, measure, relative) {
  const cell = cellOf(table, curve, length);
  if (!cell) return null;
  if (!measure.has(cell)) return {cell, value: null};
  const bounds = (low, high, scale) =>
    low === undefined || low === null || high === null ? {} : {low: scale(low), high: scale(high)};
  if (!relative) {
    if (measure.share) {
      const [low, high] = cell[`${measure.share}_bounds`] || [];
      return {cell, value: 100 * cell[measure.share], ...bounds(low, high, (part) => 100 * part)};
    }
    const {low, high} = cell;
    return {
      cell, value: measure.loss(cell.nll, cell), ...bounds(low, high, (ppl) => measure.loss(Math.log(ppl), cell)),
    };
  }
  const difference = (verdictOf(table, curve, length) || {}).difference;
  if (difference && !measure.share) {
    const scale = (nats) => measure.loss(nats, cell);
    return {
      cell, value: scale(difference.value), ...bounds(difference.low, difference.high, scale),
      control: verdictOf(table, curve, length).control,
    };
  }
  const control = controlOf(table, curve);
  if (!control || !measure.has(control)) return {cell, value: null};
  const value = measure.share
    ? 100 * (cell[measure.share] - control[measure.share])
    : measure.loss(cell.nll - control.nll, cell);
  return {cell, value, control: "cropped"};
}

const textOf = (measure, relative, value) => (relative ? measure.relativeText : measure.text)(value);
const boundsOf = (measure, relative, {low, high}) =>
  `[${[low, high].map((value) => textOf(measure, relative, value).replace(" %", "")).join(", ")}]`;

// ---- markers and swatches of curves

const MARKER = { // paths in a box from -1 to 1
  "o": "M-.9 0A.9 .9 0 1 0 .9 0A.9 .9 0 1 0-.9 0Z", "s": "M-.8-.8H.8V.8H-.8Z", "D": "M0-1.1L1.1 0 0 1.1-1.1 0Z",
  "^": "M0-1L1 .8H-1Z", "v": "M0 1L1-.8H-1Z", "<": "M-1 0L.8-1V1Z", ">": "M1 0L-.8-1V1Z",
  "p": "M0-1L.95-.31 .59 .81H-.59L-.95-.31Z", "h": "M0-1L.87-.5V.5L0 1-.87 .5V-.5Z",
  "*": "M0-1.4L.33-.45 1.33-.43 .53 .17 .82 1.13 0 .56-.82 1.13-.53 .17-1.33-.43-.33-.45Z",
};
const lookOf = (curve) => DATA.looks[curve];

function markerOf(curve, x, y, size, kind = "") {
  const path = MARKER[lookOf(curve).marker] || MARKER.o;
  return shape("path", {class: `marker ${kind}`, d: path, transform: `translate(${x.toFixed(2)} ${y.toFixed(2)}) scale(${size})`});
}

const dashOf = (curve, width) => lookOf(curve).dash.map((part) => part * width).join(" ") || null;

function swatch(curve) {
  const line = shape("path", {class: "line", d: "M1 7H29", "stroke-dasharray": dashOf(curve, 2)});
  const attributes = {class: "swatch curve", width: 30, height: 14, viewBox: "0 0 30 14", "aria-hidden": "true"};
  return shape("svg", {...attributes, style: {"--c": lookOf(curve).colour}}, line, markerOf(curve, 15, 7, 4));
}

// ---- button groups with one pressed button, and the tooltip

function choice(node, options, chosen, choose) {
  node.replaceChildren(...options.map(({value, title, why}) => element("button", {
    type: "button", "data-value": value, "aria-pressed": String(value === chosen), "aria-disabled": why ? "true" : null,
    title: why, click: () => { if (!why) choose(value); },
  }, title)));
}

const tip = byId("tip");
function showTip(x, y, ...lines) { // beside the point (x, y) of the viewport
  tip.replaceChildren(...lines.filter(Boolean));
  tip.hidden = false;
  const {width, height} = tip.getBoundingClientRect();
  const left = x + 16 + width > innerWidth - 8 ? x - 16 - width : x + 16;
  tip.style.left = `${Math.max(8, Math.min(left, innerWidth - width - 8))}px`;
  tip.style.top = `${Math.max(8, Math.min(y - height / 2, innerHeight - height - 8))}px`;
}
function hideTip() { tip.hidden = true; }

const line = (text, kind) => element("p", kind ? {class: kind} : {}, text);
const heading = (curve) => element("p", {class: "name"}, swatch(curve), curve);

function estimateText(estimate, text) {
  const interval = estimate.low === null ? "" : ` [${text(estimate.low)}, ${text(estimate.high)}]`;
  return text(estimate.value) + interval;
}
const changeText = ({value, low, high}) => percentOf(value) + (low === null ? "" : ` ${percentsOf(low, high)}`);
const pText = (p) => (p < 0.001 ? "p < 0.001" : `p = ${p.toFixed(3)}`);

function placeText(table, length) { // such as "512 tokens of context before a target" or "size of the problem: 20"
  const text = length.toLocaleString("en-US");
  return table.axis.startsWith("tokens") ? `${text} ${table.axis}` : `${table.axis}: ${text}`;
}

// Returns the lines of the tooltip for a curve at a length.
function describe(table, curve, length, measure, relative) {
  const point = pointOf(table, curve, length, measure, relative);
  const lines = [heading(curve), line(placeText(table, length), "quiet")];
  if (point.value !== null) {
    lines.push(line(textOf(measure, relative, point.value), "value"));
    if (point.low !== undefined) {
      const kind = relative || !point.cell.spread ? "95 % interval" : `lowest and highest of ${point.cell.seeds} seeds`;
      lines.push(line(`${boundsOf(measure, relative, point)} ${kind}`, "quiet"));
    }
    if (relative) lines.push(line(`against the ${point.control} control`, "quiet"));
  }
  if (point.cell.failure) lines.push(line(point.cell.failure, "failed"));
  const verdict = verdictOf(table, curve, length);
  if (verdict && verdict.word !== point.cell.failure) {
    lines.push(element("p", {}, wordOf(verdict.word), verdict.difference ? ` ${changeText(verdict.difference)}` : ""));
  }
  return lines;
}

const wordOf = (word) => element("span", {class: `word ${Object.hasOwn(DATA.marks, word) ? word : "none"}`}, word);
