export type { SealAlgorithm } from './seal-header.ts';
export { type KeyRequest, type KeySource, keyIdOf, type SealKey, sealKeyBytes } from './seal-key.ts';
export { type EncryptOptions, encrypted } from './sealed-store.ts';
