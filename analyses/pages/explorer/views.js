// The ways to colour the picture: their names, and what they mean.

import { data, isPair, STREAM_LABELS, tokenName } from "./data.js";
import { againstName, ALL_HEADS, chosenName, DIFFERENCE, isDifference, isLeading, runName, shownPositions, shownRuns, state, subject } from "./state.js";
import { shortClassName } from "./data.js";

const streamInWords = () => `${data.streams[state.stream]} (${STREAM_LABELS[data.streams[state.stream]]})`;
const hasTwoPictures = () => state.run === DIFFERENCE;

/** What a difference is of, or nothing. */
function ofWhat() {
  const parts = [hasTwoPictures() && "picture A minus picture B", state.against !== null && `${chosenName()} minus ${againstName()}`].filter(Boolean);
  return parts.length ? ` Shown: ${parts.join(", ")}; orange is more, blue is less.` : "";
}

function saturation() {
  const parts = shownRuns().flatMap((run) => shownPositions().map((position) => [run, position, data.runs[run].importance.saturated[position]]))
    .filter(([, , blocks]) => blocks)
    .map(([run, position, blocks]) => ` It is exactly 0 in ${blocks} of ${data.n_layers} blocks${isPair ? ` of picture ${runName(run)}` : ""}: the probability of ${shortClassName(data.shown[position])} rounds to 1 there, so its cross-entropy has no gradient.`);
  return parts.join("");
}

function patchingInWords() {
  const { label, against, first, second } = data.patching;
  const metric = `the logit of ${shortClassName(label)}${against === null ? "" : ` minus that of ${shortClassName(against)}`}`;
  return `Activation patching: the share of the difference between the two runs that comes back when this token's resid_post alone is copied from picture A into the run of picture B. 100 %: all of it; negative: the difference grows. The difference is ${metric}: ${first.toFixed(2).replace("-", "−")} in A, ${second.toFixed(2).replace("-", "−")} in B.`;
}

/** For each view its name, and its meaning as a function of the map. */
export const VIEWS = {
  top: ["Top class", () => (hasTwoPictures()
    ? `Top class of each patch of picture A, where that of picture B is another: the largest logit of ${streamInWords()} through the final norm and the unembedding.`
    : `Top class of each patch: the largest logit of ${streamInWords()} through the final norm and the unembedding (class-space projection, logit lens).`)],
  rank: ["Rank", () => (isDifference()
    ? `Rank: how many of the ${data.n_classes} classes are above a class in the projection of ${streamInWords()}; 0 is best. Logarithmic colours; orange: the first rank is better.${ofWhat()}`
    : `Rank: how many of the ${data.n_classes} classes are above ${chosenName()} in the projection of ${streamInWords()}; 0 is best. Logarithmic colours.`)],
  identifiability: ["Identifiability", () => `Class identifiability: 1 − rank / number of classes. 1 where ${chosenName()} is on top of the projection of ${streamInWords()}; chance is about one half.${ofWhat()}`],
  logit: ["Logit", () => `Logit of ${subject()}: ${streamInWords()} through the final norm and the unembedding (class-space projection, logit lens). One scale for all blocks.${ofWhat()}`],
  attention: ["Attention", (map) => `Attention pattern: the share of attention from ${tokenName(state.pinned)} to each token${state.head === ALL_HEADS ? ", mean over the block's heads" : ""}.${hasTwoPictures() ? " Shown: picture A minus picture B." : ` A row sums to 100 %${map?.clipsHigh ? "" : "; the scale ends at the patch with the most attention"}.`}`],
  importance: ["Importance", () => `Feature importance: −d cross-entropy / d attention, local to each block. Attending to an orange patch supports ${chosenName()}, attending to a blue one opposes it; in nats.${ofWhat()}${isLeading() ? saturation() : ""}`],
  ...(data.patching ? { patching: ["Patching", patchingInWords] } : {}),
};
