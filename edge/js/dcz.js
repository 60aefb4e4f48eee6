/** Decodes .dcz files: the C decoder of edge/c as WebAssembly, in Node and in browsers. */

import { DczError } from "./errors.js";
import encoded from "./dcz.wasm.js";

export { DczError } from "./errors.js";
export { toOnnx } from "./onnx.js";

const PAGE = 65536;
const DTYPES = [
  ["float32", Float32Array],
  ["float16", Uint16Array], // as bits: few engines have Float16Array
  ["float64", Float64Array],
  ["bool", Uint8Array],
  ["int8", Int8Array],
  ["int16", Int16Array],
  ["int32", Int32Array],
  ["int64", BigInt64Array],
  ["uint8", Uint8Array],
  ["uint16", Uint16Array],
  ["uint32", Uint32Array],
  ["uint64", BigUint64Array],
];
const CODES = {
  5: ["damaged", "the file is damaged"],
  6: ["foreign", "this is not a .dcz file"],
  7: ["newer", "the file is of a version that this decoder does not know"],
  8: ["limit", "the file declares more than the limits allow"],
};
const LIMITS = {
  maxTensorBytes: 2 ** 30,
  maxTotalBytes: 2 ** 31,
  maxGraphBytes: 2 ** 28,
  maxTensors: 2 ** 16,
};

let compiled;

/** An instance with memory of its own, which goes with it. */
async function instance() {
  compiled ??= WebAssembly.compile(Uint8Array.from(atob(encoded), (letter) => letter.charCodeAt(0)));
  return new Decoder((await WebAssembly.instantiate(await compiled, {})).exports);
}

class Decoder {
  constructor(core) {
    this.core = core;
    this.top = (core.__heap_base.value + 7) & ~7;
  }

  /** Memory up to the next `release`. */
  take(size) {
    const at = this.top;
    this.top += Math.ceil(size / 8) * 8;
    const missing = this.top - this.core.memory.buffer.byteLength;
    if (missing > 0) {
      try {
        if (this.top > 2 ** 32 - PAGE) throw new RangeError("over 4 GiB");
        this.core.memory.grow(Math.ceil(missing / PAGE));
      } catch (error) {
        if (!(error instanceof RangeError)) throw error;
        throw new DczError("there is not enough memory to decode the file", "memory");
      }
    }
    return at;
  }

  release(top) {
    this.top = top;
  }

  bytes(at, size) {
    return new Uint8Array(this.core.memory.buffer, at, size);
  }

  told() {
    return new Uint32Array(this.core.memory.buffer, this.core.told(), 38);
  }

  text(at, size) {
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(this.bytes(at, size));
  }

  check(code, what) {
    if (code === 0) return;
    const [name, message] = CODES[code] ?? ["defect", `the decoder failed with code ${code}`];
    throw new DczError(what ? `${what}: ${message}` : message, name);
  }

  open(data, limits) {
    const at = this.take(data.length);
    this.bytes(at, data.length).set(data);
    const needed = this.core.memory_to_open(at, data.length);
    const memory = this.take(needed);
    const { maxTensorBytes, maxTotalBytes, maxGraphBytes, maxTensors } = limits;
    const most = [maxTensorBytes, maxTotalBytes, maxGraphBytes, maxTensors];
    this.check(this.core.open(at, data.length, ...most, memory, needed));
    const [, texts, hasGraph, graphBytes] = this.told();
    return { texts, graphBytes: hasGraph ? graphBytes : null };
  }

  /** The next tensor, or undefined. */
  next() {
    if (!this.core.next()) return undefined;
    const [nameAt, nameSize, dtype, bytes, needed, dimensions, ...shape] = this.told();
    const name = this.text(nameAt, nameSize);
    const [typeName, TypedArray] = DTYPES[dtype];
    const top = this.top;
    const out = this.take(bytes);
    const memory = this.take(needed);
    this.check(this.core.dense(out, memory, needed), `tensor ${JSON.stringify(name)}`);
    const data = new TypedArray(this.bytes(out, bytes).slice().buffer);
    this.release(top);
    return [name, { dtype: typeName, shape: shape.slice(0, dimensions), data }];
  }

  metadata(count) {
    const found = new Map();
    for (let i = 0; i < count; i++) {
      this.core.text(i);
      const [keyAt, keySize, valueAt, valueSize] = this.told();
      found.set(this.text(keyAt, keySize), this.text(valueAt, valueSize));
    }
    return found;
  }

  graph(size) {
    const out = this.take(size);
    this.check(this.core.graph(out), "graph");
    return this.bytes(out, size).slice();
  }
}

/**
 * Decode a whole file.
 *
 * @param {Uint8Array | ArrayBuffer} file its bytes
 * @param {{limits?: Partial<typeof LIMITS>}} options what is accepted, checked before memory is taken
 * @returns {Promise<{tensors: Map<string, {dtype: string, shape: number[], data: ArrayBufferView}>,
 *   metadata: Map<string, string>, graph: Uint8Array | null}>}
 * @throws {DczError} whatever is wrong with the file
 */
export async function decode(file, { limits = {} } = {}) {
  const data = file instanceof ArrayBuffer ? new Uint8Array(file) : file;
  if (!(data instanceof Uint8Array)) throw new TypeError("decode takes a Uint8Array or an ArrayBuffer");
  const decoder = await instance();
  const { texts, graphBytes } = decoder.open(data, { ...LIMITS, ...limits });
  const metadata = decoder.metadata(texts);
  const tensors = new Map();
  for (let tensor = decoder.next(); tensor; tensor = decoder.next()) tensors.set(...tensor);
  const graph = graphBytes === null ? null : decoder.graph(graphBytes);
  return { tensors, metadata, graph };
}
