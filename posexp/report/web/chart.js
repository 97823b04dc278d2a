// The chart: the chosen metric by length, with one line per visible curve.

const BANDED = 8; // maximum number of curves with bands; beyond it, bands would overlap, so only the curve under the pointer has one
const MANY = 16; // maximum number of curves beside a legend; with more the chart is taller and the legend is below
const DENSE = 16; // more lengths than this are drawn without markers
const ROW = 19; // height of a row in the strip of failures

const chart = {svg: byId("chart"), spots: [], at: null, draw: null};

function linearTicks(low, high, most) {
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i += 1) ticks.push(Number((i * step).toPrecision(12)));
  return ticks;
}

function logTicks(low, high, most) { // low and high as powers of ten
  for (const steps of [[1, 1.5, 2, 3, 5, 7], [1, 2, 5], [1, 3], [1]]) {
    const ticks = [];
    for (let e = Math.floor(low); e <= Math.ceil(high); e += 1) {
      for (const step of steps) {
        const tick = Number(`${step}e${e}`);
        if (Math.log10(tick) >= low && Math.log10(tick) <= high) ticks.push(tick);
      }
    }
    if (ticks.length < 4) break;
    if (ticks.length <= most) return ticks;
    if (steps.length === 1) return ticks.filter((_, i) => i % Math.ceil(ticks.length / most) === 0);
  }
  return linearTicks(10 ** low, 10 ** high, most).filter((tick) => tick > 0);
}

function lengthTicks(table, x, size) { // without overlap; training lengths and powers of two have priority
  let wanted = [...table.lengths];
  if (wanted.length > DENSE) {
    wanted = [...Array(32).keys()].map((e) => 2 ** e).filter((n) => n >= wanted[0] && n <= wanted.at(-1));
  }
  const rank = (n) => (table.trainLengths.includes(n) ? 0 : Number.isInteger(Math.log2(n)) ? 1 : 2);
  const kept = [];
  for (const length of [...new Set([...wanted, ...table.trainLengths])].sort((a, b) => rank(a) - rank(b) || a - b)) {
    const clear = (other) => Math.abs(x(length) - x(other)) > ((`${length}${other}`.length / 2) * 0.6 + 0.8) * size;
    if (kept.every(clear)) kept.push(length);
  }
  return kept;
}

