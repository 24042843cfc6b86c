/** The examples of docs/model.md are run as they stand. */
import { readFileSync } from 'node:fs';
import ts from 'typescript';
import { describe, expect, it } from 'vitest';
import { openCheckpoint } from '../../src/checkpoint/open.ts';
import * as state from '../../src/context/state.ts';

const text = readFileSync(new URL('../../docs/model.md', import.meta.url), 'utf8');
const examples = [...text.matchAll(/^```ts\n([\s\S]*?)^```$/gm)].map(([, code]) => code ?? '');
const titles = ['save', 'load', 'state', 'parts'];

/** Runs an example and gives back the variables named in `wanted`. */
async function run(code: string, wanted: readonly string[]): Promise<Record<string, unknown>> {
  const bindings = { openCheckpoint, ...state };
  const source = `return (async () => {\n${code}\nreturn { ${wanted.join(', ')} };\n})();`;
  const { outputText } = ts.transpileModule(source, { compilerOptions: { target: ts.ScriptTarget.ES2022 } });
  const action = new Function(...Object.keys(bindings), outputText);
  return await action(...Object.values(bindings));
}

describe('docs/model.md', () => {
  it('has the examples that are tested here', () => {
    expect(examples).toHaveLength(titles.length);
  });

  it('saves and commits', async () => {
    expect((await run(examples[0] ?? '', ['root']))['root']).toMatch(/^[0-9a-f]{64}$/);
  });

  it('loads what its comments say', async () => {
    const { counter, everything, tags, bytes } = await run(examples[1] ?? '', [
      'counter',
      'everything',
      'tags',
      'bytes',
    ]);
    expect(counter).toBe(0x1234n);
    expect(everything).toEqual({ counter: 0x1234n, mode: 3 });
    expect(tags).toHaveLength(2);
    expect(bytes).toBeGreaterThan(500);
  });

  it('restores a state', async () => {
    const { pit, restored } = await run(examples[2] ?? '', ['pit', 'restored']);
    expect(restored).toEqual(pit);
  });

  it('shares a context by prefixes', async () => {
    const { pciState } = await run(examples[3] ?? '', ['pciState']);
    expect((pciState as state.StateDefinition<unknown>).leaves.map(({ tag }) => tag)).toContain(
      'pci.bars[5]',
    );
  });
});
