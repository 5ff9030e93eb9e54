// What is known of one latent besides its pictures: classes, factors, and the histogram of its activations.

import { find, make, makeSvg } from "../explorer/dom.js";
import { counted, formatAmong, formatFixed } from "../explorer/format.js";

const WIDTH = 260, HEIGHT = 110, BOTTOM = 18;

/** The classes that a latent promotes and suppresses. */
export function showClasses({ top, bottom }) {
  const largest = Math.max(...[...top, ...bottom].map(({ logit }) => Math.abs(logit))) || 1;
  const line = ({ name, logit }) => {
    const bar = make("div", { className: logit < 0 ? "bar against" : "bar" });
    bar.style.width = `${(100 * Math.abs(logit)) / largest}%`;
    return [make("span", { className: "name", textContent: name, title: name }), bar, make("span", { className: "number", textContent: formatAmong(logit, largest) })];
  };
  const lowest = [...bottom].reverse().slice(-3);
  find("classes").replaceChildren(...top.flatMap(line), make("div", { className: "gap" }), ...lowest.flatMap(line));
}

/** The factor values that a latent tells apart. */
export function showFactors({ best }, found) {
  const rows = best.map(({ factor, value, auroc }) => {
    const number = make("td", { textContent: formatFixed(auroc, 3) });
    if (auroc >= found) number.style.fontWeight = 700;
    return make("tr", {}, make("td", { textContent: factor }), make("td", { className: "cell", textContent: value, title: value }), number);
  });
  find("factors").tBodies[0].replaceChildren(...rows);
}

/** The histogram of a latent's activations, over half octaves. */
export function showHistogram(counts, edges) {
  const svg = find("histogram");
  const used = [...counts.keys()].filter((bin) => counts[bin] > 0);
  const first = Math.max(0, used[0] - 1), last = Math.min(counts.length - 1, used.at(-1) + 1);
  const most = Math.max(...counts), n = last - first + 1, step = WIDTH / n;
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  const bars = [makeSvg("line", { x1: 0, x2: WIDTH, y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM })];
  for (let bin = first; bin <= last; bin += 1) {
    const height = ((HEIGHT - BOTTOM - 4) * counts[bin]) / most;
    const low = bin === 0 ? 0 : edges[bin - 1], high = bin < edges.length ? formatFixed(edges[bin], 2) : "∞";
    const bar = makeSvg("rect", { x: (bin - first) * step + 0.5, y: HEIGHT - BOTTOM - height, width: Math.max(1, step - 1), height });
    bar.append(makeSvg("title", {}, `${formatFixed(low, 2)} to ${high}: ${counted(counts[bin], "token")}`));
    bars.push(bar);
  }
  const texts = [first, Math.round((first + last) / 2), last].map((bin, place) => makeSvg("text", { x: [0, WIDTH / 2, WIDTH][place], y: HEIGHT - 4, "text-anchor": ["start", "middle", "end"][place] }, bin === 0 ? "0" : `${Number(edges[bin - 1].toPrecision(2))}`));
  svg.replaceChildren(...bars, ...texts);
  find("histogram-range").textContent = `${counted(counts.reduce((a, b) => a + b, 0), "token")} where it is active, by activation (bins of half an octave).`;
}
