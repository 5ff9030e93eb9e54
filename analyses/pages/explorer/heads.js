// What the page tells of heads and components: importance by block and head, and what adds up to the logit.

/** The heads' importance at the shown patch, or over all patches where a prefix token is shown. */
function headImportance(block, head) {
  const token = shownToken();
  return token < nPrefix ? importanceTotal(block, head) : importanceAt(token, block, head);
}

function makeMatrix(onPoint, onChoose) {
  const host = find("matrix");
  const heads = make("div", { className: "heads" });
  const rows = make("div", { className: "rows" });
  rows.setAttribute("aria-hidden", "true");
  for (let block = 0; block < data.n_layers; block++) rows.append(make("span", { textContent: block }));
  const columns = make("div", { className: "columns" });
  columns.setAttribute("aria-hidden", "true");
  for (let head = 0; head <= data.n_heads; head++) columns.append(make("span", { textContent: head === data.n_heads ? "Σ" : head }));
  host.append(rows, heads, columns);
  host.style.setProperty("--cell", `${Math.max(11, Math.min(20, Math.floor(210 / data.n_layers)))}px`);
  return new CellGrid(heads, data.n_layers, data.n_heads + 1, {
    label: `Importance, ${data.n_layers} blocks by ${data.n_heads} heads and their sum`,
    name: (block, head) => `Block ${block}, ${head === data.n_heads ? "all heads" : `head ${head}`}`,
    onPoint, onChoose,
  });
}

function showMatrix(matrix, pointed) {
  const token = shownToken();
  find("matrix-of").textContent = token < nPrefix ? "all patches together" : tokenName(token).toLowerCase();
  const columns = data.n_heads + 1;
  const readout = find("matrix-readout");
  if (!isLeading()) {
    matrix.paint(() => "", -1, -1);
    readout.textContent = `Not stored for ${chosenName()}: this page holds importance and attribution of ${data.n_leading} classes; name one with --class.`;
    return;
  }
  const values = matrix.cells.map((_, at) => headImportance(Math.floor(at / columns), at % columns === data.n_heads ? SUM : at % columns));
  // heads and sums each have a scale of their own: a sum would drown its parts
  const most = [0, 0];
  values.forEach((value, at) => { const which = +(at % columns === data.n_heads); most[which] = Math.max(most[which], Math.abs(value)); });
  const everything = state.view === "importance" && state.everyBlock;
  const now = everything ? -1 : state.block * columns + (state.head === SUM ? data.n_heads : state.head);
  matrix.paint((at) => signedColour(values[at] / (most[+(at % columns === data.n_heads)] || 1)), now, pointed ?? -1);
  const at = pointed ?? now;
  const [name, value] = at < 0 ? ["All blocks and heads", headImportance(data.n_layers, SUM)] : [matrix.cells[at].getAttribute("aria-label"), values[at]];
  readout.replaceChildren(make("b", { textContent: name }), `: ${small(value)}\u00a0nats`);
}

function bar(value, most) {
  const share = most ? (50 * Math.abs(value)) / most : 0;
  const element = make("div", { className: value < 0 ? "bar against" : "bar" }, make("i"), make("span", { textContent: signed(logit(value)) }));
  element.dataset.value = value;
  element.style.setProperty("--long", `${share}%`);
  element.style.setProperty("--from", `${value < 0 ? 50 - share : 50}%`);
  return element;
}

function showParts() {
  const host = find("parts");
  if (contributions.why_not) {
    host.replaceChildren(make("p", { className: "why-not", textContent: `Not defined for this model: ${contributions.why_not}.` }));
    return;
  }
  if (!isLeading()) {
    host.replaceChildren(make("p", { className: "why-not", textContent: `Not stored for ${chosenName()}.` }));
    return;
  }
  const of = contributions;
  const starts = [["Embedding", of.embed], ["Positions", of.pos_embed], ["Biases of the head", of.constant]]
    .filter(([, part]) => part).map(([name, part]) => [name, part.at(state.chosen)]);
  const blocks = Array.from({ length: data.n_layers }, (_, block) => {
    const heads = [...of.head.row(state.chosen, block)];
    const bias = of.attn_bias.at(state.chosen, block);
    return { heads, bias, attention: heads.reduce((a, b) => a + b, bias), mlp: of.mlp.at(state.chosen, block) };
  });
  const all = [...starts.map(([, value]) => value), ...blocks.flatMap((one) => [one.attention, one.mlp])];
  const most = Math.max(...all.map(Math.abs));
  const table = make("table", {},
    make("thead", {}, make("tr", {}, ...["Block", "Attention", "MLP"].map((text) => make("th", { textContent: text, scope: "col" })))),
    make("tbody", {}, ...blocks.map((one, block) => make("tr", { className: block === state.block ? "now" : "" },
      make("th", { textContent: block, scope: "row" }), make("td", {}, bar(one.attention, most)), make("td", {}, bar(one.mlp, most))))));
  const starting = make("div", { className: "starts" }, ...starts.map(([name, value]) => make("p", { textContent: name }, bar(value, most))));
  const now = blocks[state.block];
  const items = [...now.heads.map((value, head) => [`${head}`, value]), ["bias", now.bias]];
  const heads = make("p", { className: "head-list", textContent: `Block ${state.block}'s heads: ` },
    ...items.map(([name, value]) => make("span", { textContent: `${name} ` }, make("b", { textContent: signed(logit(value)) }))));
  const total = all.reduce((a, b) => a + b, 0);
  const sum = make("p", { className: "sum" }, "Sum of all bars ", make("b", { textContent: fixed(total, 3) }), " = logit ", make("b", { textContent: fixed(of.logit.at(state.chosen), 3) }));
  host.replaceChildren(starting, table, sum, heads);
}
