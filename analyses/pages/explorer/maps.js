// The values that colour the tokens.

import { attentionRow } from "./attention.js";
import { data, isFine, nPrefix, nTokens } from "./data.js";
import { clippedRange } from "./scale.js";
import { ALL_HEADS, arrays, DIFFERENCE, isDifference, isLeading, shownRuns, state } from "./state.js";
import { identifiabilityAt, importanceAt, logitAt, rankGain, ranksAt, topClass } from "./values.js";

/** The ends of a colour scale: the smallest and the largest value, or on fine grids possibly percentiles. */
function rangeOf(values) {
  if (isFine) return clippedRange(values);
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) [low, high] = [Math.min(low, value), Math.max(high, value)];
  return { low, high };
}

/** A scale with zero in the middle; `scaled` are the values that it must hold. */
function signed(values, scaled) {
  const { high, clipsHigh } = rangeOf(scaled.map(Math.abs));
  return { kind: "signed", values, low: -high, high, clipsLow: clipsHigh, clipsHigh };
}

const tokens = Array.from({ length: nTokens }, (_, token) => token);
const blocks = Array.from({ length: data.n_layers }, (_, block) => block);

const VIEWS = {
  top() {
    // of two pictures' difference: the first one's classes, where the second one's differ
    const [own, other] = shownRuns().map((run) => tokens.map((token) => topClass(run, state.stream, state.block, token)));
    return { kind: "classes", values: state.run === DIFFERENCE ? own.map((label, token) => (label === other[token] ? null : label)) : own };
  },
  rank() {
    const values = tokens.map((token) => (isDifference() ? rankGain(state.block, token) : ranksAt(state.block, token)[0]));
    if (!isDifference()) return { kind: "rank", values, low: data.n_classes - 1, high: 0 };
    return { kind: "signed", values, low: -Math.log(data.n_classes), high: Math.log(data.n_classes) };
  },
  identifiability() {
    const values = tokens.map((token) => identifiabilityAt(state.block, token));
    return isDifference() ? { kind: "signed", values, low: -1, high: 1 } : { kind: "amount", values, low: 0, high: 1 };
  },
  logit() {
    // over all blocks, so that colours can be compared between blocks
    const all = blocks.flatMap((block) => tokens.map((token) => logitAt(block, token)));
    const values = tokens.map((token) => logitAt(state.block, token));
    return isDifference() ? signed(values, all) : { kind: "amount", values, ...rangeOf(all) };
  },
  attention(whenReady) {
    const row = attentionRow(state.block, state.head, state.pinned, whenReady);
    if (!row) return null;
    if (state.run === DIFFERENCE) return signed([...row], [...row.subarray(nPrefix)]);
    return { kind: "amount", values: [...row], ...rangeOf(row.subarray(nPrefix)), low: 0, clipsLow: false };
  },
  importance() {
    if (!isLeading()) return null;
    const [layer, head] = state.everyBlock ? [data.n_layers, ALL_HEADS] : [state.block, state.head];
    const values = tokens.map((token) => importanceAt(token, layer, head));
    return signed(values, values.slice(nPrefix));
  },
  patching() {
    // over all blocks, and without prefix tokens: the one that the head reads restores everything after the last block
    const rows = blocks.map((block) => [...arrays.patching.tokens.row(block)]);
    return signed(rows[state.block], rows.flatMap((row) => row.slice(nPrefix)));
  },
};

/**
 * The values that colour the tokens, or null where there are none: `{kind, values}`; but for classes also `low` and
 * `high`, and on fine grids `clipsLow` and `clipsHigh` where values beyond an end have its colour. `whenReady` is
 * called when values that are not unpacked yet can be had.
 */
export const currentMap = (whenReady) => VIEWS[state.view](whenReady);
