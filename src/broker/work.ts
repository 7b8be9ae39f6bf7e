import type { Job } from '../state/stores.js';
import { drainTask } from './drain.js';
import type { Parts } from './parts.js';
import { reEvaluateBundle, reEvaluateTask } from './re-evaluate.js';
import { retire } from './retire.js';
import { runRevocation } from './run-revocation.js';
import { watchTasks } from './watch-task.js';

/** What a worker does for each name. A job says who, the state says what: doing it twice changes nothing. */
const WORK: Record<Job['name'], (parts: Parts, id: string, backend?: string) => Promise<void>> = {
  'drain-task': drainTask,
  're-evaluate-task': reEvaluateTask,
  're-evaluate-bundle': reEvaluateBundle,
  'run-revocation': runRevocation,
  'watch-task': (parts, id) => watchTasks(parts, [id]),
  'retire-credential': retire,
};

export async function work(parts: Parts, job: Job): Promise<void> {
  await WORK[job.name](parts, job.id, job.backend);
}
