import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { damageSuite } from './damage.suite.ts';
import { fileFactory } from './file-specimen.ts';

damageSuite('dir:', 'sample', async () =>
  fileFactory('dir', (path) => {
    const { generation } = JSON.parse(readFileSync(join(path, 'MANIFEST.json'), 'utf8')) as {
      generation: string;
    };
    return ['MANIFEST.json', ...readdirSync(join(path, generation)).map((name) => join(generation, name))];
  }),
);
