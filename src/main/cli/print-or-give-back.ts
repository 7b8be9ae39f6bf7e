import type { Mayfly } from '../../client/mayfly.js';
import { printed } from './closed-output.js';
import { say } from './output.js';

/** Prints what was issued. What cannot be printed is nobody's: it is given back, and the error is thrown on. */
export async function printOrGiveBack(
  mayfly: Mayfly,
  { what, lease }: { what: 'credential' | 'token'; lease: string },
  print: () => void,
): Promise<void> {
  try {
    await printed(print);
  } catch (error) {
    try {
      await mayfly.leases.revoke(lease);
      say(`The ${what} was given back: it could not be printed.`);
    } catch {
      say(`The ${what} could not be printed, nor given back. Give it back with: mayfly lease revoke ${lease}`);
    }
    throw error;
  }
}
