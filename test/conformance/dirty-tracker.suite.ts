/** What every dirty tracker does, seen from JavaScript. The core has the same for all kinds of memory: native/test. */
import { afterEach, describe, expect, it } from 'vitest';
import {
  CheckpointError,
  type DirtyTracker,
  type ErrorCode,
  type GuestMemory,
  type PageSet,
} from '../../src/index.ts';

export interface TrackerFixture {
  readonly memory: GuestMemory;
  /** Makes a tracker; throws where the kind cannot be had. */
  readonly open: () => DirtyTracker;
  /** One byte into a page, as a guest writes. */
  readonly write: (tracker: DirtyTracker, page: number, value: number) => void;
}

export function pagesOf(set: PageSet): number[] {
  const pages: number[] = [];
  for (const packed of set.runs()) {
    for (let i = 0; i < packed.length; i += 2) {
      const [first, count] = [packed[i] as number, packed[i + 1] as number];
      for (let page = first; page < first + count; page++) pages.push(page);
    }
  }
  return pages;
}

export function expectCode(code: ErrorCode): (error: unknown) => void {
  return (error) => {
    expect(error).toBeInstanceOf(CheckpointError);
    expect((error as CheckpointError).code).toBe(code);
  };
}

export function dirtyTrackerSuite(name: string, make: () => TrackerFixture): void {
  describe(name, () => {
    const opened: { close(): Promise<void> }[] = [];
    const start = async (): Promise<{ fixture: TrackerFixture; tracker: DirtyTracker }> => {
      const fixture = make();
      opened.push(fixture.memory);
      // Content, so that no first touch of a huge page tells its neighbours.
      for (let page = 0; page < fixture.memory.pageCount; page++) {
        fixture.memory.write(addressOf(fixture.memory, page), Uint8Array.of(1));
      }
      const tracker = fixture.open();
      opened.unshift(tracker);
      await tracker.arm();
      return { fixture, tracker };
    };
    afterEach(async () => {
      for (const each of opened.splice(0)) await each.close();
    });

    it('is clean after arm, tells what is written, once, and tells it again when it is written again', async () => {
      const { fixture, tracker } = await start();
      expect(pagesOf(await tracker.harvest())).toEqual([]);
      for (const page of [0, 3, 255, 256, 511]) fixture.write(tracker, page, 7);
      expect(pagesOf(await tracker.harvest())).toEqual([0, 3, 255, 256, 511]);
      expect(pagesOf(await tracker.harvest())).toEqual([]);
      fixture.write(tracker, 3, 8);
      expect(pagesOf(await tracker.harvest())).toEqual([3]);
      fixture.write(tracker, 4, 8);
      await tracker.arm();
      expect(pagesOf(await tracker.harvest())).toEqual([]);
    });

    it('tells what a look has told again', async () => {
      const { fixture, tracker } = await start();
      const look = async (): Promise<number[] | undefined> => {
        const set = await tracker.look?.();
        return set === undefined ? undefined : pagesOf(set);
      };
      if (tracker.look === undefined) return;
      for (const page of [3, 256]) fixture.write(tracker, page, 7);
      expect(await look()).toEqual([3, 256]);
      for (const page of [3, 511]) fixture.write(tracker, page, 8);
      expect(await look()).toEqual([3, 256, 511]);
      expect(pagesOf(await tracker.harvest())).toEqual([3, 256, 511]);
      expect(await look()).toEqual([]);
      fixture.write(tracker, 3, 9);
      expect(pagesOf(await tracker.harvest())).toEqual([3]);
    });

    it('says what it is and why', async () => {
      const { tracker } = await start();
      expect(tracker.reason.length).toBeGreaterThan(3);
    });

    it('refuses a harvest before arm', async () => {
      const fixture = make();
      opened.push(fixture.memory);
      const tracker = fixture.open();
      opened.unshift(tracker);
      await tracker.harvest().then(() => expect.unreachable(), expectCode('CHKPT_CLOSED'));
    });

    it('close waits for the harvest under way; afterwards every call is refused, and another can be opened', async () => {
      const { fixture, tracker } = await start();
      fixture.write(tracker, 9, 9);
      const harvest = tracker.harvest();
      await Promise.all([tracker.close(), tracker.close()]);
      expect(pagesOf(await harvest)).toEqual([9]);
      await tracker.harvest().then(() => expect.unreachable(), expectCode('CHKPT_CLOSED'));
      await tracker.arm().then(() => expect.unreachable(), expectCode('CHKPT_CLOSED'));
      const second = fixture.open();
      opened.unshift(second);
      await second.arm();
      fixture.write(second, 10, 9);
      expect(pagesOf(await second.harvest())).toEqual([10]);
    });
  });
}

function addressOf(memory: GuestMemory, page: number): bigint {
  let left = BigInt(page) * 4096n;
  for (const region of memory.regions) {
    if (left < region.bytes) return region.base + left;
    left -= region.bytes;
  }
  throw new RangeError(`no page ${page}`);
}
