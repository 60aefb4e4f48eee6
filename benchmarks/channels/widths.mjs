// Times ONNX files in onnxruntime-web's WebAssembly, one thread, the files taking turns.
// node widths.mjs FOLDER ROUNDS, FOLDER holding NAME.onnx and inputs.json {NAME: shape of x};
// prints {version, ms: {NAME: least milliseconds}}. onnxruntime-web is found from the working folder.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const require = createRequire(join(process.cwd(), "package.json"));
const ort = require("onnxruntime-web");
ort.env.wasm.numThreads = 1;

const [folder, rounds] = process.argv.slice(2);
const shapes = JSON.parse(readFileSync(join(folder, "inputs.json")));
const runs = {};
const ms = {};
for (const [name, shape] of Object.entries(shapes)) {
  const session = await ort.InferenceSession.create(readFileSync(join(folder, `${name}.onnx`)));
  const size = shape.reduce((a, b) => a * b, 1);
  const data = Float32Array.from({ length: size }, (_, i) => Math.sin(i));
  const feeds = { [session.inputNames[0]]: new ort.Tensor("float32", data, shape) };
  runs[name] = () => session.run(feeds);
  ms[name] = Infinity;
  for (let i = 0; i < 3; i++) await runs[name]();
}
for (let round = 0; round < Number(rounds); round++) {
  for (const [name, run] of Object.entries(runs)) {
    const begin = performance.now();
    await run();
    ms[name] = Math.min(ms[name], performance.now() - begin);
  }
}
const version = ort.env.versions.web ?? ort.env.versions.common;
console.log(JSON.stringify({ version, ms }));
