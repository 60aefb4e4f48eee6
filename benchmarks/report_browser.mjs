// Reports as a browser shows them: screenshots at two widths in light and dark, a PDF as printed, and what is
// wrong with them. Fails on a message on the console, a request to anywhere else, a page wider
// than its screen, or a violation that axe-core finds.
//
//     npm install puppeteer-core axe-core      (in a folder of its own, and Chromium beside it)
//     NODE_PATH=FOLDER/node_modules node report_browser.mjs CHROMIUM OUTPUT PAGE.html...

import { mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, dirname, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const require = createRequire(import.meta.url);
const puppeteer = require("puppeteer-core");
const axe = require.resolve("axe-core");

const [chromium, output, ...pages] = process.argv.slice(2);
if (!pages.length) {
  console.error("usage: node report_browser.mjs CHROMIUM OUTPUT PAGE.html...");
  process.exit(2);
}
mkdirSync(output, { recursive: true });
const browser = await puppeteer.launch({ executablePath: chromium, args: ["--no-sandbox"] });
const wrong = [];
for (const path of pages) {
  const url = pathToFileURL(resolve(path)).href;
  const name = `${basename(dirname(resolve(path)))}-${basename(path, ".html")}`;
  for (const width of [1280, 390]) {
    for (const theme of ["light", "dark"]) {
      const tab = await browser.newPage();
      const where = `${name}-${width}-${theme}`;
      tab.on("console", (message) => wrong.push(`${where}: console: ${message.text()}`));
      tab.on("pageerror", (error) => wrong.push(`${where}: ${error.message}`));
      tab.on("request", (request) => {
        if (request.url() !== url) wrong.push(`${where}: asks for ${request.url()}`);
      });
      await tab.setViewport({ width, height: 844, isMobile: width < 500 });
      await tab.emulateMediaFeatures([{ name: "prefers-color-scheme", value: theme }]);
      await tab.goto(url);
      await tab.screenshot({ path: join(output, `${where}.png`), fullPage: true });
      const over = await tab.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      if (over > 0) wrong.push(`${where}: ${over} px wider than the screen`);
      await tab.addScriptTag({ path: axe });
      const found = await tab.evaluate(() => globalThis.axe.run());
      for (const { id, help, nodes } of found.violations) {
        wrong.push(`${where}: axe: ${id}: ${help}: ${nodes[0].html.slice(0, 160)}`);
      }
      console.log(`${where}: axe-core passes ${found.passes.length} rules, fails ${found.violations.length}`);
      if (width === 1280 && theme === "light") await tab.pdf({ path: join(output, `${name}.pdf`), format: "A4" });
      await tab.close();
    }
  }
}
await browser.close();
for (const line of wrong) console.error(line);
process.exit(wrong.length ? 1 : 0);
