/** Several outputs appear together or not at all. */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { OutputFiles } from '../../src/cli/output-files.ts';
import { listTree, makeFolder } from './support/folders.ts';

const uuid = '01234567-89ab-4def-8123-456789abcdef';
const never = new AbortController().signal;

async function write(files: OutputFiles, path: string, text: string): Promise<void> {
  await files.write(await files.create(path), Buffer.from(text));
}

function makeOutputs(): OutputFiles {
  return new OutputFiles(uuid, 'file:vm.chkpt');
}

test('when one output cannot get its name the older files come back and the new ones go', async () => {
  const folder = makeFolder();
  writeFileSync(`${folder}/a`, 'older');
  const files = makeOutputs();
  for (const name of ['a', 'b', 'c']) await write(files, `${folder}/${name}`, `new ${name}`);
  expect(readFileSync(`${folder}/a`, 'utf8')).toBe('older');
  // A folder cannot be replaced by a file.
  mkdirSync(`${folder}/c`);
  await expect(files.publish(never)).rejects.toMatchObject({ details: { path: `${folder}/c` } });
  expect(readFileSync(`${folder}/a`, 'utf8')).toBe('older');
  await files.discard();
  expect(listTree(folder)).toEqual(['a', 'c/']);

  rmSync(`${folder}/c`, { recursive: true });
  const again = makeOutputs();
  for (const name of ['a', 'b', 'c']) await write(again, `${folder}/${name}`, `new ${name}`);
  await again.publish(never);
  await again.discard();
  expect(listTree(folder)).toEqual(['a', 'b', 'c']);
  expect(readFileSync(`${folder}/a`, 'utf8')).toBe('new a');
});

test('a cancelled publication changes nothing', async () => {
  const folder = makeFolder();
  const files = makeOutputs();
  await write(files, `${folder}/a`, 'new');
  await expect(files.publish(AbortSignal.abort())).rejects.toMatchObject({ code: 'CHKPT_ABORTED' });
  await files.discard();
  expect(listTree(folder)).toEqual([]);
});

test('an output that another process of this checkpoint is writing is refused and left alone', async () => {
  const folder = makeFolder();
  const first = makeOutputs();
  await first.create(`${folder}/a`);
  const second = makeOutputs();
  await expect(second.create(`${folder}/a`)).rejects.toMatchObject({
    code: 'CHKPT_IO',
    cause: { code: 'EEXIST' },
  });
  await second.discard();
  expect(listTree(folder)).toHaveLength(1);
  await first.discard();
  expect(listTree(folder)).toEqual([]);
});
