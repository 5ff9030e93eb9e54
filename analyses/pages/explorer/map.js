// The picture: its map, the legend and the line that tells the shown token's numbers.

import { hasAttention } from "./attention.js";
import { classColours, OTHERS, shareOfPatches, topCounts } from "./class_colours.js";
import { amountColour, amountGradient, signedColour, signedGradient } from "./colours.js";
import { className, data, isPair, LETTERS, nPrefix, shortClassName, tokenName } from "./data.js";
import { find, make } from "./dom.js";
import { counted, formatFixed, formatLogit, formatPercent, formatSignedPercent, formatSmall, withSign } from "./format.js";
import { currentMap } from "./maps.js";
import { chosenClass, DIFFERENCE, isDifference, isLeading, rankedInWords, shownRuns, shownToken, state, subject } from "./state.js";
import { identifiabilityAt, logitAt, ranksAt, topClass } from "./values.js";
import { VIEWS } from "./views.js";

const LEGEND_LINES = 11;

/** A number of the view as text; of the rank's difference, which has no unit, the factor by which rank + 1 is smaller. */
function formatValue(value) {
  const signed = isDifference();
  return {
    rank: () => (signed ? `×${formatFixed(Math.exp(Math.abs(value)), 1)}` : `${value}`),
    identifiability: () => (signed ? withSign(formatFixed(value, 3)) : formatFixed(value, 3)),
    logit: () => (signed ? withSign(formatLogit(value)) : formatLogit(value)),
    attention: () => (state.run === DIFFERENCE ? formatSignedPercent(value) : formatPercent(value)),
    importance: () => formatSmall(value),
    patching: () => formatSignedPercent(value),
  }[state.view]();
}

function colourOf(map) {
  if (!map) return () => "";
  const alpha = state.strength;
  if (map.kind === "classes") {
    const colours = classColours();
    const tint = Math.round(255 * Math.min(1, alpha)).toString(16).padStart(2, "0");
    return (label) => (label === null || (state.lit !== null && label !== state.lit) ? "" : `${colours(label)}${tint}`);
  }
  if (map.kind === "rank") return (value) => amountColour(1 - Math.log1p(value) / Math.log1p(map.low || 1), alpha);
  if (map.kind === "signed") return (value) => (value === null ? "" : signedColour(value / (map.high || 1), alpha));
  return (value) => amountColour((value - map.low) / (map.high - map.low || 1), alpha);
}

function clipInWords(map) {
  if (!map?.clipsLow && !map?.clipsHigh) return "";
  if (map.kind === "signed") return " The scale is clipped at the 98th percentile of the magnitudes.";
  const ends = [map.clipsLow && "2nd", map.clipsHigh && "98th"].filter(Boolean).join(" and the ");
  return ` The scale is clipped at the ${ends} percentile.`;
}

function showScale(map) {
  const scale = find("scale");
  scale.classList.toggle("off", map === null || map.kind === "classes");
  if (!map || map.kind === "classes") return;
  find("legend-low").textContent = `${map.clipsLow ? "≤\u00a0" : ""}${formatValue(map.low)}`;
  find("legend-high").textContent = `${map.clipsHigh ? "≥\u00a0" : ""}${formatValue(map.high)}`;
  find("legend-bar").style.background = map.kind === "signed" ? signedGradient() : amountGradient();
  find("legend-bar").setAttribute("aria-label", `Colours from ${formatValue(map.low)} to ${formatValue(map.high)}`);
}

/** The classes on top of the shown block's patches; pointing at one hides the others, choosing it makes it the class. */
function showClasses(map, { light, choose }) {
  const host = find("classes");
  host.hidden = map?.kind !== "classes";
  if (host.hidden) return;
  const colours = classColours();
  const shown = state.run === DIFFERENCE ? countsOf(map.values) : topCounts();
  const own = shown.filter(([label]) => colours(label) !== OTHERS);
  const named = own.slice(0, LEGEND_LINES);
  if (!named.some(([label]) => label === chosenClass())) named.unshift([chosenClass(), 0]);
  const entries = named.slice(0, LEGEND_LINES).map(([label, count]) => {
    const position = data.shown.indexOf(label);
    const entry = make("button", { type: "button", title: `${className(label)}: on top of ${shareOfPatches(count)}${position < 0 ? "; its ranks are not in this page" : ""}` },
      make("i"), make("span", { textContent: shortClassName(label) }), make("small", { textContent: count }));
    entry.dataset.label = label;
    entry.firstElementChild.style.backgroundColor = colours(label);
    entry.classList.toggle("is-chosen", label === chosenClass());
    for (const kind of ["pointerenter", "focus"]) entry.addEventListener(kind, () => light(label));
    for (const kind of ["pointerleave", "blur"]) entry.addEventListener(kind, () => light(null));
    entry.addEventListener("click", () => choose(position));
    return entry;
  });
  const rest = shown.filter(([label]) => !named.slice(0, LEGEND_LINES).some(([each]) => each === label));
  const grey = rest.filter(([label]) => colours(label) === OTHERS);
  const total = (list) => list.reduce((sum, [, count]) => sum + count, 0);
  const lines = [];
  if (rest.length > grey.length) lines.push(`${counted(rest.length - grey.length, "further coloured class", "further coloured classes")}: ${counted(total(rest) - total(grey), "patch", "patches")}`);
  if (grey.length) lines.push(`${counted(grey.length, "other class", "other classes")}, all grey: ${counted(total(grey), "patch", "patches")}`);
  if (state.run === DIFFERENCE) lines.push(`without a colour, the same top class in both: ${map.values.slice(nPrefix).filter((label) => label === null).length}`);
  // while a class is pointed at, its entry must stay
  if (host.matches(":hover, :focus-within") && host.dataset.of === `${state.block} ${state.stream} ${state.run} ${state.chosen}`) return;
  host.dataset.of = `${state.block} ${state.stream} ${state.run} ${state.chosen}`;
  const focused = host.querySelector(":focus-visible")?.dataset.label;
  host.replaceChildren(...entries, ...lines.map((text) => make("p", { textContent: text })));
  if (focused !== undefined) host.querySelector(`[data-label="${focused}"]`)?.focus();
}

