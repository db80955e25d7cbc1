// The prompt's text, once for each policy; the more heads kept a token, the deeper its shade.
const kSteps = 10;

// What is shown as one piece: a token, or several that make one character together (the later ones have no text).
const units = [];
for (const [position, text] of (data.tokens || []).entries()) {
  if (text === "" && units.length > 0) ++units[units.length - 1].count;
  else units.push({ text, first: position, count: 1 });
}
const unitAt = new Uint32Array((data.tokens || []).length);
units.forEach((unit, i) => unitAt.fill(i, unit.first, unit.first + unit.count));

class Pane {
  constructor(view, parent) {
    this.view = view;
    const pane = element("div", "", parent, "pane");
    if (data.views.length > 1) element("h3", visible(view.title), pane);
    this.box = element("div", "", pane, "text");
    for (const [name, value] of [["tabindex", "0"], ["role", "region"], ["aria-label", "The prompt under " + visible(view.title)]]) this.box.setAttribute(name, value);
    this.spans = units.map((unit, i) => {
      const span = document.createElement("span");
      span.textContent = visible(unit.text);
      span.unit = i;
      return span;
    });
    this.box.append(...this.spans);
    this.here = null;
  }

  // Gives every token the class of its share: none, all, or one of the steps between them.
  shade(layer) {
    this.heads = headsPerPosition(this.view, layer);
    units.forEach((unit, i) => {
      const share = this.keptOf(i) / Math.max(1, this.heads.of);
      const step = share >= 1 ? kSteps : Math.min(kSteps - 1, Math.ceil(share * (kSteps - 1)));
      this.spans[i].className = `t k${step}${/^\n+$/.test(unit.text) ? " line" : ""}`;
    });
    this.here = null;
  }

  // Mean over the tokens of a piece.
  keptOf(i) {
    const { first, count } = units[i];
    let sum = 0;
    for (let p = first; p < first + count; ++p) sum += this.heads.kept[p] || 0;
    return sum / count;
  }

  // Marks a piece, and brings it into sight without moving the page.
  mark(i, reveal) {
    if (this.here !== null) this.spans[this.here].classList.remove("here");
    this.here = i;
    if (i === null) return;
    const span = this.spans[i];
    span.classList.add("here");
    if (!reveal) return;
    const inside = this.box.getBoundingClientRect(), place = span.getBoundingClientRect();
    if (place.top < inside.top || place.bottom > inside.bottom) this.box.scrollTop += place.top - (inside.top + inside.bottom) / 2;
  }
}
