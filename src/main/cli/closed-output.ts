interface Talking {
  stdout: NodeJS.EventEmitter;
  stderr: NodeJS.EventEmitter;
  /** Called once, when the reader of standard output has left. */
  end: () => void;
}

/** As the shell counts a program that SIGPIPE ended. */
const SIGPIPE_EXIT_CODE = 141;

/** A pipe whose reader left, or a terminal that was closed. */
const GONE = ['EPIPE', 'EIO'];

/**
 * Whoever reads standard output may leave (`mayfly why … | head -1`): what is left to say is dropped, without a word. A closed standard error
 * ends nothing: a stop goes on although nobody hears of its progress.
 */
export function endWithReader({ stdout, stderr, end }: Talking): void {
  let isEnding = false;
  stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (!GONE.includes(error.code ?? '')) throw error;
    if (!isEnding) end();
    isEnding = true;
  });
  stderr.on('error', (error: NodeJS.ErrnoException) => {
    if (!GONE.includes(error.code ?? '')) throw error;
  });
}

/** What runs until it is told to stop, and has things to put away, is told; anything else is done. */
export function endProcess(): void {
  if (process.listenerCount('SIGTERM') > 0) process.kill(process.pid, 'SIGTERM');
  else process.exit(SIGPIPE_EXIT_CODE);
}
