// Rows of attention, unpacked block by block when they are first shown.

import { data, nPrefix, nTokens } from "./data.js";
import { unpack } from "./numbers.js";
import { ALL_HEADS, shownRuns } from "./state.js";

const patterns = new Map();

/** A block's stored attention, or null while it is being unpacked; `whenReady` is called afterwards. */
function pattern(run, block, whenReady) {
  const key = `${run} ${block}`;
  if (!patterns.has(key)) {
    patterns.set(key, null);
    const { heads, means } = data.runs[run].attention;
    Promise.all([heads[block] && unpack(heads[block]), means[block] && unpack(means[block])]).then(([byHead, mean]) => {
      patterns.set(key, { byHead, mean });
      whenReady();
    });
  }
  return patterns.get(key);
}

/** Whether the page holds this row of attention, of every shown picture. */
export const hasAttention = (query, head) => shownRuns().every((run) => {
  const { kept } = data.runs[run].attention;
  return kept === "everything" || (kept !== "nothing" && (query < nPrefix || (kept === "means" && head === ALL_HEADS)));
});

function rowOf(run, block, head, query, whenReady) {
  const stored = pattern(run, block, whenReady);
  if (!stored) return null;
  if (head !== ALL_HEADS) return stored.byHead.row(head, query);
  if (stored.mean) return stored.mean.row(query);
  const mean = new Float32Array(nTokens);
  for (let each = 0; each < data.n_heads; each++) stored.byHead.row(each, query).forEach((weight, key) => { mean[key] += weight / data.n_heads; });
  return mean;
}

/** Attention from one token to every token, or its difference; null if it is not stored, or not unpacked yet. */
export function attentionRow(block, head, query, whenReady) {
  if (!hasAttention(query, head)) return null;
  const rows = shownRuns().map((run) => rowOf(run, block, head, query, whenReady));
  if (rows.includes(null)) return null;
  return rows.length === 1 ? rows[0] : rows[0].map((weight, key) => weight - rows[1][key]);
}
