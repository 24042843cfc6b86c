// Says what is missing before a compiler does it in its own words.
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const sources = [
  'node_modules/lz4-sources/dependencies/lz4/lib/lz4.c',
  'node_modules/xxhash-sources/xxHash/xxhash.h',
];
const missing = sources.filter((path) => !existsSync(`${root}/${path}`));
if (missing.length > 0 && process.env.CHKPT_SYSTEM_LIBS !== '1') {
  console.error(
    `chkpt: the C sources ${missing.join(', ')} are missing: run npm ci, or set CHKPT_SYSTEM_LIBS=1 to build with the ` +
      "system's liblz4 and libxxhash",
  );
  process.exit(1);
}
