// The rank over blocks, on a logarithmic scale with the best rank at the top.

import { data, hasCls, isPair, LETTERS, nPrefix, tokenName } from "./data.js";
import { find, makeSvg } from "./dom.js";
import { isDifference, shownPositions, shownRuns, state, subject, terms } from "./state.js";
import { shortClassName } from "./data.js";
import { rankOf } from "./values.js";

const TICKS = [0, 1, 3, 10, 30, 100, 300, 1000, 3000, 10000];
const KINDS = ["own", "other", "third", "fourth"];
const [HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [132, 40, 92, 10, 20];
const LABEL_LENGTH = 13;

const clip = (text) => (text.length > LABEL_LENGTH ? `${text.slice(0, LABEL_LENGTH - 1)}…` : text);

/** The lines: `{kind, name, ranks}`. */
function series(token) {
  const ranksOf = (run, position, shown) => Array.from({ length: data.n_layers }, (_, block) => rankOf(run, position, block, shown));
  if (isDifference()) {
    const names = ({ run, position }) => [shownRuns().length > 1 && LETTERS[run], shownPositions().length > 1 && shortClassName(data.shown[position])].filter(Boolean).join(" ");
    return terms().map((term, i) => ({ kind: KINDS[i], name: names(term), ranks: ranksOf(term.run, term.position, token) }));
  }
  const own = { kind: "own", name: token < nPrefix ? tokenName(token) : "this patch", ranks: ranksOf(state.run, state.chosen, token) };
  return hasCls && token !== 0 ? [{ kind: "readout-token", name: tokenName(0), ranks: ranksOf(state.run, state.chosen, 0) }, own] : [own];
}

/** Move labels apart that would overlap, and keep them in the picture. */
function separated(ends) {
  const sorted = ends.toSorted((a, b) => a.at - b.at);
  sorted.forEach((end, i) => { if (i) end.at = Math.max(end.at, sorted[i - 1].at + 12); });
  for (let i = sorted.length - 1, lowest = HEIGHT - BOTTOM; i >= 0; i--, lowest -= 12) sorted[i].at = Math.min(sorted[i].at, lowest);
  return sorted;
}

export function showCurve(token) {
  const host = find("curve");
  const width = host.clientWidth || 360;
  const most = Math.log1p(data.n_classes - 1) || 1;
  const x = (block) => LEFT + ((width - LEFT - RIGHT) * block) / Math.max(1, data.n_layers - 1);
  const y = (rank) => TOP + ((HEIGHT - TOP - BOTTOM) * Math.log1p(rank)) / most;
  const picture = makeSvg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, height: HEIGHT, role: "img" });
  const lines = series(token);
  const inWords = lines.map(({ name, ranks }) => `${name}: ${ranks.join(", ")}`).join("; ");
  picture.setAttribute("aria-label", `Rank of ${subject()} at ${tokenName(token)}, block 0 to ${data.n_layers - 1}. ${inWords}`);
  const line = (from, to, kind) => picture.append(makeSvg("line", { class: kind, x1: from[0], x2: to[0], y1: from[1], y2: to[1] }));
  for (const rank of TICKS.filter((tick, i) => tick < data.n_classes && (data.n_classes <= 300 || i % 2 === 1 || tick === 0))) {
    line([LEFT, y(rank)], [width - RIGHT, y(rank)], "axis");
    picture.append(makeSvg("text", { x: LEFT - 6, y: y(rank) + 4, "text-anchor": "end" }, rank));
  }
  const chance = (data.n_classes - 1) / 2;
  line([LEFT, y(chance)], [width - RIGHT, y(chance)], "chance");
  line([x(state.block), TOP - 4], [x(state.block), HEIGHT - BOTTOM + 4], "now");
  const every = Math.ceil(data.n_layers / 12);
  for (let block = 0; block < data.n_layers; block += every) picture.append(makeSvg("text", { x: x(block), y: HEIGHT - 4, "text-anchor": "middle" }, block));
  for (const { kind, ranks } of lines) {
    picture.append(makeSvg("polyline", { class: kind, points: ranks.map((rank, block) => `${x(block)},${y(rank)}`).join(" ") }));
    if (kind !== "readout-token") ranks.forEach((rank, block) => picture.append(makeSvg("circle", { class: kind, cx: x(block), cy: y(rank), r: block === state.block ? 4 : 2.5 })));
  }
  const ends = [...lines.map(({ kind, name, ranks }) => ({ at: y(ranks.at(-1)), kind: `${kind}-label`, name })), { at: y(chance), kind: "", name: "chance" }];
  for (const { at, kind, name } of separated(ends)) picture.append(makeSvg("text", { class: kind, x: width - RIGHT + 6, y: at + 4 }, clip(name)));
  host.replaceChildren(picture);
}
