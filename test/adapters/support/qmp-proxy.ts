/** A QMP connection that goes wrong: everything goes through to QEMU and back, but for what `fault` says. */
import { connect, createServer, type Socket } from 'node:net';

export type QmpFault =
  /** QEMU gets the command, its answer is lost. */
  | { readonly answerLost: string }
  /** The connection is cut when this command comes. The next one is sound. */
  | { readonly cutAt: string };

export interface QmpProxy {
  readonly path: string;
  /** Faults that have happened. */
  readonly count: () => number;
  close(): void;
}

export async function startQmpProxy(target: string, path: string, fault: QmpFault): Promise<QmpProxy> {
  const sockets = new Set<Socket>();
  let count = 0;
  const server = createServer((client) => {
    const qemu = connect(target);
    for (const socket of [client, qemu]) {
      sockets.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => {
        client.destroy();
        qemu.destroy();
      });
    }
    const lost = new Set<number>();
    linesOf(client, (line) => {
      const { execute, id } = JSON.parse(line) as { execute: string; id: number };
      if ('cutAt' in fault && execute === fault.cutAt && count === 0) {
        count += 1;
        client.destroy();
        return;
      }
      if ('answerLost' in fault && execute === fault.answerLost) {
        count += 1;
        lost.add(id);
      }
      qemu.write(`${line}\n`);
    });
    linesOf(qemu, (line) => {
      const { id } = JSON.parse(line) as { id?: number };
      if (id === undefined || !lost.has(id)) client.write(`${line}\n`);
    });
  });
  await new Promise<void>((resolve) => server.listen(path, () => resolve()));
  const close = (): void => {
    for (const socket of sockets) socket.destroy();
    server.close();
  };
  return { path, count: () => count, close };
}

function linesOf(socket: Socket, visit: (line: string) => void): void {
  let text = '';
  socket.on('data', (data) => {
    const lines = (text + data.toString()).split('\n');
    text = lines.pop() ?? '';
    for (const line of lines) if (line.trim() !== '') visit(line.trim());
  });
}
