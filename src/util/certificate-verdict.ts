/** Names of OpenSSL's and Node's verdicts on a certificate, as they are in `code` of errors. */
const verdictPattern =
  /^(CERT_|SELF_SIGNED|DEPTH_ZERO|UNABLE_TO_|INVALID_(CA|PURPOSE)|PATH_LENGTH|HOSTNAME_|CRL_|ERROR_IN_CERT|ERR_TLS_CERT)/;

/** True when the other side of a TLS connection could not prove who it is: asked again it says the same. */
export function isCertificateVerdict(code: string): boolean {
  return verdictPattern.test(code);
}
