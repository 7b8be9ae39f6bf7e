import { Denied, type Mayfly } from '../../client/mayfly.js';
import { say } from './output.js';

/** A refusal to open a task as it is, after what was left out: policy often allows no task without a type. */
export async function toldOfType(mayfly: Mayfly, type: string | undefined, error: unknown): Promise<never> {
  if (type === undefined && error instanceof Denied) {
    const types = await typesOf(mayfly);
    say(`No --type was given, and policy may allow no task without one${types && `; there are: ${types}`}.`);
  }
  throw error;
}

async function typesOf(mayfly: Mayfly): Promise<string> {
  try {
    const { files } = await mayfly.bundle.get();
    const { bundleFormat } = await import('../../plugins/policy/bundle.js');
    return [...bundleFormat.parse(files).taskTypes.keys()].join(', ');
  } catch {
    // Nothing more is known to whoever asks.
    return '';
  }
}
