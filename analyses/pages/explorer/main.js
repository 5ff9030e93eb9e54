// The page's controls, and what is drawn anew when something is chosen.

const VIEWS = {
  rank: ["Rank", () => `Rank: how many of the ${data.n_classes} classes are above ${chosenName()} in the projection of ${STREAM()}; 0 is best. Logarithmic colours.`],
  identifiability: ["Identifiability", () => `Class identifiability: 1 − rank / number of classes. 1 where ${chosenName()} is on top of the projection of ${STREAM()}; chance is about one half.`],
  logit: ["Logit", () => `Logit of ${chosenName()}: ${STREAM()} through the final norm and the unembedding (class-space projection, logit lens). One scale for all blocks.`],
  attention: ["Attention", () => `Attention pattern: the share of its attention that ${tokenName(state.pinned)} gives to each token${state.head === SUM ? ", mean over the block's heads" : ""}. A row sums to 100 %; colours end at the largest of a patch.`],
  importance: ["Importance", () => `Feature importance: −d cross-entropy / d attention, local to each block. Attending to an orange patch speaks for ${chosenName()}, to a blue one against it; in nats.`],
};
const STREAM = () => `${data.streams[state.stream]} (${STREAMS[data.streams[state.stream]]})`;

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
  const option = (chosen) => make("option", { value: chosen, textContent: nameOf(classOf(chosen)) });
  const places = data.shown.map((_, place) => place);
  const groups = [["Asked for", places.slice(0, data.n_asked)], ["By the model's logit", places.slice(data.n_asked)]];
  classes.append(...groups.filter(([, some]) => some.length).map(([label, some]) => make("optgroup", { label }, ...some.map(option))));
  classes.onchange = () => set({ chosen: +classes.value });
  Object.assign(find("block"), { max: data.n_layers - 1, value: state.block, oninput: (event) => set({ block: +event.target.value }) });
  radios("stream", data.streams.map((name, place) => [`${place}`, name, STREAMS[name]]), `${state.stream}`, (value) => set({ stream: +value }));
  radios("view", Object.entries(VIEWS).map(([name, [text]]) => [name, text]), state.view, (view) => set({ view }));
  radios("sublayer", [["mlp", "MLP"], ["attn", "attention"]], state.sublayer, (sublayer) => set({ sublayer }));
  find("head").append(make("option", { value: SUM }), ...Array.from({ length: data.n_heads }, (_, head) => make("option", { value: head, textContent: head })));
  find("head").onchange = (event) => set({ head: event.target.value === SUM ? SUM : +event.target.value });
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
  prefixButtons = data.prefix.map((name, token) => {
    const button = make("button", { type: "button", onclick: () => set({ pinned: token }) }, make("i"), name);
    for (const kind of ["pointerenter", "focus"]) button.addEventListener(kind, () => point(token));
    for (const kind of ["pointerleave", "blur"]) button.addEventListener(kind, () => point(null));
    return button;
  });
  find("prefix").append(...prefixButtons);
  matrix = makeMatrix(
    (block, head) => { matrixPointed = block === null ? null : block * (data.n_heads + 1) + head; showMatrix(matrix, matrixPointed); },
    (block, head) => set({ block, head: head === data.n_heads ? SUM : head, everyBlock: false, view: state.view === "attention" ? "attention" : "importance" }),
  );
}

