// Bundles the web console into the folder given as the first argument, with the licences of the bundled packages.
import { build } from "esbuild";
import { copyFileSync, existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const out = process.argv[2];
if (!out) {
  console.error("usage: node build.mjs FOLDER");
  process.exit(2);
}
mkdirSync(out, { recursive: true });

const { metafile } = await build({
  entryPoints: { app: join(here, "src/main.tsx") },
  outdir: out,
  absWorkingDir: here,
  bundle: true,
  minify: true,
  format: "esm",
  target: ["es2022"],
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "none",
  metafile: true,
  logLevel: "warning",
});

for (const name of ["index.html", "icon.svg"]) copyFileSync(join(here, "src", name), join(out, name));

// Every package with a file in the bundle has its licence in licences.txt, and so have the packages that it needs,
// since some are published as a bundle with them.
const packages = new Set(
  Object.values(metafile.outputs)
    .flatMap((output) => Object.entries(output.inputs))
    .filter(([, use]) => use.bytesInOutput > 0)
    .map(([path]) => /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1])
    .filter(Boolean),
);
const described = (name) => JSON.parse(readFileSync(join(here, "node_modules", name, "package.json"), "utf8"));
// The loop also visits packages that it adds to the set itself.
for (const name of packages) for (const needed of Object.keys(described(name).dependencies ?? {})) packages.add(needed);
const notices = [...packages].sort().map((name) => {
  const folder = join(here, "node_modules", name);
  const { version, license } = described(name);
  const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
  if (!file) throw new Error(`${name} has no licence file`);
  return `${name} ${version} (${license})\n\n${readFileSync(join(folder, file), "utf8").trim()}\n`;
});
const head = "The web console contains these packages.\n";
writeFileSync(join(out, "licences.txt"), [head, ...notices].join(`\n${"-".repeat(80)}\n\n`));
if (!existsSync(join(out, "app.js"))) throw new Error("the bundle is missing");
