"use strict";
// Draws the charts of the page from the plain values that stand in it. Names and values only ever become text, never markup.
const NS = "http://www.w3.org/2000/svg";
const page = JSON.parse(document.getElementById("charts").textContent);
const logarithmic = new Set();

function make(parent, name, attributes, text) {
  const element = document.createElementNS(NS, name);
  for (const key in attributes) element.setAttribute(key, attributes[key]);
  if (text !== undefined) element.textContent = text;
  parent.appendChild(element);
  return element;
}
function html(parent, name, className, text) {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  parent.appendChild(element);
  return element;
}
const colour = (k) => `var(--c${k % 8})`;
const cut = (text, most) => (text.length > most ? text.slice(0, most - 1) + "…" : text);

function said(value, chart) {
  if (value === null || value === undefined) return "–";
  if (chart && chart.percent) return (100 * value).toFixed(2) + " %";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e9)) return value.toExponential(2);
  if (Number.isInteger(value)) return value.toLocaleString("en-US");
  return value.toLocaleString("en-US", { maximumSignificantDigits: 5 });
}
function ticks(low, high, log, most) {
  if (log) {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
      for (const digit of [1, 2, 5]) {
        const value = digit * 10 ** power;
        if (value >= low * 0.999 && value <= high * 1.001) found.push(value);
      }
    return found.length > most ? found.filter((_, i) => i % Math.ceil(found.length / most) === 0) : found;
  }
  const rough = (high - low) / most;
  const base = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((d) => d * base).find((s) => s >= rough) || rough;
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-9; value += step)
    found.push(Math.abs(value) < step * 1e-9 ? 0 : Number(value.toPrecision(12)));
  return found;
}
function range(values, log) {
  let low = Infinity, high = -Infinity;
  for (const value of values)
    if (value !== null && (!log || value > 0)) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
  if (low > high) return log ? [0.1, 1] : [0, 1];
  if (low === high) return log ? [low / 2, high * 2] : [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2];
  return [low, high];
}

