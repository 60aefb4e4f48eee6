// Serves the demo on this machine, without the network: npm start, then http://localhost:8080/demo/
// Of onnxruntime-web, which npm install brings, it serves what is in its dist.

import { createReadStream, existsSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { dirname, extname, join, normalize, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const root = dirname(here);
const KINDS = {
  ...{ ".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript", ".mjs": "text/javascript" },
  ...{ ".json": "application/json", ".wasm": "application/wasm" },
};

/** Where onnxruntime-web's files are: below this package, or in a folder that holds node_modules. */
function runtime(modules) {
  const places = [createRequire(join(resolve(modules), "x.js")), createRequire(import.meta.url)];
  for (const place of places) {
    try {
      return dirname(place.resolve("onnxruntime-web/wasm"));
    } catch {
      continue;
    }
  }
  throw new Error("onnxruntime-web is not installed: npm install");
}

/** Serve the package, at /ort/ the runtime, and at /files/ another folder, if there is one. */
export async function serve({ port = 0, modules = root, files } = {}) {
  const places = { ort: runtime(modules), ...(files && { files: resolve(files) }) };
  const server = createServer((request, response) => {
    const path = normalize(decodeURIComponent(new URL(request.url, "http://localhost").pathname)).slice(1);
    const first = path.split("/")[0];
    const file = first in places ? join(places[first], path.slice(first.length)) : join(root, path);
    const found = [file, join(file, "index.html")].find((each) => existsSync(each) && statSync(each).isFile());
    if (path === "" || path === "demo") return response.writeHead(302, { location: "/demo/" }).end();
    if (!found) return response.writeHead(404).end("not found");
    const kind = KINDS[extname(found)] ?? "application/octet-stream";
    response.writeHead(200, { "content-type": kind, "content-length": statSync(found).size, "cache-control": "no-store" });
    return createReadStream(found).pipe(response);
  });
  await new Promise((done) => server.listen(port, "127.0.0.1", done));
  return { server, url: `http://127.0.0.1:${server.address().port}` };
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const { url } = await serve({ port: Number(process.env.PORT ?? 8080) });
  console.log(`${url}/demo/`);
}
