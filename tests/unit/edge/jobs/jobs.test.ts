import { describe, expect, it } from '@jest/globals';
import { takeJobs } from '../../../../src/edge/jobs/jobs.js';
import { fakeParts } from '../../../fakes/parts.js';

describe('jobs', () => {
  it('a job reaches its verb, and one line says so', async () => {
    const parts = fakeParts();
    let handle: Parameters<typeof parts.schedule.start>[0] | undefined;
    parts.schedule.start = async (given) => {
      handle = given;
    };
    await takeJobs(parts);
    await handle?.({ name: 'watch-task', id: 'tsk_a_nowhere' });
    expect(parts.events.at(-1)).toMatchObject({ event: 'job.done', job: 'watch-task', id: 'tsk_a_nowhere' });
  });

  it('one that fails is reported and handed back, so that it stays due', async () => {
    const parts = fakeParts();
    let handle: Parameters<typeof parts.schedule.start>[0] | undefined;
    parts.schedule.start = async (given) => {
      handle = given;
    };
    parts.views.revocation = async () => {
      throw new Error('Redis is out');
    };
    await takeJobs(parts);
    await expect(handle?.({ name: 'run-revocation', id: 'rev_a_1' })).rejects.toThrow('Redis is out');
    expect(parts.events.at(-1)).toMatchObject({ event: 'job.failed', level: 'warn', problem: 'Redis is out' });
  });
});
