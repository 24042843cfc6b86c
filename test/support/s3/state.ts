/** What a service of S3 keeps, and what it does with a request: in memory, without faults. */
import { createHash, randomBytes } from 'node:crypto';

export interface StoredObject {
  readonly bytes: Buffer;
  readonly etag: string;
  readonly changedMs: number;
}

export interface StoredUpload {
  readonly key: string;
  startedMs: number;
  readonly parts: Map<number, StoredObject>;
}

export interface Asked {
  readonly method: string;
  readonly bucket: string;
  readonly key: string;
  readonly query: URLSearchParams;
  readonly headers: Readonly<Record<string, string | undefined>>;
  readonly body: Buffer;
}

export interface Answer {
  readonly status: number;
  readonly headers?: Record<string, string>;
  readonly body?: Buffer | string;
}

const partBytesMin = 5 * 1024 * 1024;
const day = (ms: number): string => new Date(ms).toISOString();

export class S3State {
  readonly bucket = 'bucket';
  readonly objects = new Map<string, StoredObject>();
  readonly uploads = new Map<string, StoredUpload>();
  /** Entries of one page of a list. */
  pageCount = 1000;

  put(key: string, bytes: Buffer, etag = md5(bytes), changedMs = Date.now()): string {
    this.objects.set(key, { bytes, etag, changedMs });
    return etag;
  }

  answer(asked: Asked): Answer {
    const { method, bucket, key, query } = asked;
    if (bucket !== this.bucket) return refusal(404, 'NoSuchBucket');
    const action = `${method}${key === '' ? ' list' : ''}${query.has('uploads') ? ' uploads' : ''}${query.has('uploadId') ? ' upload' : ''}`;
    switch (action) {
      case 'GET':
      case 'HEAD':
        return this.#get(asked);
      case 'PUT':
        return this.#put(asked);
      case 'DELETE':
        this.objects.delete(key);
        return { status: 204 };
      case 'POST uploads':
        return this.#create(key);
      case 'PUT upload':
        return this.#putPart(asked);
      case 'POST upload':
        return this.#complete(asked);
      case 'DELETE upload':
        return this.uploads.delete(idOf(asked)) ? { status: 204 } : refusal(404, 'NoSuchUpload');
      case 'GET upload':
        return this.#listParts(asked);
      case 'GET list':
        return this.#list(query);
      case 'GET list uploads':
        return this.#listUploads(query);
      default:
        return refusal(501, 'NotImplemented');
    }
  }

