// Heads by block: their importance, or what patching each restores.

import { signedColour } from "./colours.js";
import { data, nPrefix, tokenName } from "./data.js";
import { find, make } from "./dom.js";
import { formatSignedPercent, formatSmall } from "./format.js";
import { CellGrid } from "./grid.js";
import { ALL_HEADS, arrays, isLeading, shownToken, state, subject } from "./state.js";
import { importanceAt, importanceTotal } from "./values.js";

const columns = data.n_heads + 1;

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
  const names = make("div", { className: "columns" });
  names.setAttribute("aria-hidden", "true");
  for (let head = 0; head <= data.n_heads; head++) names.append(make("span", { textContent: head === data.n_heads ? "Σ" : head }));
  host.append(rows, heads, names);
  host.style.setProperty("--cell", `${Math.max(11, Math.min(20, Math.floor(210 / data.n_layers)))}px`);
  return new CellGrid(heads, data.n_layers, columns, {
    label: `Importance, ${data.n_layers} blocks by ${data.n_heads} heads and their sum`,
    name: (block, head) => `Block ${block}, ${head === data.n_heads ? "all heads" : `head ${head}`}`,
    onPoint, onChoose,
  });
}

export function showMatrix(matrix, pointed) {
  const patching = state.view === "patching";
  find("importance-mean").hidden = patching;
  find("patching-mean").hidden = !patching;
  find("matrix-title").textContent = patching ? "Restored by head" : "Importance by head";
  if (patching) showPatching(matrix, pointed);
  else showImportance(matrix, pointed);
}

function showImportance(matrix, pointed) {
  const token = shownToken();
  find("matrix-of").textContent = token < nPrefix ? "all patches together" : tokenName(token).toLowerCase();
  const readout = find("matrix-readout");
  if (!isLeading()) {
    matrix.paint(() => "", -1, -1);
    readout.textContent = `Not stored for ${subject()}: this page holds importance and attribution for ${data.n_leading} classes; ask for a class with --class.`;
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
  readout.replaceChildren(make("b", { textContent: name }), ": ", make("span", { className: "number", textContent: `${formatSmall(value)}\u00a0nats` }));
}

function showPatching(matrix, pointed) {
  const { heads } = arrays.patching;
  const most = heads.values.reduce((largest, share) => Math.max(largest, Math.abs(share)), 0);
  const shareAt = (index) => (index % columns === data.n_heads ? null : heads.at(Math.floor(index / columns), index % columns));
  const now = state.block * columns + (state.head === ALL_HEADS ? data.n_heads : state.head);
  matrix.paint((index) => (shareAt(index) === null ? "" : signedColour(shareAt(index) / (most || 1))), now, pointed ?? -1);
  let shown = pointed ?? now;
  // heads are patched one at a time, so all of a block's heads have no number: the best of them is told instead
  if (shareAt(shown) === null) {
    const block = Math.floor(shown / columns);
    const row = [...heads.row(block)];
    shown = block * columns + row.indexOf(Math.max(...row));
  }
  find("matrix-readout").replaceChildren(make("b", { textContent: matrix.cells[shown].getAttribute("aria-label") }), ": restores ", make("span", { className: "number", textContent: formatSignedPercent(shareAt(shown)) }));
}