function drawChart(table, measure, relative, off) {
  chart.draw = () => drawChart(table, measure, relative, off);
  const width = Math.max(280, byId("plot").clientWidth);
  const narrow = width < 560;
  const size = narrow ? 11 : 12.5;
  const curves = table.curves.filter((curve) => !off.has(curve));
  const lines = curves.map((curve) => ({
    curve,
    points: table.lengths
      .map((length) => ({length, ...pointOf(table, curve, length, measure, relative)}))
      .filter((point) => point.cell),
  }));
  const failing = lines.filter(({points}) => points.some((point) => point.cell.failure));
  const banded = lines.length <= BANDED;
  // intervals over documents have no band, because all curves share the variation between documents
  const bounded = (point) => point.low !== undefined && (relative || measure.share || point.cell.spread);

  const left = narrow ? 46 : 62, right = width - 14, top = 50, strip = failing.length ? failing.length * ROW + 8 : 0;
  const floor = top + strip + (narrow ? 280 : 400) + (lines.length > MANY ? 140 : 0), height = floor + 50;
  const base = table.lengths[0] > 0 ? 0 : 1; // the context of a first target is 0, which has no logarithm
  const octaves = [...table.lengths, ...table.trainLengths].map((length) => Math.log2(length + base));
  const pad = Math.max(0.04 * (Math.max(...octaves) - Math.min(...octaves)), 0.2);
  const first = Math.min(...octaves) - pad, last = Math.max(...octaves) + pad;
  const x = (length) => left + ((Math.log2(length + base) - first) / (last - first)) * (right - left);

  const level = (value) => (measure.log ? Math.log10(value) : value);
  const levels = lines.flatMap(({points}) => points)
    .flatMap((point) => (point.value === null ? [] : [point.value, ...(banded && bounded(point) ? [point.low, point.high] : [])]))
    .map(level).concat(relative ? [level(measure.log ? 1 : 0)] : measure.share ? [0, 100] : []);
  const some = levels.length > 0;
  const air = some ? Math.max(0.05 * (Math.max(...levels) - Math.min(...levels)), measure.log ? 0.004 : 0.01) : 0;
  const low = some ? Math.min(...levels) - air : 0, high = some ? Math.max(...levels) + air : 1;
  const y = (value) => floor - ((level(value) - low) / (high - low)) * (floor - top - strip);

  const {svg} = chart;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("height", height);
  svg.style.fontSize = `${size}px`;
  svg.classList.toggle("banded", banded);
  const word = (text, px, py, kind, anchor = "middle") => shape("text", {x: px.toFixed(1), y: py.toFixed(1), class: kind, "text-anchor": anchor}, text);
  const rule = (x1, y1, x2, y2, kind) => shape("line", {x1, y1, x2, y2, class: kind});
  const within = shape("rect", {x: left, y: top + strip, width: right - left, height: floor - top - strip});
  const parts = [shape("clipPath", {id: "within"}, within), word(relative ? measure.relativeAxis : measure.axis, 0, 14, "quiet axis-y", "start")];

  const most = narrow ? 6 : 8;
  for (const tick of some ? (measure.log ? logTicks(low, high, most) : linearTicks(low, high, most)) : []) {
    const even = relative && level(tick) === level(measure.log ? 1 : 0);
    parts.push(rule(left, y(tick), right, y(tick), even ? "even" : "grid"));
    const sign = relative && !measure.log && tick > 0 ? "+" : "";
    parts.push(word((relative && measure.log ? "×" : sign) + tickText(tick), left - 8, y(tick) + size * 0.35, "tick tick-y", "end"));
  }
  if (strip) parts.push(shape("rect", {x: left, y: top, width: right - left, height: strip - 3, rx: 3, class: "strip"}));
  parts.push(rule(left, floor, right, floor, "axis"));
  for (const length of lengthTicks(table, x, size)) {
    parts.push(rule(x(length), floor, x(length), floor + 4, "axis"));
    parts.push(word(String(length), x(length), floor + size + 8, "tick tick-x"));
  }
  parts.push(word(table.axis + " (log scale)", (left + right) / 2, floor + 2 * size + 15, "quiet axis-x"));
  for (const length of table.trainLengths) {
    parts.push(rule(x(length), top - 6, x(length), floor, "trained"));
    const text = table.trainLengths.length === 1 ? `trained at ${length}` : "trained";
    const room = text.length * size * 0.28, near = x(length) - room < left ? "start" : x(length) + room > right ? "end" : "middle";
    parts.push(word(text, near === "start" ? Math.max(left, x(length) - 3) : x(length), top - 12, "quiet small", near));
  }

  chart.spots = [];
  for (const {curve, points} of lines) {
    const drawn = points.filter((point) => point.value !== null);
    if (!drawn.length) continue;
    const group = shape("g", {class: "curve", "data-curve": curve, style: {"--c": lookOf(curve).colour}});
    const pieces = []; // sequences of neighbouring points with values
    points.forEach((point, i) => {
      if (point.value === null) return;
      if (i && points[i - 1].value !== null) pieces.at(-1).push(point);
      else pieces.push([point]);
    });
    const at = (point, value) => `${x(point.length).toFixed(2)} ${y(value).toFixed(2)}`;
    for (const piece of pieces) {
      const within = piece.filter(bounded);
      if (within.length === 1) {
        group.append(shape("path", {class: "stem", "clip-path": "url(#within)", d: `M${at(within[0], within[0].low)}L${at(within[0], within[0].high)}`}));
      } else if (within.length) {
        const around = [...within.map((point) => at(point, point.low)), ...within.map((point) => at(point, point.high)).reverse()];
        group.append(shape("path", {class: "band", "clip-path": "url(#within)", d: `M${around.join("L")}Z`}));
      }
    }
    group.append(shape("path", {
      class: "line", d: pieces.map((piece) => `M${piece.map((point) => at(point, point.value)).join("L")}`).join(""),
      "stroke-dasharray": dashOf(curve, 2),
    }));
    for (const point of drawn) {
      const spot = {curve, length: point.length, x: x(point.length), y: y(point.value)};
      chart.spots.push(spot);
      if (table.lengths.length <= DENSE || drawn.length === 1) {
        const breaks = verdictOf(table, curve, point.length)?.word === "breaks";
        group.append(markerOf(curve, spot.x, spot.y, narrow ? 4 : 5, breaks ? "hollow" : ""));
      }
    }
    parts.push(group);
  }
  failing.forEach(({curve, points}, i) => {
    const row = top + 4 + (i + 0.5) * ROW;
    const failed = points.filter((point) => point.cell.failure);
    const group = shape("g", {class: "failures", "data-curve": curve, style: {"--c": lookOf(curve).colour}});
    for (const {length} of failed) {
      chart.spots.push({curve, length, x: x(length), y: row});
      group.append(shape("path", {class: "cross", d: `M${x(length) - 4} ${row - 4}l8 8m0-8l-8 8`}));
    }
    const words = [...new Set(failed.map((point) => point.cell.failure))].join("; ");
    const need = words.length * size * 0.52 + 12, from = x(failed[0].length), to = x(failed.at(-1).length);
    if (from - left > need) group.append(word(words, from - 10, row + size * 0.33, "quiet small", "end"));
    else if (right - to > need) group.append(word(words, to + 10, row + size * 0.33, "quiet small", "start"));
    parts.push(group);
  });
  if (!curves.length) parts.push(word("All curves are hidden.", (left + right) / 2, (top + floor) / 2, "quiet"));
  chart.ring = shape("circle", {class: "ring", r: 8, visibility: "hidden"});
  svg.replaceChildren(...parts, chart.ring);
  svg.setAttribute("aria-label", `${table.name}: ${measure.title}, ${counted(curves.length, "curve")}. Arrow keys move between points.`);
  chart.say = (spot) => describe(table, spot.curve, spot.length, measure, relative);
  leaveSpot();
}

