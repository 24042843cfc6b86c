/** What a QEMU is, as far as it matters for loading its device state: read over QMP, saved, and compared on load. */
import { CheckpointError, defineState, type ErrorCode, type StateOf, string, u32, u64 } from '../../index.ts';
import { countOf, fieldsOf, listOf, textOf } from './answer.ts';
import type { QmpClient } from './qmp-client.ts';

/** Tags of the context `qemu`, beside the device state itself. */
export const factFields = {
  version: string,
  machine: string,
  accelerator: string,
  cpu: { type: string, features: string, count: u32 },
  ram: { backend: string, bytes: u64 },
  devices: string,
} as const;

const factState = defineState(factFields);

export type QemuFacts = StateOf<typeof factState>;

export interface QemuIdentity {
  /** Value of `-name`, if there is one. */
  readonly name: string | undefined;
  /** Architecture of the guest: `x86_64`. */
  readonly architecture: string;
  readonly facts: QemuFacts;
}

/** Throws `CHKPT_QEMU_MEMORY` when RAM is no shared memory-backend, and what `QmpClient.execute` throws. */
export async function readIdentity(qmp: QmpClient): Promise<QemuIdentity> {
  const { name } = fieldsOf(await qmp.execute('query-name'));
  const { arch } = fieldsOf(await qmp.execute('query-target'));
  const { enabled } = fieldsOf(await qmp.execute('query-kvm'));
  const cpu = await readCpu(qmp);
  return {
    name: typeof name === 'string' ? name : undefined,
    architecture: textOf(arch),
    facts: {
      version: qmp.version,
      machine: textOf(await getProperty(qmp, '/machine', 'type')),
      accelerator: enabled === true ? 'kvm' : 'tcg',
      cpu,
      ram: await readBackend(qmp),
      devices: await readDevices(qmp),
    },
  };
}

export function getProperty(qmp: QmpClient, path: string, property: string): Promise<unknown> {
  return qmp.execute('qom-get', { path, property });
}

/** The objects below `path`: name and type. */
export async function childrenOf(
  qmp: QmpClient,
  path: string,
): Promise<{ readonly name: string; readonly type: string }[]> {
  const entries = listOf(await qmp.execute('qom-list', { path })).map((entry) => fieldsOf(entry));
  return entries.flatMap(({ name, type }) => {
    const child = /^child<(.+)>$/.exec(textOf(type))?.[1];
    return child === undefined ? [] : [{ name: textOf(name), type: child }];
  });
}

async function readCpu(qmp: QmpClient): Promise<QemuFacts['cpu']> {
  const cpus = listOf(await qmp.execute('query-cpus-fast')).map((cpu) => fieldsOf(cpu));
  const path = textOf(cpus[0]?.['qom-path']);
  const type = textOf(await getProperty(qmp, path, 'type'));
  return { type, features: await readFeatures(qmp, path), count: cpus.length };
}

/** CPUID words that `-cpu` has chosen; QEMU itself does not notice when they differ. Empty for other architectures. */
async function readFeatures(qmp: QmpClient, path: string): Promise<string> {
  const properties = listOf(await qmp.execute('qom-list', { path })).map((entry) => fieldsOf(entry));
  if (!properties.some(({ name }) => name === 'feature-words')) return '';
  const words = listOf(await getProperty(qmp, path, 'feature-words')).map((word) => fieldsOf(word));
  const shown = words.map(
    ({ 'cpuid-input-eax': leaf, 'cpuid-input-ecx': index, 'cpuid-register': register, features }) => {
      const place = `${countOf(leaf).toString(16)}${index === undefined ? '' : `.${countOf(index)}`}`;
      return `${place}.${textOf(register)}=${countOf(features).toString(16)}`;
    },
  );
  return shown.sort().join(' ');
}

