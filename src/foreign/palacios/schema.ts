/**
 * What the contexts of an original hold: tags, sizes and order, for the forms that have no lengths of their own, to find what is wrong
 * in those that have, and to tell what kind a device is. Sizes are bytes.
 *
 * The names are those of the original, C expressions (`cga->…`, `dbg->…`) included.
 */

/** A tag and the size of its value. */
export type Field = readonly [tag: string, bytes: number];
export type Schema = readonly Field[];

const each = (bytes: number, tags: string, prefix = '', suffix = ''): Field[] =>
  tags.split(' ').map((tag): Field => [`${prefix}${tag}${suffix}`, bytes]);

const upTo = (count: number): number[] => Array.from({ length: count }, (_, index) => index);

export const memoryImageContext = 'memory_img';
export const devicesContext = 'devices';
export const headerContext = 'header';

export const memoryImageSchema: Schema = [
  ['region_size', 8],
  ['num_regions', 4],
];
/** The tag of block `index` of memory. */
export const blockTag = (index: number): string => `${memoryImageContext}${index}`;

/** Bytes of one name in the device table. */
export const deviceNameBytes = 32;
export const devicesSchema = (deviceCount: number): Schema => [
  ['num_devs', 4],
  ['names', deviceNameBytes * deviceCount],
];

/** The text of `header`: all that it says is the vendor. */
export const headerTexts = {
  SVM: 'v3vee palacios checkpoint version: x.x, SVM x.x',
  VMX: 'v3vee palacios checkpoint version: x.x, VMX x.x',
} as const;
export const headerSchema: Schema = [['header', 47]];

export const guestInfoSchema: Schema = [
  ...each(4, 'run_state cpu_mode mem_mode CPL'),
  ...each(8, 'RIP RDI RSI RBP RSP RBX RDX RCX RAX R8 R9 R10 R11 R12 R13 R14 R15'),
  ...each(8, 'CR0 CR2 CR3 CR4 CR8 APIC_TPR RFLAGS EFER DR0 DR1 DR2 DR3 DR6 DR7'),
  ...each(16, 'CS DS ES FS GS SS LDTR GDTR IDTR TR'),
  ...each(8, 'STAR LSTAR SFMASK KERN_GS_BASE GUEST_CR3 GUEST_CR0 GUEST_EFER'),
  ['FP_STATE_TYPE', 4],
  ['FP_STATE_BLOB', 512],
];
export const vmcbSchema: Schema = [
  ['CPL', 4],
  ...each(8, 'STAR CSTAR LSTAR SFMASK KERNELGSBASE SYSENTER_CS SYSENTER_ESP SYSENTER_EIP'),
  ['VMCB_DATA', 4096],
];
export const vmcsSchema: Schema = [['vmcs_data', 4096]];

