/** Makes the stores of this folder known: imported for that by whoever resolves URLs. */
import { registerStore } from '../store/index.ts';
import { gem5StoreFactory } from './gem5/gem5-store.ts';
import { registerPalacios } from './palacios/register.ts';

registerStore('gem5', gem5StoreFactory());
registerPalacios();
