import { createInterface } from 'node:readline';

interface Person {
  /** What was typed, trimmed. Lines typed ahead answer what is asked next; the end of the input is an empty answer. */
  answer(question: string): Promise<string>;
  close(): void;
}

/** Whoever sits at the terminal; undefined when nobody does. */
export function askPerson(): Person | undefined {
  if (!process.stdin.isTTY) return undefined;
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  const lines = terminal[Symbol.asyncIterator]();
  return {
    async answer(question) {
      terminal.setPrompt(question);
      terminal.prompt();
      const { value, done } = await lines.next();
      return done ? '' : value.trim();
    },
    close: () => terminal.close(),
  };
}
