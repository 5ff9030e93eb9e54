// The numbers of a token, block and head for what is selected: of a class in a picture, or their differences.

import { data, nPrefix, nTokens } from "./data.js";
import { ALL_HEADS, arrays, isLeading, shownPositions, shownRuns, state, terms } from "./state.js";

const sumOfTerms = (value) => terms().reduce((sum, { sign, run, position }) => sum + sign * value(arrays.runs[run], position), 0);

export const topClass = (run, stream, block, token) => arrays.runs[run].projections.top_classes.at(stream, block, token, 0);
export const rankOf = (run, position, block, token) => arrays.runs[run].projections.rank.at(state.stream, block, token, position);
/** The rank of the chosen class; of both classes if one is compared with another, or in both pictures. */
export const ranksAt = (block, token) => shownRuns().flatMap((run, _, runs) => (runs.length > 1 ? [state.chosen] : shownPositions()).map((position) => rankOf(run, position, block, token)));
export const identifiability = (rank) => 1 - rank / data.n_classes;

export const logitAt = (block, token) => sumOfTerms((run, position) => run.projections.logit.at(state.stream, block, token, position));
export const identifiabilityAt = (block, token) => sumOfTerms((run, position) => identifiability(run.projections.rank.at(state.stream, block, token, position)));
/** By how many factors of e the rank is better: the logarithms of rank + 1, the second minus the first. */
export const rankGain = (block, token) => -sumOfTerms((run, position) => Math.log1p(run.projections.rank.at(state.stream, block, token, position)));

/** Importance of a patch; null for prefix tokens and for classes it is not stored for. */
export function importanceAt(token, block, head) {
  if (token < nPrefix || !isLeading()) return null;
  return sumOfTerms((run, position) => run.importance.at(position, block, head === ALL_HEADS ? data.n_heads : head, token - nPrefix));
}

/** Sum over all patches. */
export function importanceTotal(block, head) {
  let total = 0;
  for (let token = nPrefix; token < nTokens; token++) total += importanceAt(token, block, head);
  return total;
}

/**
 * What the components add to the logit, or to the difference of logits: `{starts, blocks, logit}`, with
 * `[name, value]` for each start, and `{heads, bias, attention, mlp}` for each block.
 */
export function contributions() {
  const sum = (name, ...at) => sumOfTerms((run, position) => run.contributions[name].at(position, ...at));
  const starts = [["Embedding", "embed"], ["Positions", "pos_embed"], ["Head's biases", "constant"]]
    .filter(([, name]) => arrays.runs[0].contributions[name]).map(([text, name]) => [text, sum(name)]);
  const blocks = Array.from({ length: data.n_layers }, (_, block) => {
    const heads = Array.from({ length: data.n_heads }, (__, head) => sum("head", block, head));
    const bias = sum("attn_bias", block);
    return { heads, bias, attention: heads.reduce((a, b) => a + b, bias), mlp: sum("mlp", block) };
  });
  return { starts, blocks, logit: sum("logit") };
}
