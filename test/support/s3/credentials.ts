/** The SDK looks for credentials in the environment, like those of every test; nothing of this machine's own is used. */
import { accessKey, secretKey } from './signature.ts';

Object.assign(process.env, {
  AWS_ACCESS_KEY_ID: accessKey,
  AWS_SECRET_ACCESS_KEY: secretKey,
  AWS_EC2_METADATA_DISABLED: 'true',
  AWS_CONFIG_FILE: '/dev/null',
  AWS_SHARED_CREDENTIALS_FILE: '/dev/null',
  AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED: 'true',
});
delete process.env['AWS_SESSION_TOKEN'];
delete process.env['AWS_PROFILE'];
delete process.env['AWS_ENDPOINT_URL'];
