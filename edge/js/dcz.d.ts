export interface Tensor {
  dtype:
    | "float32" | "float16" | "float64" | "bool" | "int8" | "int16" | "int32" | "int64"
    | "uint8" | "uint16" | "uint32" | "uint64";
  shape: number[];
  /** In row-major order; float16 as its bits, bool as 0 and 1. */
  data:
    | Float32Array | Float64Array | Int8Array | Int16Array | Int32Array | BigInt64Array
    | Uint8Array | Uint16Array | Uint32Array | BigUint64Array;
}

export interface Decoded {
  tensors: Map<string, Tensor>;
  metadata: Map<string, string>;
  /** ONNX without its weights; null in files written with --weights-only. */
  graph: Uint8Array | null;
}

/** What is accepted, in bytes as decoded; by default 1 GiB, 2 GiB, 256 MiB, 65,536. */
export interface Limits {
  maxTensorBytes?: number;
  maxTotalBytes?: number;
  maxGraphBytes?: number;
  maxTensors?: number;
}

/** Whatever is wrong with a file. */
export class DczError extends Error {
  code: "foreign" | "newer" | "damaged" | "limit" | "memory" | "graph";
}

export function decode(file: Uint8Array | ArrayBuffer, options?: { limits?: Limits }): Promise<Decoded>;

/** The bytes of an ONNX model, for `InferenceSession.create`. */
export function toOnnx(decoded: { tensors: Map<string, Tensor>; graph: Uint8Array | null; metadata?: Map<string, string> }): Uint8Array;
