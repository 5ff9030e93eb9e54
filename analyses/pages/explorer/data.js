// The page's data as Python stored it, and the names of its classes, tokens, pictures and streams.

export const data = JSON.parse(document.getElementById("data").textContent);

export const nPrefix = data.prefix.length;
export const nRows = data.grid[0];
export const nColumns = data.grid[1];
export const nPatches = nRows * nColumns;
export const nTokens = nPrefix + nPatches;
/** As in figures, lines between the patches of a grid finer than this would hide the map, and a few extreme patches its colours. */
export const isFine = Math.max(nRows, nColumns) > 20;
export const hasCls = data.prefix[0] === "CLS";

/** What each stream holds, in words. */
export const STREAM_LABELS = { resid_post: "the block's output", attn_out: "what attention adds", mlp_out: "what the MLP adds" };

/** What the head reads, in words. */
export const READOUT = { cls: "at CLS", cls_and_dist: "at CLS and the distillation token", cls_and_mean: "at CLS and the mean of the patches", avg: "in the mean of the patches" }[data.pool] ?? "in the pooled patches";

export const isPair = data.runs.length === 2;
/** Names of the pictures where there are two. */
export const LETTERS = ["A", "B"];

export const className = (classIndex) => data.class_names[classIndex];

const firstSynonym = (name) => name.split(",")[0].trim() || name;
const seen = new Map();
for (const name of data.class_names) seen.set(firstSynonym(name), (seen.get(firstSynonym(name)) ?? 0) + 1);

/** The first of a class's synonyms; with its index where another class has the same. */
export function shortClassName(classIndex) {
  const first = firstSynonym(className(classIndex));
  return seen.get(first) > 1 ? `${first} (${classIndex})` : first;
}

export const tokenName = (token) => {
  if (token < nPrefix) return data.prefix[token];
  const patch = token - nPrefix;
  return `Row ${Math.floor(patch / nColumns)}, column ${patch % nColumns}`;
};
