// The page's controls, and what is redrawn when something is selected.

import { find } from "../explorer/dom.js";
import { counted, formatLogit, formatPercent } from "../explorer/format.js";
import { makeCurve, showCurve } from "./curve.js";
import { makeEvidence, showEvidence, showList } from "./evidence.js";
import { makeGraph, showGraph } from "./graph.js";
import { data } from "./names.js";

const state = { circuit: data.start, pointed: null, chosen: null };

function set(changes) {
  Object.assign(state, changes);
  const shown = new Set(data.circuits[state.circuit].edges);
  if (state.chosen !== null && !shown.has(state.chosen)) state.chosen = null;
  render(shown);
}

function render(shown) {
  const { kept, left } = data.circuits[state.circuit];
  // an edge that is pointed at, else the chosen one, else the largest of the circuit
  const edge = state.pointed ?? state.chosen ?? [...shown][0] ?? null;
  find("size").value = state.circuit;
  find("size").setAttribute("aria-valuetext", counted(shown.size, "edge"));
  find("size-number").textContent = `${shown.size} of ${data.n_all_edges}`;
  const inWords = (share) => (share < 0 ? "less than nothing" : formatPercent(share));
  find("takeaway").textContent = `The logit of ${data.classes[0]} minus that of ${data.classes[1]} is ${formatLogit(data.clean)} here and ${formatLogit(data.corrupt)} for the other picture. ${counted(shown.size, "edge")} of ${data.n_all_edges} keep ${inWords(kept)} of the difference; all others together keep ${inWords(left)}.`;
  showGraph(shown, edge);
  showList(shown, edge);
  showCurve(state.circuit);
  showEvidence(edge);
}

const choose = (position) => set({ chosen: state.chosen === position ? null : position });
const point = (position) => { if (position !== state.pointed) set({ pointed: position }); };
makeGraph(point, choose);
makeCurve((circuit) => set({ circuit }));
makeEvidence(point, choose);
Object.assign(find("size"), { max: data.circuits.length - 1, oninput: (event) => set({ circuit: +event.target.value }) });
document.addEventListener("keydown", (event) => { if (event.key === "Escape") set({ chosen: null, pointed: null }); });
find("method").textContent = `Scores: ${data.method}, from ${data.titles[0]} to ${data.titles[1]}. Circuits grow from the logits, largest edge first; their shares are exact runs.`;
set({});
document.documentElement.dataset.drawn = "";
