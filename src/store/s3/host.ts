/** What all `s3:` stores of this process share: clients, one for each service, and which objects are being read. */
import type { S3Client } from '@aws-sdk/client-s3';
import { s3Failure } from './failure.ts';
import { OpenObjects } from './open-objects.ts';
import type { S3Place, S3Settings } from './place.ts';
import { loadSdk, makeClient, type Sdk } from './sdk.ts';
import { S3Service } from './service.ts';

export class S3Host {
  readonly openObjects = new OpenObjects();
  readonly #clients = new Map<string, Promise<S3Client>>();
  readonly #load: (() => Promise<Sdk>) | undefined;

  /** `load`: tests have an SDK that is missing. */
  constructor(load?: () => Promise<Sdk>) {
    this.#load = load;
  }

  /** Throws `CHKPT_UNSUPPORTED` without SDK, `CHKPT_INSECURE`. Idle connections do not keep the process alive. */
  async service(place: S3Place, store: string): Promise<S3Service> {
    const sdk = await loadSdk(store, this.#load);
    const key = clientKey(place.settings);
    let client = this.#clients.get(key);
    if (client === undefined) {
      client = makeClient(sdk, place.settings, store);
      this.#clients.set(key, client);
      client.catch(() => this.#clients.delete(key));
    }
    try {
      return new S3Service(sdk, await client, place.bucket, store);
    } catch (error) {
      throw s3Failure(error, 'cannot reach the service', { store });
    }
  }
}

function clientKey({ endpoint, pathStyle, region, insecure }: S3Settings): string {
  return JSON.stringify([endpoint, pathStyle, region, insecure]);
}

/** The host of every `s3:` URL. */
export const defaultS3Host = new S3Host();
