import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

export type DoorState = 'open' | 'refuses' | 'hangs';

/** A way to a real server that can be shut: nobody listens, or calls are taken and nothing comes back. Open connections feel it too. */
export interface Doorway {
  port: number;
  turn(to: DoorState): Promise<void>;
  close(): Promise<void>;
}

export async function doorwayTo(port: number, host = '127.0.0.1'): Promise<Doorway> {
  let state: DoorState = 'open';
  const sockets = new Set<Socket>();
  const keep = (socket: Socket, other: () => Socket) => {
    sockets.add(socket);
    socket
      .on('error', () => undefined)
      .on('close', () => {
        sockets.delete(socket);
        other().destroy();
      });
    socket.on('data', (chunk) => {
      if (state === 'open') other().write(chunk);
    });
  };
  const server = createServer((caller) => {
    const served = connect(port, host);
    keep(caller, () => served);
    keep(served, () => caller);
  });
  const cut = () => {
    for (const socket of sockets) socket.destroy();
  };
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const own = (server.address() as AddressInfo).port;
  return {
    port: own,
    async turn(to) {
      const before = state;
      state = to;
      // What was open while nothing went through has lost bytes.
      if (to !== 'hangs') cut();
      if (to === 'refuses') await new Promise((resolve) => server.close(resolve));
      if (before === 'refuses' && to !== 'refuses') {
        server.listen(own, '127.0.0.1');
        await once(server, 'listening');
      }
    },
    async close() {
      cut();
      if (server.listening) await new Promise((resolve) => server.close(resolve));
    },
  };
}
