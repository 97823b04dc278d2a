"use strict";
// The chosen view, sorting, the download, and figures in the width of the page. Plotly draws; all text is in the HTML.

const data = JSON.parse(document.getElementById("data").textContent);
const [table, metric, find] = ["table", "metric", "find"].map((id) => document.getElementById(id));
const config = {displaylogo: false, typesetMath: false, modeBarButtonsToRemove: ["select2d", "lasso2d"], toImageButtonOptions: {scale: 2}};
const paper = 680; // the width of a printed figure in pixels

function draw(id, {data: traces, layout}, width) {
  const narrow = width < 700, names = traces.filter((trace) => trace.showlegend !== false).map((trace) => trace.name.length);
  const rows = narrow ? Math.ceil(names.length / Math.max(1, Math.floor(width / (50 + 7 * Math.max(0, ...names))))) : 0;
  const below = {orientation: "h", xref: "container", yref: "container", x: 0, y: 0, yanchor: "bottom"};
  const own = {
    width, height: layout.height + 20 * rows, dragmode: narrow ? false : "zoom", font: {size: narrow ? 11 : 13},
    legend: {uirevision: "curves", ...(narrow ? below : {})}, template: {layout: data.defaults},
  };
  Plotly.react(id, traces, {...layout, ...own}, config);
}

function show(width) {
  const views = data.views.filter((view) => view.table === table.value);
  for (const option of metric.options) option.hidden = option.disabled = !views.some((view) => view.metric === option.value);
  const chosen = views.find((view) => view.metric === metric.value) || views[0];
  metric.value = chosen.metric;
  for (const node of document.querySelectorAll("[data-table]")) {
    node.hidden = node.dataset.table !== table.value || (node.dataset.metric || chosen.metric) !== chosen.metric;
  }
  draw("chart", chosen.figure, width);
  if (data.training.data.length) draw("training", data.training, width);
}

function sort(head) {
  const body = head.closest("table").tBodies[0], at = head.cellIndex, up = head.ariaSort !== "ascending";
  for (const other of head.parentNode.cells) other.ariaSort = null;
  head.ariaSort = up ? "ascending" : "descending";
  const value = ({cells}) => parseFloat(cells[at].dataset.order ?? cells[at].textContent);
  const lost = (row) => isNaN(value(row)); // last in both directions
  const compare = (a, b) => (at ? value(a) - value(b) : a.cells[0].lastChild.data.localeCompare(b.cells[0].lastChild.data));
  body.append(...[...body.rows].sort((a, b) => (at && (lost(a) || lost(b)) ? lost(a) - lost(b) : up ? compare(a, b) : compare(b, a))));
}

const width = () => document.getElementById("chart").clientWidth;
for (const head of document.querySelectorAll("th button")) head.addEventListener("click", () => sort(head.parentNode));
for (const select of [table, metric]) select.addEventListener("change", () => show(width()));
find?.addEventListener("input", () => {
  for (const run of document.querySelectorAll("details")) run.hidden = !run.textContent.toLowerCase().includes(find.value.toLowerCase());
});
document.getElementById("csv").addEventListener("click", () => {
  const href = URL.createObjectURL(new Blob([data.rows], {type: "text/csv"}));
  Object.assign(document.createElement("a"), {href, download: "rows.csv"}).click();
});
for (const event of ["resize", "afterprint"]) addEventListener(event, () => show(width()));
addEventListener("beforeprint", () => show(paper));
show(width());