/** Devices by kind. Those whose contexts are empty cannot be told apart. */
const deviceSchemas = {
  '8259 PIC': [
    ...each(
      1,
      'MASTER_IRR SLAVE_IRR MASTER_ISR SLAVE_ISR MASTER_ELCR SLAVE_ELCR MASTER_ELCR_MASK SLAVE_ELCR_MASK',
    ),
    ...each(1, 'MASTER_ICW1 MASTER_ICW2 MASTER_ICW3 MASTER_ICW4 SLAVE_ICW1 SLAVE_ICW2 SLAVE_ICW3 SLAVE_ICW4'),
    ...each(1, 'MASTER_IMR SLAVE_IMR MASTER_OCW2 MASTER_OCW3 SLAVE_OCW2 SLAVE_OCW3'),
    ...each(4, 'MASTER_STATE SLAVE_STATE'),
  ],
  '8254 PIT': [
    ...each(8, 'PIT_COUNTER PIT_RELOAD'),
    ...upTo(3).flatMap((channel) => pitChannel(`PIT_CH${channel}_`)),
    ['PIT_SPEAKER', 1],
  ],
  'I/O APIC': [
    ['BASE_ADDR', 8],
    ...each(4, 'INDEX_REG IOAPIC_ID IOAPIC_VER IOAPIC_ARB_ID'),
    ['REDIR_TABLE', 192],
  ],
  keyboard: [
    ...each(1, 'CMD_REG STATUS_REG'),
    ...each(4, 'STATE MOUSE_STATE'),
    ...each(1, 'OUTPUT INPUT SCANCODE_SET MOUSE_ENABLED'),
  ],
  serial: upTo(4).flatMap((port) => serialPort(`COM${port}_`)),
  CGA: [['FRAMEBUFFER', 131_072], ...cgaRegisters('cga->'), ...each(2, 'SCREEN_OFFSET CURSOR_OFFSET')],
  os_debug: [
    ['dbg->debug_buf', 1024],
    ['dbg->debug_offset', 4],
  ],
  PCI: [
    ['ADDR_REG', 4],
    ['IO_BASE', 2],
  ],
  'PCI function': [['CONFIG_SPACE', 256], ...upTo(6).map((bar): Field => [`BAR-${bar}`, 4])],
  'IDE channel': [
    ...each(1, 'ERROR FEATURES DRIVE_HEAD STATUS CMD_REG CTRL_REG DMA_CMD DMA_STATUS'),
    ...each(4, 'PRD_ADDR DMA_TBL_IDX'),
  ],
  'IDE no drive': ideDrive([]),
  'IDE disk': ideDrive([...each(4, 'ACCESSED MULT_SECT_NUM'), ['CUR_SECT_NUM', 8]]),
  'IDE CD': ideDrive([
    ['ATAPI_SENSE_DATA', 18],
    ['ATAPI_CMD', 1],
    ['ATAPI_ERR_RECOVERY', 12],
  ]),
} as const satisfies Readonly<Record<string, Schema>>;

function pitChannel(prefix: string): Field[] {
  return [
    ...each(4, 'ACCESS_MODE ACCESS_STATE RUN_STATE OP_MODE', prefix),
    ...each(2, 'COUNTER RELOAD_VALUE LATCH_VALUE', prefix),
    ...each(4, 'LATCH_STATE READ_STATE', prefix),
    [`${prefix}PINS`, 1],
  ];
}

function serialPort(prefix: string): Field[] {
  const queue = (name: string): Field[] => [
    ...each(4, 'HEAD TAIL FULL', `${prefix}${name}_`),
    [`${prefix}${name}_DATA`, 16],
  ];
  return [
    ...each(1, 'RBR THR IER IIR FCR LCR MCR LSR MSR SCR DLL DLM int_state', prefix),
    ...queue('TX'),
    ...queue('RX'),
    [`${prefix}IRQ_NUM`, 4],
  ];
}

function cgaRegisters(prefix: string): Field[] {
  const fields: Field[] = [
    ...each(1, 'misc_outp_reg seq_index_reg'),
    ['seq_data_regs', 5],
    ['crtc_index_reg', 1],
    ['crtc_data_regs', 25],
    ['graphc_index_reg', 1],
    ['graphc_data_regs', 9],
    ...each(1, 'attrc_index_flipflop attrc_index_reg'),
    ['attrc_data_regs', 21],
    ...each(1, 'dac_indexr_reg dac_indexr_color dac_indexw_reg dac_indexw_color'),
    ['dac_data_regs', 768],
    ['activefb_addr', 8],
    ['activefb_len', 4],
    ['iorange', 2],
    ...each(4, 'vres hres vchars hchars graphmode dirty reschanged'),
    ['passthrough', 1],
  ];
  return fields.map(([tag, bytes]): Field => [`${prefix}${tag}`, bytes]);
}

function ideDrive(own: readonly Field[]): Field[] {
  return [
    ['DRIVE_TYPE', 4],
    ...each(1, 'SECTOR_COUNT SECTOR_NUM'),
    ['CYLINDER', 2],
    ...each(8, 'CURRENT_LBA TRANSFER_LENGTH TRANSFER_INDEX'),
    ['DATA_BUF', 2048],
    ...own,
    ['LBA48_LBA', 8],
    ['LBA48_SECTOR_COUNT', 2],
    ...each(1, 'LBA48_SECTOR_COUNT_STATE LBA48_LBA41_STATE LBA48_LBA52_STATE LBA48_LBA63_STATE'),
  ];
}

