import { it } from 'vitest';
import { openCheckpoint } from '../../src/context/checkpoint.ts';
import { createWasmDigest64 } from '../../src/format/wasm-digest.ts';
import { TestStore } from '../support/test-store.ts';
it('x', async () => {
  const digest = await createWasmDigest64();
  for (let round = 0; round < 2; round++) {
  const store = new TestStore({ segments: false });
  let t = performance.now();
  const c = await openCheckpoint(store, { mode: 'save', digest });
  const ctx = await c.openContext('a');
  for (let i = 0; i < 100_000; i++) await ctx.save(`tag ${i}`, i);
  await ctx.close(); await c.commit();
  console.log('save 100k', (performance.now() - t).toFixed(0), 'ms', store.bytes!.length);
  t = performance.now();
  const l = await openCheckpoint(store, { mode: 'load', digest });
  const lc = await l.openContext('a'); await lc.loadAll(); await lc.close(); await l.finish();
  console.log('load 100k', (performance.now() - t).toFixed(0), 'ms');
  const big = new TestStore({ segments: false });
  const v = new Uint8Array(128 << 20);
  t = performance.now();
  const b = await openCheckpoint(big, { mode: 'save', digest });
  const bc = await b.openContext('a'); await bc.save('v', v); await bc.close(); await b.commit();
  console.log('save 128M', (performance.now() - t).toFixed(0), 'ms');
  t = performance.now();
  const bl = await openCheckpoint(big, { mode: 'load', digest });
  await bl.finish();
  console.log('load 128M', (performance.now() - t).toFixed(0), 'ms');
  }
});
