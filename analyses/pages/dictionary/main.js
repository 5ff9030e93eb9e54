// The page's controls, and what is redrawn when a latent is chosen.

import { find, make } from "../explorer/dom.js";
import { formatFixed, formatPercent } from "../explorer/format.js";
import { chosenLatents, readData } from "./data.js";
import { showClasses, showFactors, showHistogram } from "./panels.js";
import { showPictures } from "./pictures.js";

const { data, latents } = await readData();
await find("sheet").decode();
const rowOf = new Map();
let shown = [];
let chosen = latents[0];

const bestName = ({ best }) => (best.length ? `${best[0].factor}: ${best[0].value}` : "–");

function makeRow(one) {
  const button = make("button", { type: "button", textContent: one.latent, onclick: () => choose(one) });
  const cells = [make("td", {}, button), make("td", { textContent: formatPercent(one.frequency) })];
  if (data.coherence) cells.push(make("td", { textContent: formatFixed(one.coherence, 2) }));
  cells.push(make("td", { className: "cell", textContent: bestName(one), title: bestName(one) }), make("td", { textContent: one.best.length ? formatFixed(one.best[0].auroc, 2) : "–" }));
  return make("tr", { onclick: () => choose(one) }, ...cells);
}

function list() {
  shown = chosenLatents(latents, find("filter").value, find("sort").value);
  find("rows").replaceChildren(...shown.map((one) => rowOf.get(one)));
  find("count").textContent = `${shown.length} of ${latents.length} latents on this page`;
}

function choose(one) {
  rowOf.get(chosen).classList.remove("chosen");
  rowOf.get(chosen).removeAttribute("aria-current");
  chosen = one;
  const row = rowOf.get(one);
  row.classList.add("chosen");
  row.setAttribute("aria-current", "true");
  row.scrollIntoView?.({ block: "nearest" });
  const name = `latent ${one.latent}`;
  find("latent-name").textContent = `Latent ${one.latent}`;
  const [best] = one.best;
  const factor = best ? (best.auroc >= data.found ? `It tells ${best.factor} “${best.value}” apart (AUROC ${formatFixed(best.auroc, 2)}).` : `No factor is told apart well: the best is ${best.factor} “${best.value}” (AUROC ${formatFixed(best.auroc, 2)}).`) : "";
  find("takeaway").textContent = `Active at ${formatPercent(one.frequency)} of tokens, up to ${formatFixed(one.largest, 2)}. ${factor} It promotes ${one.top.slice(0, 3).map(({ name: className }) => className).join(", ")}.`;
  showPictures(data, one.row, name);
  showClasses(one);
  showFactors(one, data.found);
  showHistogram(data.histogram.row(one.row), data.edges);
}

function move(step) {
  const at = shown.indexOf(chosen);
  const next = shown[at < 0 ? 0 : Math.min(shown.length - 1, Math.max(0, at + step))];
  if (next) choose(next);
}

for (const one of latents) rowOf.set(one, makeRow(one));
find("filter").addEventListener("input", list);
find("sort").addEventListener("change", list);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches?.("input, select, textarea");
  if (event.key === "Escape" && typing) event.target.blur();
  const step = { ArrowDown: 1, ArrowUp: -1, j: 1, k: -1 }[event.key];
  if (event.key === "/" && !typing) { event.preventDefault(); find("filter").focus(); }
  if (step && !typing) { event.preventDefault(); move(step); }
});
const told = latents.filter(({ best }) => best.length && best[0].auroc >= data.found).length;
const leftOut = data.n_left_out ? ` Left out are ${data.n_left_out} of ${data.n_left_out + data.factors.length} factor values: too few pictures (below ${data.min_images}) with or without them in one half.` : "";
find("summary").textContent = `${data.n_all} latents, ${data.n_dead} of them never active in ${data.n_images.toLocaleString("en")} pictures. Of the ${latents.length} on this page, ${told} tell a true factor apart (AUROC at least ${data.found}); with permuted factors, ${formatFixed(data.null_found, 1)} do.${leftOut}`;
list();
choose(shown[0]);
document.documentElement.dataset.drawn = "";
