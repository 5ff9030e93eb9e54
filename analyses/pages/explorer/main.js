// The page's controls, and what is redrawn when something is selected.

import { amountColour, amountGradient, signedColour, signedGradient } from "./colours.js";
import { className, data, isFine, nColumns, nPrefix, nRows, shortClassName, STREAM_LABELS, tokenName } from "./data.js";
import { find, make } from "./dom.js";
import { formatFixed, formatLogit, formatPercent, formatSmall } from "./format.js";
import { CellGrid } from "./grid.js";
import { makeMatrix, showMatrix, showParts } from "./heads.js";
import {
  ALL_HEADS, chosenName, currentMap, hasAttention, identifiability, isLeading, loadNumbers, logitAt, optionName, rankAt, shownToken, state,
} from "./state.js";
import { showCurve, showToken } from "./token.js";

const VIEWS = {
  rank: ["Rank", () => `Rank: how many of the ${data.n_classes} classes are above ${chosenName()} in the projection of ${streamInWords()}; 0 is best. Logarithmic colours.`],
  identifiability: ["Identifiability", () => `Class identifiability: 1 − rank / number of classes. 1 where ${chosenName()} is on top of the projection of ${streamInWords()}; chance is about one half.`],
  logit: ["Logit", () => `Logit of ${chosenName()}: ${streamInWords()} through the final norm and the unembedding (class-space projection, logit lens). One scale for all blocks.`],
  attention: ["Attention", (map) => `Attention pattern: the share of attention from ${tokenName(state.pinned)} to each token${state.head === ALL_HEADS ? ", mean over the block's heads" : ""}. A row sums to 100 %${map?.clipsHigh ? "" : "; the scale ends at the patch with the most attention"}.`],
  importance: ["Importance", () => `Feature importance: −d cross-entropy / d attention, local to each block. Attending to an orange patch supports ${chosenName()}, attending to a blue one opposes it; in nats.${isLeading() && data.importance.saturated[state.chosen] ? ` It is exactly 0 in ${data.importance.saturated[state.chosen]} of ${data.n_layers} blocks: the probability of ${chosenName()} rounds to 1 there, so its cross-entropy has no gradient.` : ""}`],
};
const streamInWords = () => `${data.streams[state.stream]} (${STREAM_LABELS[data.streams[state.stream]]})`;

let patches, prefixButtons, matrix, matrixPointed = null;

function set(changes) {
  Object.assign(state, changes);
  render();
}

function radios(id, options, chosen, choose) {
  const host = find(id);
  for (const [value, text, title] of options) {
    const input = make("input", { type: "radio", name: id, value, checked: value === chosen, onchange: () => choose(value) });
    host.append(make("label", { title: title ?? "" }, input, text));
  }
}

function makeControls() {
  const classes = find("class");
  const option = (position) => make("option", { value: position, textContent: optionName(position) });
  const positions = data.shown.map((_, position) => position);
  const groups = [["Asked for", positions.slice(0, data.n_asked)], ["By the model's logit", positions.slice(data.n_asked)]];
  classes.append(...groups.filter(([, members]) => members.length).map(([label, members]) => make("optgroup", { label }, ...members.map(option))));
  classes.onchange = () => set({ chosen: +classes.value });
  Object.assign(find("block"), { max: data.n_layers - 1, value: state.block, oninput: (event) => set({ block: +event.target.value }) });
  radios("stream", data.streams.map((name, position) => [`${position}`, name, STREAM_LABELS[name]]), `${state.stream}`, (value) => set({ stream: +value }));
  radios("view", Object.entries(VIEWS).map(([name, [text]]) => [name, text]), state.view, (view) => set({ view }));
  radios("sublayer", [["mlp", "MLP"], ["attn", "attention"]], state.sublayer, (sublayer) => set({ sublayer }));
  find("head").append(make("option", { value: ALL_HEADS }), ...Array.from({ length: data.n_heads }, (_, head) => make("option", { value: head, textContent: head })));
  find("head").onchange = (event) => set({ head: event.target.value === ALL_HEADS ? ALL_HEADS : +event.target.value });
  find("every-block").onchange = (event) => set({ everyBlock: event.target.checked });
  find("strength").oninput = (event) => set({ strength: event.target.value / 100 });
}

