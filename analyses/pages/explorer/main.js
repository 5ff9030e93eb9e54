// The page's controls, and what is redrawn when something is selected.

import { showCurve } from "./curve.js";
import { className, data, isFine, isPair, LETTERS, nColumns, nPrefix, nRows, shortClassName, STREAM_LABELS, tokenName } from "./data.js";
import { find, make } from "./dom.js";
import { formatPercent } from "./format.js";
import { CellGrid } from "./grid.js";
import { showMap } from "./map.js";
import { makeMatrix, showMatrix } from "./matrix.js";
import { showParts } from "./parts.js";
import { Picker } from "./picker.js";
import { makePlay, play, stopPlaying } from "./play.js";
import { ALL_HEADS, DIFFERENCE, loadNumbers, rankedInWords, shownRuns, shownToken, state, subject } from "./state.js";
import { bestPatched, showTakeaway } from "./takeaway.js";
import { showToken } from "./token.js";
import { VIEWS } from "./views.js";

const RUNS = isPair ? [...data.runs.keys(), DIFFERENCE] : [0];
let patches, prefixButtons, matrix, picker, rival, matrixPointed = null;

function set(changes) {
  Object.assign(state, changes);
  render();
}

/** Choose a block by hand. */
function setBlock(block) {
  stopPlaying();
  set({ block: Math.min(data.n_layers - 1, Math.max(0, block)) });
}

function setView(view) {
  // after the last block, patching a token that the head does not read restores nothing
  const block = view === "patching" && state.view !== view && state.block === data.n_layers - 1 ? bestPatched().block : state.block;
  set({ view, block, lit: null });
}

function choose(position) {
  if (position >= 0) set({ chosen: position, against: state.against === position ? null : state.against, lit: null });
}

const chooseHead = (block, head) => set({ block, head, everyBlock: false, view: state.view === "attention" || state.view === "patching" ? state.view : "importance" });

function radios(id, options, chosen, onChoice) {
  const host = find(id);
  for (const [value, text, title] of options) {
    const input = make("input", { type: "radio", name: id, value, checked: value === chosen, onchange: () => onChoice(value) });
    host.append(make("label", { title: title ?? "" }, input, make("span", { textContent: text })));
  }
}

function makeControls() {
  picker = new Picker(find("class"), { label: "Class", onChoose: choose });
  rival = new Picker(find("against"), { label: "Compare with", empty: "no other class", onChoose: (position) => set({ against: position === state.chosen ? null : position }) });
  Object.assign(find("block"), { max: data.n_layers - 1, value: state.block, oninput: (event) => setBlock(+event.target.value) });
  radios("stream", data.streams.map((name, position) => [`${position}`, name, STREAM_LABELS[name]]), `${state.stream}`, (value) => set({ stream: +value, lit: null }));
  radios("view", Object.entries(VIEWS).map(([name, [text]]) => [name, text]), state.view, setView);
  radios("sublayer", [["mlp", "MLP"], ["attn", "attention"]], state.sublayer, (sublayer) => set({ sublayer }));
  radios("order", [["adding", "adds most"], ["fired", "fires most"]], state.order, (order) => set({ order }));
  if (isPair) radios("run", [...data.runs.map(({ title }, run) => [`${run}`, `${LETTERS[run]} ${title}`, title]), [DIFFERENCE, "A − B", "The difference: the first picture minus the second"]], `${state.run}`, (run) => set({ run: run === DIFFERENCE ? run : +run, lit: null }));
  find("run").hidden = !isPair;
  find("head").append(make("option", { value: ALL_HEADS }), ...Array.from({ length: data.n_heads }, (_, head) => make("option", { value: head, textContent: head })));
  find("head").onchange = (event) => set({ head: event.target.value === ALL_HEADS ? ALL_HEADS : +event.target.value });
  find("every-block").onchange = (event) => set({ everyBlock: event.target.checked });
  find("strength").oninput = (event) => set({ strength: event.target.value / 100 });
  makePlay((block) => set({ block }));
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
    (block, head) => { stopPlaying(); chooseHead(block, head === data.n_heads ? ALL_HEADS : head); },
  );
}

