// node node.mjs FOLDER REPEATS: prints what measure.mjs gives. onnxruntime-web is found from the working
// folder, where npm install brought it.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { decode, toOnnx } from "../../edge/js/dcz.js";
import { rounds } from "./measure.mjs";

const require = createRequire(join(process.cwd(), "package.json"));
const ort = require("onnxruntime-web/wasm");
ort.env.wasm.numThreads = 1;

const [folder, repeats] = process.argv.slice(2);
const subjects = JSON.parse(readFileSync(join(folder, "subjects.json")));
const shapes = Object.fromEntries(Object.entries(subjects).map(([name, { shape }]) => [name, shape]));
const bytesOf = async (name) => new Uint8Array(readFileSync(join(folder, name)));
const found = await rounds({ decode, toOnnx, ort, bytesOf }, shapes, JSON.parse(repeats));
const version = `Node ${process.versions.node}, onnxruntime-web ${ort.env.versions.web ?? ort.env.versions.common}`;
console.log(JSON.stringify({ version, found }));