function makeTokens() {
  const point = (token) => { if (token !== state.pointed) set({ pointed: token }); };
  patches = new CellGrid(find("patches"), nRows, nColumns, {
    label: `Patches, ${nRows} rows by ${nColumns} columns`,
    name: (row, column) => tokenName(nPrefix + row * nColumns + column),
    onPoint: (row, column) => point(row === null ? null : nPrefix + row * nColumns + column),
    onChoose: (row, column) => set({ pinned: nPrefix + row * nColumns + column }),
  });
  find("patches").classList.toggle("fine", isFine);
  prefixButtons = data.prefix.map((name, token) => {
    const button = make("button", { type: "button", onclick: () => set({ pinned: token }) }, make("i"), name);
    for (const kind of ["pointerenter", "focus"]) button.addEventListener(kind, () => point(token));
    for (const kind of ["pointerleave", "blur"]) button.addEventListener(kind, () => point(null));
    return button;
  });
  find("prefix").append(...prefixButtons);
  matrix = makeMatrix(
    (block, head) => { matrixPointed = block === null ? null : block * (data.n_heads + 1) + head; showMatrix(matrix, matrixPointed); },
    (block, head) => set({ block, head: head === data.n_heads ? ALL_HEADS : head, everyBlock: false, view: state.view === "attention" ? "attention" : "importance" }),
  );
}

/** Keys that work everywhere except in a list, where letters have a meaning of their own. */
function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select")) return;
  const neighbour = (list, now, by) => list[(list.indexOf(now) + by + list.length) % list.length];
  const heads = [ALL_HEADS, ...Array(data.n_heads).keys()];
  const views = Object.keys(VIEWS);
  const step = { "[": -1, "]": 1, ",": -1, ".": 1 }[event.key];
  if (event.key === "[" || event.key === "]") set({ block: Math.min(data.n_layers - 1, Math.max(0, state.block + step)) });
  else if (event.key === "," || event.key === ".") set({ head: neighbour(heads, state.head, step), everyBlock: false });
  else if (event.key === "s") set({ stream: (state.stream + 1) % data.streams.length });
  else if (event.key === "c") find("class").focus();
  else if (views[event.key - 1]) set({ view: views[event.key - 1] });
  else return;
  event.preventDefault();
}

function showControls() {
  find("class").value = state.chosen;
  find("block").value = state.block;
  find("block").setAttribute("aria-valuetext", `block ${state.block} of 0 to ${data.n_layers - 1}`);
  find("block-number").textContent = `${state.block} / ${data.n_layers - 1}`;
  for (const [id, value] of [["stream", `${state.stream}`], ["view", state.view], ["sublayer", state.sublayer]]) {
    for (const input of find(id).querySelectorAll("input")) input.checked = input.value === value;
  }
  const hasHeads = state.view === "attention" || state.view === "importance";
  find("head-controls").hidden = !hasHeads;
  find("every-block-label").hidden = state.view !== "importance";
  find("every-block").checked = state.everyBlock;
  find("head").disabled = state.view === "importance" && state.everyBlock;
  find("head").firstElementChild.textContent = state.view === "attention" ? "mean of heads" : "all, summed";
  find("head").value = state.head;
  for (const element of document.querySelectorAll(".class-name")) element.textContent = chosenName();
  for (const element of document.querySelectorAll(".stream-name")) element.textContent = data.streams[state.stream];
}

function colourOf(map) {
  if (!map) return () => "";
  const alpha = state.strength;
  if (map.kind === "rank") return (value) => amountColour(1 - Math.log1p(value) / Math.log1p(map.low || 1), alpha);
  if (map.kind === "signed") return (value) => (value === null ? "" : signedColour(value / (map.high || 1), alpha));
  return (value) => amountColour((value - map.low) / (map.high - map.low || 1), alpha);
}

const formatValue = (value) => ({ rank: `${value}`, identifiability: formatFixed(value, 3), logit: formatLogit(value), attention: formatPercent(value), importance: formatSmall(value) }[state.view]);

