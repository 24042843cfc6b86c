/**
 * `@aws-sdk/client-s3`, an optional peer dependency: loaded when the first `s3:` URL is used, and by nobody else.
 *
 * It signs, finds credentials and region, and repeats requests that failed. What it must not do is set here: checksums of its own, which
 * turn bodies into a form that services other than AWS refuse.
 */
import type { S3Client, S3ClientConfig } from '@aws-sdk/client-s3';
import { CheckpointError } from '../../errors/index.ts';
import { checkTransport, type S3Settings } from './place.ts';

export type Sdk = typeof import('@aws-sdk/client-s3');

const connectionMs = 10_000;
/** Without a byte in either direction. */
const silenceMs = 60_000;
const attemptsMax = 5;

/** Throws `CHKPT_UNSUPPORTED`, which says what to install. `load`: tests give another. */
export async function loadSdk(
  store: string,
  load: () => Promise<Sdk> = () => import('@aws-sdk/client-s3'),
): Promise<Sdk> {
  try {
    return await load();
  } catch (error) {
    const what = 's3: needs the AWS SDK, which is not installed with chkpt: npm install @aws-sdk/client-s3';
    throw new CheckpointError('CHKPT_UNSUPPORTED', what, { details: { store }, cause: error });
  }
}

/** Throws `CHKPT_INSECURE`. Nothing is connected yet. */
export async function makeClient(sdk: Sdk, settings: S3Settings, store: string): Promise<S3Client> {
  const { endpoint, pathStyle = endpoint !== undefined, region } = settings;
  const config: S3ClientConfig = {
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    maxAttempts: attemptsMax,
    retryMode: 'standard',
    // One more round trip for each part, and not every service knows it.
    expectContinueHeader: false,
    requestHandler: { connectionTimeout: connectionMs, socketTimeout: silenceMs },
    ...(pathStyle ? { forcePathStyle: true } : {}),
    ...(endpoint === undefined ? {} : { endpoint }),
    ...(region === undefined ? {} : { region }),
  };
  const client = new sdk.S3Client(config);
  try {
    await checkRegion(client, settings);
    const resolved = await client.config.endpoint?.();
    if (resolved !== undefined) checkTransport(urlOf(resolved), settings, store);
    return client;
  } catch (error) {
    client.destroy();
    throw error;
  }
}

/** Services other than AWS take any region, but the signature needs one. */
async function checkRegion(client: S3Client, { endpoint }: S3Settings): Promise<void> {
  try {
    await client.config.region();
  } catch (error) {
    if (endpoint === undefined && process.env['AWS_ENDPOINT_URL'] === undefined) throw error;
    client.config.region = async () => 'us-east-1';
  }
}

function urlOf({
  protocol,
  hostname,
  port,
}: {
  protocol: string;
  hostname: string;
  port?: number | undefined;
}): URL {
  return new URL(`${protocol}//${hostname}${port === undefined ? '' : `:${port}`}`);
}
