// Decodes files, and says what came of it as tests/edge_replay.c does, so that one test reads both:
//
//     node decode.mjs DCZ.JS LIMIT FOLDER|- FILE...
//
// For each file "open CODE", then for each tensor "0 DTYPE SHAPE". With a folder, what was decoded goes
// there, and the model that it makes, if it has a graph.

import { readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [library, limit, folder, ...files] = process.argv.slice(2);
const { DczError, decode, toOnnx } = await import(pathToFileURL(resolve(library)).href);
const most = Number(limit);
const limits = { maxTensorBytes: most, maxTotalBytes: most, maxGraphBytes: most };
const codes = { damaged: 5, foreign: 6, newer: 7, limit: 8 };
const dtypes = ["float32", "float16", "float64", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"];

const keep = (name, data) => folder === "-" || writeFileSync(join(folder, name), data);

for (const [file, path] of files.entries()) {
  let found;
  try {
    found = await decode(readFileSync(path), { limits });
  } catch (error) {
    if (!(error instanceof DczError) || !(error.code in codes)) throw error;
    console.log(`open ${codes[error.code]}`);
    continue;
  }
  console.log("open 0");
  let number = 0;
  for (const [name, { dtype, shape, data }] of found.tensors) {
    number += 1;
    console.log([0, dtypes.indexOf(dtype), ...shape].join(" "));
    keep(`${file}-name${number}`, name);
    keep(`${file}-tensor${number}`, new Uint8Array(data.buffer));
  }
  [...found.metadata].forEach(([key, value], i) => (keep(`${file}-key${i}`, key), keep(`${file}-value${i}`, value)));
  if (!found.graph) continue;
  keep(`${file}-graph0`, found.graph);
  try {
    keep(`${file}-model`, toOnnx(found));
  } catch (error) {
    if (!(error instanceof DczError) || error.code !== "graph") throw error;
  }
}
