/**
 * The version tags of gem5 24.0: which changes of the form of its checkpoints a file has. In the order in which gem5 writes them.
 *
 * All of them, always: gem5's upgrader applies every step whose tag is missing, and some of them fail on a file of today.
 */
export const versionTags: readonly string[] = [
  'arm-ccregs',
  'arm-contextidr-el2',
  'arm-gem5-gic-ext',
  'arm-gicv2-banked-regs',
  'arm-hdlcd-upgrade',
  'arm-miscreg-teehbr',
  'arm-sve',
  'arm-sysreg-mapping-ns',
  'armv8',
  'cpu-pid',
  'dvfs-perflevel',
  'etherswitch',
  'globals-to-root',
  'ide-dma-abort',
  'isa-is-simobject',
  'memory-per-range',
  'mempool-sections',
  'mempool-to-seworkload',
  'multiple-event-queues',
  'process-fdmap-rename',
  'register-files',
  'remove-arm-cpsr-mode-miscreg',
  'riscv-dyn-vlen',
  'riscv-pcstate',
  'riscv-vext',
  'ruby-block-size-bytes',
  'smt-interrupts',
  'x86-add-tlb',
  'x86-add-xcr0',
];
