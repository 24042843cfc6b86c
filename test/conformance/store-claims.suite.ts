/** Part of store.suite.ts: a checkpoint is claimed once, whoever asks, until another one is there. */
import { expect, test } from 'vitest';
import type { Claim, StoreClaims } from '../../src/store/index.ts';
import { isSame, load, sampleStream, save } from '../store/support/sample-stream.ts';
import type { StoreSubject } from './store.suite.ts';

const older = sampleStream('older');
const newer = sampleStream('newer');
const { uuid } = older.summary;
const other = newer.summary.uuid;

const claimOf = (by: string, of = uuid): Claim => ({ uuid: of, by, timeMs: 1_700_000_000_000 });

function claimsOf(subject: StoreSubject): StoreClaims {
  const { claims } = subject.open();
  if (claims === undefined) throw new Error('the store has no claims');
  return claims;
}

export function describeClaims(makeSubject: () => StoreSubject | Promise<StoreSubject>): void {
  test('of many claims at once one succeeds, and the others learn whose it is', async () => {
    const subject = await makeSubject();
    await save(subject.open(), older);
    expect(await claimsOf(subject).find(uuid)).toBeUndefined();
    const names = Array.from({ length: 8 }, (_, index) => `machine ${index}`);
    const results = await Promise.all(names.map((name) => claimsOf(subject).take(claimOf(name))));
    expect(results.filter((result) => result === undefined)).toHaveLength(1);
    const winner = names[results.indexOf(undefined)] ?? '';
    expect(await claimsOf(subject).find(uuid)).toEqual(claimOf(winner));
    expect(await claimsOf(subject).take(claimOf('late'))).toEqual(claimOf(winner));
    expect(isSame(await load(subject.open()), older.bytes)).toBe(true);
  });

  test('a claim that is withdrawn can be taken again', async () => {
    const subject = await makeSubject();
    await save(subject.open(), older);
    const before = await subject.remains?.();
    await claimsOf(subject).withdraw(uuid);
    await claimsOf(subject).take(claimOf('first'));
    await claimsOf(subject).withdraw(uuid);
    expect(await claimsOf(subject).find(uuid)).toBeUndefined();
    expect(await subject.remains?.()).toEqual(before);
    expect(await claimsOf(subject).take(claimOf('second'))).toBeUndefined();
  });

  test('a claim belongs to its checkpoint: another one in its place is unclaimed, and nothing stays of the old one', async () => {
    const subject = await makeSubject();
    await save(subject.open(), older);
    const before = (await subject.remains?.())?.length;
    await claimsOf(subject).take(claimOf('first'));
    await save(subject.open(), newer);
    expect(await claimsOf(subject).find(other)).toBeUndefined();
    expect(await claimsOf(subject).find(uuid)).toBeUndefined();
    expect((await subject.remains?.())?.length).toBe(before);
    expect(await claimsOf(subject).take(claimOf('second', other))).toBeUndefined();
  });

  test('a save that does not come about leaves the claim on what is there', async () => {
    const subject = await makeSubject();
    await save(subject.open(), older);
    await claimsOf(subject).take(claimOf('first'));
    const writer = await subject.open().openWriter({ uuid: other });
    await writer.abort();
    expect(await claimsOf(subject).find(uuid)).toEqual(claimOf('first'));
  });

  test('a claim that was taken before its checkpoint was committed is there afterwards', async () => {
    const subject = await makeSubject();
    await save(subject.open(), older);
    const writing = subject.open();
    await claimsOf(subject).take(claimOf('early', other));
    await save(writing, newer);
    expect(await claimsOf(subject).find(other)).toEqual(claimOf('early', other));
  });

  test('a checkpoint that is removed takes its claim with it', async () => {
    const subject = await makeSubject();
    const store = subject.open();
    if (store.remove === undefined) return;
    const before = await subject.remains?.();
    await save(store, older);
    await claimsOf(subject).take(claimOf('first'));
    await store.remove();
    expect(await claimsOf(subject).find(uuid)).toBeUndefined();
    expect(await subject.remains?.()).toEqual(before);
  });

  test('what is no UUID is a TypeError', async () => {
    const claims = claimsOf(await makeSubject());
    await expect(claims.find('../x')).rejects.toThrow(TypeError);
    await expect(claims.withdraw('../x')).rejects.toThrow(TypeError);
    await expect(claims.take(claimOf('first', '../x'))).rejects.toThrow(TypeError);
  });
}
