/**
 * Moments of a migration, told by what a process writes to its journal, sends and receives:
 *
 *   source before record commit · source after send commit · destination after receipt of commit · …
 *
 * Wraps the classes of whatever build it is given; plain JavaScript, so that processes under test need no compiler.
 */

const toDestination = ['join', 'offer', 'end', 'commit', 'cancel', 'ask', 'done'];
const toSource = [
  'accept',
  'prepared',
  'running',
  'complete',
  'dropped',
  'aborted',
  'mayHaveRun',
  'got',
  'reason',
  'want',
  'placed',
];
const bareMessageBytes = 16;

/**
 * `onPoint` may return a promise: the moment lasts until then. Returns what takes the wrapping off again.
 *
 * @param {{ Journal: any, RecordChannel: any }} classes
 * @param {(point: string) => unknown} onPoint
 * @returns {() => void}
 */
export function watchPoints({ Journal, RecordChannel }, onPoint) {
  const { append } = Journal.prototype;
  const { send, next } = RecordChannel.prototype;
  /** Who connects says join first, on each connection. */
  const sources = new WeakSet();
  Journal.prototype.append = async function (record) {
    const { role } = this.facts;
    await onPoint(`${role} before record ${record}`);
    await append.call(this, record);
    await onPoint(`${role} after record ${record}`);
  };
  RecordChannel.prototype.send = async function (type, payload) {
    if (type !== 'control') return await send.call(this, type, payload);
    if (payload[0] === 0 && payload.length > bareMessageBytes) sources.add(this);
    const [role, names] = sources.has(this) ? ['source', toDestination] : ['destination', toSource];
    const name = names[payload[0]];
    await onPoint(`${role} before send ${name}`);
    await send.call(this, type, payload);
    await onPoint(`${role} after send ${name}`);
  };
  RecordChannel.prototype.next = async function () {
    const record = await next.call(this);
    if (record.type === 'control') {
      const [role, names] = sources.has(this) ? ['source', toSource] : ['destination', toDestination];
      await onPoint(`${role} after receipt of ${names[record.payload[0]]}`);
    }
    return record;
  };
  return () => {
    Journal.prototype.append = append;
    Object.assign(RecordChannel.prototype, { send, next });
  };
}