function countsOf(values) {
  const found = new Map();
  for (const label of values.slice(nPrefix)) if (label !== null) found.set(label, (found.get(label) ?? 0) + 1);
  return [...found].sort(([a, m], [b, n]) => n - m || a - b);
}

/** What the shown token's numbers are, each in a piece that is never broken. */
function numbersInWords(map) {
  const token = shownToken();
  const ranks = ranksAt(state.block, token);
  const parts = [
    [`rank of ${rankedInWords()}:`, ranks.join(" / ")],
    ["identifiability", isDifference() ? withSign(formatFixed(identifiabilityAt(state.block, token), 3)) : formatFixed(identifiabilityAt(state.block, token), 3)],
    ["logit", isDifference() ? withSign(formatLogit(logitAt(state.block, token))) : formatLogit(logitAt(state.block, token))],
  ];
  const tops = shownRuns().map((run) => shortClassName(topClass(run, state.stream, state.block, token)));
  if (state.view === "top") parts.unshift(["top class:", tops.map((name, i) => (tops.length > 1 ? `${LETTERS[i]} ${name}` : name)).join(", ")]);
  if (state.view === "attention") {
    if (map) parts.unshift([`attention from ${tokenName(state.pinned)}:`, formatValue(map.values[token])]);
    else if (!hasAttention(state.pinned, state.head)) parts.unshift([`attention from ${tokenName(state.pinned)} is not stored in this page: the model is too large to store all attention`, ""]);
  }
  if (state.view === "importance") {
    if (!isLeading()) parts.unshift([`importance for ${subject()} is not stored in this page`, ""]);
    else parts.unshift(map.values[token] === null ? ["importance is defined for patches only", ""] : ["importance", `${formatSmall(map.values[token])}\u00a0nats`]);
  }
  if (state.view === "patching") parts.unshift(["restores", formatValue(map.values[token])]);
  return parts;
}

function showReadout(map) {
  const pieces = numbersInWords(map).flatMap(([words, value]) => [" · ", make("span", {}, `${words}${value ? " " : ""}`, make("span", { className: "number", textContent: value }))]);
  find("readout").replaceChildren(make("b", { textContent: tokenName(shownToken()) }), ` · block ${state.block}`, ...pieces);
}

/** `patches` is the grid, `prefixButtons` the tokens before them; `actions` are `{light, choose, whenReady}`. */
export function showMap(patches, prefixButtons, actions) {
  const map = currentMap(actions.whenReady);
  const colour = state.bare ? () => "" : colourOf(map);
  const marked = state.pointed !== null && state.pointed >= nPrefix ? state.pointed - nPrefix : -1;
  patches.paint((patch) => (map ? colour(map.values[nPrefix + patch]) : ""), state.pinned - nPrefix, marked);
  prefixButtons.forEach((button, token) => {
    button.firstElementChild.style.backgroundColor = map ? colour(map.values[token]) : "";
    button.setAttribute("aria-pressed", token === state.pinned);
    button.classList.toggle("pointed", token === state.pointed);
  });
  const picture = document.querySelector(".picture");
  picture.classList.toggle("under-map", map !== null && !state.bare);
  picture.classList.toggle("under-classes", map?.kind === "classes" && !state.bare);
  if (isPair) for (const run of data.runs.keys()) find(`picture-${run}`).hidden = run !== shownRuns()[0];
  showScale(map);
  showClasses(map, actions);
  find("view-means").textContent = VIEWS[state.view][1](map) + clipInWords(map);
  showReadout(map);
}
