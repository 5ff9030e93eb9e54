// Numbers of the page: arrays as Python packed them (analyses/pages/explorer/packing.py), and how numbers are written.

const data = JSON.parse(document.getElementById("data").textContent);

const TYPES = { u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, i1: Int8Array, f4: Float32Array };

/** An array with axes. */
class Numbers {
  constructor(values, shape) {
    this.values = values;
    this.shape = shape;
  }
  /** Where the entries of these leading indices begin, and how many there are. */
  span(...index) {
    let start = 0;
    index.forEach((one, axis) => { start = start * this.shape[axis] + one; });
    const size = this.shape.slice(index.length).reduce((a, b) => a * b, 1);
    return [start * size, size];
  }
  at(...index) {
    return this.values[this.span(...index)[0]];
  }
  row(...index) {
    const [start, size] = this.span(...index);
    return this.values.subarray(start, start + size);
  }
}

async function inflate(text) {
  const characters = atob(text);
  const bytes = new Uint8Array(characters.length);
  for (let i = 0; i < characters.length; i++) bytes[i] = characters.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

/** What `packed`, `packed_linear` or `packed_rows` stored. */
async function unpack(part) {
  const stored = new TYPES[part.type](await inflate(part.data));
  if ("step" in part) return new Numbers(Float64Array.from(stored, (one) => part.low + part.step * one), part.shape);
  if (!("levels" in part)) return new Numbers(stored, part.shape);
  const { values: largest } = await unpack(part.largest);
  const values = new Float32Array(stored.length);
  const columns = part.shape.at(-1);
  for (let i = 0; i < stored.length; i++) {
    const relative = stored[i] / part.levels;
    values[i] = largest[Math.floor(i / columns)] * relative * Math.abs(relative);
  }
  return new Numbers(values, part.shape);
}

/** All arrays of a record; what is no array stays as it is. */
async function unpackAll(record) {
  const entries = Object.entries(record).map(async ([name, part]) => [name, part?.data ? await unpack(part) : part]);
  return Object.fromEntries(await Promise.all(entries));
}

const minus = (text) => text.replace("-", "−");
const fixed = (value, digits) => minus(value.toFixed(digits).replace(/^-(0(\.0*)?)$/, "$1"));
const logit = (value) => fixed(value, 2);
const signed = (text) => (text.startsWith("−") ? text : `+${text}`);
const percent = (share) => `${share === 0 ? 0 : share < 0.0001 ? "<\u00a00.01" : (100 * share).toPrecision(share < 0.1 ? 2 : 3)}\u00a0%`;

/** Two significant digits, whatever the size; with its sign. */
function small(value) {
  if (value === 0) return "0";
  const size = Math.floor(Math.log10(Math.abs(value)));
  if (size >= -3) return signed(fixed(value, Math.max(0, 1 - size)));
  const power = [...String(-size)].map((digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]).join("");
  return `${signed(fixed(value / 10 ** size, 1))}·10⁻${power}`;
}