function frame(box, chart, height, xs, ys, log) {
  const width = Math.max(220, box.clientWidth || 340);
  const svg = make(box, "svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${chart.y || ""} by ${chart.x || ""}` });
  const area = { left: 52, right: width - 10, top: 8, bottom: height - 34 };
  const map = (value, [low, high], from, to, l) =>
    l ? from + ((Math.log(value) - Math.log(low)) / (Math.log(high) - Math.log(low))) * (to - from)
      : from + ((value - low) / (high - low)) * (to - from);
  const x = (value) => map(value, xs, area.left, area.right, false);
  const y = (value) => map(value, ys, area.bottom, area.top, log);
  for (const value of ticks(ys[0], ys[1], log, 5)) {
    make(svg, "line", { x1: area.left, x2: area.right, y1: y(value), y2: y(value), stroke: "var(--line)" });
    make(svg, "text", { x: area.left - 6, y: y(value) + 4, "text-anchor": "end" }, said(value, chart));
  }
  if (chart.categories) {
    const each = (area.right - area.left) / chart.categories.length;
    chart.categories.forEach((name, i) =>
      make(svg, "text", { x: x(i), y: area.bottom + 15, "text-anchor": "middle" }, cut(String(name), Math.max(3, Math.floor(each / 7)))));
  } else {
    const whole = chart.x === "epoch" || chart.x === "step";
    const shown = ticks(xs[0], xs[1], false, Math.max(3, Math.floor(width / 90)));
    for (const value of shown)
      if (!whole || Number.isInteger(value))
        make(svg, "text", { x: x(value), y: area.bottom + 15, "text-anchor": "middle" }, said(value));
  }
  make(svg, "text", { x: (area.left + area.right) / 2, y: height - 3, "text-anchor": "middle" }, cut(chart.x || "", 48));
  return { svg, area, x, y, width, height };
}
function tip(box) {
  const element = html(box, "div", "tip");
  element.hidden = true;
  return (event, text) => {
    if (text === null) { element.hidden = true; return; }
    element.textContent = text;
    element.hidden = false;
    const around = box.getBoundingClientRect();
    const at = event.clientX - around.left;
    const left = at + 14 + element.offsetWidth > around.width ? at - element.offsetWidth - 14 : at + 14;
    element.style.left = Math.max(0, left) + "px";
    element.style.top = Math.max(0, event.clientY - around.top - 20) + "px";
  };
}
function legend(box, entries) {
  const list = html(box, "div", "legend");
  for (const [name, k, dashed] of entries) {
    const item = html(list, "span", "");
    const line = html(item, "i", "");
    line.style.background = dashed ? `repeating-linear-gradient(90deg, ${colour(k)} 0 4px, transparent 4px 7px)` : colour(k);
    item.appendChild(document.createTextNode(name));
  }
}

function lines(box, chart, log) {
  const series = chart.series.filter((s) => s.x.length);
  let xs = range(series.flatMap((s) => s.x)), ys = range(series.flatMap((s) => s.y), log);
  if (chart.diagonal && chart.low === undefined) xs = ys = [Math.min(xs[0], ys[0]), Math.max(xs[1], ys[1])];
  if (chart.low !== undefined) xs = ys = [chart.low, chart.high];
  if (chart.categories) xs = [-0.5, chart.categories.length - 0.5];
  const height = chart.square ? Math.min(340, Math.max(240, box.clientWidth * 0.85)) : 230;
  const { svg, area, x, y } = frame(box, chart, height, xs, ys, log);
  if (chart.diagonal)
    make(svg, "line", { x1: x(xs[0]), y1: y(xs[0]), x2: x(xs[1]), y2: y(xs[1]), stroke: "var(--muted)", "stroke-dasharray": "3 4" });
  if (chart.zero && ys[0] < 0 && ys[1] > 0)
    make(svg, "line", { x1: area.left, y1: y(0), x2: area.right, y2: y(0), stroke: "var(--muted)" });
  const good = (s, i) => s.x[i] !== null && s.y[i] !== null && (!log || s.y[i] > 0);
  for (const s of series) {
    if (!s.points && !(s.dots && chart.categories)) {
      let path = "", pen = "M";
      s.x.forEach((value, i) => {
        if (!good(s, i)) { pen = "M"; return; }
        path += `${pen}${x(value).toFixed(1)} ${y(s.y[i]).toFixed(1)}`;
        pen = "L";
      });
      make(svg, "path", { d: path, fill: "none", stroke: colour(s.colour), "stroke-width": s.x.length > 150 ? 1.2 : 2, "stroke-linejoin": "round", ...(s.dashed ? { "stroke-dasharray": "5 4" } : {}) });
    }
    if (s.points || s.dots || s.x.length === 1)
      s.x.forEach((value, i) => {
        if (good(s, i))
          make(svg, "circle", { cx: x(value).toFixed(1), cy: y(s.y[i]).toFixed(1), r: s.points ? 2.5 : 4, fill: colour(s.colour), "fill-opacity": s.points ? 0.55 : 1 });
      });
  }
  if (chart.mark && chart.mark.x >= xs[0] && chart.mark.x <= xs[1]) {
    const at = x(chart.mark.x);
    make(svg, "line", { x1: at, x2: at, y1: area.top, y2: area.bottom, stroke: "var(--good)", "stroke-dasharray": "2 3" });
    const left = at < (area.left + area.right) / 2;
    make(svg, "text", { x: at + (left ? 4 : -4), y: area.top + 10, "text-anchor": left ? "start" : "end", class: "mark" }, chart.mark.label);
  }
  const guide = make(svg, "line", { y1: area.top, y2: area.bottom, stroke: "var(--muted)", visibility: "hidden" });
  const dot = make(svg, "circle", { r: 5, fill: "none", stroke: "var(--ink)", visibility: "hidden" });
  const show = tip(box);
  const scale = () => svg.viewBox.baseVal.width / svg.getBoundingClientRect().width;
  svg.addEventListener("pointermove", (event) => {
    const around = svg.getBoundingClientRect();
    const px = (event.clientX - around.left) * scale(), py = (event.clientY - around.top) * scale();
    let best = null;
    const byX = !chart.square && series.every((s) => !s.points);
    for (const s of series)
      s.x.forEach((value, i) => {
        if (!good(s, i)) return;
        const distance = byX ? Math.abs(x(value) - px) : Math.hypot(x(value) - px, y(s.y[i]) - py);
        if (!best || distance < best.distance) best = { distance, s, i };
      });
    if (!best) return;
    const value = best.s.x[best.i];
    const name = chart.categories ? chart.categories[value] : said(value);
    let text = `${cut(chart.x, 40)}: ${name}`;
    if (byX)
      for (const s of series) {
        const i = s.x.indexOf(value);
        if (i >= 0) text += `\n${cut(s.name, 60)}: ${said(s.y[i], chart)}`;
      }
    else text += `\n${cut(chart.y, 40)}: ${said(best.s.y[best.i], chart)}` + (series.length > 1 ? `\n${best.s.name}` : "");
    if (best.s.notes) text += `\n${best.s.notes[best.i]}`;
    for (const [key, v] of [["x1", x(value)], ["x2", x(value)], ["visibility", byX ? "visible" : "hidden"]]) guide.setAttribute(key, v);
    for (const [key, v] of [["cx", x(value)], ["cy", y(best.s.y[best.i])], ["visibility", "visible"]]) dot.setAttribute(key, v);
    show(event, text);
  });
  svg.addEventListener("pointerleave", (event) => {
    guide.setAttribute("visibility", "hidden");
    dot.setAttribute("visibility", "hidden");
    show(event, null);
  });
  if (series.length > 1 || chart.square) legend(box, series.map((s) => [s.name, s.colour, s.dashed]));
}

function bars(box, chart) {
  const edges = chart.edges, counts = chart.counts;
  const { svg, area, x, y } = frame(box, chart, 230, [edges[0], edges[edges.length - 1]], [0, Math.max(1, ...counts)], false);
  const show = tip(box);
  counts.forEach((count, i) => {
    const left = x(edges[i]), right = x(edges[i + 1]);
    make(svg, "rect", { x: left + 0.5, width: Math.max(0.5, right - left - 1), y: y(count), height: area.bottom - y(count), fill: colour(0) });
    const whole = make(svg, "rect", { x: left, width: right - left, y: area.top, height: area.bottom - area.top, fill: "transparent" });
    whole.addEventListener("pointermove", (event) => show(event, `${said(edges[i])} to ${said(edges[i + 1])}\n${said(count)} ${chart.y}`));
    whole.addEventListener("pointerleave", (event) => show(event, null));
  });
}

function ranks(box, chart) {
  const width = Math.max(220, box.clientWidth || 340), row = 22, left = Math.min(200, width * 0.4);
  const height = chart.names.length * row + 40;
  const svg = make(box, "svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": chart.x });
  const xs = range([0, ...chart.values.map((v, i) => v + chart.errors[i]), ...chart.values.map((v, i) => v - chart.errors[i])]);
  const x = (value) => left + ((value - xs[0]) / (xs[1] - xs[0])) * (width - left - 12);
  for (const value of ticks(xs[0], xs[1], false, Math.max(2, Math.floor((width - left) / 90)))) {
    make(svg, "line", { x1: x(value), x2: x(value), y1: 2, y2: height - 36, stroke: "var(--line)" });
    make(svg, "text", { x: x(value), y: height - 22, "text-anchor": "middle" }, said(value));
  }
  make(svg, "text", { x: width - 6, y: height - 5, "text-anchor": "end" }, cut(chart.x, Math.floor(width / 6)));
  const show = tip(box);
  chart.names.forEach((name, i) => {
    const value = chart.values[i], error = chart.errors[i], middle = i * row + row / 2 + 2;
    make(svg, "text", { x: left - 8, y: middle + 4, "text-anchor": "end", style: "fill: var(--ink)" }, cut(name, Math.floor(left / 6.5)));
    make(svg, "rect", { x: Math.min(x(0), x(value)), width: Math.max(0.5, Math.abs(x(value) - x(0))), y: middle - 7, height: 14, fill: colour(0) });
    make(svg, "line", { x1: x(value - error), x2: x(value + error), y1: middle, y2: middle, stroke: "var(--ink)", "stroke-width": 1.5 });
    const whole = make(svg, "rect", { x: 0, width, y: middle - row / 2, height: row, fill: "transparent" });
    whole.addEventListener("pointermove", (event) => show(event, `${cut(name, 60)}\n${said(value)} ± ${said(error)}`));
    whole.addEventListener("pointerleave", (event) => show(event, null));
  });
}

