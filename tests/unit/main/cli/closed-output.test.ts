import { EventEmitter } from 'node:events';
import { endWithReader } from '../../../../src/main/cli/closed-output.js';

const failure = (code: string) => Object.assign(new Error(`write ${code}`), { code });

function talking() {
  const streams = { stdout: new EventEmitter(), stderr: new EventEmitter(), ends: 0 };
  endWithReader({ ...streams, end: () => void streams.ends++ });
  return streams;
}

describe('a command whose output nobody reads any more', () => {
  it('ends, once, without a word', () => {
    const streams = talking();
    for (let writes = 0; writes < 3; writes++) streams.stdout.emit('error', failure('EPIPE'));
    expect(streams.ends).toBe(1);
  });

  it('ends in the same way when its terminal was closed', () => {
    const streams = talking();
    streams.stdout.emit('error', failure('EIO'));
    expect(streams.ends).toBe(1);
  });

  it('goes on when only its talk is not heard', () => {
    const streams = talking();
    for (const code of ['EPIPE', 'EIO']) streams.stderr.emit('error', failure(code));
    expect(streams.ends).toBe(0);
  });

  it('does not hide that output cannot be written for another reason', () => {
    const streams = talking();
    expect(() => streams.stdout.emit('error', failure('ENOSPC'))).toThrow('ENOSPC');
    expect(() => streams.stderr.emit('error', failure('ENOSPC'))).toThrow('ENOSPC');
    expect(streams.ends).toBe(0);
  });
});