async function readBackend(qmp: QmpClient): Promise<QemuFacts['ram']> {
  const backends = listOf(await qmp.execute('query-memdev')).map((backend) => fieldsOf(backend));
  const path = textOf(await getProperty(qmp, '/machine', 'memory-backend'));
  const id = /^\/objects\/([^/]+)$/.exec(path)?.[1];
  const backend = backends.find(({ id: one }) => one === id);
  if (id === undefined || backend === undefined) {
    const what =
      backends.length > 1
        ? 'RAM has several memory-backends (-numa memdev=): only one is supported'
        : 'RAM is not a memory-backend: -machine memory-backend=ID is missing';
    throw new CheckpointError('CHKPT_QEMU_MEMORY', what);
  }
  const { share, size } = backend;
  if (share !== true) {
    const what = `RAM is private to QEMU: share=on is missing in -object memory-backend-…,id=${id} (or share=off is there)`;
    throw new CheckpointError('CHKPT_QEMU_MEMORY', what);
  }
  return { backend: id, bytes: BigInt(countOf(size)) };
}

const containers = ['/machine/peripheral', '/machine/peripheral-anon', '/machine/unattached'];
/** Types of children that are no devices but parts of one. */
const noDevices = new Set(['irq', 'memory-region', 'qemu:memory-region', 'container']);

/** Devices of the machine, with the names their user gave them, in an order that does not depend on QEMU's. */
async function readDevices(qmp: QmpClient): Promise<string> {
  const devices: string[] = [];
  for (const path of containers) {
    for (const { name, type } of await childrenOf(qmp, path)) {
      if (!noDevices.has(type)) devices.push(path.endsWith('peripheral') ? `${type} id=${name}` : type);
    }
  }
  return devices.sort().join('\n');
}

export interface CompareOptions {
  /** Accept the state of another QEMU version; QEMU itself refuses what it cannot read. */
  readonly anyVersion: boolean;
}

/** Throws `CHKPT_VM_MACHINE`, `CHKPT_VM_CPU`, `CHKPT_VM_CORES`, `CHKPT_VM_DEVICES`. */
export function compareFacts(saved: QemuFacts, actual: QemuFacts, { anyVersion }: CompareOptions): void {
  const check = (code: ErrorCode, tag: string, what: string, one: unknown, other: unknown): void => {
    if (one === other) return;
    throw new CheckpointError(code, `the checkpoint is of a QEMU with another ${what}`, {
      details: { context: 'qemu', tag, expected: String(other), actual: String(one) },
    });
  };
  if (!anyVersion) check('CHKPT_VM_MACHINE', 'version', 'version', saved.version, actual.version);
  check('CHKPT_VM_MACHINE', 'machine', 'machine type (-machine)', saved.machine, actual.machine);
  check('CHKPT_VM_MACHINE', 'accelerator', 'accelerator', saved.accelerator, actual.accelerator);
  check('CHKPT_VM_CPU', 'cpu.type', 'CPU (-cpu)', saved.cpu.type, actual.cpu.type);
  check(
    'CHKPT_VM_CPU',
    'cpu.features',
    'set of CPU features (-cpu)',
    saved.cpu.features,
    actual.cpu.features,
  );
  check('CHKPT_VM_CORES', 'cpu.count', 'number of CPUs (-smp)', saved.cpu.count, actual.cpu.count);
  check('CHKPT_VM_MACHINE', 'ram.backend', 'memory-backend id', saved.ram.backend, actual.ram.backend);
  check('CHKPT_VM_REGIONS', 'ram.bytes', 'size of RAM (-m)', saved.ram.bytes, actual.ram.bytes);
  compareDevices(saved.devices, actual.devices);
}

function compareDevices(saved: string, actual: string): void {
  if (saved === actual) return;
  const [before, now] = [saved, actual].map((text) => text.split('\n')) as [string[], string[]];
  const missing = before.find((one) => countIn(before, one) > countIn(now, one));
  const surplus = now.find((one) => countIn(now, one) > countIn(before, one));
  const what = missing === undefined ? `${surplus} is too much here` : `${missing} is missing here`;
  throw new CheckpointError('CHKPT_VM_DEVICES', `the checkpoint is of a QEMU with other devices: ${what}`, {
    details: { context: 'qemu', tag: 'devices' },
  });
}

function countIn(list: readonly string[], wanted: string): number {
  return list.filter((one) => one === wanted).length;
}
