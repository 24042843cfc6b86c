/** Makes the stores of this folder known: imported for that by whoever resolves URLs. */
import { registerPalacios } from './palacios/register.ts';

registerPalacios();
