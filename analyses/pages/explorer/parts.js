// The contributions of all components, which add up to the logit or to the difference of logits.

import { data, isPair, LETTERS } from "./data.js";
import { find, make } from "./dom.js";
import { formatAmong, formatFixed } from "./format.js";
import { arrays, DIFFERENCE, isLeading, state, subject } from "./state.js";
import { contributions } from "./values.js";

function bar(value, most) {
  const share = most ? (50 * Math.abs(value)) / most : 0;
  const element = make("div", { className: value < 0 ? "bar against" : "bar" }, make("i"), make("span", { textContent: formatAmong(value, most) }));
  element.dataset.value = value;
  element.style.setProperty("--long", `${share}%`);
  element.style.setProperty("--from", `${value < 0 ? 50 - share : 50}%`);
  return element;
}

/** Whose logit the bars add up to, in words. */
function logitInWords() {
  const pictures = state.run === DIFFERENCE ? ", A − B," : isPair ? ` in ${LETTERS[state.run]}` : "";
  return state.against === null && state.run !== DIFFERENCE ? `logit${pictures}` : `difference of logits${pictures}`;
}

export function showParts() {
  const host = find("parts");
  const why = arrays.runs[0].contributions.why_not;
  if (why || !isLeading()) {
    const text = why ? `Not defined for this model: ${why}.` : `Not stored for ${subject()}.`;
    host.replaceChildren(make("p", { className: "why-not", textContent: text }));
    return;
  }
  const { starts, blocks, logit } = contributions();
  const all = [...starts.map(([, value]) => value), ...blocks.flatMap(({ attention, mlp }) => [attention, mlp])];
  const most = Math.max(...all.map(Math.abs));
  const table = make("table", {},
    make("thead", {}, make("tr", {}, ...["Block", "Attention", "MLP"].map((text) => make("th", { textContent: text, scope: "col" })))),
    make("tbody", {}, ...blocks.map(({ attention, mlp }, block) => make("tr", { className: block === state.block ? "now" : "" },
      make("th", { textContent: block, scope: "row" }), make("td", {}, bar(attention, most)), make("td", {}, bar(mlp, most))))));
  const starting = make("div", { className: "starts" }, ...starts.map(([name, value]) => make("p", { textContent: name }, bar(value, most))));
  const now = blocks[state.block];
  const mostOfHeads = Math.max(...now.heads.map(Math.abs));
  const items = [...now.heads.map((value, head) => [`${head}`, value]), ["bias", now.bias]];
  const heads = make("p", { className: "head-list", textContent: `Block ${state.block}'s heads: ` },
    ...items.map(([name, value]) => make("span", { textContent: `${name} ` }, make("b", { textContent: formatAmong(value, mostOfHeads) }))));
  const total = all.reduce((a, b) => a + b, 0);
  const sum = make("p", { className: "sum" }, "Sum of all bars ", make("b", { textContent: formatFixed(total, 3) }), ` = ${logitInWords()} `, make("b", { textContent: formatFixed(logit, 3) }));
  host.replaceChildren(starting, table, sum, heads);
}
