// What the numbers say, in a sentence: where the class emerges, and which parts carry it.

import { data, isPair, LETTERS, nPatches, nPrefix, nTokens, READOUT, shortClassName, tokenName } from "./data.js";
import { find, make } from "./dom.js";
import { formatAmong, formatLogit, formatPercent, withSign } from "./format.js";
import { arrays, chosenName, DIFFERENCE, isDifference, isLeading, shownPositions, shownRuns, state } from "./state.js";
import { contributions } from "./values.js";

const N_HEADS = 3;
const RESID_POST = 0;
const blocks = Array.from({ length: data.n_layers }, (_, block) => block);
const strong = (text) => make("b", { textContent: text });

/** The block from which a class is what the head would predict, up to the last one; or null. */
function emergence(run, position) {
  const { rank } = arrays.runs[run].readout;
  let from = null;
  for (const block of blocks.toReversed()) {
    if (rank.at(block, position) > 0) break;
    from = block;
  }
  return from;
}

/** The number of patches that the class is on top of after each block. */
function patchesOnTop(run, position) {
  const { rank } = arrays.runs[run].projections;
  return blocks.map((block) => {
    let count = 0;
    for (let token = nPrefix; token < nTokens; token++) count += rank.at(RESID_POST, block, token, position) === 0;
    return count;
  });
}

function whereItEmerges(run, position) {
  const from = emergence(run, position);
  const last = arrays.runs[run].readout.rank.at(data.n_layers - 1, position);
  const counts = patchesOnTop(run, position);
  const most = Math.max(...counts);
  const patches = `up to ${most} of ${nPatches} patches (block ${counts.indexOf(most)})`;
  const readout = from === null ? `is not the top class ${READOUT} after the last block (rank ${last})` : `is the top class ${READOUT} ${from === 0 ? "after every block" : `from block ${from} on`}`;
  const ofPatches = from === null ? (most ? `, but of ${patches}` : ", nor of any patch after any block") : ` and of ${most ? patches : "no patch after any block"}`;
  return [strong(shortClassName(data.shown[position])), ` ${readout}${ofPatches}`];
}

/** Which sub-layer and which heads carry the logit or difference; the heads can be chosen. */
function whatCarriesIt(chooseHead) {
  if (!isLeading() || arrays.runs[0].contributions.why_not) return [];
  const { blocks: all, logit } = contributions();
  const attention = all.reduce((sum, one) => sum + one.attention, 0);
  const mlp = all.reduce((sum, one) => sum + one.mlp, 0);
  const sign = logit < 0 ? -1 : 1;
  const isAttention = sign * attention >= sign * mlp;
  const heads = all.flatMap((one, block) => one.heads.map((value, head) => ({ block, head, value })))
    .sort((a, b) => sign * (b.value - a.value)).slice(0, N_HEADS).filter(({ value }) => sign * value > 0);
  const numberAmong = (most) => (value) => make("span", { className: "number", textContent: formatAmong(value, Math.abs(most)) });
  const number = numberAmong(Math.max(Math.abs(attention), Math.abs(mlp)));
  const headNumber = numberAmong(heads[0]?.value ?? 0);
  const buttons = heads.flatMap(({ block, head, value }, i) => [
    i ? (i === heads.length - 1 ? " and " : ", ") : "",
    make("button", { type: "button", className: "link", title: `Block ${block}, head ${head}: show its importance`, textContent: `${block}.${head}`, onclick: () => chooseHead(block, head) }),
    " (", headNumber(value), ")",
  ]);
  const parts = isAttention ? [["attention", attention], ["MLPs", mlp]] : [["MLPs", mlp], ["attention", attention]];
  return [`${parts[0][0]} carr${isAttention ? "ies" : "y"} ${isDifference() ? "the difference" : "it"}: `, number(parts[0][1]), ` of ${isDifference() ? "" : "its logit of "}`, make("span", { className: "number", textContent: formatLogit(logit) }),
    ` (${parts[1][0]}: `, number(parts[1][1]), ")",
    ...(heads.length ? [`; head${heads.length > 1 ? "s" : ""} `, ...buttons, ` add${heads.length > 1 ? "" : "s"} most`] : [])];
}

function whatDiffers() {
  const logits = shownRuns().map((run) => shownPositions().map((position) => arrays.runs[run].readout.logit.at(data.n_layers - 1, position)));
  const values = logits.map(([own, other]) => formatLogit(other === undefined ? own : own - other));
  const names = [strong(chosenName()), ...(state.against === null ? [] : [" minus that of ", strong(shortClassName(data.shown[state.against]))])];
  const number = (text) => make("span", { className: "number", textContent: text });
  if (state.run !== DIFFERENCE) return ["The logit of ", ...names, isPair ? ` in picture ${LETTERS[state.run]} is ` : " is ", number(withSign(values[0]))];
  return ["The logit of ", ...names, " is ", number(values[0]), " in picture A and ", number(values[1]), " in picture B"];
}

/** The patch that restores most: `{block, token, value}`. */
export function bestPatched() {
  const { tokens } = arrays.patching;
  const patches = blocks.flatMap((block) => [...tokens.row(block)].map((value, token) => ({ block, token, value }))).filter(({ token }) => token >= nPrefix);
  return patches.reduce((one, other) => (other.value > one.value ? other : one));
}

/** What patching restores, in a sentence of its own. */
function whatPatchingRestores() {
  if (!arrays.patching || state.run !== DIFFERENCE) return [];
  const { heads } = arrays.patching;
  const best = (numbers) => numbers.values.reduce((at, value, i) => (value > numbers.values[at] ? i : at), 0);
  const head = best(heads);
  const patch = bestPatched();
  const share = (value) => make("span", { className: "number", textContent: value < 0 ? "nothing" : formatPercent(value) });
  const { label, against } = data.patching;
  return [" Copied alone from A into B, head ", `${Math.floor(head / data.n_heads)}.${head % data.n_heads} restores `, share(heads.values[head]),
    ` of the difference in ${shortClassName(label)}${against === null ? "" : ` − ${shortClassName(against)}`}, and the stream of one patch at most `, share(patch.value),
    ` (${tokenName(patch.token).toLowerCase()}, block ${patch.block}).`];
}

export function showTakeaway(chooseHead) {
  const of = `${state.run} ${state.chosen} ${state.against}`;
  if (find("takeaway").dataset.of === of) return;
  find("takeaway").dataset.of = of;
  const carried = whatCarriesIt(chooseHead);
  const first = isDifference() ? whatDiffers() : whereItEmerges(state.run, state.chosen);
  find("takeaway").replaceChildren(...first, ...(carried.length ? ["; ", ...carried] : []), ".", ...whatPatchingRestores());
}
