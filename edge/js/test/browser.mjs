// The package and its demo as a browser has them. Draws digits by mouse, finger and keys and reads the
// answers; takes screenshots at two widths in light and dark; fails on a message on the console, a request to
// anywhere else, a page wider than its screen, or a violation that axe-core finds. Then decodes the files of a
// folder that tests/edge_cases.py wrote, and compares tensors bit for bit, answers within 1e-5.
//
//     npm install             (in edge/js, or in a folder of its own from which this is run)
//     node test/browser.mjs CHROMIUM OUTPUT [CASES]

import { mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { serve } from "../demo/serve.mjs";

const require = createRequire(join(process.cwd(), "package.json"));
const puppeteer = require("puppeteer-core");
const axe = require.resolve("axe-core");

const [chromium, output, cases] = process.argv.slice(2);
if (!output) {
  console.error("usage: node test/browser.mjs CHROMIUM OUTPUT [CASES]");
  process.exit(2);
}
mkdirSync(output, { recursive: true });
const { server, url } = await serve({ modules: process.cwd(), files: cases });
const browser = await puppeteer.launch({ executablePath: chromium, args: ["--no-sandbox"] });
const wrong = [];
const check = (good, what) => good || wrong.push(what);

// Polylines in the paper's own 280 x 280 pixels.
const DIGITS = {
  1: [[[140, 50], [140, 230]]],
  7: [[[80, 70], [200, 70], [170, 130], [140, 180], [120, 230]]],
  0: [[[140, 50], [95, 75], [80, 140], [95, 205], [140, 230], [185, 205], [200, 140], [185, 75], [140, 50]]],
  4: [[[100, 60], [85, 150], [200, 150]], [[175, 60], [175, 230]]],
};

async function open(width, theme, where) {
  const page = await browser.newPage();
  page.on("console", (message) => wrong.push(`${where}: console: ${message.text()}`));
  page.on("pageerror", (error) => wrong.push(`${where}: ${error.message}`));
  page.on("request", (request) => {
    const local = request.url().startsWith(url) || /^(data|blob):/.test(request.url());
    check(local, `${where}: asks for ${request.url()}`);
  });
  await page.setViewport({ width, height: 844, isMobile: width < 500, hasTouch: width < 500 });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: theme }]);
  await page.goto(`${url}/demo/`);
  await page.waitForSelector("body[data-ready]", { timeout: 60_000 });
  check(await page.$eval("body", (body) => body.dataset.ready === "true"), `${where}: it did not start`);
  return page;
}

async function answered(page, digit, where) {
  const found = await page
    .waitForFunction((digit) => document.querySelector("#answer").textContent.startsWith(digit), { timeout: 3000 }, String(digit))
    .then(() => page.$eval("#answer", (element) => element.textContent))
    .catch(() => null);
  check(found, `${where}: ${digit} was taken for ${await page.$eval("#answer", (element) => element.textContent)}`);
  console.log(`${where}: ${digit} drawn, ${found}`);
}

async function byMouse(page, lines) {
  const box = await (await page.$("#paper")).boundingBox();
  const place = ([x, y]) => [box.x + (x * box.width) / 280, box.y + (y * box.height) / 280];
  for (const line of lines) {
    await page.mouse.move(...place(line[0]));
    await page.mouse.down();
    for (const point of line) await page.mouse.move(...place(point), { steps: 5 });
    await page.mouse.up();
  }
}

async function byFinger(page, lines) {
  const box = await (await page.$("#paper")).boundingBox();
  const place = ([x, y]) => [box.x + (x * box.width) / 280, box.y + (y * box.height) / 280];
  for (const line of lines) {
    await page.touchscreen.touchStart(...place(line[0]));
    for (const point of line) await page.touchscreen.touchMove(...place(point));
    await page.touchscreen.touchEnd();
  }
}

