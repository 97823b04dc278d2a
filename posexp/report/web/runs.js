// Configuration and provenance of every run. Lines that differ between runs are marked.

function configLines(text) { // [[path, text of the line]]; the path distinguishes equal lines of different sections
  const path = [];
  return text.trimEnd().split("\n").map((row) => {
    const depth = row.search(/\S|$/);
    while (path.length && path.at(-1).depth >= depth) path.pop();
    path.push({depth, key: row.trim().split(":")[0]});
    return [JSON.stringify([...path.map((part) => part.key), row.trim()]), row];
  });
}

const provenanceLines = (about) => Object.entries(about).map(([key, value]) => [JSON.stringify([key, value]), `${key}: ${value}`]);

function marked(lists) { // returns a predicate for lines that are missing in some list
  const counts = new Map();
  for (const lines of lists) for (const path of new Set(lines.map(([path]) => path))) counts.set(path, (counts.get(path) || 0) + 1);
  return (path) => counts.get(path) < lists.length;
}

function listing(lines, differs) {
  return element("pre", {}, lines.map(([path, text]) =>
    element("code", {class: differs(path) ? "differs" : "same"}, text + "\n")));
}

const cards = [];
function drawRuns() {
  const configs = DATA.runs.map((run) => configLines(run.config)), abouts = DATA.runs.map((run) => provenanceLines(run.provenance));
  const configDiffers = marked(configs), aboutDiffers = marked(abouts);
  DATA.runs.forEach((run, i) => {
    const node = element("details", {class: "card run", "data-run": run.name},
      element("summary", {}, element("span", {class: "name"}, swatch(run.curve), run.curve),
        element("span", {class: "quiet"}, `seed ${run.seed}`), element("span", {class: "quiet folder"}, run.name)),
      element("div", {class: "pair"},
        element("div", {}, element("h3", {}, "Configuration"), listing(configs[i], configDiffers)),
        element("div", {}, element("h3", {}, "Provenance"), listing(abouts[i], aboutDiffers))));
    const text = [`${run.curve} seed ${run.seed}`, run.name, run.config, ...abouts[i].map(([, row]) => row)].join("\n").toLowerCase();
    cards.push({node, text});
  });
  byId("run-list").replaceChildren(...cards.map(({node}) => node));
  byId("runs").hidden = !cards.length;
}

function findRuns(words) {
  const wanted = words.toLowerCase().trim();
  for (const {node, text} of cards) node.hidden = !text.includes(wanted);
  const found = cards.filter(({node}) => !node.hidden).length;
  byId("runs-found").textContent = `${found === cards.length ? "" : `${found} of `}${counted(cards.length, "run")}. Marked lines differ between runs.`;
}
