/**
 * What an access of a KVM guest costs that a JavaScript device handler serves, beside one that the native side serves (a
 * register of the serial port), and a loop of the guest without any.
 *
 *   npm run bench:kvm -- [--runs N] [--milliseconds N]
 *
 * guests/port-reads.S reads a port for ever; each run lets it work for a while and counts its rounds.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { guestOptions, whyNoKvm } from './guests/kvm.ts';
import { type Contender, interleave } from './interleave.ts';
import { median, type Summary, summarize } from './statistics.ts';

const { KvmVm } = await import('../src/adapters/kvm/index.ts');

const { values } = parseArgs({
  options: { runs: { type: 'string', default: '7' }, milliseconds: { type: 'string', default: '300' } },
});
const missing = await whyNoKvm();
if (missing !== undefined) {
  console.log(`skipped: ${missing}`);
  process.exit(3);
}

const roundsAddress = 0x30_0000;
const portAddress = 0x30_0004;
const javaScriptPort = 0x510;
const scratchRegister = 0x3ff;
const none = 0;

await using vm = await KvmVm.create({
  ...guestOptions('port-reads'),
  devices: [
    {
      id: 'counter',
      deviceClass: 'bench.counter',
      ports: { first: javaScriptPort, count: 4 },
      read: () => 0,
      write: () => undefined,
    },
  ],
});

/** Seconds and CPU seconds of one round of the guest that reads `port`. */
async function round(port: number): Promise<{ seconds: number; cpuSeconds: number }> {
  vm.memory.write(portAddress, new Uint8Array(Uint32Array.of(port).buffer));
  const count = (): number => Buffer.from(vm.memory.read(roundsAddress, 4)).readUInt32LE();
  const before = count();
  const cpuBefore = process.cpuUsage();
  const begin = performance.now();
  await vm.resume();
  await sleep(Number(values.milliseconds));
  await vm.pause();
  const seconds = (performance.now() - begin) / 1000;
  const { user, system } = process.cpuUsage(cpuBefore);
  const rounds = (count() - before) >>> 0;
  if (rounds === 0) throw new Error(`the guest did no round with port ${port}`);
  return { seconds: seconds / rounds, cpuSeconds: (user + system) / 1e6 / rounds };
}

const reading = <Name extends string>(name: Name, port: number): Contender<Name> => ({
  name,
  run: () => round(port),
});
const { baselines, subjects } = await interleave({
  runs: Number(values.runs),
  baselines: [reading('native', scratchRegister), reading('none', none)],
  subjects: [reading('JavaScript', javaScriptPort)],
});
const microseconds = ({ median, min, max }: Summary): string =>
  [median, min, max].map((value) => (value * 1e6).toFixed(2)).join(' / ');
const show = (what: string, costs: readonly { seconds: number; cpuSeconds?: number }[]): void => {
  const cpu = median(costs.map(({ cpuSeconds = 0 }) => cpuSeconds)) * 1e6;
  const wall = microseconds(summarize(costs.map(({ seconds }) => seconds)));
  console.log(`${what.padEnd(28)} ${wall.padEnd(26)} CPU ${cpu.toFixed(2)}`);
};
const served = subjects.get('JavaScript') ?? [];
const native = baselines.get('native') ?? [];
console.log('µs for one round of the guest: median / least / most');
show('no access', baselines.get('none') ?? []);
show('served by native code', native);
show('served by JavaScript', served);
const ratios = summarize(
  served.map(
    ({ seconds }, i) => seconds / Math.sqrt((native[i]?.seconds ?? 0) * (native[i + 1]?.seconds ?? 0)),
  ),
);
console.log(
  `JavaScript / native          ${ratios.median.toFixed(1)} × [${ratios.min.toFixed(1)}–${ratios.max.toFixed(1)}]`,
);
