// Fills the page and connects its parts.
const titles = data.views.map((view) => visible(view.title)).join(" and ");
const charts = [], panes = [];

function writeView(view) {
  const article = by("view").content.cloneNode(true).firstElementChild;
  by("views").append(article);
  article.querySelector(".title").textContent = visible(view.title);
  article.querySelector(".policy").textContent = visible(view.policy);
  const note = article.querySelector(".note");
  note.textContent = "Not compressed: " + visible(view.notCompressed);
  note.hidden = !view.notCompressed;
  article.querySelector(".heat").setAttribute("aria-label",
    `Heat map of the kept positions under ${visible(view.title)}, one row for each of the ${view.lanes.length} KV heads of ${view.layers.length} layers.`);
  view.article = article;
  charts.push(new Chart(view, article));
}

function writeTiles(view, kept, all) {
  const tiles = view.article.querySelector(".tiles");
  tiles.replaceChildren();
  const recall = view.recall === undefined ? [] : [["attention kept", percent(view.recall, 1)]];
  for (const [label, text] of [["entries kept", percent(kept, all)], ["memory at the end", view.memory], ["memory at its peak", view.peak], ...recall]) {
    const tile = element("div", "", tiles);
    element("dt", label, tile);
    element("dd", text, tile);
  }
}

function writeSummary(view, final) {
  const all = view.length * view.lanes.length, kept = view.lanes.reduce((sum, lane) => sum + lane.kept, 0);
  const high = view.layers[0], low = view.layers[view.layers.length - 1];
  view.article.querySelector(".summary").textContent = `Of a prompt${final ? " and answer" : ""} of ${number(view.length)} tokens ${number(kept)} entries of ` +
    `${number(all)} were kept (${percent(kept, all)}): ${number(low.average)} per KV head in layer ${low.layer}, ${number(high.average)} in layer ${high.layer}.`;
  writeTiles(view, kept, all);
}

function writeAnswers() {
  const several = data.views.length > 1;
  by("answering").textContent = several ? "Answers" : "Answer";
  for (const view of data.views) {
    const box = element("div", "", by("answers"));
    if (several) element("h3", visible(view.title), box, "layers-title");
    element("pre", visible(view.answer), box, "answer");
  }
}

function writeFigures() {
  if (data.views.length > 1) {
    const row = element("tr", "", by("figures").tHead);
    element("td", "", row);
    for (const view of data.views) element("th", visible(view.title), row).scope = "col";
  }
  data.views[0].figures.forEach(([label], i) => {
    const row = element("tr", "", by("figures").tBodies[0]);
    element("th", label, row).scope = "row";
    for (const view of data.views) element("td", view.figures[i][1], row);
  });
}

function writeLayers(view) {
  const box = element("div", "", by("layers"));
  if (data.views.length > 1) element("h3", visible(view.title), box, "layers-title");
  const region = by("layer-table").content.cloneNode(true).firstElementChild;
  region.setAttribute("aria-label", "Layers under " + visible(view.title));
  box.append(region);
  for (const layer of view.layers) {
    const row = element("tr", "", region.querySelector("tbody"));
    element("th", layer.layer, row).scope = "row";
    for (const value of [layer.budget, layer.min, layer.mean, layer.max]) element("td", number(value), row);
    for (const share of [layer.recall, layer.recallMin]) element("td", share === undefined ? "-" : percent(share, 1), row);
  }
}

function drawScale() {
  const scale = by("scale").getContext("2d"), palette = Chart.palette();
  for (let x = 0; x < 160; ++x) {
    scale.fillStyle = `rgb(${palette[Math.round(256 * x / 159)]})`;
    scale.fillRect(x, 0, 1, 12);
  }
  const per = Math.max(...charts.map((chart) => chart.view.length / chart.heat.width));
  by("binning").textContent = per > 1 ? `One column of pixels stands for ${number(per)} positions. ` : "";
}

