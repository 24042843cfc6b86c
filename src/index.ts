/**
 * chkpt: checkpoints of virtual machines. See README.md and docs/.
 */

export {
  type CollectOptions,
  type CollectReport,
  collectGarbage,
  type Leftover,
} from './checkpoint/collect-garbage.ts';
export { type ConvertOptions, type ConvertReport, convertCheckpoint } from './checkpoint/convert.ts';
export { type DiffOptions, type DiffReport, diffCheckpoints, type RegionDiff } from './checkpoint/diff.ts';
export { type FlattenOptions, type FlattenReport, flattenCheckpoint } from './checkpoint/flatten.ts';
export type { IdentityOptions, IdentityReport, LoadAs } from './checkpoint/identity.ts';
export { type KeepLastOptions, type KeepLastReport, keepLast } from './checkpoint/keep-last.ts';
export type {
  LazyLoad,
  LazyOptions,
  LazyOutcome,
  ResidentReport,
  WorkingSetMode,
  WorkingSetOption,
} from './checkpoint/lazy-options.ts';
export type { ChangedOutcome, ChangedReport } from './checkpoint/load-changed.ts';
export { type LoadReport, type LoadVmOptions, loadVm } from './checkpoint/load-vm.ts';
export type { LiveOptions, LiveOutcome } from './checkpoint/memory-aside.ts';
export { type OpenForLoadOptions, type OpenForSaveOptions, openCheckpoint } from './checkpoint/open.ts';
export { Operation, type Progress } from './checkpoint/operation.ts';
export {
  type ReceiveCheckpointReport,
  type ReceiveOptions,
  type ReceiveTarget,
  receiveCheckpoint,
} from './checkpoint/relay.ts';
export {
  CheckpointRing,
  type RingEntry,
  type RingOptions,
  type RingSaveOptions,
  type RollbackReport,
} from './checkpoint/ring.ts';
export { type SaveReport, type SaveVmOptions, saveVm } from './checkpoint/save-vm.ts';
export type { MemoryRange, ScrubbedRange, ScrubOptions } from './checkpoint/scrub.ts';
export { openSharedImage, SharedImage, type SharedImageOptions } from './checkpoint/shared-image.ts';
export {
  inspectCheckpoint,
  type OpenInspection,
  type VerifyOptions,
  type VerifyReport,
  verifyCheckpoint,
} from './checkpoint/verify.ts';
export {
  type ChainVerifyReport,
  type VerifyChainOptions,
  verifyChain,
} from './checkpoint/verify-chain.ts';
export {
  type Core,
  type Device,
  decodeSkip,
  encodeSkip,
  type SkipPart,
  type StateContext,
  type StatePart,
  statePart,
  type VirtualMachine,
} from './checkpoint/virtual-machine.ts';
export type { IgnoredMismatch, VmHeader } from './checkpoint/vm-header.ts';
export type { SavableValue } from './context/auto-value.ts';
export type { LoadCheckpoint } from './context/load-checkpoint.ts';
export type { LoadContext, LoadExpectation, TagInfo } from './context/load-context.ts';
export type {
  MemoryFrameSink,
  MemoryFrameSource,
  MemoryRegion,
  MemoryTotals,
} from './context/memory-frames.ts';
export type { SaveCheckpoint, SaveContext } from './context/save-checkpoint.ts';
export {
  array,
  bool,
  bytes,
  defineState,
  type Field,
  f32,
  f64,
  i8,
  i16,
  i32,
  i64,
  OpenState,
  openState,
  StateDefinition,
  type StateOf,
  type StateOptions,
  string,
  struct,
  type TypedTags,
  u8,
  u16,
  u32,
  u64,
  vector,
} from './context/state.ts';
export {
  CheckpointError,
  type ErrorCode,
  type ErrorDetails,
  type ErrorEntry,
  type ErrorKind,
  errorTable,
} from './errors/index.ts';
export { type Gem5Options, gem5StoreFactory } from './foreign/gem5/gem5-store.ts';
export type { SkeletonReport } from './foreign/gem5/skeleton.ts';
export type { PalaciosContext, PalaciosRecord } from './foreign/palacios/record.ts';
export { openPalaciosStore, type PalaciosStoreOptions } from './foreign/palacios/register.ts';
export { type PalaciosUserOptions, palaciosUserStore } from './foreign/palacios/user-format.ts';
export type { PalaciosUserHandler } from './foreign/palacios/user-stream.ts';
export type { AnyValue, TypedValue, ValueType } from './format/value.ts';
export {
  type AllocateOptions,
  type AttachedRegion,
  type DecodeOptions,
  type DirtyTracker,
  type EncodeOptions,
  type FileRegion,
  GuestMemory,
  type LazyCounts,
  type MemoryScan,
  MemoryTracker,
  type MissingPages,
  PageDecoder,
  PageEncoder,
  PageSet,
  type RegionSpec,
  type TrackerKind,
  type TrackOptions,
  trackMemory,
  type WasmMemory,
} from './memory/index.ts';
export type { MachineOffer } from './migration/description.ts';
export {
  forgetMigration,
  listMigrations,
  type MigrationFacts,
  type MigrationTask,
  type PruneMigrationsOptions,
  pruneMigrations,
} from './migration/journals.ts';
export {
  type ArrivingGuest,
  type Downtime,
  type InDoubt,
  MigrationInDoubtError,
  type ReceiveReport,
  type RoundReport,
  type SendProgress,
  type SendReport,
  type TrackingReport,
} from './migration/outcome.ts';
export {
  type ReceivePalaciosOptions,
  type ReceivePalaciosReport,
  receivePalacios,
} from './migration/palacios/receive-palacios.ts';
export {
  type PalaciosRound,
  type SendPalaciosOptions,
  type SendPalaciosReport,
  sendPalacios,
} from './migration/palacios/send-palacios.ts';
export type {
  EncodingFacts,
  LinkFacts,
  Look,
  MigrationForecast,
  MigrationPlan,
  RoundForecast,
  WriteFacts,
} from './migration/plan/report.ts';
export { type ReceiveProgress, type ReceiveVmOptions, receiveVm } from './migration/receive-vm.ts';
export {
  type ResumeMigrationOptions,
  type ResumeProgress,
  type ResumeReport,
  resumeMigration,
} from './migration/resume-migration.ts';
export { type PlanVmOptions, type SendVmOptions, sendVm } from './migration/send-vm.ts';
export type { SafetyOptions, SafetyReport } from './migration/source/safety-checkpoint.ts';
export { hasNativeAddon } from './native/index.ts';
export {
  type Claim,
  type CommitSummary,
  defaultMemoryStoreSpace,
  type EncryptOptions,
  encrypted,
  type Integrity,
  type KeyRequest,
  type KeySource,
  keyIdOf,
  type MemoryHandOver,
  MemoryStoreSpace,
  memoryStoreFactory,
  openS3Store,
  openStore,
  openStreamStore,
  type ReceivedSummary,
  registeredSchemes,
  registerStore,
  type S3Settings,
  type SealAlgorithm,
  type SealKey,
  type Segment,
  type SegmentSummary,
  type Store,
  type StoreClaims,
  type StoredShares,
  type StoreExtent,
  type StoreFactory,
  type StoreReader,
  type StoreReadOptions,
  StoreRegistry,
  type StoreWriteOptions,
  type StoreWriter,
  type StreamStore,
  type StreamStoreOptions,
  type TeeOutcome,
  TeeStore,
} from './store/index.ts';
export type { PeerIdentity, PskOptions, Purpose, SecurityOptions, TlsOptions } from './transport/index.ts';
