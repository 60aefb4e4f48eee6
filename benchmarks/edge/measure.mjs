// From a file to the first answer, in Node and in browsers; worker.py does the same in Python.

const STEPS = ["read", "decode", "session", "first"];

/** An input that is the same everywhere: subjects.py has the same formula. */
function pattern(shape) {
  const count = shape.reduce((a, b) => a * b, 1);
  return Float32Array.from({ length: count }, (_, i) => Math.fround(Math.fround(((i * 37) % 101) / 50) - 1));
}

async function measure({ decode, toOnnx, ort, bytesOf }, name, kind, shape) {
  const marks = [performance.now()];
  const lap = () => marks.push(performance.now());
  const file = await bytesOf(`${name}.${kind}`);
  lap();
  const model = kind === "dcz" ? toOnnx(await decode(file)) : file;
  lap();
  const session = await ort.InferenceSession.create(model);
  lap();
  const input = new ort.Tensor("float32", pattern(shape), shape);
  const found = await session.run({ [session.inputNames[0]]: input });
  lap();
  const answer = Array.from(found[session.outputNames[0]].data);
  await session.release();
  return { ms: Object.fromEntries(STEPS.map((step, i) => [step, marks[i + 1] - marks[i]])), answer };
}

/** Let the subjects and the two kinds of files take turns; the first is not counted. */
export async function rounds(tools, shapes, repeats) {
  const found = Object.fromEntries(Object.keys(repeats).map((name) => [name, { dcz: [], onnx: [] }]));
  for (let turn = 0; turn <= Math.max(...Object.values(repeats)); turn++) {
    for (const [name, count] of Object.entries(repeats)) {
      if (turn > count) continue;
      for (const kind of turn % 2 ? ["dcz", "onnx"] : ["onnx", "dcz"]) {
        found[name][kind].push(await measure(tools, name, kind, shapes[name]));
      }
    }
  }
  return found;
}