function matrix(box, chart) {
  const n = chart.names.length, width = Math.max(220, box.clientWidth || 340);
  const left = Math.min(110, width * 0.26), cell = Math.min(64, (width - left - 4) / n);
  // Names that do not fit above their column stand on end; counts are shown where all of them fit.
  const upright = chart.names.every((name) => Math.min(name.length, 6) * 7 < cell);
  const fits = Math.max(...chart.counts.flat().map((count) => String(count).length)) * 7 < cell;
  const top = upright ? 34 : 84, height = top + n * cell + 10;
  const svg = make(box, "svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "true class by predicted class" });
  make(svg, "text", { x: left + (n * cell) / 2, y: 12, "text-anchor": "middle" }, "predicted →, true ↓");
  const show = tip(box);
  const totals = chart.counts.map((r) => r.reduce((a, b) => a + b, 0));
  chart.names.forEach((name, i) => {
    make(svg, "text", { x: left - 6, y: top + i * cell + cell / 2 + 4, "text-anchor": "end" }, cut(name, Math.max(2, Math.floor(left / 7))));
    const middle = left + i * cell + cell / 2;
    if (upright) make(svg, "text", { x: middle, y: top - 6, "text-anchor": "middle" }, cut(name, Math.floor(cell / 7)));
    else make(svg, "text", { x: 0, y: 0, transform: `translate(${middle + 4} ${top - 6}) rotate(-90)` }, cut(name, 10));
    chart.counts[i].forEach((count, j) => {
      const share = totals[i] ? count / totals[i] : 0;
      const own = i === j;
      make(svg, "rect", { x: left + j * cell, y: top + i * cell, width: cell - 1, height: cell - 1, fill: colour(own ? 0 : 1), "fill-opacity": count ? 0.12 + 0.75 * share : 0.03 });
      if (count && fits)
        make(svg, "text", { x: left + j * cell + cell / 2 - 0.5, y: top + i * cell + cell / 2 + 4, "text-anchor": "middle", style: "fill: var(--ink)" }, String(count));
      const whole = make(svg, "rect", { x: left + j * cell, y: top + i * cell, width: cell, height: cell, fill: "transparent" });
      whole.addEventListener("pointermove", (event) =>
        show(event, `${cut(name, 60)} taken for ${cut(chart.names[j], 60)}\n${said(count)} of ${said(totals[i])} rows (${(100 * share).toFixed(1)} %)`));
      whole.addEventListener("pointerleave", (event) => show(event, null));
    });
  });
}

const kinds = { lines, bars, ranks, matrix };
function draw(box) {
  const chart = page[box.dataset.chart];
  box.replaceChildren();
  if (!chart) return;
  const figure = box.closest("figure");
  const head = figure && figure.querySelector(".head");
  if (chart.log && head && !head.querySelector("button")) {
    const button = html(head, "button", "", "log scale");
    button.type = "button";
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => {
      const on = !logarithmic.delete(box.dataset.chart);
      if (on) logarithmic.add(box.dataset.chart);
      button.setAttribute("aria-pressed", String(on));
      draw(box);
    });
  }
  kinds[chart.kind](box, chart, logarithmic.has(box.dataset.chart));
}
function drawAll() {
  for (const box of document.querySelectorAll("[data-chart]")) draw(box);
}
drawAll();
let width = window.innerWidth;
window.addEventListener("resize", () => {
  if (window.innerWidth !== width) { width = window.innerWidth; drawAll(); }
});
const theme = document.getElementById("theme");
if (theme)
  theme.addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
