import { defaultMemoryStoreSpace } from '../../src/store/index.ts';
import { damageSuite } from './damage.suite.ts';

damageSuite('mem:', 'every byte', async () => ({
  url: 'mem:sample',
  copy: async (lane) => {
    const name = `lane${lane}`;
    const bytes = defaultMemoryStoreSpace.bytes('sample') ?? new Uint8Array();
    const current = { bytes: bytes.slice() };
    defaultMemoryStoreSpace.put(name, current.bytes);
    const replace = (_: string, next: Uint8Array): void => {
      current.bytes = next.slice();
      defaultMemoryStoreSpace.put(name, current.bytes);
    };
    const poke = (_: string, offset: number, value: number): void => {
      current.bytes[offset] = value;
      defaultMemoryStoreSpace.put(name, current.bytes);
    };
    return { url: `mem:${name}`, parts: [{ name: 'stream', bytes }], replace, poke };
  },
  dispose: async () => {
    for (const name of defaultMemoryStoreSpace.names()) defaultMemoryStoreSpace.delete(name);
  },
}));
