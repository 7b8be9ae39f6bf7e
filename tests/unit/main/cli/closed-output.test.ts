import { EventEmitter } from 'node:events';
import { endWithReader, type OutputLost } from '../../../../src/main/cli/closed-output.js';

const failure = (code: string) => Object.assign(new Error(`write ${code}`), { code });

function talking() {
  const streams = { stdout: new EventEmitter(), stderr: new EventEmitter(), ends: 0, lost: undefined as unknown };
  const end = (lost: OutputLost) => {
    streams.ends++;
    streams.lost = lost;
  };
  endWithReader({ ...streams, end });
  return streams;
}

describe('a command whose output nobody reads any more', () => {
  it('ends, once, without a word', () => {
    const streams = talking();
    for (let writes = 0; writes < 3; writes++) streams.stdout.emit('error', failure('EPIPE'));
    expect(streams).toMatchObject({ ends: 1, lost: { exitCode: 141, isReaderGone: true } });
  });

  it('ends in the same way when its terminal was closed', () => {
    const streams = talking();
    streams.stdout.emit('error', failure('EIO'));
    expect(streams).toMatchObject({ ends: 1, lost: { exitCode: 141, isReaderGone: true } });
  });

  it('goes on when only its talk is not heard', () => {
    const streams = talking();
    for (const code of ['EPIPE', 'EIO', 'ENOSPC']) streams.stderr.emit('error', failure(code));
    expect(streams.ends).toBe(0);
  });

  it('ends with a line that names the reason when its output cannot be written for another one', () => {
    const streams = talking();
    streams.stdout.emit('error', failure('ENOSPC'));
    expect(streams.lost).toMatchObject({
      exitCode: 2,
      isReaderGone: false,
      message: 'Standard output cannot be written (ENOSPC): not all of it is there.',
    });
  });
});
