import { fileURLToPath } from 'node:url';

/** The addon of this checkout, as node-gyp builds it. */
export const addonPath: string = fileURLToPath(new URL('../../../build/Release/chkpt.node', import.meta.url));
