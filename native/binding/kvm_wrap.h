// KvmMachine for JavaScript: a virtual machine under /dev/kvm. Errors of missing KVM:
// CHKPT_UNSUPPORTED.
//
//   kvmSupport(): {cpuid, xsaveBytes, xcrs, debugRegisters}
//   new KvmMachine(memory, {cpuid: Uint8Array[], ranges: [mmio, base, bytes][], ringEntries,
//                           onNews})   ringEntries: 0, or a power of two
//   resume() · pause(): Promise<void> · stop(): Promise<void> · msrs(): Uint32Array
//   getVcpu(core, part) · setVcpu(core, part, bytes) · getMsrs(core) · setMsrs(core, bytes)
//   getVm(part) · setVm(part, bytes) · getSerial() · setSerial(bytes) · setIrqLine(irq, high)
//   takeAccess() · answer(core, value: bigint) · takeSerialOutput() · feedSerial(bytes): number ·
//   takeEnd() · throttle(share) · openTracker(whether of the rings): DirtyTracker
//
// A machine that runs keeps its object and the event loop alive.
#pragma once

#include <napi.h>

namespace chkpt::binding {

// The exports above; where the core has no KVM, kvmSupport alone, which throws.
void DefineKvm(Napi::Env env, Napi::Object exports);

}  // namespace chkpt::binding
