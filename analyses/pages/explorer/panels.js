// What the page tells of one token: its top classes, the rank of the class, the memories that fire.

const find = (id) => document.getElementById(id);
const svg = (tag, attributes = {}, text = null) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== null) element.textContent = text;
  return element;
};
const SUBLAYERS = {
  mlp: "An MLP's neuron is a key–value memory: its activation (coefficient) times its value vector is what it writes. The classes are those of the value vector, a row of W_out, projected onto the classes.",
  attn: "A dimension of a head is a memory, too: its coefficient is z, its value vector a row of W_O. The classes are those of the value vector, projected onto the classes.",
};
const STREAMS = { resid_post: "the block's output", attn_out: "what attention adds", mlp_out: "what the MLP adds" };

function showToken(chooseBlock) {
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
    const classes = projections.top_classes.row(state.stream, block, token);
    const logits = projections.top_logits.row(state.stream, block, token);
    for (let place = 0; place < Math.min(3, classes.length); place++) {
      const cell = make("td", {}, make("div", { className: "vote" }, make("span", { textContent: shortName(classes[place]) }), make("small", { textContent: logit(logits[place]) })));
      cell.title = [...classes].map((label, i) => `${i + 1}. ${nameOf(label)}  ${logit(logits[i])}`).join("\n");
      cell.classList.toggle("is-class", classes[place] === classOf(state.chosen));
      row.append(cell);
    }
    return row;
  });
  document.querySelector("#tops tbody").replaceChildren(...rows);
  const classes = [...projections.top_classes.row(state.stream, state.block, token)];
  const further = classes.map((label, i) => `${shortName(label)} ${logit(projections.top_logits.at(state.stream, state.block, token, i))}`).slice(3);
  find("more-tops").textContent = further.length ? `Then, after block ${state.block}: ${further.join(", ")}` : "";
}

/** The rank over blocks, on a logarithmic scale with the best rank on top. */
function showCurve(token) {
  const host = find("curve");
  const [width, height, left, right, top, bottom] = [host.clientWidth || 360, 132, 34, 70, 10, 20];
  const most = Math.log1p(data.n_classes - 1) || 1;
  const x = (block) => left + ((width - left - right) * block) / Math.max(1, data.n_layers - 1);
  const y = (rank) => top + ((height - top - bottom) * Math.log1p(rank)) / most;
  const ranks = (of) => Array.from({ length: data.n_layers }, (_, block) => rankAt(block, of));
  const line = (values, kind) => svg("polyline", { class: kind, points: values.map((rank, block) => `${x(block)},${y(rank)}`).join(" ") });
  const own = ranks(token);
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img" });
  picture.setAttribute("aria-label", `Rank of ${chosenName()} at ${tokenName(token)}, block 0 to ${data.n_layers - 1}: ${own.join(", ")}`);
  for (const rank of [0, 1, 3, 10, 30, 100, 300, 1000, 3000, 10000].filter((one, i) => one < data.n_classes && (data.n_classes <= 300 || i % 2 === 1 || one === 0))) {
    picture.append(svg("line", { class: "axis", x1: left, x2: width - right, y1: y(rank), y2: y(rank) }));
    picture.append(svg("text", { x: left - 6, y: y(rank) + 4, "text-anchor": "end" }, rank));
  }
  const chance = (data.n_classes - 1) / 2;
  picture.append(svg("line", { class: "chance", x1: left, x2: width - right, y1: y(chance), y2: y(chance) }));
  picture.append(svg("line", { class: "now", x1: x(state.block), x2: x(state.block), y1: top - 4, y2: height - bottom + 4 }));
  const every = Math.ceil(data.n_layers / 12);
  for (let block = 0; block < data.n_layers; block += every) picture.append(svg("text", { x: x(block), y: height - 4, "text-anchor": "middle" }, block));
  const ends = [[y(own.at(-1)), "own-label", token < nPrefix ? tokenName(token) : "this patch"], [y(chance), "", "chance"]];
  if (hasCls && token !== 0) {
    const ofFirst = ranks(0);
    picture.append(line(ofFirst, "readout-token"));
    ends.push([y(ofFirst.at(-1)), "", tokenName(0)]);
  }
  picture.append(line(own, "own"));
  own.forEach((rank, block) => picture.append(svg("circle", { cx: x(block), cy: y(rank), r: block === state.block ? 4 : 2.5 })));
  // one under the other, none over another
  ends.sort(([a], [b]) => a - b);
  ends.forEach((end, i) => { if (i) end[0] = Math.max(end[0], ends[i - 1][0] + 12); });
  const over = Math.max(0, ends.at(-1)[0] - (height - bottom));
  for (let i = ends.length - 1, lowest = height - bottom; over && i >= 0; i--, lowest -= 12) ends[i][0] = Math.min(ends[i][0], lowest);
  for (const [at, kind, text] of ends) picture.append(svg("text", { class: kind, x: width - right + 6, y: at + 4 }, text));
  host.replaceChildren(picture);
}

function showMemories(token) {
  const of = memories[state.sublayer];
  find("memories-mean").textContent = SUBLAYERS[state.sublayer];
  const ids = of.memory.row(state.block, token);
  const rows = [...ids].map((id, place) => {
    const name = state.sublayer === "mlp" ? `neuron ${id}` : `head ${Math.floor(id / data.d_head)}, ${id % data.d_head}`;
    const votes = make("td");
    of.classes.row(state.block, token, place).forEach((label, i) => {
      const vote = make("span", { textContent: shortName(label), title: `${nameOf(label)}: ${logit(of.logits.at(state.block, token, place, i))}` });
      vote.classList.toggle("is-class", label === classOf(state.chosen));
      votes.append(i ? ", " : "", vote);
    });
    return make("tr", {}, make("td", { textContent: name }), make("td", { textContent: logit(of.coefficient.at(state.block, token, place)) }), votes);
  });
  document.querySelector("#memories tbody").replaceChildren(...rows);
}