// ---- selection of a point with the pointer or the arrow keys

function highlight(curve) { // dims the other curves
  chart.svg.classList.toggle("one", curve !== null);
  for (const group of chart.svg.querySelectorAll("[data-curve]")) group.classList.toggle("near", group.dataset.curve === curve);
}

function goTo(spot) {
  chart.at = spot;
  fill(chart.ring, {cx: spot.x, cy: spot.y, visibility: "visible", style: {"--c": lookOf(spot.curve).colour}}, []);
  highlight(spot.curve);
  const box = chart.svg.getBoundingClientRect();
  showTip(box.left + spot.x, box.top + spot.y, ...chart.say(spot));
}

function leaveSpot() {
  chart.at = null;
  if (chart.ring) chart.ring.setAttribute("visibility", "hidden");
  highlight(null);
  hideTip();
}

function nearest(event) {
  const box = chart.svg.getBoundingClientRect();
  const distance = (spot) => Math.hypot(box.left + spot.x - event.clientX, box.top + spot.y - event.clientY);
  const spot = chart.spots.reduce((best, other) => (best && distance(best) <= distance(other) ? best : other), null);
  return spot && distance(spot) < 90 ? spot : null;
}

function point(event) {
  const spot = nearest(event);
  if (!spot) leaveSpot();
  else if (spot !== chart.at) goTo(spot);
}
chart.svg.addEventListener("pointermove", point);
chart.svg.addEventListener("pointerdown", point);
chart.svg.addEventListener("pointerleave", leaveSpot);
chart.svg.addEventListener("blur", leaveSpot);
chart.svg.addEventListener("keydown", (event) => {
  const {at, spots} = chart;
  const go = {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1}[event.key];
  if (event.key === "Escape") leaveSpot();
  if (!go || !spots.length) return;
  event.preventDefault();
  if (!at) return goTo(spots[0]);
  const along = event.key === "ArrowLeft" || event.key === "ArrowRight";
  const row = along
    ? spots.filter((spot) => spot.curve === at.curve).sort((a, b) => a.x - b.x || a.y - b.y)
    : spots.filter((spot) => spot.length === at.length).sort((a, b) => a.y - b.y);
  goTo(row[Math.min(Math.max(row.indexOf(at) + go, 0), row.length - 1)]);
});
