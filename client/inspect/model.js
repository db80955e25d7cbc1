// The replies as lanes: one lane is one KV head of one layer, with the runs of positions it kept.
const data = JSON.parse(document.getElementById("data").textContent);
const by = (id) => document.getElementById(id);
const number = (value) => value.toLocaleString("en", { maximumFractionDigits: 1 });
const percent = (part, whole) => (whole > 0 ? (100 * part / whole).toFixed(1) : "0.0") + " %";

// Kept positions among begin <= position < end. Runs are [gap, kept, gap, kept, ...] from position 0.
function keptIn(runs, begin, end) {
  let at = 0, kept = 0;
  for (let i = 0; i < runs.length && at < end; i += 2) {
    const first = at + runs[i], last = first + runs[i + 1];
    kept += Math.max(0, Math.min(last, end) - Math.max(first, begin));
    at = last;
  }
  return kept;
}

// The lanes from top to bottom: the highest layer first, so that a pyramid stands on its base.
for (const view of data.views) {
  view.layers = view.layers.filter((layer) => layer.heads.length > 0).sort((a, b) => b.layer - a.layer);
}
const hasFinal = data.views.some((view) => view.layers.some((layer) => layer.heads.some((head) => head.final)));

// Takes the positions kept straight after the prompt or, with `final`, those at the end of the answer.
function choose(view, final) {
  view.length = final ? view.totalTokens : view.promptTokens;
  view.lanes = view.layers.flatMap((layer) => layer.heads.map((head) => {
    const runs = (final ? head.final : head.runs) || [];
    return { layer, head: head.head, runs, kept: keptIn(runs, 0, view.length) };
  }));
  for (const layer of view.layers) {
    const kept = view.lanes.filter((lane) => lane.layer === layer).map((lane) => lane.kept);
    Object.assign(layer, { least: Math.min(...kept), most: Math.max(...kept), average: kept.reduce((sum, count) => sum + count, 0) / kept.length });
  }
}

// How many lanes of `layer`, or of all layers where that is null, kept each position; and how many lanes there are.
function headsPerPosition(view, layer) {
  const lanes = view.lanes.filter((lane) => layer === null || lane.layer.layer === layer), steps = new Int32Array(view.length + 1);
  for (const lane of lanes) {
    for (let i = 0, at = 0; i < lane.runs.length; i += 2) {
      const first = at + lane.runs[i], last = first + lane.runs[i + 1];
      if (first < view.length) {
        ++steps[first];
        --steps[Math.min(last, view.length)];
      }
      at = last;
    }
  }
  for (let p = 1; p <= view.length; ++p) steps[p] += steps[p - 1];
  return { kept: steps.subarray(0, view.length), of: lanes.length };
}

// Characters that steer instead of being read: bidirectional controls could turn the text around them, others show nothing.
function visible(text) {
  return text.replace(/[\u0000-\u0008\u000b-\u001f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)))
    .replace(/[\u007f-\u009f\u061c\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]/g, (c) => `[U+${c.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}]`);
}

function element(tag, text, parent, name) {
  const made = document.createElement(tag);
  made.textContent = text;
  if (name) made.className = name;
  if (parent) parent.append(made);
  return made;
}
