// The evidence for one edge: its score, and where in the picture it comes from; and the list of edges.

import { signedColour } from "../explorer/colours.js";
import { find, make } from "../explorer/dom.js";
import { formatAmong, formatSignedPercent } from "../explorer/format.js";
import { data, onMap, partName, readerName, share } from "./names.js";

const [nRows, nColumns] = data.grid;
const largest = Math.max(...data.edges.map((edge) => Math.abs(edge.score)));
let cells = [], rows = [];

/** Make the map's cells and the list; `point` and `choose` get an edge's position. */
export function makeEvidence(point, choose) {
  const host = find("map");
  host.style.gridTemplate = `repeat(${nRows}, 1fr) / repeat(${nColumns}, 1fr)`;
  cells = Array.from({ length: nRows * nColumns }, () => make("i"));
  host.append(...cells);
  rows = data.edges.map((edge, position) => {
    const button = make("button", { type: "button", textContent: partName(edge.sender), onclick: () => choose(position) });
    button.addEventListener("focus", () => point(position));
    const row = make("tr", { onclick: () => choose(position) }, make("td", {}, button), make("td", { textContent: readerName(edge) }), make("td", { textContent: formatAmong(edge.score, largest) }));
    button.onclick = (event) => { event.stopPropagation(); choose(position); };
    row.addEventListener("pointerenter", () => point(position));
    row.addEventListener("pointerleave", () => point(null));
    return row;
  });
  find("edges").append(...rows);
}

/** Show the list of a circuit's edges. */
export function showList(shown, chosen) {
  for (const [position, row] of rows.entries()) {
    row.hidden = !shown.has(position);
    row.classList.toggle("chosen", position === chosen);
  }
}

/** Show one edge, or nothing. */
export function showEvidence(position) {
  const edge = position === null ? null : data.edges[position];
  find("edge-name").textContent = edge ? `${partName(edge.sender)} → ${readerName(edge)}` : "Evidence";
  find("edge-score").textContent = edge
    ? `Corrupting this edge alone is estimated to move the difference of logits by ${formatAmong(edge.score, largest)}, ${formatSignedPercent(share(edge))} of the whole difference.`
    : "No edge chosen.";
  for (const [patch, cell] of cells.entries()) cell.style.background = edge ? signedColour(onMap(edge, data.prefix.length + patch), 0.85) : "none";
  const most = edge ? edge.largest / data.levels : 0;
  find("prefix").replaceChildren(...(edge ? data.prefix.map((name, token) => make("span", { textContent: `${name} ${formatAmong(edge.map[token] * most, edge.largest)}  ` })) : []));
}
