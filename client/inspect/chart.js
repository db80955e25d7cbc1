// The heat map of one policy: a row a KV head, a column a position or several; bars with the entries per layer beside it.
class Chart {
  constructor(view, article) {
    this.view = view;
    this.root = article.querySelector(".chart");
    for (const name of ["heat", "axes", "column", "cursor", "tip"]) this[name] = this.root.querySelector("." + name);
    this.place = null;  // [row, column] that is shown; a column is one CSS pixel
    this.onPosition = () => {};
    this.heat.addEventListener("mousemove", (event) => {
      const box = this.heat.getBoundingClientRect();
      this.show(this.rowAt(event.clientY - box.top + this.plan.top), Math.max(0, Math.min(Math.floor(event.clientX - box.left), Math.floor(this.plan.heat) - 1)));
    });
    this.heat.addEventListener("mouseleave", () => this.hide());
    this.heat.addEventListener("blur", () => this.hide());
    this.heat.addEventListener("keydown", (event) => {
      if (event.key === "Escape") return this.hide();
      if (!event.key.startsWith("Arrow")) return;
      event.preventDefault();
      this.show(...this.moved(event.key));
    });
    new ResizeObserver(() => { if (this.root.clientWidth !== this.plan.width) this.draw(); }).observe(this.root);
  }

  draw() {
    this.makePlan();
    this.root.style.height = this.plan.height + "px";
    this.drawHeat();
    this.drawAxes();
    this.hide();
  }

  // Sizes in CSS pixels. Every lane has the same whole number of pixels, with a gap between layers.
  makePlan() {
    const lanes = this.view.lanes, width = this.root.clientWidth, left = width < 420 ? 40 : 52, top = 22, gap = width < 420 ? 10 : 18;
    const bars = Math.max(76, Math.min(240, width * 0.22)), lane = Math.max(2, Math.min(9, Math.floor(600 / lanes.length)));
    let y = top;
    const tops = lanes.map((row, i) => {
      if (i > 0 && row.layer !== lanes[i - 1].layer) y += 1;
      y += lane;
      return y - lane;
    });
    this.plan = { width, left, top, lane, tops, heat: Math.max(80, width - left - gap - bars), bottom: y, barsLeft: width - bars, bars, height: y + 44 };
  }

  static colour(name) {
    const hex = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  }

  // Colours for a share of 0 to 1 in 256 steps; the least share that is not nothing is already visible.
  static palette() {
    const low = Chart.colour("--plot"), high = Chart.colour("--ink");
    return Array.from({ length: 257 }, (_, i) => low.map((value, c) => Math.round(value + (high[c] - value) * (i === 0 ? 0 : 0.2 + 0.8 * i / 256))));
  }

  // The positions [begin, end) that a column of `columns` stands for: at least one.
  span(column, columns) {
    const length = this.view.length, begin = Math.floor(column * length / columns);
    return [begin, Math.max(begin + 1, Math.floor((column + 1) * length / columns))];
  }

  drawHeat() {
    const { heat: canvas, plan, view } = this, ratio = window.devicePixelRatio || 1, palette = Chart.palette(), length = view.length;
    Object.assign(canvas.style, { left: plan.left + "px", top: plan.top + "px", width: plan.heat + "px", height: plan.bottom - plan.top + "px" });
    canvas.width = Math.round(plan.heat * ratio);
    canvas.height = Math.round((plan.bottom - plan.top) * ratio);
    const context = canvas.getContext("2d"), image = context.createImageData(canvas.width, canvas.height);
    const before = new Uint32Array(length + 1);  // kept positions below an index
    view.lanes.forEach((row, i) => {
      before.fill(0);
      let at = 0;
      for (let r = 0; r < row.runs.length; r += 2) {
        at += row.runs[r];
        for (const end = at + row.runs[r + 1]; at < end; ++at) if (at < length) before[at + 1] = 1;
      }
      for (let p = 0; p < length; ++p) before[p + 1] += before[p];
      const first = Math.round((plan.tops[i] - plan.top) * ratio), last = Math.round((plan.tops[i] - plan.top + plan.lane) * ratio);
      for (let x = 0; x < canvas.width; ++x) {
        const [begin, end] = this.span(x, canvas.width), kept = before[end] - before[begin];
        const [red, green, blue] = palette[Math.ceil(256 * kept / (end - begin))];
        for (let y = first; y < last; ++y) image.data.set([red, green, blue, 255], 4 * (y * canvas.width + x));
      }
    });
    context.putImageData(image, 0, 0);
  }

  // A step of 1, 2 or 5 times a power of ten that gives at most `most` steps.
  static niceStep(range, most) {
    const rough = Math.max(range / Math.max(most, 1), 1e-9), power = 10 ** Math.floor(Math.log10(rough));
    return Math.max(1, [1, 2, 5, 10].find((factor) => factor * power >= rough) * power);
  }

