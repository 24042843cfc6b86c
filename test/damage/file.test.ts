import { damageSuite } from './damage.suite.ts';
import { fileFactory } from './file-specimen.ts';

damageSuite('file:', 'sample', async () => fileFactory('file', () => ['']));
