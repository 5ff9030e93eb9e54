// What is selected, and the page's arrays. Nothing here touches the page's elements.

import { className, data, hasCls, isPair, LETTERS, nPrefix, nTokens, shortClassName } from "./data.js";
import { unpack, unpackAll } from "./numbers.js";

/** In place of a head's number: the mean over heads of attention, the sum over heads of importance. */
export const ALL_HEADS = "all";
/** In place of a picture's position: the first minus the second. */
export const DIFFERENCE = "difference";

/**
 * `chosen` and `against` are positions in the list of classes that the page holds, not class indices; `run` is the
 * position of a picture; `lit` is the index of a class whose patches stand out in the map of top classes.
 */
export const state = {
  pinned: 0, pointed: null, block: data.n_layers - 1, stream: 0, chosen: 0, against: null, run: isPair ? DIFFERENCE : 0, view: "top",
  head: ALL_HEADS, everyBlock: true, sublayer: "mlp", order: "adding", strength: 0.78, bare: false, lit: null,
};

/** The page's arrays, once `loadNumbers` has unpacked them: for each picture, and of patching. */
export const arrays = { runs: [], patching: null };

async function unpackRun(run) {
  const [projections, readout, importance, contributions, mlp, attn] = await Promise.all([
    unpackAll(run.projections), unpackAll(run.readout), unpack(run.importance), unpackAll(run.contributions),
    unpackAll(run.memories.mlp), unpackAll(run.memories.attn),
  ]);
  return { projections, readout, importance, contributions, memories: { mlp, attn } };
}

export async function loadNumbers() {
  [arrays.runs, arrays.patching] = await Promise.all([Promise.all(data.runs.map(unpackRun)), data.patching && unpackAll(data.patching)]);
  if (!hasCls) state.pinned = bestPatch();
}

/** The patch with the largest logit of the class after the last block: shown first where there is no CLS token. */
function bestPatch() {
  const logits = (token) => arrays.runs[0].projections.logit.at(0, state.block, token, state.chosen);
  let best = nPrefix;
  for (let token = nPrefix + 1; token < nTokens; token++) if (logits(token) > logits(best)) best = token;
  return best;
}

export const shownToken = () => state.pointed ?? state.pinned;
export const chosenClass = () => data.shown[state.chosen];
export const chosenName = () => shortClassName(chosenClass());
export const againstName = () => shortClassName(data.shown[state.against]);
/** What the numbers are about, in words: a class, or one class against another. */
export const subject = () => (state.against === null ? chosenName() : `${chosenName()} − ${againstName()}`);
/** What `ranksAt` of values.js are of, in words. */
export const rankedInWords = () => (state.run === DIFFERENCE ? `${chosenName()} in A / in B` : state.against === null ? chosenName() : `${chosenName()} / ${againstName()}`);
export const optionName = (position) => className(data.shown[position]);
export const runName = (run) => (isPair ? LETTERS[run] : data.runs[run].title);

/** The pictures that are shown: one, or both where their difference is. */
export const shownRuns = () => (state.run === DIFFERENCE ? [0, 1] : [state.run]);
/** The classes that are shown, by position: one, or two. */
export const shownPositions = () => (state.against === null ? [state.chosen] : [state.chosen, state.against]);

/** What a number of the chosen class or classes and picture or pictures is the sum of: `{sign, run, position}`. */
export const terms = () => shownRuns().flatMap((run, i) => shownPositions().map((position, j) => ({ sign: i === j ? 1 : -1, run, position })));
/** Whether numbers are differences, of two classes or two pictures. */
export const isDifference = () => terms().length > 1;

/** Whether importance and attribution are stored for the chosen classes. */
export const isLeading = () => shownPositions().every((position) => position < data.n_leading);