  shape(tag, attributes, text) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    if (text !== undefined) made.textContent = text;
    this.axes.append(made);
  }

  drawAxes() {
    this.axes.replaceChildren();
    const { left, top, bottom, heat, barsLeft, bars, lane, width } = this.plan, { layers, lanes, length } = this.view;
    const label = (x, y, text, more) => this.shape("text", { x, y, ...more }, text);
    label(left, top - 8, width < 420 ? "kept positions" : "kept positions of every KV head", { class: "title" });
    label(barsLeft, top - 8, bars > 190 ? "entries kept per KV head, mean" : bars > 90 ? "kept per head" : "kept", { class: "title" });
    label(left + heat / 2, bottom + 36, by("final").checked ? "position in prompt and answer" : "prompt position", { "text-anchor": "middle", class: "title" });
    this.shape("text", { transform: `translate(12 ${(top + bottom) / 2}) rotate(-90)`, "text-anchor": "middle", class: "title" }, "layer");
    for (let p = 0, step = Chart.niceStep(length, heat / 70); p < length; p += step) {
      const x = left + (p + 0.5) * heat / length;
      this.shape("line", { x1: x, x2: x, y1: bottom, y2: bottom + 5, stroke: "var(--soft)" });
      label(x, bottom + 18, number(p), { "text-anchor": "middle" });
    }
    const most = Math.max(1, ...data.views.flatMap((view) => view.layers.map((layer) => layer.most))), wide = (bars - 52) / most;  // one scale for all maps
    const every = Chart.niceStep(layers.length, lanes.length * lane / 16);
    for (const layer of layers) {
      const rows = this.plan.tops.filter((_, i) => lanes[i].layer === layer), y = rows[0], high = rows[rows.length - 1] + lane - y;
      const named = layer.layer % every === 0 || layer === layers[0];
      if (named) label(left - 8, y + high / 2 + 4, layer.layer, { "text-anchor": "end" });
      this.shape("rect", { class: "bar", "data-layer": layer.layer, x: barsLeft, y: y + (high > 4 ? 1 : 0), width: Math.max(1, layer.average * wide),
                           height: high - (high > 4 ? 1 : 0), rx: 1.5, fill: "var(--bar)" });
      if (layer.most > layer.least) {
        this.shape("line", { x1: barsLeft + layer.least * wide, x2: barsLeft + layer.most * wide, y1: y + high / 2, y2: y + high / 2, stroke: "var(--text)" });
      }
      if (named) label(barsLeft + layer.most * wide + 5, y + high / 2 + 4, number(layer.average));
    }
  }

  // The kept tokens of the span with some before and after, kept ones marked.
  showWords(lane, begin, end) {
    const words = element("p", "", this.tip, "words");
    for (let p = Math.max(0, begin - 8); p < Math.min(data.tokens.length, end + 8, begin + 40); ++p) {
      element(keptIn(lane.runs, p, p + 1) ? "mark" : "span", visible(data.tokens[p]), words);
    }
  }

  show(row, column) {
    this.place = [row, column];
    const { plan, tip, view } = this, lane = view.lanes[row], [begin, end] = this.span(column, Math.floor(plan.heat)), kept = keptIn(lane.runs, begin, end);
    tip.replaceChildren();
    element("p", `Layer ${lane.layer.layer}, KV head ${lane.head}`, tip);
    element("p", end - begin > 1 ? `Positions ${begin} to ${end - 1}: ${kept} of ${end - begin} kept` : `Position ${begin}: ${kept ? "kept" : "evicted"}`, tip);
    element("p", `This head kept ${number(lane.kept)} of ${number(view.length)} (${percent(lane.kept, view.length)})`, tip, "soft");
    if (data.tokens) this.showWords(lane, begin, end);
    tip.hidden = this.cursor.hidden = false;
    const x = plan.left + begin * plan.heat / view.length, y = plan.tops[row], wide = Math.max(2, (end - begin) * plan.heat / view.length);
    Object.assign(this.cursor.style, { left: x + "px", top: y + "px", width: wide + "px", height: plan.lane + "px" });
    tip.style.left = Math.max(0, Math.min(x + 16, plan.width - tip.offsetWidth)) + "px";
    tip.style.top = (y + plan.lane + 14 + tip.offsetHeight < plan.height ? y + plan.lane + 14 : Math.max(0, y - tip.offsetHeight - 10)) + "px";
    this.onPosition(begin);
  }

  hide() {
    if (this.place) this.onPosition(null);
    this.place = null;
    this.tip.hidden = this.cursor.hidden = true;
  }

  // A line at `position` over all lanes, or none.
  markColumn(position) {
    this.column.hidden = position === null || position >= this.view.length;
    if (this.column.hidden) return;
    const { left, top, bottom, heat } = this.plan;
    Object.assign(this.column.style, { left: left + (position + 0.5) * heat / this.view.length + "px", top: top - 4 + "px", height: bottom - top + 8 + "px" });
  }

  rowAt(y) {
    const row = this.plan.tops.findIndex((top) => y < top + this.plan.lane);
    return row < 0 ? this.view.lanes.length - 1 : row;
  }

  // Where an arrow key leads: the next lane, or the next column with other positions.
  moved(key) {
    if (!this.place) return [0, 0];
    const [row, column] = this.place, columns = Math.floor(this.plan.heat), step = Math.max(1, Math.ceil(columns / this.view.length));
    const by_key = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -step], ArrowRight: [0, step] }[key];
    const clamp = (value, most) => Math.max(0, Math.min(value, most));
    return [clamp(row + by_key[0], this.view.lanes.length - 1), clamp(column + by_key[1], columns - 1)];
  }
}