/** Keys that work everywhere except in a list or a text box, where letters have a meaning of their own. */
function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select, input[type=text]")) return;
  const neighbour = (list, now, by) => list[(list.indexOf(now) + by + list.length) % list.length];
  const heads = [ALL_HEADS, ...Array(data.n_heads).keys()];
  const views = Object.keys(VIEWS);
  const step = { "[": -1, "]": 1, ",": -1, ".": 1 }[event.key];
  if (event.key === "[" || event.key === "]") setBlock(state.block + step);
  else if (event.key === "," || event.key === ".") set({ head: neighbour(heads, state.head, step), everyBlock: false });
  else if (event.key === "p") play((block) => set({ block }));
  else if (event.key === "h") set({ bare: !state.bare });
  else if (event.key === "s") set({ stream: (state.stream + 1) % data.streams.length });
  else if (event.key === "x" && isPair) set({ run: neighbour(RUNS, state.run, 1) });
  else if (event.key === "c") picker.input.focus();
  else if (event.key === "v") rival.input.focus();
  else if (views[event.key - 1]) setView(views[event.key - 1]);
  else return;
  event.preventDefault();
}

function showControls() {
  picker.show(state.chosen);
  rival.show(state.against);
  find("block").value = state.block;
  find("block").setAttribute("aria-valuetext", `block ${state.block} of 0 to ${data.n_layers - 1}`);
  find("block-number").textContent = `${state.block} / ${data.n_layers - 1}`;
  for (const [id, value] of [["run", `${state.run}`], ["stream", `${state.stream}`], ["view", state.view], ["sublayer", state.sublayer], ["order", state.order]]) {
    for (const input of find(id).querySelectorAll("input")) input.checked = input.value === value;
  }
  const hasHeads = state.view === "attention" || state.view === "importance";
  find("head-controls").hidden = !hasHeads;
  find("every-block-label").hidden = state.view !== "importance";
  find("every-block").checked = state.everyBlock;
  find("head").disabled = state.view === "importance" && state.everyBlock;
  find("head").firstElementChild.textContent = state.view === "attention" ? "mean of heads" : "all, summed";
  find("head").value = state.head;
  for (const element of document.querySelectorAll(".class-name")) element.textContent = subject();
  for (const element of document.querySelectorAll(".ranked")) element.textContent = rankedInWords();
  for (const element of document.querySelectorAll(".stream-name")) element.textContent = data.streams[state.stream];
}

function render() {
  showControls();
  showMap(patches, prefixButtons, { light: (lit) => set({ lit }), choose, whenReady: render });
  showToken(setBlock);
  showMatrix(matrix, matrixPointed);
  showParts();
  showTakeaway(chooseHead);
  showVerdict();
}

/** What the model predicts for the shown picture, or for both. */
function showVerdict() {
  const host = find("verdict");
  const of = `${state.run}`;
  if (host.dataset.of === of) return;
  host.dataset.of = of;
  const runs = shownRuns();
  host.replaceChildren(...runs.flatMap((run) => data.runs[run].predicted.slice(0, runs.length > 1 ? 2 : 5).map(([label, share], i) => make("span", { title: className(label), className: i ? "" : "best" },
    make("i", { textContent: `${runs.length > 1 && !i ? `${LETTERS[run]}: ` : ""}${shortClassName(label)}` }), make("span", { className: "number", textContent: formatPercent(share) })))));
}

function showHeaderAndFooter() {
  for (const [run, thumb] of [...document.querySelectorAll(".thumb")].entries()) thumb.src = find(`picture-${run}`).src;
  const { kept, levels } = data.runs.map((run) => run.attention).sort((a, b) => a.levels - b.levels)[0];
  const held = { everything: "", means: " Attention of single heads is stored from prefix tokens only.", prefix: " Attention is stored from prefix tokens only.", nothing: " Attention did not fit into this page." }[kept];
  const share = (steps) => +(100 / steps).toPrecision(2);
  find("precision").textContent = `Blocks, heads, rows and columns count from 0. Ranks are exact; logits and coefficients are stored in 65,536 steps over their range, attribution as 32-bit numbers`
    + (levels ? `, attention to ${share(levels)} % of its row's largest weight` : "") + `, importance to ${share(data.runs[0].importance.levels)} % of its map's largest.${held}`;
}

await loadNumbers().catch((error) => {
  find("loading").textContent = `This browser is too old to unpack the page's numbers (${error.message}): use one from 2024 or later.`;
  throw error;
});
makeControls();
showHeaderAndFooter();
makeTokens();
document.addEventListener("keydown", onKey);
render();
// until now the page was hidden
document.documentElement.dataset.drawn = "";
new ResizeObserver(() => showCurve(shownToken())).observe(find("curve"));
// when the second frame begins, the first one, which shows everything, has been painted
requestAnimationFrame(() => requestAnimationFrame(() => { document.documentElement.dataset.ready = Math.round(performance.now()); }));
