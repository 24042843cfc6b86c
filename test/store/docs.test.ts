/** docs/stores.md shows what is really there. */
import { execFileSync, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { openStore } from '../../src/store/index.ts';
import { makeFolder } from './support/folders.ts';
import { isSame, sampleStream, save } from './support/sample-stream.ts';

const page = readFileSync(new URL('../../docs/stores.md', import.meta.url), 'utf8');
const hasJq = spawnSync('jq', ['--version']).status === 0;
if (!hasJq) console.warn('the commands of docs/stores.md are not tested: there is no jq');

test('the example in the document is the tested file', () => {
  const file = readFileSync(new URL('../../examples/custom-store.ts', import.meta.url), 'utf8');
  const code = file.slice(file.indexOf('export const'));
  expect(page).toContain(`\`\`\`ts\n${code}\`\`\`\n`);
});

test.skipIf(!hasJq)('the commands in the document check a manifest and join its files', async () => {
  const commands = /```sh\n(.*?)```/s.exec(page)?.[1]?.split('\n') ?? [];
  const folder = makeFolder();
  const stream = sampleStream('docs');
  await save(openStore(`dir:${folder}/vm`), stream);
  const run = (command = '') =>
    execFileSync('sh', ['-c', command], { cwd: `${folder}/vm`, encoding: 'utf8' });
  const { digest } = JSON.parse(readFileSync(`${folder}/vm/MANIFEST.json`, 'utf8'));
  expect(run(commands[0])).toMatch(new RegExp(`^${digest} `));
  run(commands[1]);
  expect(isSame(readFileSync(`${folder}/vm/vm.chkpt`), stream.bytes)).toBe(true);
});
