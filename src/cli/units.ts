/** Numbers as people read them. IEC units (powers of 1024) with three digits. */

const byteUnits = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'];

/** `640 MiB`, `2.00 GiB`, `17 bytes`. */
export function formatBytes(byteCount: number | bigint): string {
  let amount = Number(byteCount);
  let unit = 0;
  // 1023.5 would be rounded to 1024 of the smaller unit.
  while (amount >= 1023.5 && unit < byteUnits.length - 1) {
    amount /= 1024;
    unit += 1;
  }
  if (unit === 0) return amount === 1 ? '1 byte' : `${Math.round(amount)} bytes`;
  return `${threeDigits(amount)} ${byteUnits[unit]}`;
}

/** With the exact number beside: `2.00 GiB (2147483648 bytes)`. */
export function formatBytesExactly(byteCount: number | bigint): string {
  const short = formatBytes(byteCount);
  return /byte/.test(short) ? short : `${short} (${byteCount} bytes)`;
}

/** Bytes per second: `1.46 GiB/s`. */
export function formatRate(bytesPerSecond: number): string {
  return `${formatBytes(bytesPerSecond)}/s`;
}

/** How long something took: `12 ms`, `1.40 s`, `2:05 min`, `1:02:05 h`. */
export function formatDuration(milliseconds: number): string {
  if (milliseconds < 999.5) return `${Math.round(milliseconds)} ms`;
  if (milliseconds < 59_950) return `${threeDigits(milliseconds / 1000)} s`;
  return `${formatClock(milliseconds)} ${milliseconds < 3_599_500 ? 'min' : 'h'}`;
}

/** Minutes and seconds, with hours when there are some: `2:05`, `1:02:05`. */
export function formatClock(milliseconds: number): string {
  const seconds = Math.round(milliseconds / 1000);
  const minutes = Math.floor(seconds / 60);
  const twoDigits = (amount: number): string => String(amount).padStart(2, '0');
  if (minutes < 60) return `${minutes}:${twoDigits(seconds % 60)}`;
  return `${Math.floor(minutes / 60)}:${twoDigits(minutes % 60)}:${twoDigits(seconds % 60)}`;
}

/** `3.21 : 1`; nothing sensible when either side is 0. */
export function formatRatio(ratio: number | null): string {
  return ratio === null ? 'none' : `${ratio < 1000 ? threeDigits(ratio) : Math.round(ratio)} : 1`;
}

/** ISO 8601 in UTC; `null` when not told. The year 275760 is the last one that JavaScript can write. */
export function timeText(createdMs: number): string | null {
  if (createdMs === 0) return null;
  const time = new Date(createdMs);
  return Number.isNaN(time.getTime()) ? String(createdMs) : time.toISOString();
}

/** `share` of 1 as `12.3 %`. */
export function formatShare(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}

/** How many bytes one byte stands for; `null` when that has no meaning. */
export function ratioOf(byteCount: number, encodedByteCount: number): number | null {
  return byteCount === 0 || encodedByteCount === 0 ? null : byteCount / encodedByteCount;
}

/** `one region`, `3 regions`. */
export function countOf(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}

/** A guest-physical address. */
export function formatAddress(address: bigint): string {
  return `0x${address.toString(16)}`;
}

/** 0 < amount. */
function threeDigits(amount: number): string {
  if (amount < 9.995) return amount.toFixed(2);
  return amount < 99.95 ? amount.toFixed(1) : amount.toFixed(0);
}
