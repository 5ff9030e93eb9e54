// Heads and components: importance by block and head, and the contributions that add up to the logit.

import { signedColour } from "./colours.js";
import { data, nPrefix, tokenName } from "./data.js";
import { find, make } from "./dom.js";
import { formatFixed, formatLogit, formatSmall, withSign } from "./format.js";
import { CellGrid } from "./grid.js";
import { ALL_HEADS, arrays, chosenName, importanceAt, importanceTotal, isLeading, shownToken, state } from "./state.js";

/** A head's importance at the shown patch, or its sum over all patches where a prefix token is shown. */
function headImportance(block, head) {
  const token = shownToken();
  return token < nPrefix ? importanceTotal(block, head) : importanceAt(token, block, head);
}

export function makeMatrix(onPoint, onChoose) {
  const host = find("matrix");
  const heads = make("div", { className: "heads" });
  const rows = make("div", { className: "rows" });
  rows.setAttribute("aria-hidden", "true");
  for (let block = 0; block < data.n_layers; block++) rows.append(make("span", { textContent: block }));
  const columns = make("div", { className: "columns" });
  columns.setAttribute("aria-hidden", "true");
  for (let head = 0; head <= data.n_heads; head++) columns.append(make("span", { textContent: head === data.n_heads ? "Σ" : head }));
  host.append(rows, heads, columns);
  host.style.setProperty("--cell", `${Math.max(11, Math.min(20, Math.floor(210 / data.n_layers)))}px`);
  return new CellGrid(heads, data.n_layers, data.n_heads + 1, {
    label: `Importance, ${data.n_layers} blocks by ${data.n_heads} heads and their sum`,
    name: (block, head) => `Block ${block}, ${head === data.n_heads ? "all heads" : `head ${head}`}`,
    onPoint, onChoose,
  });
}

export function showMatrix(matrix, pointed) {
  const token = shownToken();
  find("matrix-of").textContent = token < nPrefix ? "all patches together" : tokenName(token).toLowerCase();
  const columns = data.n_heads + 1;
  const readout = find("matrix-readout");
  if (!isLeading()) {
    matrix.paint(() => "", -1, -1);
    readout.textContent = `Not stored for ${chosenName()}: this page holds importance and attribution for ${data.n_leading} classes; ask for a class with --class.`;
    return;
  }
  const values = matrix.cells.map((_, index) => headImportance(Math.floor(index / columns), index % columns === data.n_heads ? ALL_HEADS : index % columns));
  // heads and their sum have separate scales: on a common one the sum would hide the heads
  const most = [0, 0];
  values.forEach((value, index) => { const isSum = +(index % columns === data.n_heads); most[isSum] = Math.max(most[isSum], Math.abs(value)); });
  const everything = state.view === "importance" && state.everyBlock;
  const now = everything ? -1 : state.block * columns + (state.head === ALL_HEADS ? data.n_heads : state.head);
  matrix.paint((index) => signedColour(values[index] / (most[+(index % columns === data.n_heads)] || 1)), now, pointed ?? -1);
  const shown = pointed ?? now;
  const [name, value] = shown < 0 ? ["All blocks and heads", headImportance(data.n_layers, ALL_HEADS)] : [matrix.cells[shown].getAttribute("aria-label"), values[shown]];
  readout.replaceChildren(make("b", { textContent: name }), `: ${formatSmall(value)}\u00a0nats`);
}

function bar(value, most) {
  const share = most ? (50 * Math.abs(value)) / most : 0;
  const element = make("div", { className: value < 0 ? "bar against" : "bar" }, make("i"), make("span", { textContent: withSign(formatLogit(value)) }));
  element.dataset.value = value;
  element.style.setProperty("--long", `${share}%`);
  element.style.setProperty("--from", `${value < 0 ? 50 - share : 50}%`);
  return element;
}

export function showParts() {
  const host = find("parts");
  const contributions = arrays.contributions;
  if (contributions.why_not) {
    host.replaceChildren(make("p", { className: "why-not", textContent: `Not defined for this model: ${contributions.why_not}.` }));
    return;
  }
  if (!isLeading()) {
    host.replaceChildren(make("p", { className: "why-not", textContent: `Not stored for ${chosenName()}.` }));
    return;
  }
  const starts = [["Embedding", contributions.embed], ["Positions", contributions.pos_embed], ["Biases of the head", contributions.constant]]
    .filter(([, part]) => part).map(([name, part]) => [name, part.at(state.chosen)]);
  const blocks = Array.from({ length: data.n_layers }, (_, block) => {
    const heads = [...contributions.head.row(state.chosen, block)];
    const bias = contributions.attn_bias.at(state.chosen, block);
    return { heads, bias, attention: heads.reduce((a, b) => a + b, bias), mlp: contributions.mlp.at(state.chosen, block) };
  });
  const all = [...starts.map(([, value]) => value), ...blocks.flatMap(({ attention, mlp }) => [attention, mlp])];
  const most = Math.max(...all.map(Math.abs));
  const table = make("table", {},
    make("thead", {}, make("tr", {}, ...["Block", "Attention", "MLP"].map((text) => make("th", { textContent: text, scope: "col" })))),
    make("tbody", {}, ...blocks.map(({ attention, mlp }, block) => make("tr", { className: block === state.block ? "now" : "" },
      make("th", { textContent: block, scope: "row" }), make("td", {}, bar(attention, most)), make("td", {}, bar(mlp, most))))));
  const starting = make("div", { className: "starts" }, ...starts.map(([name, value]) => make("p", { textContent: name }, bar(value, most))));
  const now = blocks[state.block];
  const items = [...now.heads.map((value, head) => [`${head}`, value]), ["bias", now.bias]];
  const heads = make("p", { className: "head-list", textContent: `Block ${state.block}'s heads: ` },
    ...items.map(([name, value]) => make("span", { textContent: `${name} ` }, make("b", { textContent: withSign(formatLogit(value)) }))));
  const total = all.reduce((a, b) => a + b, 0);
  const sum = make("p", { className: "sum" }, "Sum of all bars ", make("b", { textContent: formatFixed(total, 3) }), " = logit ", make("b", { textContent: formatFixed(contributions.logit.at(state.chosen), 3) }));
  host.replaceChildren(starting, table, sum, heads);
}