function clipInWords(map) {
  if (!map?.clipsLow && !map?.clipsHigh) return "";
  if (map.kind === "signed") return " The scale is clipped at the 98th percentile of the magnitudes.";
  const ends = [map.clipsLow && "2nd", map.clipsHigh && "98th"].filter(Boolean).join(" and the ");
  return ` The scale is clipped at the ${ends} percentile.`;
}

function showMap() {
  const map = currentMap(render);
  const colour = colourOf(map);
  const marked = state.pointed !== null && state.pointed >= nPrefix ? state.pointed - nPrefix : -1;
  patches.paint((patch) => (map ? colour(map.values[nPrefix + patch]) : ""), state.pinned - nPrefix, marked);
  prefixButtons.forEach((button, token) => {
    button.firstElementChild.style.backgroundColor = map ? colour(map.values[token]) : "";
    button.setAttribute("aria-pressed", token === state.pinned);
    button.classList.toggle("pointed", token === state.pointed);
  });
  document.querySelector(".picture").classList.toggle("under-map", map !== null);
  document.querySelector(".legend").classList.toggle("off", map === null);
  if (map) {
    find("legend-low").textContent = `${map.clipsLow ? "≤\u00a0" : ""}${formatValue(map.low)}`;
    find("legend-high").textContent = `${map.clipsHigh ? "≥\u00a0" : ""}${formatValue(map.high)}`;
    find("legend-bar").style.background = map.kind === "signed" ? signedGradient() : amountGradient();
    find("legend-bar").setAttribute("aria-label", `Colours from ${formatValue(map.low)} to ${formatValue(map.high)}`);
  }
  find("view-means").textContent = VIEWS[state.view][1](map) + clipInWords(map);
  showReadout(map);
}

function showReadout(map) {
  const token = shownToken();
  const rank = rankAt(state.block, token);
  const parts = [`rank of ${chosenName()}: ${rank}`, `identifiability\u00a0${formatFixed(identifiability(rank), 3)}`, `logit\u00a0${formatLogit(logitAt(state.block, token))}`];
  if (state.view === "attention") {
    if (map) parts.unshift(`attention from ${tokenName(state.pinned)}: ${formatPercent(map.values[token])}`);
    else if (!hasAttention(state.pinned, state.head)) parts.unshift(`attention from ${tokenName(state.pinned)} is not stored in this page: the model is too large to store all attention`);
  }
  if (state.view === "importance") {
    if (!isLeading()) parts.unshift(`importance for ${chosenName()} is not stored in this page`);
    else parts.unshift(map.values[token] === null ? "importance is defined for patches only" : `importance ${formatSmall(map.values[token])}\u00a0nats`);
  }
  find("readout").replaceChildren(make("b", { textContent: tokenName(token) }), ` · block ${state.block} · ${parts.join(" · ")}`);
}

function render() {
  showControls();
  showMap();
  showToken((block) => set({ block }));
  showMatrix(matrix, matrixPointed);
  showParts();
}

function showHeaderAndFooter() {
  find("verdict").append(...data.predicted.map(([label, share]) => make("span", { title: className(label) }, make("i", { textContent: shortClassName(label) }), formatPercent(share))));
  const { kept, levels } = data.attention;
  const held = { everything: "", means: " Attention of single heads is stored from prefix tokens only.", prefix: " Attention is stored from prefix tokens only.", nothing: " Attention did not fit into this page." }[kept];
  const share = (steps) => +(100 / steps).toPrecision(2);
  find("precision").textContent = `Blocks, heads, rows and columns count from 0. Ranks are exact; logits and coefficients are stored in 65,536 steps over their range, attribution as 32-bit numbers`
    + (levels ? `, attention to ${share(levels)} % of its row's largest weight` : "") + `, importance to ${share(data.importance.levels)} % of its map's largest.${held}`;
}

makeControls();
showHeaderAndFooter();
await loadNumbers().catch((error) => {
  find("readout").textContent = `This browser is too old to unpack the page's numbers (${error.message}): use one from 2024 or later.`;
  throw error;
});
makeTokens();
document.addEventListener("keydown", onKey);
new ResizeObserver(() => showCurve(shownToken())).observe(find("curve"));
render();
// when the second frame begins, the first one, which shows everything, has been painted
requestAnimationFrame(() => requestAnimationFrame(() => { document.documentElement.dataset.ready = Math.round(performance.now()); }));
