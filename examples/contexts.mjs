/**
 * The model without a machine: a store holds a checkpoint, a checkpoint holds contexts, a context holds tags.
 *
 *     node examples/contexts.mjs
 *
 * One definition drives both save and load. Values keep their types, and every broken rule has its error.
 */
import assert from 'node:assert/strict';
import { array, bytes, defineState, inspectCheckpoint, openCheckpoint, string, u8, u16 } from 'chkpt';

const url = 'mem:contexts';
const timerState = defineState({ mode: string, channels: array(2, { count: u16, gate: u8 }) });
const timer = {
  mode: 'periodic',
  channels: [
    { count: 11_932, gate: 1 },
    { count: 18, gate: 0 },
  ],
};

// A device class and a device in one context: prefixes keep their tags apart.
const pciState = defineState({ vendor: u16, device: u16 }, { prefix: 'pci.' });
const nicState = defineState({ address: bytes(6) }, { prefix: 'nic.' });

const checkpoint = await openCheckpoint(url, { mode: 'save' });

const pic = await checkpoint.openContext('pic');
await pic.save('irr', Uint8Array.of(0x20, 0x00)); // a tag of your own
await pic.saveAll({ isr: 0, imr: 0xfb, base: 1n << 40n }); // or one for each property
await pic.save('edge', { type: 'u8', value: 3 }); // or with a type
await pic.close();

const pit = await checkpoint.openContext('pit');
await pit.save(timerState, timer);
await pit.close();

const nic = await checkpoint.openContext('nic');
await nic.save(pciState, { vendor: 0x8086, device: 0x100e });
await nic.save(nicState, { address: Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x56) });
await assert.rejects(checkpoint.openContext('disk'), { code: 'CHKPT_CONTEXT_OPEN' }); // one at a time
await nic.close();
await assert.rejects(checkpoint.openContext('pic'), { code: 'CHKPT_CONTEXT_REOPENED' }); // never twice

await checkpoint.commit(); // nothing was visible before

const inspection = await inspectCheckpoint(url);
for (const context of inspection.contexts) {
  console.log(context.name);
  for (const { name, type, dataBytes } of context.tags) {
    console.log(`  ${name.padEnd(18)} ${type.padEnd(6)} ${dataBytes} bytes`);
  }
}
await inspection.close();

const loaded = await openCheckpoint(url, { mode: 'load' });
const loadedNic = await loaded.openContext('nic'); // in any order
assert.deepEqual(await loadedNic.load(pciState), { vendor: 0x8086, device: 0x100e });
await loadedNic.close();

const loadedPit = await loaded.openContext('pit');
assert.deepEqual(await loadedPit.load(timerState), timer);
await loadedPit.close();

const loadedPic = await loaded.openContext('pic');
assert.equal(await loadedPic.load('imr'), 0xfb);
await assert.rejects(loadedPic.load('edge', { type: 'u16' }), { code: 'CHKPT_TAG_TYPE' });
await assert.rejects(loadedPic.load('icw'), { code: 'CHKPT_NO_TAG' });
await loadedPic.close();

const { root } = await loaded.finish(); // now the whole checkpoint is known to be sound
await loaded.close();
console.log(`loaded and verified, root digest ${root}`);