  #get({ method, key, headers }: Asked): Answer {
    const object = this.objects.get(key);
    if (object === undefined) return refusal(404, 'NoSuchKey');
    const { bytes, etag } = object;
    const wanted = headers['if-match'];
    if (wanted !== undefined && unquoted(wanted) !== etag) return refusal(412, 'PreconditionFailed');
    const tag = { etag: `"${etag}"` };
    const range = /^bytes=(\d+)-(\d+)$/.exec(headers['range'] ?? '');
    if (range === null || method === 'HEAD') {
      return { status: 200, headers: { ...tag, 'content-length': `${bytes.length}` }, body: bytes };
    }
    const first = Number(range[1]);
    const last = Math.min(Number(range[2]), bytes.length - 1);
    if (first > last) return refusal(416, 'InvalidRange');
    const part = bytes.subarray(first, last + 1);
    return {
      status: 206,
      headers: {
        ...tag,
        'content-range': `bytes ${first}-${last}/${bytes.length}`,
        'content-length': `${part.length}`,
      },
      body: part,
    };
  }

  /** As Ceph: an ETag in quotes is another one. */
  #put({ key, headers, body }: Asked): Answer {
    const object = this.objects.get(key);
    const match = headers['if-match'];
    if (headers['if-none-match'] === '*' && object !== undefined) return refusal(412, 'PreconditionFailed');
    if (match !== undefined && object === undefined) return refusal(404, 'NoSuchKey');
    if (match !== undefined && match !== object?.etag) return refusal(412, 'PreconditionFailed');
    return { status: 200, headers: { etag: `"${this.put(key, body)}"` } };
  }

  #create(key: string): Answer {
    const id = randomBytes(8).toString('hex');
    this.uploads.set(id, { key, startedMs: Date.now(), parts: new Map() });
    return xml('InitiateMultipartUploadResult', `<Key>${key}</Key><UploadId>${id}</UploadId>`);
  }

  #putPart(asked: Asked): Answer {
    const upload = this.uploads.get(idOf(asked));
    if (upload === undefined) return refusal(404, 'NoSuchUpload');
    const { body } = asked;
    const etag = md5(body);
    upload.parts.set(Number(asked.query.get('partNumber')), { bytes: body, etag, changedMs: Date.now() });
    return { status: 200, headers: { etag: `"${etag}"` } };
  }

  /** `If-None-Match` is ignored, as Ceph does. */
  #complete(asked: Asked): Answer {
    const id = idOf(asked);
    const upload = this.uploads.get(id);
    if (upload === undefined) return refusal(404, 'NoSuchUpload');
    const named = [...asked.body.toString().matchAll(/<Part>.*?<\/Part>/gs)].map(([text]) => ({
      number: Number(/<PartNumber>(\d+)</.exec(text)?.[1]),
      etag: unquoted((/<ETag>(.*?)</.exec(text)?.[1] ?? '').replaceAll('&quot;', '"')),
    }));
    const parts = named.map(({ number }) => upload.parts.get(number));
    const isWhole = parts.every((part, index) => part?.etag === named[index]?.etag) && parts.length > 0;
    if (!isWhole) return refusal(400, 'InvalidPart');
    const bodies = parts.map((part) => part?.bytes ?? Buffer.alloc(0));
    if (bodies.slice(0, -1).some((body) => body.length < partBytesMin)) return refusal(400, 'EntityTooSmall');
    const digests = Buffer.concat(bodies.map((body) => Buffer.from(md5(body), 'hex')));
    const etag = this.put(upload.key, Buffer.concat(bodies), `${md5(digests)}-${bodies.length}`);
    this.uploads.delete(id);
    return xml('CompleteMultipartUploadResult', `<Key>${upload.key}</Key><ETag>"${etag}"</ETag>`);
  }

  #listParts(asked: Asked): Answer {
    const parts = [...(this.uploads.get(idOf(asked))?.parts ?? [])].map(
      ([number, { bytes }]) => `<Part><PartNumber>${number}</PartNumber><Size>${bytes.length}</Size></Part>`,
    );
    return xml('ListPartsResult', parts.join(''));
  }

  #list(query: URLSearchParams): Answer {
    const prefix = query.get('prefix') ?? '';
    const after = query.get('continuation-token') ?? '';
    const keys = [...this.objects.keys()].filter((key) => key.startsWith(prefix) && key > after).sort();
    const page = keys.slice(0, this.pageCount);
    const entries = page.map((key) => {
      const { bytes, changedMs } = this.objects.get(key) as StoredObject;
      return `<Contents><Key>${key}</Key><Size>${bytes.length}</Size><LastModified>${day(changedMs)}</LastModified></Contents>`;
    });
    const more =
      keys.length > page.length ? `<NextContinuationToken>${page.at(-1)}</NextContinuationToken>` : '';
    return xml('ListBucketResult', `<IsTruncated>${more !== ''}</IsTruncated>${more}${entries.join('')}`);
  }

  #listUploads(query: URLSearchParams): Answer {
    const prefix = query.get('prefix') ?? '';
    const entries = [...this.uploads]
      .filter(([, { key }]) => key.startsWith(prefix))
      .map(
        ([id, { key, startedMs }]) =>
          `<Upload><Key>${key}</Key><UploadId>${id}</UploadId><Initiated>${day(startedMs)}</Initiated></Upload>`,
      );
    return xml('ListMultipartUploadsResult', `<IsTruncated>false</IsTruncated>${entries.join('')}`);
  }
}

export function refusal(status: number, code: string): Answer {
  return { ...xml('Error', `<Code>${code}</Code><Message>${code} by the test</Message>`), status };
}

function xml(name: string, content: string): Answer {
  const body = `<?xml version="1.0" encoding="UTF-8"?><${name}>${content}</${name}>`;
  return { status: 200, headers: { 'content-type': 'application/xml' }, body };
}

function idOf({ query }: Asked): string {
  return query.get('uploadId') ?? '';
}

function unquoted(text: string): string {
  return text.replace(/^"(.*)"$/, '$1');
}

function md5(bytes: Uint8Array): string {
  return createHash('md5').update(bytes).digest('hex');
}
