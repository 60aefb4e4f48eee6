// Compiles edge/c to WebAssembly, and writes it to dcz.wasm.js as text, so that it needs no fetch:
//
//     npm run build        (needs clang and wasm-ld, LLVM 14 or newer)
//
// The same compiler gives the same bytes. Tests write elsewhere: build.mjs OUTPUT.wasm.js [FLAG...]

import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const edge = join(here, "..", "c");
const core = join(here, "..", "..", "compressor", "coding", "core");
const [output = join(here, "dcz.wasm.js"), ...more] = process.argv.slice(2);

const sources = readdirSync(edge).filter((name) => name.endsWith(".c") && name !== "example.c");
const files = [...sources.sort().map((name) => join(edge, name)), join(core, "context.c"), join(here, "wasm.c")];
const flags = [
  ...["--target=wasm32", "-std=c11", "-Os", "-mbulk-memory", "-nostdlib"],
  ...["-Wall", "-Wextra", "-Werror", "-isystem", join(edge, "bare"), "-I", edge, "-I", core],
  // Under its data lies the stack, so that one that is too deep traps and overwrites nothing.
  ...["-Wl,--no-entry", "-Wl,--strip-all", "-Wl,--stack-first", "-Wl,-z,stack-size=65536"],
  ...["-Wl,--export=__heap_base"],
];

const folder = mkdtempSync(join(tmpdir(), "dcz-"));
try {
  const binary = join(folder, "dcz.wasm");
  execFileSync("clang", [...flags, ...more, ...files, "-o", binary], { stdio: "inherit" });
  const version = execFileSync("clang", ["--version"], { encoding: "utf8" }).match(/version ([\d.]+)/)[1];
  const bytes = readFileSync(binary);
  const lines = bytes.toString("base64").match(/.{1,120}/g).map((line) => `  "${line}",`);
  const text = [
    `// Made by build.mjs from edge/c: clang ${version}, ${bytes.length} bytes. Not to be edited.`,
    "export default [",
    ...lines,
    '].join("");',
    "",
  ].join("\n");
  writeFileSync(output, text);
  console.log(`${bytes.length} bytes of WebAssembly, ${text.length} as text`);
} finally {
  rmSync(folder, { recursive: true });
}