/** Keys that work anywhere but where a letter means something already. */
function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select")) return;
  const turned = (list, now, by) => list[(list.indexOf(now) + by + list.length) % list.length];
  const heads = [SUM, ...Array(data.n_heads).keys()];
  const views = Object.keys(VIEWS);
  const step = { "[": -1, "]": 1, ",": -1, ".": 1 }[event.key];
  if (event.key === "[" || event.key === "]") set({ block: Math.min(data.n_layers - 1, Math.max(0, state.block + step)) });
  else if (event.key === "," || event.key === ".") set({ head: turned(heads, state.head, step), everyBlock: false });
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
  const ofHeads = state.view === "attention" || state.view === "importance";
  find("head-controls").hidden = !ofHeads;
  find("every-block-label").hidden = state.view !== "importance";
  find("every-block").checked = state.everyBlock;
  find("head").disabled = state.view === "importance" && state.everyBlock;
  find("head").firstElementChild.textContent = state.view === "attention" ? "mean of heads" : "all, summed";
  find("head").value = state.head;
  for (const one of document.querySelectorAll(".class-name")) one.textContent = chosenName();
  for (const one of document.querySelectorAll(".stream-name")) one.textContent = data.streams[state.stream];
}

function colourOf(map) {
  if (!map) return () => "";
  const alpha = state.strength;
  if (map.kind === "rank") return (value) => amountColour(1 - Math.log1p(value) / Math.log1p(map.low || 1), alpha);
  if (map.kind === "signed") return (value) => (value === null ? "" : signedColour(value / (map.high || 1), alpha));
  return (value) => amountColour((value - map.low) / (map.high - map.low || 1), alpha);
}

const written = (value) => ({ rank: `${value}`, identifiability: fixed(value, 3), logit: logit(value), attention: percent(value), importance: small(value) }[state.view]);

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
    find("legend-low").textContent = written(map.low);
    find("legend-high").textContent = written(map.high);
    find("legend-bar").style.background = map.kind === "signed" ? signedGradient() : amountGradient();
    find("legend-bar").setAttribute("aria-label", `Colours from ${written(map.low)} to ${written(map.high)}`);
  }
  find("view-means").textContent = VIEWS[state.view][1]();
  showReadout(map);
}

function showReadout(map) {
  const token = shownToken();
  const rank = rankAt(state.block, token);
  const parts = [`rank of ${chosenName()}: ${rank}`, `identifiability\u00a0${fixed(identifiability(rank), 3)}`, `logit\u00a0${logit(logitAt(state.block, token))}`];
  if (state.view === "attention") {
    if (map) parts.unshift(`attention from ${tokenName(state.pinned)}: ${percent(map.values[token])}`);
    else if (!hasAttention(state.pinned, state.head)) parts.unshift(`attention from ${tokenName(state.pinned)} is not stored here: the model is too large for a page with all of it`);
  }
  if (state.view === "importance") {
    if (!isLeading()) parts.unshift(`importance for ${chosenName()} is not stored here`);
    else parts.unshift(map.values[token] === null ? "importance is of patches" : `importance ${small(map.values[token])}\u00a0nats`);
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

function showSurroundings() {
  find("verdict").append(...data.predicted.map(([label, share]) => make("span", { title: nameOf(label) }, make("i", { textContent: shortName(label) }), percent(share))));
  const { kept, levels } = data.attention;
  const held = { everything: "", means: " Heads apart: from the tokens beside the patches only.", prefix: " From the tokens beside the patches only.", nothing: " There was no room for attention." }[kept];
  const share = (one) => +(100 / one).toPrecision(2);
  find("precision").textContent = `Blocks, heads, rows and columns count from 0. Ranks are exact; logits and coefficients are stored in 65,536 steps over their range, attribution as 32-bit numbers`
    + (levels ? `, attention to ${share(levels)} % of its row's largest weight` : "") + `, importance to ${share(data.importance.levels)} % of its map's largest.${held}`;
}

makeControls();
showSurroundings();
await loadNumbers().catch((error) => {
  find("readout").textContent = `This browser cannot unpack the page's numbers (${error.message}): it is too old; any of 2024 or later will do.`;
  throw error;
});
makeTokens();
document.addEventListener("keydown", onKey);
new ResizeObserver(() => showCurve(shownToken())).observe(find("curve"));
render();
// the first frame with everything in it has been painted when the one after it begins
requestAnimationFrame(() => requestAnimationFrame(() => { document.documentElement.dataset.ready = Math.round(performance.now()); }));
