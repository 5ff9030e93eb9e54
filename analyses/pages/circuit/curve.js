// What circuits keep of the difference, against their number of edges; a point for each circuit of the slider.

import { find, makeSvg } from "../explorer/dom.js";
import { data } from "./names.js";

const WIDTH = 400, HEIGHT = 190, LEFT = 46, RIGHT = 12, TOP = 20, BOTTOM = 26;
const sizes = data.circuits.map(({ asked }) => asked);
const values = data.circuits.flatMap(({ kept, left, random }) => [kept, left, random ?? 0]);
const low = Math.max(-1, Math.min(0, ...values)), high = Math.min(2, Math.max(1, ...values));
const span = Math.log(sizes.at(-1) / sizes[0]) || 1;
const x = (size) => LEFT + ((WIDTH - LEFT - RIGHT) * Math.log(size / sizes[0])) / span;
const y = (value) => HEIGHT - BOTTOM - ((HEIGHT - TOP - BOTTOM) * (Math.min(high, Math.max(low, value)) - low)) / (high - low);
let points = [];

/** Draw the curves once; `choose` gets the position of a circuit. */
export function makeCurve(choose) {
  const svg = find("curve");
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  for (const value of [0, 0.5, 1]) {
    svg.append(makeSvg("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value), class: "axis" }), makeSvg("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, `${100 * value} %`));
  }
  for (const size of [1, 10, 100, 1000].filter((tick) => tick <= sizes.at(-1))) svg.append(makeSvg("text", { x: x(size), y: HEIGHT - 8, "text-anchor": "middle" }, `${size}`));
  for (const name of ["random", "left", "kept"]) {
    svg.append(makeSvg("polyline", { class: name, points: data.circuits.map((circuit) => `${x(circuit.asked)},${y(circuit[name] ?? 0)}`).join(" ") }));
  }
  const names = makeSvg("g", { class: "names" });
  for (const [i, [name, text]] of [["kept-name", "circuit"], ["left-name", "all but the circuit"], ["random-name", "random circuit"]].entries()) {
    names.append(makeSvg("text", { x: LEFT + [0, 60, 190][i], y: 12, class: name }, text));
  }
  svg.append(names);
  points = data.circuits.map((circuit, position) => {
    const point = makeSvg("circle", { cx: x(circuit.asked), cy: y(circuit.kept), r: 4 });
    point.addEventListener("click", () => choose(position));
    svg.append(point);
    return point;
  });
}

/** Mark the circuit that is shown. */
export function showCurve(position) {
  for (const [i, point] of points.entries()) {
    point.classList.toggle("now", i === position);
    point.setAttribute("r", i === position ? 6 : 3);
  }
}
