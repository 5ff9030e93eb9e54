// One token: its top classes, the rank of the class over blocks, and the memories with the largest coefficients.

import { className, data, hasCls, nPrefix, shortClassName, tokenName } from "./data.js";
import { find, make, makeSvg } from "./dom.js";
import { formatLogit } from "./format.js";
import { arrays, chosenClass, chosenName, rankAt, shownToken, state } from "./state.js";

const SUBLAYERS = {
  mlp: "A neuron of an MLP is a key–value memory: it writes its activation (the coefficient) times its value vector. The classes are the top classes of the value vector, a row of W_out, projected onto the classes.",
  attn: "A dimension of an attention head is a memory, too: its coefficient is z, its value vector a row of W_O. The classes are the top classes of the value vector, projected onto the classes.",
};

export function showToken(chooseBlock) {
  const token = shownToken();
  find("token-name").textContent = tokenName(token);
  find("pin-state").textContent = token === state.pinned ? "pinned" : `pointed at; pinned: ${tokenName(state.pinned)}`;
  showTops(token, chooseBlock);
  showCurve(token);
  showMemories(token);
}

function showTops(token, chooseBlock) {
  const rows = Array.from({ length: data.n_layers }, (_, block) => {
    const row = make("tr", { className: block === state.block ? "now" : "", onclick: () => chooseBlock(block) });
    row.append(make("td", { textContent: block }), make("td", { textContent: rankAt(block, token) }));
    const classes = arrays.projections.top_classes.row(state.stream, block, token);
    const logits = arrays.projections.top_logits.row(state.stream, block, token);
    for (let i = 0; i < Math.min(3, classes.length); i++) {
      const cell = make("td", {}, make("div", { className: "top-class" }, make("span", { textContent: shortClassName(classes[i]) }), make("small", { textContent: formatLogit(logits[i]) })));
      cell.title = [...classes].map((label, rank) => `${rank + 1}. ${className(label)}  ${formatLogit(logits[rank])}`).join("\n");
      cell.classList.toggle("is-class", classes[i] === chosenClass());
      row.append(cell);
    }
    return row;
  });
  document.querySelector("#tops tbody").replaceChildren(...rows);
  const classes = [...arrays.projections.top_classes.row(state.stream, state.block, token)];
  const further = classes.map((label, i) => `${shortClassName(label)} ${formatLogit(arrays.projections.top_logits.at(state.stream, state.block, token, i))}`).slice(3);
  find("more-tops").textContent = further.length ? `Then, after block ${state.block}: ${further.join(", ")}` : "";
}

/** The rank over blocks, on a logarithmic scale with the best rank at the top. */
export function showCurve(token) {
  const host = find("curve");
  const [width, height, left, right, top, bottom] = [host.clientWidth || 360, 132, 34, 70, 10, 20];
  const most = Math.log1p(data.n_classes - 1) || 1;
  const x = (block) => left + ((width - left - right) * block) / Math.max(1, data.n_layers - 1);
  const y = (rank) => top + ((height - top - bottom) * Math.log1p(rank)) / most;
  const ranks = (shown) => Array.from({ length: data.n_layers }, (_, block) => rankAt(block, shown));
  const line = (values, kind) => makeSvg("polyline", { class: kind, points: values.map((rank, block) => `${x(block)},${y(rank)}`).join(" ") });
  const own = ranks(token);
  const picture = makeSvg("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img" });
  picture.setAttribute("aria-label", `Rank of ${chosenName()} at ${tokenName(token)}, block 0 to ${data.n_layers - 1}: ${own.join(", ")}`);
  for (const rank of [0, 1, 3, 10, 30, 100, 300, 1000, 3000, 10000].filter((rank, i) => rank < data.n_classes && (data.n_classes <= 300 || i % 2 === 1 || rank === 0))) {
    picture.append(makeSvg("line", { class: "axis", x1: left, x2: width - right, y1: y(rank), y2: y(rank) }));
    picture.append(makeSvg("text", { x: left - 6, y: y(rank) + 4, "text-anchor": "end" }, rank));
  }
  const chance = (data.n_classes - 1) / 2;
  picture.append(makeSvg("line", { class: "chance", x1: left, x2: width - right, y1: y(chance), y2: y(chance) }));
  picture.append(makeSvg("line", { class: "now", x1: x(state.block), x2: x(state.block), y1: top - 4, y2: height - bottom + 4 }));
  const every = Math.ceil(data.n_layers / 12);
  for (let block = 0; block < data.n_layers; block += every) picture.append(makeSvg("text", { x: x(block), y: height - 4, "text-anchor": "middle" }, block));
  const ends = [[y(own.at(-1)), "own-label", token < nPrefix ? tokenName(token) : "this patch"], [y(chance), "", "chance"]];
  if (hasCls && token !== 0) {
    const clsRanks = ranks(0);
    picture.append(line(clsRanks, "readout-token"));
    ends.push([y(clsRanks.at(-1)), "", tokenName(0)]);
  }
  picture.append(line(own, "own"));
  own.forEach((rank, block) => picture.append(makeSvg("circle", { cx: x(block), cy: y(rank), r: block === state.block ? 4 : 2.5 })));
  // keep the labels from overlapping
  ends.sort(([a], [b]) => a - b);
  ends.forEach((end, i) => { if (i) end[0] = Math.max(end[0], ends[i - 1][0] + 12); });
  const over = Math.max(0, ends.at(-1)[0] - (height - bottom));
  for (let i = ends.length - 1, lowest = height - bottom; over && i >= 0; i--, lowest -= 12) ends[i][0] = Math.min(ends[i][0], lowest);
  for (const [at, kind, text] of ends) picture.append(makeSvg("text", { class: kind, x: width - right + 6, y: at + 4 }, text));
  host.replaceChildren(picture);
}

function showMemories(token) {
  const memories = arrays.memories[state.sublayer];
  find("memories-mean").textContent = SUBLAYERS[state.sublayer];
  const ids = memories.memory.row(state.block, token);
  const rows = [...ids].map((id, position) => {
    const name = state.sublayer === "mlp" ? `neuron ${id}` : `head ${Math.floor(id / data.d_head)}, ${id % data.d_head}`;
    const names = make("td");
    memories.classes.row(state.block, token, position).forEach((label, i) => {
      const topClass = make("span", { textContent: shortClassName(label), title: `${className(label)}: ${formatLogit(memories.logits.at(state.block, token, position, i))}` });
      topClass.classList.toggle("is-class", label === chosenClass());
      names.append(i ? ", " : "", topClass);
    });
    return make("tr", {}, make("td", { textContent: name }), make("td", { textContent: formatLogit(memories.coefficient.at(state.block, token, position)) }), names);
  });
  document.querySelector("#memories tbody").replaceChildren(...rows);
}
