// Runs in a folder where the package was installed: what a user does first.
import {
  GuestMemory,
  hasNativeAddon,
  openCheckpoint,
  PageDecoder,
  PageEncoder,
  verifyCheckpoint,
} from 'chkpt';
// What they adapt to is not installed here.
import { KvmVm } from 'chkpt/kvm';
import { QemuVm } from 'chkpt/qemu';
import { SyntheticVm } from 'chkpt/synthetic';
import { V86Vm } from 'chkpt/v86';

const regions = [{ base: 0, bytes: 8 << 20 }];
const memory = GuestMemory.allocate(regions);
for (let i = 0; i < 500; i += 1) memory.write(i * 9000, new Uint8Array(3000).fill(i % 7));

const save = await openCheckpoint('file:store/a.chkpt', { mode: 'save' });
await save.saveMemory('memory', new PageEncoder(memory));
await save.commit();

const copy = GuestMemory.allocate(regions);
const load = await openCheckpoint('file:store/a.chkpt', { mode: 'load' });
await load.loadMemory('memory', new PageDecoder(copy));
await load.finish();
await load.close();

const equal = (await memory.digest()) === (await copy.digest());
const { counts } = await verifyCheckpoint('file:store/a.chkpt');
const adapters = [KvmVm, QemuVm, SyntheticVm, V86Vm].map(({ name }) => name);
console.log(JSON.stringify({ adapters, native: hasNativeAddon(), equal, verified: counts.pages === 2048 }));
