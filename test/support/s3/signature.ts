/**
 * Signature version 4, the side of the service: is this request signed by who has the secret, and are its headers and its body those that
 * were signed? A body without digest is refused, which services allow: none of ours may go without.
 */
import { createHash, createHmac } from 'node:crypto';
import type { IncomingMessage } from 'node:http';

export const accessKey = 'AKTEST';
export const secretKey = 'SKTEST';

const pattern =
  /^AWS4-HMAC-SHA256 Credential=([^/]+)\/(\d{8})\/([^/]+)\/s3\/aws4_request, ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})$/;

/** `undefined` when it is right, else the code of the refusal. */
export function refusalOf(request: IncomingMessage, bodyDigest: string): string | undefined {
  const found = pattern.exec(request.headers.authorization ?? '');
  if (found === null) return 'AccessDenied';
  const [, key, day = '', region = '', signedHeaders = '', signature] = found;
  if (key !== accessKey) return 'InvalidAccessKeyId';
  const claimed = String(request.headers['x-amz-content-sha256']);
  if (claimed !== bodyDigest) return 'XAmzContentSHA256Mismatch';
  const names = signedHeaders.split(';');
  if (!names.includes('host') || !names.includes('x-amz-content-sha256')) return 'AccessDenied';
  const url = new URL(request.url ?? '/', 'http://host');
  const query = [...url.searchParams]
    .map(([name, value]) => `${encode(name)}=${encode(value)}`)
    .sort()
    .join('&');
  const headers = names.map((name) => `${name}:${String(request.headers[name] ?? '').trim()}\n`).join('');
  const canonical = [request.method, url.pathname, query, headers, signedHeaders, claimed].join('\n');
  const scope = `${day}/${region}/s3/aws4_request`;
  const time = String(request.headers['x-amz-date']);
  const text = ['AWS4-HMAC-SHA256', time, scope, sha256(canonical)].join('\n');
  const signingKey = [day, region, 's3', 'aws4_request'].reduce<Buffer | string>(
    (secret, piece) => createHmac('sha256', secret).update(piece).digest(),
    `AWS4${secretKey}`,
  );
  const expected = createHmac('sha256', signingKey).update(text).digest('hex');
  return expected === signature ? undefined : 'SignatureDoesNotMatch';
}

function encode(text: string): string {
  return encodeURIComponent(text).replace(
    /[!'()*]/g,
    (one) => `%${one.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

export function sha256(data: string | Uint8Array): string {
  return createHash('sha256').update(data).digest('hex');
}
