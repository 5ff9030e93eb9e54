// The page's data, and the names of parts and edges.

export const data = JSON.parse(document.getElementById("data").textContent);
export const KINDS = { q: "queries", k: "keys", v: "values", mlp: "MLP", logits: "logits" };

export const partName = ([kind, layer, head]) => (kind === "head" ? `head ${layer}.${head}` : kind === "mlp" ? `MLP ${layer}` : kind === "embed" ? "embedding" : "logits");
export const readerName = (edge) => ("qkv".includes(edge.reader[0]) ? `${KINDS[edge.reader[0]]} of ${edge.to.map(partName).join(", ")}` : partName(edge.reader));

/** The sign of a score that carries the difference: corrupting the edge moves the metric towards the other picture. */
const towards = Math.sign(data.corrupt - data.clean) || 1;
export const carries = (edge) => edge.score * towards >= 0;
/** Share of the whole difference. */
export const share = (edge) => edge.score / (data.corrupt - data.clean);
/** A map's number from −1 to 1, positive where the edge carries the difference. */
export const onMap = (edge, token) => (towards * edge.map[token]) / data.levels;
