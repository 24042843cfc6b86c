/** The 80-bit numbers of the x87 ⇄ the doubles that gem5 keeps them as: what does not fit is rounded to the nearest, ties to even. */

const bias80 = 16383;
const bias64 = 1023;
const exponentMax80 = 0x7fff;
const integerBit = 1n << 63n;

/** The bits of the nearest double. `bytes`: 10, little-endian. */
export function toDoubleBits(bytes: Uint8Array): bigint {
  const view = new DataView(bytes.buffer, bytes.byteOffset, 10);
  const significand = view.getBigUint64(0, true);
  const head = view.getUint16(8, true);
  const sign = BigInt(head >> 15) << 63n;
  const exponent = head & exponentMax80;
  if (exponent === exponentMax80) {
    const fraction = significand & (integerBit - 1n);
    // A NaN stays one, with its first bits.
    return sign | (0x7ffn << 52n) | (fraction === 0n ? 0n : (fraction >> 11n) | (1n << 51n));
  }
  if (significand === 0n) return sign;
  // The place of the first bit counts: numbers below the smallest normal one have leading zeros.
  const leading = 64 - significand.toString(2).length;
  const normal = significand << BigInt(leading);
  const unbiased = (exponent === 0 ? 1 : exponent) - bias80 - leading;
  const target = unbiased + bias64;
  if (target >= 0x7ff) return sign | (0x7ffn << 52n);
  const dropped = target > 0 ? 11 : 12 - target;
  if (dropped > 64) return sign;
  const rounded = roundShift(normal, BigInt(dropped));
  // A carry out of the fraction goes into the exponent, which is what rounding up means.
  return sign | (target > 0 ? (BigInt(target - 1) << 52n) + rounded : rounded);
}

/** The 10 bytes of a double, exactly. */
export function fromDoubleBits(bits: bigint): Uint8Array {
  const bytes = new Uint8Array(10);
  const view = new DataView(bytes.buffer);
  const sign = Number(bits >> 63n) << 15;
  const exponent = Number((bits >> 52n) & 0x7ffn);
  const fraction = bits & ((1n << 52n) - 1n);
  if (exponent === 0x7ff) {
    view.setBigUint64(0, integerBit | (fraction << 11n), true);
    view.setUint16(8, sign | exponentMax80, true);
  } else if (exponent !== 0) {
    view.setBigUint64(0, integerBit | (fraction << 11n), true);
    view.setUint16(8, sign | (exponent - bias64 + bias80), true);
  } else if (fraction !== 0n) {
    const shift = 64 - fraction.toString(2).length;
    view.setBigUint64(0, fraction << BigInt(shift), true);
    view.setUint16(8, sign | (bias80 - bias64 + 12 - shift), true);
  } else {
    view.setUint16(8, sign, true);
  }
  return bytes;
}

function roundShift(value: bigint, shift: bigint): bigint {
  const kept = value >> shift;
  const rest = value & ((1n << shift) - 1n);
  const half = 1n << (shift - 1n);
  return rest > half || (rest === half && (kept & 1n) === 1n) ? kept + 1n : kept;
}
