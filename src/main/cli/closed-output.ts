interface Talking {
  stdout: NodeJS.EventEmitter;
  stderr: NodeJS.EventEmitter;
  /** Called once, when standard output cannot be written any more. */
  end: (lost: OutputLost) => void;
}

/** A pipe whose reader left, or a terminal that was closed. */
const GONE = ['EPIPE', 'EIO'];
/** As the shell counts a program that SIGPIPE ended. */
const SIGPIPE_EXIT_CODE = 141;
const UNWRITTEN_EXIT_CODE = 2;

/** What was to be printed reached nobody. */
export class OutputLost extends Error {
  readonly exitCode: number;
  /** Whoever left is told nothing. */
  readonly isReaderGone: boolean;

  constructor(cause: NodeJS.ErrnoException) {
    const { code = 'no reason was given' } = cause;
    super(`Standard output cannot be written (${code}): not all of it is there.`, { cause });
    this.isReaderGone = GONE.includes(code);
    this.exitCode = this.isReaderGone ? SIGPIPE_EXIT_CODE : UNWRITTEN_EXIT_CODE;
  }
}

/** Whether a command waits for its output, and so learns of its loss by itself. */
let isAwaited = false;

/**
 * Whoever reads standard output may leave (`mayfly why … | head -1`): what is left to say is dropped, without a word. A closed standard error
 * ends nothing: a stop goes on although nobody hears of its progress.
 */
export function endWithReader({ stdout, stderr, end }: Talking): void {
  let isEnding = false;
  stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (isAwaited || isEnding) return;
    isEnding = true;
    end(new OutputLost(error));
  });
  // There is nowhere left to say so.
  stderr.on('error', () => {});
}

/** Prints, and waits until that is written. Throws OutputLost when it cannot be: for a command that has something to put away then. */
export async function printed(print: () => void): Promise<void> {
  isAwaited = true;
  const { stdout } = process;
  await new Promise<void>((resolve, reject) => {
    const lost = (error: Error) => reject(new OutputLost(stdout.errored ?? error));
    stdout.once('error', lost);
    print();
    stdout.write('', (error) => {
      if (error) return lost(error);
      stdout.off('error', lost);
      isAwaited = false;
      resolve();
    });
  });
}

/** What runs until it is told to stop, and has things to put away, is told; anything else is done. */
export function endProcess(exitCode: number): void {
  process.exitCode = exitCode;
  if (process.listenerCount('SIGTERM') > 0) process.kill(process.pid, 'SIGTERM');
  else process.exit();
}
