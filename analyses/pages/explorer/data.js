// The page's data as Python stored it, and the names of its classes, tokens and streams.

export const data = JSON.parse(document.getElementById("data").textContent);

export const nPrefix = data.prefix.length;
export const nRows = data.grid[0];
export const nColumns = data.grid[1];
export const nTokens = nPrefix + nRows * nColumns;
/** As in figures, lines between the patches of a grid finer than this would hide the map, and a few extreme patches its colours. */
export const isFine = Math.max(nRows, nColumns) > 20;
export const hasCls = data.prefix[0] === "CLS";

/** What each stream holds, in words. */
export const STREAM_LABELS = { resid_post: "the block's output", attn_out: "what attention adds", mlp_out: "what the MLP adds" };

export const className = (classIndex) => data.class_names[classIndex];
/** The first of a class's synonyms. */
export const shortClassName = (classIndex) => className(classIndex).split(",")[0];

export const tokenName = (token) => {
  if (token < nPrefix) return data.prefix[token];
  const patch = token - nPrefix;
  return `Row ${Math.floor(patch / nColumns)}, column ${patch % nColumns}`;
};
