import { damageSuite } from './damage.suite.ts';
import { fileFactory } from './file-specimen.ts';

damageSuite('file:', 'one', async () => fileFactory('file', () => ['']));
