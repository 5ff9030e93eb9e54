// What is selected, and every number that follows from it. Nothing here touches the page's elements.

import { className, data, hasCls, isFine, nPrefix, nTokens, shortClassName } from "./data.js";
import { unpack, unpackAll } from "./numbers.js";
import { clippedRange } from "./scale.js";

/** In place of a head's number: the mean over heads of attention, the sum over heads of importance. */
export const ALL_HEADS = "all";

/** `chosen` is a position in the list of classes that the page holds, not a class index. */
export const state = {
  pinned: 0, pointed: null, block: data.n_layers - 1, stream: 0, chosen: 0, view: "rank", head: ALL_HEADS, everyBlock: true,
  sublayer: "mlp", strength: 0.78,
};

/** The page's arrays, once `loadNumbers` has unpacked them. */
export const arrays = { projections: null, importance: null, contributions: null, memories: null };

export async function loadNumbers() {
  [arrays.projections, arrays.importance, arrays.contributions, arrays.memories] = await Promise.all([
    unpackAll(data.projections), unpack(data.importance), unpackAll(data.contributions),
    Promise.all([unpackAll(data.memories.mlp), unpackAll(data.memories.attn)]).then(([mlp, attn]) => ({ mlp, attn })),
  ]);
  if (!hasCls) state.pinned = bestPatch();
}

/** The patch with the largest logit of the class after the last block: shown first where there is no CLS token. */
function bestPatch() {
  let best = nPrefix;
  for (let token = nPrefix + 1; token < nTokens; token++) if (logitAt(state.block, token) > logitAt(state.block, best)) best = token;
  return best;
}

export const shownToken = () => state.pointed ?? state.pinned;
export const chosenClass = () => data.shown[state.chosen];
export const chosenName = () => shortClassName(chosenClass());
export const optionName = (position) => className(data.shown[position]);
/** Whether importance and attribution are stored for the chosen class. */
export const isLeading = () => state.chosen < data.n_leading;

export const rankAt = (block, token) => arrays.projections.rank.at(state.stream, block, token, state.chosen);
export const logitAt = (block, token) => arrays.projections.logit.at(state.stream, block, token, state.chosen);
export const identifiability = (rank) => 1 - rank / data.n_classes;

/** Importance of a patch; null for prefix tokens and for classes it is not stored for. */
export function importanceAt(token, block, head) {
  if (token < nPrefix || !isLeading()) return null;
  return arrays.importance.at(state.chosen, block, head === ALL_HEADS ? data.n_heads : head, token - nPrefix);
}

/** Sum over all patches. */
export function importanceTotal(block, head) {
  let total = 0;
  for (let token = nPrefix; token < nTokens; token++) total += importanceAt(token, block, head);
  return total;
}

const patterns = new Map();

/** A block's stored attention, or null while it is being unpacked; `whenReady` is called afterwards. */
function pattern(block, whenReady) {
  if (!patterns.has(block)) {
    patterns.set(block, null);
    const { heads, means } = data.attention;
    Promise.all([heads[block] && unpack(heads[block]), means[block] && unpack(means[block])]).then(([byHead, mean]) => {
      patterns.set(block, { byHead, mean });
      whenReady();
    });
  }
  return patterns.get(block);
}

/** Whether the page holds this row of attention. */
export function hasAttention(query, head) {
  const { kept } = data.attention;
  if (kept === "everything") return true;
  if (kept === "nothing") return false;
  return query < nPrefix || (kept === "means" && head === ALL_HEADS);
}

/** Attention from one token to every token; null if it is not stored, or not unpacked yet. */
function attentionRow(block, head, query, whenReady) {
  if (!hasAttention(query, head)) return null;
  const stored = pattern(block, whenReady);
  if (!stored) return null;
  if (head !== ALL_HEADS) return stored.byHead.row(head, query);
  if (stored.mean) return stored.mean.row(query);
  const mean = new Float32Array(nTokens);
  for (let each = 0; each < data.n_heads; each++) stored.byHead.row(each, query).forEach((weight, key) => { mean[key] += weight / data.n_heads; });
  return mean;
}

/** The ends of a colour scale: the smallest and the largest value, or on fine grids possibly percentiles. */
function rangeOf(values) {
  if (isFine) return clippedRange(values);
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) [low, high] = [Math.min(low, value), Math.max(high, value)];
  return { low, high };
}

/**
 * The values that colour the tokens, or null where there are none: `{values, low, high, kind}`, and on fine grids
 * `clipsLow` and `clipsHigh` where values beyond an end have its colour.
 */
export function currentMap(whenReady) {
  const tokens = Array.from({ length: nTokens }, (_, token) => token);
  const { view, block } = state;
  if (view === "rank") {
    return { kind: "rank", values: tokens.map((token) => rankAt(block, token)), low: data.n_classes - 1, high: 0 };
  }
  if (view === "identifiability") {
    return { kind: "amount", values: tokens.map((token) => identifiability(rankAt(block, token))), low: 0, high: 1 };
  }
  if (view === "logit") {
    // over all blocks, so that colours can be compared between blocks
    const all = Array.from({ length: data.n_layers }, (_, layer) => tokens.map((token) => logitAt(layer, token))).flat();
    return { kind: "amount", values: tokens.map((token) => logitAt(block, token)), ...rangeOf(all) };
  }
  if (view === "attention") {
    const row = attentionRow(block, state.head, state.pinned, whenReady);
    return row && { kind: "amount", values: [...row], ...rangeOf(row.subarray(nPrefix)), low: 0, clipsLow: false };
  }
  if (view === "importance" && isLeading()) {
    const [layer, head] = state.everyBlock ? [data.n_layers, ALL_HEADS] : [block, state.head];
    const values = tokens.map((token) => importanceAt(token, layer, head));
    const { high, clipsHigh } = rangeOf(values.slice(nPrefix).map(Math.abs));
    return { kind: "signed", values, low: -high, high, clipsLow: clipsHigh, clipsHigh };
  }
  return null;
}
