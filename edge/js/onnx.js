/**
 * A file's graph and tensors as an ONNX model.
 *
 * The graph of a .dcz file is ONNX whose weights are graph inputs. Here they become initializers, by a
 * reader and a writer of as much of protobuf as that takes. Batch norms stay as they are: ONNX Runtime
 * folds them into the layers before them as it loads a model, so nothing is slower for it.
 */

import { DczError } from "./errors.js";

const VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5;
// Field numbers of onnx.proto.
const MODEL = { graph: 7, metadata: 14 };
const GRAPH = { initializer: 5, input: 11 };
const TENSOR = { dims: 1, dataType: 2, name: 8, rawData: 9 };
const TYPES = {
  ...{ float32: 1, uint8: 2, int8: 3, uint16: 4, int16: 5, int32: 6, int64: 7 },
  ...{ bool: 9, float16: 10, float64: 11, uint32: 12, uint64: 13 },
};

const damaged = () => new DczError("the graph is not an ONNX graph", "graph");

/** The fields of a message: number, kind, the bytes of it all, and its value. */
function* fields(message) {
  let at = 0;
  const varint = () => {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      if (at >= message.length) throw damaged();
      const byte = message[at++];
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return value;
    }
    throw damaged();
  };
  while (at < message.length) {
    const start = at;
    const key = Number(varint());
    const kind = key % 8;
    let value;
    if (kind === VARINT) {
      value = varint();
    } else {
      const size = { [FIXED64]: 8, [FIXED32]: 4 }[kind] ?? (kind === BYTES ? Number(varint()) : NaN);
      if (!(size <= message.length - at)) throw damaged();
      value = message.subarray(at, at + size);
      at += size;
    }
    yield { number: Math.floor(key / 8), kind, whole: message.subarray(start, at), value };
  }
}

/** The first field of a number that holds bytes. */
function part(message, number) {
  for (const field of fields(message)) if (field.number === number && field.kind === BYTES) return field.value;
  return new Uint8Array();
}

function varintBytes(value) {
  const found = [];
  let left = BigInt(value);
  for (; left >= 128n; left >>= 7n) found.push(Number(left & 127n) | 128);
  return [...found, Number(left)];
}

const number = (field, value) => Uint8Array.from([...varintBytes(field * 8 + VARINT), ...varintBytes(value)]);
const size = (pieces) => pieces.reduce((sum, piece) => sum + piece.length, 0);

/** A field that holds what pieces are together, as pieces. */
function bytes(field, ...pieces) {
  return [Uint8Array.from([...varintBytes(field * 8 + BYTES), ...varintBytes(size(pieces))]), ...pieces];
}

const utf8 = (text) => new TextEncoder().encode(text);

/** Name, element type and dimensions (-1 for free ones) of a graph's input. */
function describe(valueInfo) {
  const name = new TextDecoder().decode(part(valueInfo, 1));
  let type = 0n;
  const shape = [];
  for (const field of fields(part(part(valueInfo, 2), 1))) {
    if (field.number === 1 && field.kind === VARINT) type = field.value;
    if (field.number !== 2 || field.kind !== BYTES) continue;
    for (const dim of fields(field.value)) {
      if (dim.number !== 1 || dim.kind !== BYTES) continue;
      const value = [...fields(dim.value)].find((each) => each.number === 1 && each.kind === VARINT);
      shape.push(value ? Number(value.value) : -1);
    }
  }
  return { name, type: Number(type), shape };
}

function tensorPieces(name, { dtype, shape, data }) {
  return bytes(
    GRAPH.initializer,
    ...shape.map((length) => number(TENSOR.dims, length)),
    number(TENSOR.dataType, TYPES[dtype]),
    ...bytes(TENSOR.name, utf8(name)),
    ...bytes(TENSOR.rawData, new Uint8Array(data.buffer, data.byteOffset, data.byteLength)),
  );
}

function graphPieces(graph, tensors) {
  const pieces = [], weights = [], inputs = [];
  for (const field of fields(graph)) {
    const input = field.number === GRAPH.input && field.kind === BYTES ? describe(field.value) : null;
    const tensor = input && tensors.get(input.name);
    if (input && !tensor) inputs.push(input.name);
    if (!tensor) {
      pieces.push(field.whole);
      continue;
    }
    if (input.shape.join() !== tensor.shape.join() || input.type !== TYPES[tensor.dtype]) {
      throw new DczError(`${input.name} is not the ${tensor.dtype} of shape ${tensor.shape} that the graph expects`, "graph");
    }
    weights.push(...tensorPieces(input.name, tensor));
  }
  if (inputs.length !== 1) {
    throw new DczError(`with these tensors the graph takes ${inputs.join(", ") || "nothing"}; it must take one input`, "graph");
  }
  return [...pieces, ...weights];
}

/**
 * The model's bytes, for `InferenceSession.create`.
 *
 * @param {{tensors: Map<string, object>, graph: Uint8Array | null, metadata?: Map<string, string>}} decoded
 *   what `decode` gave
 * @returns {Uint8Array}
 * @throws {DczError} without a graph, or where graph and tensors do not belong together
 */
export function toOnnx({ tensors, graph, metadata = new Map() }) {
  if (!graph) throw new DczError("the file has no graph: it was written with --weights-only", "graph");
  const pieces = [];
  for (const field of fields(graph)) {
    if (field.number === MODEL.graph && field.kind === BYTES) {
      pieces.push(...bytes(MODEL.graph, ...graphPieces(field.value, tensors)));
    } else {
      pieces.push(field.whole);
    }
  }
  for (const [key, value] of [...metadata].sort(([a], [b]) => (a < b ? -1 : 1))) {
    pieces.push(...bytes(MODEL.metadata, ...bytes(1, utf8(key)), ...bytes(2, utf8(value))));
  }
  const model = new Uint8Array(size(pieces));
  let at = 0;
  for (const piece of pieces) {
    model.set(piece, at);
    at += piece.length;
  }
  return model;
}
