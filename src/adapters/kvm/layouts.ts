/**
 * What KVM's structs hold, in the names of the kernel: Linux, Documentation/virt/kvm/api.rst and
 * arch/x86/include/uapi/asm/kvm.h.
 */
import { type MemberTable, repeat, StructLayout } from './struct-layout.ts';

const segment: MemberTable = {
  base: 'u64',
  limit: 'u32',
  selector: 'u16',
  type: 'u8',
  present: 'u8',
  dpl: 'u8',
  db: 'u8',
  s: 'u8',
  l: 'u8',
  g: 'u8',
  avl: 'u8',
  unusable: 'u8',
  padding: 'pad:1',
};

const table: MemberTable = { base: 'u64', limit: 'u16', padding: 'pad:6' };

export const regsLayout: StructLayout = new StructLayout(
  Object.fromEntries(
    'rax rbx rcx rdx rsi rdi rsp rbp r8 r9 r10 r11 r12 r13 r14 r15 rip rflags'
      .split(' ')
      .map((name) => [name, 'u64']),
  ),
  144,
);

export const sregsLayout: StructLayout = new StructLayout(
  {
    cs: segment,
    ds: segment,
    es: segment,
    fs: segment,
    gs: segment,
    ss: segment,
    tr: segment,
    ldt: segment,
    gdt: table,
    idt: table,
    cr0: 'u64',
    cr2: 'u64',
    cr3: 'u64',
    cr4: 'u64',
    cr8: 'u64',
    efer: 'u64',
    apic_base: 'u64',
    interrupt_bitmap: 'u64[4]',
  },
  312,
);

export const mpStateLayout: StructLayout = new StructLayout({ mp_state: 'u32' }, 4);

export const fpuLayout: StructLayout = new StructLayout(
  {
    fpr: 'u8[128]',
    fcw: 'u16',
    fsw: 'u16',
    ftwx: 'u8',
    pad1: 'pad:1',
    last_opcode: 'u16',
    last_ip: 'u64',
    last_dp: 'u64',
    xmm: 'u8[256]',
    mxcsr: 'u32',
    pad2: 'pad:4',
  },
  416,
);

/** The area of XSAVE: 4 KiB, or more where the processor has more state. */
export function xsaveLayout(byteLength: number): StructLayout {
  return new StructLayout({ region: `u32[${byteLength / 4}]` }, byteLength);
}

export const xcrsLayout: StructLayout = new StructLayout(
  {
    nr_xcrs: 'u32',
    flags: 'u32',
    xcrs: repeat(16, { xcr: 'u32', reserved: 'pad:4', value: 'u64' }),
    padding: 'pad:128',
  },
  392,
);

export const debugLayout: StructLayout = new StructLayout(
  { db: 'u64[4]', dr6: 'u64', dr7: 'u64', flags: 'u64', reserved: 'pad:72' },
  128,
);

/** Register n of the APIC is element 4 n. */
export const lapicLayout: StructLayout = new StructLayout({ regs: 'u32[256]' }, 1024);

export const eventsLayout: StructLayout = new StructLayout(
  {
    exception: { injected: 'u8', nr: 'u8', has_error_code: 'u8', pending: 'u8', error_code: 'u32' },
    interrupt: { injected: 'u8', nr: 'u8', soft: 'u8', shadow: 'u8' },
    nmi: { injected: 'u8', pending: 'u8', masked: 'u8', pad: 'pad:1' },
    sipi_vector: 'u32',
    flags: 'u32',
    smi: { smm: 'u8', pending: 'u8', smm_inside_nmi: 'u8', latched_init: 'u8' },
    triple_fault: { pending: 'u8' },
    reserved: 'pad:26',
    exception_has_payload: 'u8',
    exception_payload: 'u64',
  },
  64,
);

export const picLayout: StructLayout = new StructLayout(
  {
    last_irr: 'u8',
    irr: 'u8',
    imr: 'u8',
    isr: 'u8',
    priority_add: 'u8',
    irq_base: 'u8',
    read_reg_select: 'u8',
    poll: 'u8',
    special_mask: 'u8',
    init_state: 'u8',
    auto_eoi: 'u8',
    rotate_on_auto_eoi: 'u8',
    special_fully_nested_mode: 'u8',
    init4: 'u8',
    elcr: 'u8',
    elcr_mask: 'u8',
  },
  16,
);

export const ioapicLayout: StructLayout = new StructLayout(
  { base_address: 'u64', ioregsel: 'u32', id: 'u32', irr: 'u32', pad: 'pad:4', redirtbl: 'u64[24]' },
  216,
);

/** `count_load_time` is a time of the host's, and the kernel takes its own when it is given the state. */
export const pitLayout: StructLayout = new StructLayout(
  {
    channels: repeat(3, {
      count: 'u32',
      latched_count: 'u16',
      count_latched: 'u8',
      status_latched: 'u8',
      status: 'u8',
      read_state: 'u8',
      write_state: 'u8',
      write_latch: 'u8',
      rw_mode: 'u8',
      mode: 'u8',
      bcd: 'u8',
      gate: 'u8',
      count_load_time: 'pad:8',
    }),
    flags: 'u32',
    reserved: 'pad:36',
  },
  112,
);

/** Only the guest's time is state: the rest says what the host's clocks were. */
export const clockLayout: StructLayout = new StructLayout({ clock: 'u64', host: 'pad:40' }, 48);

/** `UartState` of native/core/kvm/uart_16550.h. */
export const serialLayout: StructLayout = new StructLayout(
  {
    interrupt_enable: 'u8',
    fifo_control: 'u8',
    line_control: 'u8',
    modem_control: 'u8',
    scratch: 'u8',
    divisor_low: 'u8',
    divisor_high: 'u8',
    transmit_interrupt: 'u8',
    received_count: 'u8',
    received: 'u8[16]',
  },
  25,
);

const msrNames: ReadonlyMap<number, string> = new Map([
  [0x10, 'tsc'],
  [0x3b, 'tsc_adjust'],
  [0x8b, 'ucode_rev'],
  [0x174, 'sysenter_cs'],
  [0x175, 'sysenter_esp'],
  [0x176, 'sysenter_eip'],
  [0x1a0, 'misc_enable'],
  [0x277, 'pat'],
  [0x6e0, 'tsc_deadline'],
  [0xc0000080, 'efer'],
  [0xc0000081, 'star'],
  [0xc0000082, 'lstar'],
  [0xc0000083, 'cstar'],
  [0xc0000084, 'syscall_mask'],
  [0xc0000102, 'kernel_gs_base'],
  [0xc0000103, 'tsc_aux'],
  [0x4b564d00, 'kvm_wall_clock'],
  [0x4b564d01, 'kvm_system_time'],
]);

/** One tag for each MSR that this KVM gives and takes; those without a known name have their number. */
export function msrsLayout(indexes: Iterable<number>): StructLayout {
  const names = Array.from(indexes, (index) => msrNames.get(index) ?? `0x${index.toString(16)}`);
  return new StructLayout(Object.fromEntries(names.map((name) => [name, 'u64'])), names.length * 8);
}
