// One token: its top classes and the rank of the class after each block, the curve of ranks, and its memories.

import { showCurve } from "./curve.js";
import { className, data, isPair, LETTERS, shortClassName, tokenName } from "./data.js";
import { find, make } from "./dom.js";
import { formatLogit } from "./format.js";
import { showMemories } from "./memories.js";
import { arrays, shownPositions, shownRuns, shownToken, state } from "./state.js";
import { ranksAt } from "./values.js";

const N_IN_TABLE = 2;

export function showToken(chooseBlock) {
  const token = shownToken();
  find("token-name").textContent = tokenName(token);
  find("pin-state").textContent = token === state.pinned ? "pinned" : `pointed at; pinned: ${tokenName(state.pinned)}`;
  showTops(token, chooseBlock);
  showCurve(token);
  showMemories();
}

/** `[label, logit]` of the largest logits in a picture. */
function topsOf(run, block, token) {
  const { top_classes: classes, top_logits: logits } = arrays.runs[run].projections;
  const values = logits.row(state.stream, block, token);
  return [...classes.row(state.stream, block, token)].map((label, i) => [label, values[i]]);
}

const listed = (tops) => tops.map(([label, logit], i) => `${i + 1}. ${className(label)}  ${formatLogit(logit)}`).join("\n");

function topCell([label, logit], all) {
  const cell = make("td", { title: listed(all) }, make("div", { className: "top-class" }, make("span", { textContent: shortClassName(label) }), make("small", { textContent: formatLogit(logit) })));
  cell.classList.toggle("is-class", shownPositions().some((position) => data.shown[position] === label));
  return cell;
}

function showTops(token, chooseBlock) {
  const isComparison = shownRuns().length > 1;
  const heads = isComparison ? LETTERS.map((letter) => `First in ${letter}`) : ["First", "Second"];
  document.querySelectorAll("#tops th.place").forEach((head, i) => { head.textContent = heads[i]; });
  find("tops").classList.toggle("comparison", isComparison);
  find("tops").classList.toggle("wide-ranks", isComparison || shownPositions().length > 1);
  const rows = Array.from({ length: data.n_layers }, (_, block) => {
    const tops = shownRuns().map((run) => topsOf(run, block, token));
    const shown = isComparison ? tops.map((all) => [all[0], all]) : tops[0].slice(0, N_IN_TABLE).map((one) => [one, tops[0]]);
    return make("tr", { className: block === state.block ? "now" : "", onclick: () => chooseBlock(block) },
      make("td", { textContent: block }), make("td", { textContent: ranksAt(block, token).join(" / ") }), ...shown.map(([one, all]) => topCell(one, all)));
  });
  document.querySelector("#tops tbody").replaceChildren(...rows);
  const further = shownRuns().map((run) => {
    const tops = topsOf(run, state.block, token).slice(isComparison ? 0 : N_IN_TABLE);
    if (!tops.length) return null;
    const pieces = tops.map(([label, logit], i) => make("span", { className: "piece", textContent: `${shortClassName(label)} ${formatLogit(logit)}${i < tops.length - 1 ? "," : ""}` }));
    const start = isComparison || isPair ? `After block ${state.block}, ${LETTERS[run]}: ` : `Then, after block ${state.block}: `;
    return make("p", {}, start, ...pieces.flatMap((piece) => [piece, " "]));
  });
  find("more-tops").replaceChildren(...further.filter(Boolean));
}
