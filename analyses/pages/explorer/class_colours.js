// Colours of the classes on top of the patches: never the same for two classes of a map, and steady over blocks.

import { data, nPatches, nPrefix, nTokens } from "./data.js";
import { chosenClass, shownRuns, state } from "./state.js";
import { topClass } from "./values.js";

/** The chosen class, as in figures. */
const CHOSEN = "#D55E00";
/** All classes without a colour of their own. */
export const OTHERS = "#DCDCDC";
// the eleven of figures (Paul Tol's light and muted colours), then those farthest from all others in OKLab
const COLOURS = [
  "#77AADD", "#EEDD88", "#44BB99", "#FFAABB", "#99DDFF", "#BBCC33", "#AAAA00", "#332288", "#117733", "#882255", "#AA4499",
  "#4466DD", "#00DDAA", "#CC77EE", "#664400", "#005566", "#FF6688", "#664499", "#887711", "#227799", "#33AA33",
];

/** Number of patches of each top class. */
function counts(run, stream, block) {
  const found = new Map();
  for (let token = nPrefix; token < nTokens; token++) {
    const label = topClass(run, stream, block, token);
    found.set(label, (found.get(label) ?? 0) + 1);
  }
  return found;
}

let places = null;

/** Each class's place when ordered by the most patches that it is on top of at any block of any stream. */
function frequencyPlaces() {
  if (places) return places;
  const most = new Map();
  for (const run of data.runs.keys()) {
    for (const stream of data.streams.keys()) {
      for (let block = 0; block < data.n_layers; block++) {
        for (const [label, count] of counts(run, stream, block)) most.set(label, Math.max(count, most.get(label) ?? 0));
      }
    }
  }
  places = new Map([...most].sort(([a, m], [b, n]) => n - m || a - b).map(([label], place) => [label, place]));
  return places;
}

/** `[label, count]` of the shown block's patches, the most frequent first; of two pictures, the first one's. */
export function topCounts() {
  const [run] = shownRuns();
  return [...counts(run, state.stream, state.block)].sort(([a, m], [b, n]) => n - m || a - b);
}

/**
 * A function from a class's index to its colour in the shown map. The most frequent classes have one each, if possible
 * the same at every block; the others share a gray.
 */
export function classColours() {
  const place = frequencyPlaces();
  const shown = topCounts().map(([label]) => label).filter((label) => label !== chosenClass()).slice(0, COLOURS.length);
  const colours = new Map([[chosenClass(), CHOSEN]]);
  const free = new Set(COLOURS);
  const take = (label, colour) => { colours.set(label, colour); free.delete(colour); };
  const late = [];
  // where two classes would have the same colour, the one that is more frequent over all blocks keeps it
  for (const label of shown.toSorted((a, b) => place.get(a) - place.get(b))) {
    const own = COLOURS[place.get(label) % COLOURS.length];
    if (free.has(own)) take(label, own);
    else late.push(label);
  }
  for (const label of late) take(label, free.values().next().value);
  return (label) => colours.get(label) ?? OTHERS;
}

export const shareOfPatches = (count) => `${count} of ${nPatches} ${nPatches === 1 ? "patch" : "patches"}`;
