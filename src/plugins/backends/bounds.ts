import { z } from 'zod';
import type { Bounds } from './contract.js';

const milliseconds = (seconds: number) => Math.round(seconds * 1000);

/** The settings that every kind of backend has; a kind gives its own defaults for how much it takes at a time. */
export function boundsConfig(byDefault: { issuesMax: number; revocationsMax: number }) {
  return {
    issues_max: z.int().min(1).max(10_000).default(byDefault.issuesMax).describe('Issues at a time.'),
    revocations_max: z.int().min(1).max(10_000).default(byDefault.revocationsMax).describe('Revocations at a time.'),
    rate_per_second: z.number().positive().max(100_000).optional().describe('Most calls a second; absent: no limit.'),
    issue_timeout_seconds: z.number().min(0.1).max(30).default(2).describe('Past it an issue is given up: 503.'),
    revoke_timeout_seconds: z.number().min(0.5).max(60).default(5).describe('Past it a revocation is tried again.'),
  };
}

export function boundsOf(config: {
  issues_max: number;
  revocations_max: number;
  rate_per_second?: number | undefined;
  issue_timeout_seconds: number;
  revoke_timeout_seconds: number;
}): Bounds {
  return {
    issuesMax: config.issues_max,
    revocationsMax: config.revocations_max,
    ...(config.rate_per_second !== undefined && { ratePerSecond: config.rate_per_second }),
    issueTimeoutMs: milliseconds(config.issue_timeout_seconds),
    revokeTimeoutMs: milliseconds(config.revoke_timeout_seconds),
  };
}
