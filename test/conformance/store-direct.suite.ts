/** Part of store.suite.ts: bytes that others write where the store says. */
import { writeSync } from 'node:fs';
import { expect, test } from 'vitest';
import { isSame, load, type SampleStream } from '../store/support/sample-stream.ts';
import type { MakeSubject } from './store.suite.ts';

export function describeDirectOutput(makeSubject: MakeSubject, older: SampleStream): void {
  test('what others write where direct() says is part of the stream', async () => {
    const subject = await makeSubject();
    const writer = await subject.open().openWriter({ uuid: older.summary.uuid });
    for (const { segment, bytes, summary } of older.segments) {
      await writer.beginSegment?.(segment);
      const third = Math.floor(bytes.length / 3);
      await writer.write(bytes.subarray(0, third));
      const output = writer.direct?.();
      const others = bytes.subarray(third, 2 * third);
      if (output === undefined) await writer.write(others);
      else {
        if (output.descriptor !== 'discard') writeSync(output.descriptor, others, 0, third, output.position);
        output.wrote(third);
      }
      await writer.write(bytes.subarray(2 * third));
      await writer.endSegment?.(summary);
    }
    await writer.commit(older.summary);
    expect(isSame(await load(subject.open()), older.bytes)).toBe(true);
  });
}