/** A one, and with a bar on top and a slope a seven, by keys alone. */
async function byKeys(page) {
  await page.focus("#paper");
  const press = async (key, times) => {
    for (let i = 0; i < times; i++) await page.keyboard.press(key);
  };
  await press(" ", 1);
  await press("ArrowDown", 16);
  await press(" ", 1);
}

for (const width of [1280, 390]) {
  for (const theme of ["light", "dark"]) {
    const where = `demo-${width}-${theme}`;
    const page = await open(width, theme, where);
    for (const [digit, lines] of Object.entries(DIGITS)) {
      await (width < 500 ? byFinger : byMouse)(page, lines);
      await answered(page, digit, where);
      await page.click("#clear");
    }
    await page.click("#example");
    await answered(page, 7, where);
    await page.screenshot({ path: join(output, `${where}.png`), fullPage: true });
    await page.focus("#paper");
    await page.keyboard.press("Escape");
    await page.waitForFunction(() => document.querySelector("#answer").textContent === "draw something");
    await byKeys(page);
    await answered(page, 1, `${where} by keys`);
    await page.screenshot({ path: join(output, `${where}-keys.png`) });
    const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    check(over <= 0, `${where}: ${over} px wider than the screen`);
    await page.addScriptTag({ path: axe });
    const found = await page.evaluate(() => globalThis.axe.run());
    for (const { id, help, nodes } of found.violations) wrong.push(`${where}: axe: ${id}: ${help}: ${nodes[0].html.slice(0, 160)}`);
    console.log(`${where}: axe-core passes ${found.passes.length} rules, fails ${found.violations.length}`);
    console.log(await page.$$eval("tbody tr", (rows) => rows.map((row) => row.innerText.replaceAll("\t", "  ")).join("\n")));
    await page.close();
  }
}

if (cases) {
  const page = await browser.newPage();
  await page.goto(`${url}/files/cases.json`);
  const found = await page.evaluate(async () => {
    const { decode, toOnnx, DczError } = await import("/dcz.js");
    const ort = await import("/ort/ort.wasm.min.mjs");
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.wasmPaths = "/ort/";
    const bytes = async (path) => new Uint8Array(await (await fetch(path)).arrayBuffer());
    const sha256 = async (data) =>
      [...new Uint8Array(await crypto.subtle.digest("SHA-256", data))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    const { good, bad } = await (await fetch("/files/cases.json")).json();
    const lines = [];
    for (const { name, tensors, shape, input, output } of good) {
      const decoded = await decode(await bytes(`/files/${name}.dcz`));
      let same = decoded.tensors.size === Object.keys(tensors).length;
      for (const [key, { data }] of decoded.tensors) same &&= (await sha256(data)) === tensors[key];
      let difference = null;
      if (output) {
        const session = await ort.InferenceSession.create(toOnnx(decoded));
        const feeds = { [session.inputNames[0]]: new ort.Tensor("float32", Float32Array.from(input), shape) };
        const result = (await session.run(feeds))[session.outputNames[0]].data;
        difference = Math.max(...output.map((value, i) => Math.abs(value - result[i])));
        await session.release();
      }
      lines.push({ name, same, difference });
    }
    let refused = 0;
    for (const name of bad) refused += await decode(await bytes(`/files/${name}.dcz`)).then(() => 0, (error) => error instanceof DczError);
    return { lines, refused, bad: bad.length };
  });
  for (const { name, same, difference } of found.lines) {
    check(same, `${name}: tensors differ from Python's`);
    check(difference === null || difference <= 1e-5, `${name}: answers differ by ${difference}`);
    console.log(`${name}: tensors ${same ? "equal, bit for bit" : "DIFFER"}${difference === null ? "" : `, answers differ by ${difference.toExponential(1)}`}`);
  }
  check(found.refused === found.bad, `${found.bad - found.refused} bad files were read`);
  console.log(`${found.refused} of ${found.bad} bad files refused`);
}

await browser.close();
server.close();
for (const line of wrong) console.error(line);
process.exit(wrong.length ? 1 : 0);
