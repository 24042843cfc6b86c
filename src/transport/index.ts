/** Connections to other processes and machines: addresses, security, handshake, bytes. Knows nothing of checkpoints or migrations. */
export { type Address, absoluteAddress, formatAddress, parseAddress } from './address.ts';
export { connect } from './connect.ts';
export type { Connection, Peer, PeerIdentity } from './connection.ts';
export { decodeRefusal, encodeRefusal } from './handshake-message.ts';
export { type Listener, listen } from './listen.ts';
export { handshakeMsDefault, type LinkOptions, type ListenOptions } from './options.ts';
export type { CheckpointPurpose, MigrationPurpose, ProbePurpose, Purpose } from './purpose.ts';
export { readExactly } from './read-exactly.ts';
export type { PskOptions, SecurityOptions, TlsOptions } from './security.ts';