/** Most local APICs: an APIC has an 8-bit id. */
export const apicCountMax = 256;

export function localApicSchema(apicCount: number): Schema {
  return [['NUM_APICS', 4], ...upTo(apicCount).flatMap((apic) => localApic(`${apic}`))];
}

const ofOneApic = localApic('0').length;

/** How many tags that has. */
export function localApicTagCount(apicCount: number): number {
  return 1 + apicCount * ofOneApic;
}

function localApic(suffix: string): Field[] {
  const registers = (bytes: number, tags: string): Field[] => each(bytes, tags, '', suffix);
  return [
    ...registers(8, 'BASE_ADDR BASE_ADDR_MSR'),
    ...registers(
      4,
      'LAPIC_ID APIC_VER EXT_APIC_CTRL LOCAL_VEC_TBL TMR_VEC_TBL TMR_DIV_CFG LINT0_VEC_TBL LINT1_VEC_TBL',
    ),
    ...registers(4, 'PERF_CTR_LOC_VEC_TBL THERM_LOC_VEC_TBL ERR_VEC_TBL ERR_STATUS SPURIOUS_INT'),
    ...registers(8, 'INT_CMD'),
    ...registers(
      4,
      'LOG_DST DST_FMT ARB_PRIO TASK_PRIO PROC_PRIO EXT_APIC_FEATURE SPEC_EOI TMR_CUR_CNT TMR_INIT_CNT',
    ),
    ...registers(16, 'EXT_INTR_VEC_TBL'),
    ...registers(4, 'REM_RD_DATA IPI_STATE'),
    ...registers(32, 'INT_REQ_REG INT_SVC_REG INT_EN_REG TRIG_MODE_REG'),
    ...registers(4, 'EOI'),
  ];
}

export type DeviceKind = keyof typeof deviceSchemas | 'local APICs' | 'no state';

/** Every kind of device of which an original saves the state. */
export const deviceKinds: readonly DeviceKind[] = [
  ...(Object.keys(deviceSchemas) as (keyof typeof deviceSchemas)[]),
  'local APICs',
  'no state',
];

/** The schema of a kind; of local APICs it depends on their number. */
export function schemaOfKind(kind: DeviceKind, apicCount = 1): Schema {
  if (kind === 'no state') return [];
  return kind === 'local APICs' ? localApicSchema(apicCount) : deviceSchemas[kind];
}

export const bytesOf = (schema: Schema): number => schema.reduce((sum, [, bytes]) => sum + bytes, 0);

/** The kind of device whose state has so many bytes: no two have the same. */
export function kindOfBytes(
  byteCount: number,
): { readonly kind: DeviceKind; readonly schema: Schema } | undefined {
  const kinds = deviceKinds.filter((kind) => kind !== 'local APICs');
  const kind = kinds.find((one) => bytesOf(schemaOfKind(one)) === byteCount);
  if (kind !== undefined) return { kind, schema: schemaOfKind(kind) };
  const apicCount = (byteCount - 4) / (bytesOf(localApicSchema(1)) - 4);
  if (!Number.isInteger(apicCount) || apicCount < 1 || apicCount > apicCountMax) return undefined;
  return { kind: 'local APICs', schema: localApicSchema(apicCount) };
}

/** The schema of a context that has its name from the original; `undefined` for those of devices. */
export function schemaOfContext(name: string): Schema | undefined {
  if (name === headerContext) return headerSchema;
  const [, part] = /^(guest_info|vmcb_data|vmcs_data)(?:0|[1-9][0-9]{0,3})$/.exec(name) ?? [];
  if (part === undefined) return undefined;
  return part === 'guest_info' ? guestInfoSchema : part === 'vmcb_data' ? vmcbSchema : vmcsSchema;
}
