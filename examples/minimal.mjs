import { defineState, GuestMemory, loadVm, saveVm, u64 } from 'chkpt';

class Machine {
  id = 'vm';
  cpu = { vendor: 'acme', model: 'one' };
  cores = [];
  memory = GuestMemory.allocate([{ base: 0, bytes: 256 * 1024 * 1024 }]);
  ticks = 0n;
  timer = { state: defineState({ ticks: u64 }), get: () => this, set: (saved) => Object.assign(this, saved) };
  devices = [{ id: 'timer', deviceClass: 'timer', contexts: [{ name: 'timer', parts: [this.timer] }] }];
  beginLoad = () => this.endLoad(new Error('half loaded'));
  endLoad = (failure) => Object.assign(this, { failure });
}

const [source, target] = [new Machine(), new Machine()];
source.memory.write(0x1000, Buffer.from('hello'));
source.ticks = 42n;
await saveVm(source, 'file:minimal.chkpt');
await loadVm(target, 'file:minimal.chkpt');
console.log(target.ticks, (await target.memory.digest()) === (await source.memory.digest()));
