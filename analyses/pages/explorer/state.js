// What is chosen, and every number that follows from it: nothing here touches the page.

const nPrefix = data.prefix.length;
const [nRows, nColumns] = data.grid;
const hasCls = data.prefix[0] === "CLS";
const nTokens = nPrefix + nRows * nColumns;
const SUM = "all";  // in the place of a head: the mean of heads of attention, their sum of importance

const state = {
  pinned: 0, pointed: null, block: data.n_layers - 1, stream: 0, chosen: 0, view: "rank", head: SUM, everyBlock: true,
  sublayer: "mlp", strength: 0.78,
};

let projections, importance, contributions, memories;

async function loadNumbers() {
  [projections, importance, contributions, memories] = await Promise.all([
    unpackAll(data.projections), unpack(data.importance), unpackAll(data.contributions),
    Promise.all([unpackAll(data.memories.mlp), unpackAll(data.memories.attn)]).then(([mlp, attn]) => ({ mlp, attn })),
  ]);
  if (!hasCls) state.pinned = bestPatch();
}

/** Where the class stands best at the end: what to look at first where there is no CLS token. */
function bestPatch() {
  let best = nPrefix;
  for (let token = nPrefix + 1; token < nTokens; token++) if (logitAt(state.block, token) > logitAt(state.block, best)) best = token;
  return best;
}

const shownToken = () => state.pointed ?? state.pinned;
const classOf = (chosen) => data.shown[chosen];
const nameOf = (label) => data.class_names[label];
const shortName = (label) => nameOf(label).split(",")[0];
const chosenName = () => shortName(classOf(state.chosen));
const isLeading = () => state.chosen < data.n_leading;
const tokenName = (token) => {
  if (token < nPrefix) return data.prefix[token];
  const patch = token - nPrefix;
  return `Row ${Math.floor(patch / nColumns)}, column ${patch % nColumns}`;
};

const rankAt = (block, token) => projections.rank.at(state.stream, block, token, state.chosen);
const logitAt = (block, token) => projections.logit.at(state.stream, block, token, state.chosen);
const identifiability = (rank) => 1 - rank / data.n_classes;

/** Importance of a patch; null where there is none: prefix tokens, and classes it is not stored for. */
function importanceAt(token, block, head) {
  if (token < nPrefix || !isLeading()) return null;
  return importance.at(state.chosen, block, head === SUM ? data.n_heads : head, token - nPrefix);
}

/** Over all patches. */
function importanceTotal(block, head) {
  let total = 0;
  for (let token = nPrefix; token < nTokens; token++) total += importanceAt(token, block, head);
  return total;
}

const patterns = new Map();

/** A block's stored attention, or null while it is being unpacked; then `whenReady` is called. */
function pattern(block, whenReady) {
  if (!patterns.has(block)) {
    patterns.set(block, null);
    const { heads, means } = data.attention;
    Promise.all([heads[block] && unpack(heads[block]), means[block] && unpack(means[block])]).then(([ofHeads, mean]) => {
      patterns.set(block, { ofHeads, mean });
      whenReady();
    });
  }
  return patterns.get(block);
}

/** Whether the page holds this row of attention. */
function hasAttention(query, head) {
  const { kept } = data.attention;
  if (kept === "everything") return true;
  if (kept === "nothing") return false;
  return query < nPrefix || (kept === "means" && head === SUM);
}

/** Attention from a token to each, or null if it is not there (yet). */
function attentionRow(block, head, query, whenReady) {
  if (!hasAttention(query, head)) return null;
  const stored = pattern(block, whenReady);
  if (!stored) return null;
  if (head !== SUM) return stored.ofHeads.row(head, query);
  if (stored.mean) return stored.mean.row(query);
  const mean = new Float32Array(nTokens);
  for (let one = 0; one < data.n_heads; one++) stored.ofHeads.row(one, query).forEach((weight, key) => { mean[key] += weight / data.n_heads; });
  return mean;
}

/** What colours each token now, or null where there is nothing: `{values, low, high, kind}`. */
function currentMap(whenReady) {
  const tokens = Array.from({ length: nTokens }, (_, token) => token);
  const { view, block } = state;
  if (view === "rank") {
    return { kind: "rank", values: tokens.map((token) => rankAt(block, token)), low: data.n_classes - 1, high: 0 };
  }
  if (view === "identifiability") {
    return { kind: "amount", values: tokens.map((token) => identifiability(rankAt(block, token))), low: 0, high: 1 };
  }
  if (view === "logit") {
    let [low, high] = [Infinity, -Infinity];  // of all blocks, so that colours can be compared from block to block
    for (let one = 0; one < data.n_layers; one++) for (const token of tokens) {
      const value = logitAt(one, token);
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
    return { kind: "amount", values: tokens.map((token) => logitAt(block, token)), low, high };
  }
  if (view === "attention") {
    const row = attentionRow(block, state.head, state.pinned, whenReady);
    return row && { kind: "amount", values: [...row], low: 0, high: row.subarray(nPrefix).reduce((a, b) => Math.max(a, b), 0) };
  }
  if (view === "importance" && isLeading()) {
    const [layer, head] = state.everyBlock ? [data.n_layers, SUM] : [block, state.head];
    const values = tokens.map((token) => importanceAt(token, layer, head));
    const most = Math.max(...values.map(Math.abs));
    return { kind: "signed", values, low: -most, high: most };
  }
  return null;
}
