/** One metric as it is documented, registered and read. */
export interface MetricRow {
  type: 'counter' | 'gauge' | 'histogram';
  help: string;
  /** Names of a bounded set each: a route, a backend, a state. Never an agent, a task, a lease or a SPIFFE ID. */
  labels: readonly string[];
  /** Upper ends, in the metric's unit. */
  buckets?: readonly number[];
}

const FAST = [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25];
const REQUEST = [0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
/** The promise is 5 s (p99), and 60 s after a backend's return; beyond that only how bad it is counts. */
const LAG = [0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3_600, 14_400];

/**
 * Every metric of a broker: docs/reference/metrics.md is generated from this, the chart's alerts are checked against it. The `_total` of a
 * process counts what this process did; where the help says *of the cell*, every process that shows it shows the same, so take the maximum.
 */
export const METRICS = {
  mayfly_build_info: {
    type: 'gauge',
    help: 'Always 1: which version runs, on which Node.',
    labels: ['version', 'node'],
  },
  mayfly_bundle_info: { type: 'gauge', help: 'Always 1: which bundle this process decides by.', labels: ['digest'] },
  mayfly_grants_closed: {
    type: 'gauge',
    help: '1 while this process grants nothing (store, clock, epoch, audit backlog); revocations go on.',
    labels: [],
  },
  mayfly_http_requests_total: {
    type: 'counter',
    help: 'Requests answered.',
    labels: ['route', 'method', 'status'],
  },
  mayfly_http_request_duration_seconds: {
    type: 'histogram',
    help: 'Time from the head of a request to the end of its reply; event streams are not counted.',
    labels: ['route'],
    buckets: REQUEST,
  },
  mayfly_tokens_minted_total: {
    type: 'counter',
    help: 'Answers of the token endpoint: `granted`, or the code of the error.',
    labels: ['result'],
  },
  mayfly_policy_decision_duration_seconds: {
    type: 'histogram',
    help: 'One question to the policy engine.',
    labels: ['engine', 'decision'],
    buckets: FAST,
  },
  mayfly_jobs_total: { type: 'counter', help: 'Jobs done, by how they went.', labels: ['job', 'result'] },
  mayfly_job_duration_seconds: { type: 'histogram', help: 'One job.', labels: ['job'], buckets: REQUEST },
  mayfly_credentials_issued_total: {
    type: 'counter',
    help: 'Credentials that a backend issued and whose lease became active.',
    labels: ['backend'],
  },
  mayfly_credential_issue_duration_seconds: {
    type: 'histogram',
    help: 'From the intent to the active lease.',
    labels: ['backend'],
    buckets: REQUEST,
  },
  mayfly_credentials_closed_total: {
    type: 'counter',
    help: 'Credentials that are dead at their backend, by how that is known.',
    labels: ['backend', 'evidence'],
  },
  mayfly_revocation_lag_seconds: {
    type: 'histogram',
    help: 'From the death of a credential (its task ended, it was revoked, it expired) to its confirmation by the backend.',
    labels: ['backend'],
    buckets: LAG,
  },
  mayfly_revocation_attempts_failed_total: {
    type: 'counter',
    help: 'Attempts at revoking a credential that failed and will be repeated.',
    labels: ['backend', 'problem'],
  },
  mayfly_credentials: {
    type: 'gauge',
    help: 'Credentials of the cell that are not closed. Shown by workers.',
    labels: ['backend', 'state'],
  },
  mayfly_credentials_stuck: {
    type: 'gauge',
    help: 'Credentials of the cell that are `revoking` for six attempts or more. Shown by workers.',
    labels: ['backend'],
  },
  mayfly_backend_breaker_open: {
    type: 'gauge',
    help: '1 while this process lets nothing but one trial call through to the backend.',
    labels: ['backend'],
  },
  mayfly_orphans_found_total: {
    type: 'counter',
    help: 'Credentials found at a backend that no live lease stands for, and revoked.',
    labels: ['backend'],
  },
  mayfly_credentials_lost_total: {
    type: 'counter',
    help: 'Credentials that a live lease stands for and the backend does not have.',
    labels: ['backend'],
  },
  mayfly_reconcile_duration_seconds: {
    type: 'histogram',
    help: 'One comparison of a backend with the leases.',
    labels: ['backend'],
    buckets: REQUEST,
  },
  mayfly_reconciled_timestamp_seconds: {
    type: 'gauge',
    help: 'When this process last compared a backend with the leases.',
    labels: ['backend'],
  },
  mayfly_work_overdue: {
    type: 'gauge',
    help: 'Due work of the cell that nobody has come for in time.',
    labels: [],
  },
  mayfly_work_overdue_seconds: {
    type: 'gauge',
    help: 'For how long the oldest overdue work of the cell has waited.',
    labels: [],
  },
  mayfly_audit_backlog_seconds: {
    type: 'gauge',
    help: 'How long the oldest audit record of the cell has waited to be moved to a file; grants close at 60.',
    labels: [],
  },
  mayfly_redis_memory_used_bytes: { type: 'gauge', help: 'Memory that the store uses.', labels: [] },
  mayfly_redis_memory_limit_bytes: {
    type: 'gauge',
    help: "The store's own limit, or its machine's; grants close at 80 % of it.",
    labels: [],
  },
  mayfly_redis_connection_errors_total: {
    type: 'counter',
    help: 'Errors of connections to the store, one a second and connection at most.',
    labels: ['kind'],
  },
  mayfly_clock_skew_seconds: {
    type: 'gauge',
    help: "How far this process' clock is from the store's; at 5 it is not ready.",
    labels: [],
  },
  mayfly_epoch: {
    type: 'gauge',
    help: 'The epoch of the cell; when it rises, every earlier token is dead.',
    labels: [],
  },
  mayfly_feed_readers: {
    type: 'gauge',
    help: 'Enforcement points of the cell that acknowledged within the last hour.',
    labels: [],
  },
  mayfly_feed_readers_silent: {
    type: 'gauge',
    help: 'Of these: not heard of for a minute. A silent one refuses by itself, unless it is set to go on until tokens expire.',
    labels: [],
  },
  mayfly_feed_reader_lag_seconds: {
    type: 'gauge',
    help: 'For how long the enforcement point that was heard of last of all has been silent.',
    labels: [],
  },
  mayfly_problems_total: {
    type: 'counter',
    help: 'Operational events of level warn and error, by name: what the log has in detail.',
    labels: ['event', 'level'],
  },
} as const satisfies Record<string, MetricRow>;

export type MetricName = keyof typeof METRICS;
