// Arrays of numbers, unpacked from what analyses/pages/explorer/packing.py stored.

const TYPES = { u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, i1: Int8Array, f4: Float32Array };

/** An array with axes. */
class Numbers {
  constructor(values, shape) {
    this.values = values;
    this.shape = shape;
  }
  /** Start and length of the entries that have these leading indices. */
  span(...indices) {
    let start = 0;
    indices.forEach((index, axis) => { start = start * this.shape[axis] + index; });
    const size = this.shape.slice(indices.length).reduce((a, b) => a * b, 1);
    return [start * size, size];
  }
  at(...indices) {
    return this.values[this.span(...indices)[0]];
  }
  row(...indices) {
    const [start, size] = this.span(...indices);
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

/** The array that `packed`, `packed_linear` or `packed_rows` stored. */
export async function unpack(part) {
  const stored = new TYPES[part.type](await inflate(part.data));
  if ("step" in part) return new Numbers(Float64Array.from(stored, (level) => part.low + part.step * level), part.shape);
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

/** A record with its arrays unpacked; other values are unchanged. */
export async function unpackAll(record) {
  const entries = Object.entries(record).map(async ([name, part]) => [name, part?.data ? await unpack(part) : part]);
  return Object.fromEntries(await Promise.all(entries));
}