function shadeTexts() {
  const layer = by("shade").value === "" ? null : Number(by("shade").value);
  for (const pane of panes) pane.shade(layer);
  by("readout").textContent = "";
}

// Shows what is known of a piece of the text: under it, in every pane and on every map.
function point(i, reveal) {
  for (const pane of panes) pane.mark(i, reveal);
  for (const chart of charts) chart.markColumn(i === null ? null : units[i].first);
  if (i === null) return void (by("readout").textContent = "");
  const { text, first, count } = units[i];
  const shares = panes.map((pane) => `${number(pane.keptOf(i))} of ${pane.heads.of} heads${panes.length > 1 ? ` under ${visible(pane.view.title)}` : ""}`);
  by("readout").textContent = `Position ${number(first)}${count > 1 ? ` to ${number(first + count - 1)}` : ""}, “${visible(text).replaceAll("\n", "↵")}”: kept by ${shares.join(", ")}.`;
}

function connectPane(pane) {
  const unitOf = (event) => (event.target.unit === undefined ? null : event.target.unit);
  pane.box.addEventListener("mousemove", (event) => { if (unitOf(event) !== null && unitOf(event) !== pane.here) point(unitOf(event), false); });
  pane.box.addEventListener("mouseleave", () => point(null));
  pane.box.addEventListener("blur", () => point(null));
  pane.box.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return point(null);
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    point(pane.here === null ? 0 : Math.max(0, Math.min(units.length - 1, pane.here + step)), true);
  });
  pane.box.addEventListener("scroll", () => { for (const other of panes) if (other !== pane) other.box.scrollTop = pane.box.scrollTop; });
}

function writeTexts() {
  by("prompt").hidden = units.length === 0;
  if (units.length === 0) return;
  element("option", "all layers", by("shade")).value = "";
  for (const layer of [...data.views[0].layers].reverse()) element("option", `layer ${layer.layer}`, by("shade")).value = layer.layer;
  for (let step = 0; step <= kSteps; ++step) element("span", "", by("steps"), `t k${step}`);
  for (const view of data.views) panes.push(new Pane(view, by("panes")));
  for (const pane of panes) connectPane(pane);
  for (const pane of panes) pane.box.classList.toggle("short", pane.box.scrollHeight <= pane.box.clientHeight);
  by("shade").addEventListener("change", shadeTexts);
  for (const chart of charts) {
    chart.onPosition = (position) => point(position === null || position >= unitAt.length ? null : unitAt[position], false);
    chart.heat.addEventListener("click", () => { if (panes[0].here !== null) point(panes[0].here, true); });
  }
}

function drawAll() {
  for (const chart of charts) chart.draw();
  drawScale();
}

function change() {
  const final = by("final").checked;
  for (const view of data.views) {
    choose(view, final);
    writeSummary(view, final);
  }
  drawAll();
  if (panes.length > 0) shadeTexts();
}

// The reader's choice goes before the system's.
const systemDark = window.matchMedia("(prefers-color-scheme: dark)");
function isDark() { return document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : systemDark.matches; }
function nameTheme() { by("theme").textContent = isDark() ? "Light colours" : "Dark colours"; }
by("theme").addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  nameTheme();
  drawAll();
});
systemDark.addEventListener("change", () => { nameTheme(); drawAll(); });

document.title = "Kept cache entries: " + titles;
by("about").textContent = [visible(data.model), `prompt of ${number(data.views[0].promptTokens)} tokens`, titles].filter((text) => text).join(" · ");
by("question").textContent = visible(data.question);
by("asked").hidden = !data.question;
by("when").hidden = !hasFinal;
by("theme").hidden = false;
nameTheme();
for (const view of data.views) {
  choose(view, false);
  writeView(view);
  writeLayers(view);
}
writeAnswers();
writeFigures();
writeTexts();
change();
for (const id of ["cut", "final"]) by(id).addEventListener("change", change);
