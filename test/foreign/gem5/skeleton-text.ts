/** A checkpoint of a PC with cores in a gem5 that nobody ran: its sections and keys are those of docs/gem5.md. */

export interface SkeletonShape {
  readonly cores: number;
  readonly storeBytes: readonly number[];
}

export function skeletonText({ cores, storeBytes }: SkeletonShape): string {
  const sections: [name: string, entries: Record<string, string | number>][] = [
    ['root', { FullSystem: 'true' }],
    ['root.globals', { curTick: 5_000_000, version_tags: 'x86-add-tlb x86-add-xcr0' }],
    ['board', { quiesceEndTick_0: 0 }],
    ['board.physmem', { lal_addr: '4096', lal_cid: '0', nbr_of_stores: storeBytes.length }],
    ...storeBytes.map((bytes, at): [string, Record<string, string | number>] => [
      `board.physmem.store${at}`,
      { store_id: at, filename: `board.physmem.store${at}.pmem`, range_size: bytes },
    ]),
    ...Array.from({ length: cores }, (_, at) => core(`board.cpu${at + 8}`)).flat(),
    ['board.pc.south_bridge.pic1', pic()],
    ['board.pc.south_bridge.pic2', pic()],
    ['board.pc.south_bridge.pit', pit()],
    [
      'board.pc.south_bridge.io_apic',
      {
        regSel: 0,
        initialApicId: 1,
        id: 1,
        arbId: 1,
        lowestPriorityOffset: 0,
        redirTableArray: list(24, 65_536),
        pinStates: list(24, 'false'),
      },
    ],
    ['board.pc.com_1', { status: 0, IER: 0, LCR: 0, MCR: 0, rxintrwhen: 0, txintrwhen: 0 }],
    ['board.disk', { odd_key: 'kept = as it is  ' }],
  ];
  const lines = sections.map(([name, entries]) => {
    const keys = Object.entries(entries).map(([key, value]) => `${key}=${value}\n`);
    return `\n[${name}]\n${keys.join('')}`;
  });
  return `## checkpoint generated: Thu Jan  1 00:00:00 1970\n${lines.join('')}`;
}

function list(count: number, value: string | number): string {
  return new Array(count).fill(value).join(' ');
}

function core(name: string): [string, Record<string, string | number>][] {
  return [
    [name, { instCnt: 77, _pid: 0 }],
    [`${name}.isa`, { isaName: 'x86', regVal: Array.from({ length: 205 }, (_, at) => 1000 + at).join(' ') }],
    [
      `${name}.xc.0`,
      {
        regs: list(70, 7),
        pendingSmi: 'false',
        pendingNmi: 'true',
        pendingIPIs: 3,
        startedUp: 'false',
        IRRV: 9,
        ISRV: 9,
        apicTimerEventScheduled: 'true',
        apicTimerEventTick: 123,
        _status: 1,
        'regs.integer': list(304, 1),
        'regs.floating_point': list(384, 2),
        'regs.vector': list(8, 0),
        'regs.vector_element': list(16, 0),
        'regs.vector_predicate': list(8, 0),
        'regs.matrix': '',
        'regs.condition_code': list(40, 3),
        _pc: 5,
        _upc: 2,
        _npc: 13,
        _nupc: 3,
        _size: 4,
      },
    ],
    [`${name}.mmu.dtb`, { _size: 2, lruSeq: 44 }],
    [`${name}.mmu.dtb.Entry0`, { paddr: 1, vaddr: 2 }],
    [`${name}.mmu.dtb.Entry1`, { paddr: 3, vaddr: 4 }],
  ];
}

function pic(): Record<string, string | number> {
  return {
    pinStates: list(8, 'false'),
    mode: 0,
    IRR: 0,
    ISR: 0,
    IMR: 255,
    vectorOffset: 0,
    cascadeMode: 'true',
    cascadeBits: 4,
    edgeTriggered: 'true',
    readIRR: 'true',
    expectICW4: 'false',
    initControlWord: 0,
    autoEOI: 'false',
  };
}

function pit(): Record<string, string | number> {
  const keys = (at: number): Record<string, string | number> => ({
    [`pit.counter${at}.initial_count`]: 0,
    [`pit.counter${at}.latched_count`]: 0,
    [`pit.counter${at}.period`]: 55,
    [`pit.counter${at}.mode`]: 0,
    [`pit.counter${at}.output_high`]: 'false',
    [`pit.counter${at}.latch_on`]: 'false',
    [`pit.counter${at}.read_byte`]: 0,
    [`pit.counter${at}.write_byte`]: 0,
    [`pit.counter${at}.event_tick_offset`]: 0,
  });
  return { ...keys(0), ...keys(1), ...keys(2) };
}
