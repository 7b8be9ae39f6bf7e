import type { Mayfly, SecretReply } from '../../client/mayfly.js';
import { secondsOf } from './option-values.js';
import { say } from './output.js';

/* Whoever asked for five days and plans with them has to hear of the hour that it became, and what made it that. */

/** The end of a credential and the deadline of its task are told apart by more than this. */
const SAME_END_MS = 2_000;

export function sayShorterTask(task: { createdAtMs: number; deadlineMs: number }, ttl: string | undefined): void {
  if (ttl === undefined) return;
  const givenSeconds = Math.round((task.deadlineMs - task.createdAtMs) / 1_000);
  if (givenSeconds >= secondsOf(ttl, 'ttl')) return;
  const deadline = new Date(task.deadlineMs).toISOString();
  say(
    `The task ends at ${deadline}, ${givenSeconds} s after it began, and not after ${ttl}: its type, its parent, policy or the broker allows no more.`,
  );
}

/** Asks for the task when the life is shorter: what it does not explain is the secret's or policy's doing. */
export async function sayShorterSecret(
  mayfly: Mayfly,
  reply: Pick<SecretReply, 'lease_duration' | 'task'>,
  { ttl, askedAtMs, answeredAtMs }: { ttl: string | undefined; askedAtMs: number; answeredAtMs: number },
): Promise<void> {
  if (ttl === undefined) return;
  // What is left is told in whole seconds, and some of it passed while it was made.
  const passedSeconds = Math.ceil((answeredAtMs - askedAtMs) / 1_000);
  if (reply.lease_duration + passedSeconds >= secondsOf(ttl, 'ttl')) return;
  const endMs = answeredAtMs + reply.lease_duration * 1_000;
  const task = await mayfly.tasks.get(reply.task).catch(() => undefined);
  const isTask = task !== undefined && Math.abs(Date.parse(task.deadline) - endMs) <= SAME_END_MS;
  const why = isTask
    ? `its task ends at ${task.deadline}`
    : task === undefined
      ? 'the secret, policy or its task allows no more'
      : 'the secret or policy allows no more';
  say(`The credential lives for ${reply.lease_duration} s and not for ${ttl}: ${why}.`);
}
