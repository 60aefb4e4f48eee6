import { decode, toOnnx } from "../dcz.js";
import * as ort from "../ort/ort.wasm.min.mjs";
import { SIDE, centred, normalised, softmax } from "./digit.js";

ort.env.wasm.numThreads = 1; // more need headers that not every server sends
ort.env.wasm.wasmPaths = new URL("../ort/", import.meta.url).href;

const PEN = 20, STEP = 10;
const find = (id) => document.getElementById(id);
const paper = find("paper"), pen = { x: 140, y: 60, down: false, shown: false };
let strokes = [];
let session, waiting, running;

/* --- the network ------------------------------------------------------------------------------ */

async function fetched(url) {
  const response = await fetch(url, { cache: "no-store" });
  if (!response.ok) throw new Error(`${url}: ${response.status}`);
  return new Uint8Array(await response.arrayBuffer());
}

async function answer(network, image) {
  const input = new ort.Tensor("float32", normalised(image), [1, 1, SIDE, SIDE]);
  const found = await network.run({ [network.inputNames[0]]: input });
  return found[network.outputNames[0]].data;
}

/** Load a network in steps, each timed; a blank image is its first question. */
async function load(url, toModel) {
  const times = [performance.now()];
  const lap = () => times.push(performance.now());
  const file = await fetched(url);
  lap();
  const model = await toModel(file);
  lap();
  const network = await ort.InferenceSession.create(model);
  lap();
  await answer(network, new Float32Array(SIDE * SIDE));
  lap();
  return { network, bytes: file.length, ms: times.slice(1).map((time, i) => time - times[i]) };
}

const kilobytes = (bytes) => `${(bytes / 1000).toLocaleString("en", { maximumFractionDigits: bytes < 1e5 ? 1 : 0 })} kB`;
const milliseconds = (ms) => ms.toLocaleString("en", { maximumFractionDigits: 1, minimumFractionDigits: 1 });

function fill(column, texts) {
  find("cost").querySelectorAll(`td:nth-child(${column})`).forEach((cell, i) => (cell.textContent = texts[i] ?? "–"));
}

function show(column, { bytes, ms }) {
  fill(column, [kilobytes(bytes), ...[...ms, ms.reduce((a, b) => a + b)].map(milliseconds)]);
}

async function start() {
  // The runtime itself is loaded before either is timed.
  const runtime = await load("lenet5.dcz", async (file) => toOnnx(await decode(file)));
  await runtime.network.release();
  const small = await load("lenet5.dcz", async (file) => toOnnx(await decode(file)));
  session = small.network;
  find("size").textContent = kilobytes(small.bytes);
  show(2, small);
  draw();
  try {
    const plain = await load("plain.onnx", (file) => file);
    find("instead").textContent = ` instead of ${kilobytes(plain.bytes)}`;
    show(3, plain);
    await plain.network.release();
  } catch {
    const { plainBytes } = await (await fetch("model.json")).json();
    find("instead").textContent = ` instead of ${kilobytes(plainBytes)}`;
    fill(3, [kilobytes(plainBytes)]);
    find("note").textContent += " The plain file is not here; make demo-browser makes it.";
  }
  document.body.dataset.ready = "true";
}

/* --- the drawing ------------------------------------------------------------------------------ */

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function stroke(context) {
  context.lineWidth = PEN;
  context.lineCap = context.lineJoin = "round";
  for (const line of strokes) {
    context.beginPath();
    context.moveTo(...line[0]);
    for (const point of line.length > 1 ? line.slice(1) : line) context.lineTo(...point);
    context.stroke();
  }
}

/** The ink alone, whatever colour it has on the screen. */
function ink() {
  const { width, height } = paper;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  stroke(context);
  return context.getImageData(0, 0, width, height).data.filter((_, i) => i % 4 === 3);
}

