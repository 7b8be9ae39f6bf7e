import { createServer, type Socket, connect as tcpConnect } from 'node:net';

/**
 * What the proxy does with a connection. `pass`; `refuse`: closed at once, as by a server that is not there; `swallow`: everything reaches the server and none of
 * its replies comes back; `silent`: nothing goes either way; `{delayMs}`: replies come that much later.
 */
export type Fault = 'pass' | 'refuse' | 'swallow' | 'silent' | { delayMs: number };

export interface FaultProxy extends AsyncDisposable {
  port: number;
  /** From now on, on open connections too. */
  set(fault: Fault): void;
  /** Where to from now on: a server that was started again has another port. */
  point(port: number): void;
  /** Bytes that clients have sent. */
  sent(): string;
}

/** A TCP proxy in front of a real server. */
export async function startFaultProxy(upstreamPort: number): Promise<FaultProxy> {
  let fault: Fault = 'pass';
  let upstream = upstreamPort;
  let sent = '';
  const open = new Set<Socket>();
  const keep = (socket: Socket) => {
    open.add(socket);
    socket.on('close', () => open.delete(socket)).on('error', () => {});
  };
  const server = createServer((client) => {
    keep(client);
    if (fault === 'refuse') {
      client.destroy();
      return;
    }
    const server = tcpConnect(upstream, '127.0.0.1');
    keep(server);
    client.on('data', (chunk) => {
      sent += chunk.toString('latin1');
      if (fault !== 'silent') server.write(chunk);
    });
    server.on('data', (chunk) => {
      if (fault === 'swallow' || fault === 'silent') return;
      if (fault === 'pass') client.write(chunk);
      else setTimeout(() => client.destroyed || client.write(chunk), (fault as { delayMs: number }).delayMs).unref();
    });
    client.on('close', () => server.destroy());
    server.on('close', () => client.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const cut = () => {
    for (const socket of open) socket.destroy();
  };
  return {
    port: (server.address() as { port: number }).port,
    set(next) {
      const before = fault;
      fault = next;
      // What has been open during a fault has lost bytes.
      if (next === 'refuse' || (next === 'pass' && before !== 'pass')) cut();
    },
    point(port) {
      upstream = port;
      cut();
    },
    sent: () => sent,
    async [Symbol.asyncDispose]() {
      cut();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
