// The memories of the shown token and block: those that add most to the class, or those that fire most.

import { className, data, isPair, LETTERS, shortClassName } from "./data.js";
import { find, make } from "./dom.js";
import { formatAmong, formatLogit } from "./format.js";
import { arrays, shownPositions, shownRuns, shownToken, state, subject } from "./state.js";

const SUBLAYERS = {
  mlp: "A neuron of an MLP is a key–value memory: it writes its activation (the coefficient) times its value vector, a row of W_out.",
  attn: "A dimension of an attention head is a memory, too: its coefficient is z, its value vector a row of W_O.",
};

const isRemembered = () => shownPositions().every((position) => position < data.n_remembered);

/** `{place, coefficient}` of the memories to show; `place` is the position among the block's memories in the page. */
function candidates(memories, ordered) {
  const [block, token] = [state.block, shownToken()];
  const listed = (name, ...at) => {
    const coefficients = memories[`${name}_coefficient`].row(block, token, ...at);
    return [...memories[name].row(block, token, ...at)].map((place, i) => ({ place, coefficient: coefficients[i] }));
  };
  if (ordered === "fired") return listed("fired");
  const found = new Map(shownPositions().flatMap((position) => listed("adding", position)).map((one) => [one.place, one]));
  return [...found.values()];
}

/** Rows of one picture: each memory, its coefficient, what it adds, and its value vector's top classes. */
function rowsOf(run, ordered) {
  const memories = arrays.runs[run].memories[state.sublayer];
  const first = data.runs[run].memories[state.sublayer].start[state.block];
  const logitOf = (place) => shownPositions().reduce((sum, position, i) => sum + (i ? -1 : 1) * memories.logits.at(first + place, position), 0);
  const found = candidates(memories, ordered).map((one) => ({ ...one, adds: isRemembered() ? one.coefficient * logitOf(one.place) : null }));
  if (ordered === "adding") found.sort((a, b) => b.adds - a.adds);
  const most = Math.max(...found.map(({ adds }) => Math.abs(adds ?? 0)));
  return found.map(({ place, coefficient, adds }) => {
    const id = memories.used.at(first + place);
    const names = make("td");
    memories.classes.row(first + place).forEach((label, i) => {
      const topClass = make("span", { textContent: shortClassName(label), title: className(label) });
      topClass.classList.toggle("is-class", shownPositions().some((position) => data.shown[position] === label));
      topClass.append(i < memories.classes.shape[1] - 1 ? "," : "");
      names.append(i ? " " : "", topClass);
    });
    names.title = names.textContent;
    return make("tr", {},
      make("td", { textContent: state.sublayer === "mlp" ? `neuron ${id}` : `head ${Math.floor(id / data.d_head)}, ${id % data.d_head}` }),
      make("td", { textContent: adds === null ? "–" : formatAmong(adds, most) }),
      make("td", { textContent: formatLogit(coefficient) }), names);
  });
}

export function showMemories() {
  const ordered = isRemembered() ? state.order : "fired";
  const among = state.against !== null && ordered === "adding" ? " Listed: the memories that add most to, or take most from, either of the two classes." : "";
  const not = isRemembered() ? "" : ` What memories add is stored for ${data.n_remembered} classes in this page, and not for ${subject()}: ask for a class with --class.`;
  find("memories-mean").textContent = `${SUBLAYERS[state.sublayer]} It adds the coefficient times the value vector's logit to ${subject()}, before the final norm. Top classes are those of the value vector.${among}${not}`;
  for (const input of find("order").querySelectorAll("input")) input.disabled = !isRemembered();
  const sections = shownRuns().map((run) => {
    const heading = isPair ? [make("tr", { className: "of-picture" }, make("th", { colSpan: 4, scope: "rowgroup", textContent: `Picture ${LETTERS[run]}` }))] : [];
    return make("tbody", {}, ...heading, ...rowsOf(run, ordered));
  });
  find("memories").replaceChildren(find("memories").tHead, ...sections);
}
