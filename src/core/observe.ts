/** Operational events: one wide line per request or job, counters from the same stream. Never a secret, never a token. */
export type Observe = (event: OperationalEvent) => void;

export interface OperationalEvent {
  event: string;
  level?: 'debug' | 'info' | 'warn' | 'error';
  durationMs?: number;
  [member: string]: unknown;
}
