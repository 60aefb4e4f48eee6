// node chromium.mjs CHROMIUM FOLDER REPEATS [MBITS]: prints what measure.mjs gives in headless Chromium, the
// files fetched from this machine, at so many megabits a second if told. puppeteer-core and onnxruntime-web
// are found from the working folder, where npm install brought them.

import { copyFileSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { serve } from "../../edge/js/demo/serve.mjs";

const require = createRequire(join(process.cwd(), "package.json"));
const puppeteer = require("puppeteer-core");

const [chromium, folder, repeats, megabits] = process.argv.slice(2);
copyFileSync(join(dirname(fileURLToPath(import.meta.url)), "measure.mjs"), join(folder, "measure.mjs"));
const subjects = JSON.parse(readFileSync(join(folder, "subjects.json")));
const shapes = Object.fromEntries(Object.entries(subjects).map(([name, { shape }]) => [name, shape]));
const { server, url } = await serve({ modules: process.cwd(), files: folder });
const browser = await puppeteer.launch({ executablePath: chromium, args: ["--no-sandbox"], protocolTimeout: 600_000 });
const page = await browser.newPage();
await page.setCacheEnabled(false);
await page.goto(`${url}/files/subjects.json`);
if (megabits) {
  const rate = (Number(megabits) * 1e6) / 8;
  await page.emulateNetworkConditions({ download: rate, upload: rate, latency: 40 });
}
const found = await page.evaluate(
  async (shapes, repeats) => {
    const { decode, toOnnx } = await import("/dcz.js");
    const ort = await import("/ort/ort.wasm.min.mjs");
    const { rounds } = await import("/files/measure.mjs");
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.wasmPaths = "/ort/";
    const bytesOf = async (name) => new Uint8Array(await (await fetch(`/files/${name}`, { cache: "no-store" })).arrayBuffer());
    const found = await rounds({ decode, toOnnx, ort, bytesOf }, shapes, repeats);
    return { found, ort: ort.env.versions.web ?? ort.env.versions.common };
  },
  shapes,
  JSON.parse(repeats),
);
console.log(JSON.stringify({ version: `${await browser.version()}, onnxruntime-web ${found.ort}`, found: found.found }));
await browser.close();
server.close();
