/** The promises of every store, for the stores that come with chkpt and for one of a third party. */
import { gzipStoreFactory } from '../../examples/custom-store.ts';
import { encrypted, openStore, registerStore, StoreRegistry } from '../../src/store/index.ts';
import '../support/s3/credentials.ts';
import { MemoryStoreSpace, memoryStoreFactory } from '../../src/store/memory-store.ts';
import { describeStore } from '../conformance/store.suite.ts';
import { S3TestServer } from '../support/s3/server.ts';
import { StoreBehindConnection } from './support/behind-connection.ts';
import { listTree, makeFolder } from './support/folders.ts';

describeStore('mem:', { randomAccess: true }, () => {
  const space = new MemoryStoreSpace();
  const registry = new StoreRegistry();
  registry.register('mem', memoryStoreFactory(space));
  return { open: () => registry.open('mem:checkpoint'), remains: () => space.names() };
});

describeStore('file:', { randomAccess: true }, () => {
  const folder = makeFolder();
  return { open: () => openStore(`file:${folder}/vm.chkpt`), remains: () => listTree(folder) };
});

describeStore('dir:', { randomAccess: true }, () => {
  const folder = makeFolder();
  return { open: () => openStore(`dir:${folder}/vm`), remains: () => listTree(folder) };
});

describeStore('dir+pool:', { randomAccess: true }, () => {
  const folder = makeFolder();
  return {
    open: () => openStore(`dir+pool:${folder}/vm?pool=${folder}/pool`),
    // How many packs there are depends on what they have in common: pool-store.test.ts looks at them.
    remains: () => listTree(folder).filter((path) => !/^pool\/|\.pack$/.test(path)),
  };
});

registerStore('gzip', gzipStoreFactory);

describeStore(
  'of a third party (examples/custom-store.ts)',
  { randomAccess: false, removes: false, claims: false },
  () => {
    const folder = makeFolder();
    return { open: () => openStore(`gzip:${folder}/vm.chkpt.gz`), remains: () => listTree(folder) };
  },
);

describeStore('mem: behind unix:', { randomAccess: true, removes: false, claims: false }, () => {
  const folder = makeFolder();
  const space = new MemoryStoreSpace();
  let saves = 0;
  const path = (): string => {
    saves += 1;
    return `${folder}/${saves}`;
  };
  const inner = memoryStoreFactory(space);
  const registry = new StoreRegistry();
  registry.register('mem', (rest, url) => new StoreBehindConnection(inner(rest, url), path));
  return { open: () => registry.open('mem:checkpoint'), remains: () => space.names() };
});

describeStore('s3:', { randomAccess: true, removesWhenClosed: true }, async () => {
  const server = await S3TestServer.start();
  return { open: () => openStore(server.url('folder/vm')), remains: () => server.remains() };
});

const key = Buffer.alloc(32, 7);
// Smaller than the streams of the suite: several records, and the last one cut.
const sealOptions = { key, recordBytes: 4096 };

describeStore('encrypted mem:', { randomAccess: true }, () => {
  const space = new MemoryStoreSpace();
  const registry = new StoreRegistry();
  registry.register('mem', memoryStoreFactory(space));
  return {
    open: () =>
      encrypted(registry.open('mem:checkpoint'), { ...sealOptions, algorithm: 'chacha20-poly1305' }),
    remains: () => space.names(),
  };
});

describeStore('encrypted file:', { randomAccess: true }, () => {
  const folder = makeFolder();
  return {
    open: () => encrypted(`file:${folder}/vm.chkpt`, sealOptions),
    remains: () => listTree(folder),
  };
});

describeStore('encrypted file: with records of 256 KiB', { randomAccess: true }, () => {
  const folder = makeFolder();
  return { open: () => encrypted(`file:${folder}/vm.chkpt`, { key }), remains: () => listTree(folder) };
});

describeStore('encrypted dir:', { randomAccess: true }, () => {
  const folder = makeFolder();
  return { open: () => encrypted(`dir:${folder}/vm`, sealOptions), remains: () => listTree(folder) };
});

describeStore('encrypted, of a third party', { randomAccess: false, removes: false, claims: false }, () => {
  const folder = makeFolder();
  return {
    open: () => encrypted(`gzip:${folder}/vm.chkpt.gz`, sealOptions),
    remains: () => listTree(folder),
  };
});
