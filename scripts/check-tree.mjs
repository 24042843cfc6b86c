// Keeps the tree as ARCHITECTURE.md says: imports point down, files stay small, every native source is listed.
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { posix } from 'node:path';

const linesMax = 450;

// From the bottom up; a folder imports itself and what stands before it. Same number: no order between them.
const layers = [
  ['errors', 'limits', 'util'],
  ['native'],
  ['format', 'transport'],
  ['store'],
  ['context'],
  ['memory'],
  ['foreign'],
  ['checkpoint'],
  ['migration'],
  ['index'],
  ['adapters'],
  ['cli'],
];
const levelOf = new Map(layers.flatMap((names, level) => names.map((name) => [name, level])));

const files = execFileSync('git', ['ls-files', '-co', '--exclude-standard'], { encoding: 'utf8' })
  .split('\n')
  .filter(Boolean);
const faults = [];

function layerOf(path) {
  return path
    .replace(/^src\//, '')
    .split('/')[0]
    .replace(/\.ts$/, '');
}

for (const file of files.filter((path) => /\.(ts|mjs|cc|h|py|sh)$/.test(path))) {
  let text;
  try {
    text = readFileSync(file, 'utf8');
  } catch {
    continue; // deleted, not committed yet
  }
  const lines = text.split('\n').length;
  if (lines > linesMax) faults.push(`${file}: ${lines} lines, more than ${linesMax}: split it by noun`);
  if (!file.startsWith('src/')) continue;
  const level = levelOf.get(layerOf(file));
  if (level === undefined) faults.push(`${file}: no layer of ARCHITECTURE.md`);
  for (const [, target] of text.matchAll(/from '(\.[^']+)'/g)) {
    const to = layerOf(posix.join(posix.dirname(file), target));
    if (to !== layerOf(file) && levelOf.get(to) > level)
      faults.push(`${file}: imports ${target}, a layer above`);
  }
}

for (const file of files.filter((path) => /^native\/(core|binding)\/.*\.h$/.test(path))) {
  const isCore = file.startsWith('native/core');
  if (isCore && /#include <(napi|node_api|uv)\.h>/.test(readFileSync(file, 'utf8'))) {
    faults.push(`${file}: the core does not know Node`);
  }
}

const listed = new Set(Object.values(JSON.parse(readFileSync('native/sources.json', 'utf8'))).flat());
for (const file of files.filter((path) => /^native\/.*\.cc$/.test(path))) {
  if (!listed.has(file)) faults.push(`${file}: not in native/sources.json`);
}

for (const fault of faults) console.error(fault);
process.exit(faults.length === 0 ? 0 : 1);
