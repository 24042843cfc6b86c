/**
 * `@aws-sdk/client-s3`, an optional peer dependency: loaded when the first `s3:` URL is used, and by nobody else.
 *
 * It signs, finds credentials and region, and repeats requests that failed. What it must not do is set here: checksums of its own, which
 * turn bodies into a form that services other than AWS refuse.
 */
import type { S3Client, S3ClientConfig } from '@aws-sdk/client-s3';
import { CheckpointError } from '../../errors/index.ts';
import { lookupLocally } from './local-names.ts';
import { checkTransport, type S3Settings } from './place.ts';

export type Sdk = typeof import('@aws-sdk/client-s3');

const connectionMs = 10_000;
/** Without a byte in either direction. */
const silenceMs = 60_000;
const attemptsMax = 5;
/** Of connections, beside what the SDK says. */
const agent = { lookup: lookupLocally };

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

/** Its requests throw `CHKPT_INSECURE` where they would cross a network as plain text. Nothing is connected yet. */
export async function makeClient(sdk: Sdk, settings: S3Settings, store: string): Promise<S3Client> {
  const { endpoint, pathStyle = endpoint !== undefined, region } = settings;
  const config: S3ClientConfig = {
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    maxAttempts: attemptsMax,
    retryMode: 'standard',
    // One more round trip for each part, and not every service knows it.
    expectContinueHeader: false,
    requestHandler: {
      connectionTimeout: connectionMs,
      socketTimeout: silenceMs,
      httpAgent: agent,
      httpsAgent: agent,
    },
    ...(pathStyle ? { forcePathStyle: true } : {}),
    ...(endpoint === undefined ? {} : { endpoint }),
    ...(region === undefined ? {} : { region }),
  };
  const client = new sdk.S3Client(await withRegion(sdk, config));
  // At each request, since the SDK may find its endpoint anywhere, and no earlier than then.
  const stack = client.middlewareStack as unknown as CheckingStack;
  stack.add(
    (next) => (args) => {
      checkTransport(urlOf(args.request), settings, store);
      return next(args);
    },
    { step: 'build', name: 'chkptTransport' },
  );
  return client;
}

interface CheckingStack {
  add(middleware: (next: Next) => Next, options: { step: 'build'; name: string }): void;
}
interface Destination {
  readonly protocol: string;
  readonly hostname: string;
}
type Next = (args: { readonly request: Destination }) => Promise<unknown>;

/** Services other than AWS take any region, but the signature needs one. */
async function withRegion(sdk: Sdk, config: S3ClientConfig): Promise<S3ClientConfig> {
  const probe = new sdk.S3Client(config);
  try {
    await probe.config.region();
    return config;
  } catch (error) {
    const { AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_S3 } = process.env;
    if ((config.endpoint ?? AWS_ENDPOINT_URL_S3 ?? AWS_ENDPOINT_URL) === undefined) throw error;
    return { ...config, region: 'us-east-1' };
  } finally {
    probe.destroy();
  }
}

function urlOf({ protocol, hostname }: Destination): URL {
  return new URL(`${protocol}//${hostname}`);
}