function draw() {
  const context = paper.getContext("2d");
  context.clearRect(0, 0, paper.width, paper.height);
  context.strokeStyle = colour("--ink");
  stroke(context);
  if (pen.shown) {
    context.beginPath();
    context.arc(pen.x, pen.y, PEN / 2 + 2, 0, 2 * Math.PI);
    context.lineWidth = 3;
    context.strokeStyle = colour("--accent");
    context.setLineDash(pen.down ? [] : [4, 4]);
    context.stroke();
    context.setLineDash([]);
  }
  classify();
}

function showSeen(image) {
  const context = find("seen").getContext("2d");
  const pixels = context.createImageData(SIDE, SIDE);
  for (let i = 0; i < SIDE * SIDE; i++) {
    const grey = 255 * (image ? image[i] : 0);
    pixels.data.set([grey, grey, grey, 255], 4 * i);
  }
  context.putImageData(pixels, 0, 0);
}

/** One question at a time; of those that come meanwhile, the last. */
async function classify() {
  waiting = true;
  if (running || !session) return;
  running = true;
  while (waiting) {
    waiting = false;
    const image = centred(ink(), paper.width, paper.height);
    showSeen(image);
    const chances = image ? softmax(await answer(session, image)) : new Array(10).fill(0);
    const best = chances.indexOf(Math.max(...chances));
    const text = image ? `${best}, ${(100 * chances[best]).toFixed(0)} %` : "draw something";
    if (find("answer").textContent !== text) find("answer").textContent = text;
    for (const [digit, item] of [...find("chances").children].entries()) {
      item.querySelector("i").style.width = `${100 * chances[digit]}%`;
      item.querySelector(".number").textContent = `${(100 * chances[digit]).toFixed(1)} %`;
    }
  }
  running = false;
}

function clear() {
  strokes = [];
  pen.down = false;
  draw();
}

function at(event) {
  const box = paper.getBoundingClientRect();
  const scale = paper.width / box.width;
  return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
}

let pointer = null;

paper.addEventListener("pointerdown", (event) => {
  if (pointer !== null || event.button !== 0) return;
  pointer = event.pointerId;
  paper.setPointerCapture(pointer);
  pen.shown = pen.down = false;
  strokes.push([at(event)]);
  draw();
});
paper.addEventListener("pointermove", (event) => {
  if (event.pointerId !== pointer) return;
  for (const each of event.getCoalescedEvents?.() ?? [event]) strokes.at(-1).push(at(each));
  if (strokes.at(-1).length === 1) strokes.at(-1).push(at(event));
  draw();
});
for (const kind of ["pointerup", "pointercancel"]) {
  paper.addEventListener(kind, (event) => {
    if (event.pointerId === pointer) pointer = null;
  });
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

paper.addEventListener("keydown", (event) => {
  const arrow = ARROWS[event.key];
  if (!arrow && event.key !== " " && event.key !== "Escape") return;
  event.preventDefault();
  pen.shown = true;
  if (event.key === "Escape") return clear();
  if (arrow) {
    const within = (value) => Math.min(paper.width - PEN, Math.max(PEN, value));
    [pen.x, pen.y] = [within(pen.x + STEP * arrow[0]), within(pen.y + STEP * arrow[1])];
    if (pen.down) strokes.at(-1).push([pen.x, pen.y]);
  } else {
    pen.down = !pen.down;
    if (pen.down) strokes.push([[pen.x, pen.y]]);
  }
  draw();
});
paper.addEventListener("blur", () => {
  pen.shown = pen.down = false;
  draw();
});

find("clear").addEventListener("click", clear);
find("example").addEventListener("click", () => {
  strokes = [[[80, 70], [200, 70], [170, 130], [140, 180], [120, 230]]];
  draw();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

for (let digit = 0; digit < 10; digit++) {
  const item = document.createElement("li");
  item.innerHTML = `<span>${digit}</span><span class="bar"><i></i></span><span class="number">0.0 %</span>`;
  find("chances").append(item);
}

start().catch((error) => {
  find("answer").textContent = error.message;
  document.body.dataset.ready = "failed";
  throw error;
});
