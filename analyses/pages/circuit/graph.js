// The graph: parts from bottom to top, and the edges of the circuit that is shown.

import { find, make, makeSvg } from "../explorer/dom.js";
import { carries, data, KINDS, partName } from "./names.js";

const ACROSS = 74, UP = 66, EDGE = 46;
const width = 2 * EDGE + ACROSS * (data.n_heads + 0.6);
const height = 2 * EDGE + UP * (data.n_layers + 1);
const largest = Math.max(...data.edges.map((edge) => Math.abs(edge.score))) || 1;
const keyOf = (part) => part.join(".");
const places = new Map();
const parts = new Map();
const curves = new Map();

function place([kind, layer, head]) {
  if (kind === "embed") return [width / 2, height - EDGE];
  if (kind === "logits") return [width / 2, EDGE];
  const up = height - EDGE - UP * (1 + layer);
  return kind === "mlp" ? [EDGE + ACROSS * (data.n_heads + 0.35), up - 0.42 * UP] : [EDGE + ACROSS * (head + 0.25), up];
}

/** Draw all parts, and every edge of any circuit; `point` and `choose` get an edge's position, or null. */
export function makeGraph(point, choose) {
  const svg = find("graph");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const edgesLayer = makeSvg("g"), partsLayer = makeSvg("g");
  svg.append(edgesLayer, partsLayer);
  const all = [["embed"], ["logits"]];
  for (let layer = 0; layer < data.n_layers; layer += 1) {
    for (let head = 0; head < data.n_heads; head += 1) all.push(["head", layer, head]);
    all.push(["mlp", layer]);
  }
  for (const part of all) {
    const [x, y] = place(part);
    const circle = makeSvg("circle", { cx: x, cy: y, r: 7 });
    const text = makeSvg("text", { x: x + 10, y: y - 7 }, part[0] === "head" ? `${part[1]}.${part[2]}` : partName(part));
    circle.append(makeSvg("title", {}, partName(part)));
    partsLayer.append(circle, text);
    places.set(keyOf(part), [x, y]);
    parts.set(keyOf(part), [circle, text]);
  }
  // small edges last, so that large ones lie on top
  for (const [position, edge] of [...data.edges.entries()].reverse()) {
    const drawn = edge.to.map((part) => {
      const [x, y] = places.get(keyOf(edge.sender)), [toX, toY] = places.get(keyOf(part));
      const bend = { q: -26, k: 0, v: 26, mlp: 14, logits: 14 }[edge.reader[0]];
      const path = `M${x} ${y} C${x + bend} ${y - 0.4 * (y - toY)} ${toX + bend} ${toY + 0.4 * (y - toY)} ${toX} ${toY}`;
      const share = Math.abs(edge.score) / largest;
      const line = makeSvg("path", { d: path, class: `edge ${edge.reader[0]}`, "stroke-width": 0.7 + 7 * Math.sqrt(share), opacity: (0.3 + 0.6 * share).toFixed(2) });
      if (!carries(edge)) line.setAttribute("stroke-dasharray", "5 4");
      const near = makeSvg("path", { d: path, class: "near", "stroke-width": 12 });
      near.addEventListener("pointerenter", () => point(position));
      near.addEventListener("pointerleave", () => point(null));
      near.addEventListener("click", () => choose(position));
      edgesLayer.append(line, near);
      return [line, near];
    });
    curves.set(position, drawn.flat());
  }
  find("kinds").append(...Object.entries(KINDS).map(([kind, name]) => make("span", {}, make("i", { className: kind }), `read by ${name}`)));
}

/** Show the edges of a circuit, and the parts that they connect. */
export function showGraph(shown, chosen) {
  const live = new Set();
  for (const [position, drawn] of curves) {
    const isShown = shown.has(position);
    for (const element of drawn) {
      element.style.display = isShown ? "" : "none";
      element.classList.toggle("chosen", position === chosen && element.classList.contains("edge"));
    }
    if (isShown) for (const part of [data.edges[position].sender, ...data.edges[position].to]) live.add(keyOf(part));
  }
  for (const [key, elements] of parts) for (const element of elements) element.classList.toggle("live", live.has(key));
}
