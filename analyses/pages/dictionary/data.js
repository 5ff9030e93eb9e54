// The page's data as Python stored it, with its arrays unpacked, and the latents as records.

import { unpackAll } from "../explorer/numbers.js";

/** Unpack the page's data; `latents` are records in the order of the data. */
export async function readData() {
  const data = await unpackAll(JSON.parse(document.getElementById("data").textContent));
  const latents = data.latents.map((latent, row) => {
    const best = data.best[row].map((column, place) => ({ factor: data.factors[column][0], value: data.factors[column][1], auroc: data.best_auroc[row][place] }));
    const classes = (side) => data[side][0][row].map((label, place) => ({ name: data.classes[label], logit: data[side][1][row][place] }));
    return { latent, row, best, frequency: data.frequency[row], largest: data.largest[row], coherence: data.coherence?.[row] ?? null, top: classes("top"), bottom: classes("bottom") };
  });
  return { data, latents };
}

/** Words in which a latent is found. */
export const wordsOf = ({ latent, best, top }) => [latent, ...best.slice(0, 1).flatMap(({ factor, value }) => [factor, value]), ...top.map(({ name }) => name)].join(" ").toLowerCase();

const byText = (a, b) => a.localeCompare(b);
const ORDERS = {
  latent: (a, b) => a.latent - b.latent,
  frequency: (a, b) => b.frequency - a.frequency,
  coherence: (a, b) => b.coherence - a.coherence,
  auroc: (a, b) => (b.best[0]?.auroc ?? 0) - (a.best[0]?.auroc ?? 0),
  factor: (a, b) => byText(a.best[0] ? `${a.best[0].factor} ${a.best[0].value}` : "~", b.best[0] ? `${b.best[0].factor} ${b.best[0].value}` : "~"),
  top: (a, b) => byText(a.top[0].name, b.top[0].name),
};

/** The latents that match a text, in an order; ties by number. */
export function chosenLatents(latents, text, order) {
  const wanted = text.trim().toLowerCase().split(/\s+/).filter(Boolean);
  return latents.filter((one) => wanted.every((word) => wordsOf(one).includes(word))).sort((a, b) => ORDERS[order](a, b) || a.latent - b.latent);
}
