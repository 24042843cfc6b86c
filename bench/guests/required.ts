/**
 * Why a guest cannot be, for those who skip then. Where it has to be (`CHKPT_REQUIRE_GUESTS`, as in CI) that is a failure: a run
 * that skips everything must not look like one in which everything passed.
 */
export function unlessRequired(reason: string | undefined): string | undefined {
  if (reason !== undefined && process.env['CHKPT_REQUIRE_GUESTS']) throw new Error(reason);
  return reason;
}
