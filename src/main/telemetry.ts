import pino from 'pino';
import type { Observe, OperationalEvent } from '../core/observe.js';

/** Members that could carry a secret if somebody passed one by mistake: never written. */
const REDACTED = [
  'token',
  'accessToken',
  'authorization',
  'secret',
  'password',
  'privateKey',
  'dpop',
  '*.token',
  '*.authorization',
  '*.password',
];

/** Operational events as JSON lines on standard error: one wide line per request. */
export function logTo(level: string, destination: 1 | 2 = 2): Observe {
  const logger = pino(
    {
      level,
      base: { service: 'mayfly' },
      redact: { paths: REDACTED, censor: '[redacted]' },
      timestamp: pino.stdTimeFunctions.isoTime,
    },
    pino.destination({ fd: destination, sync: false }),
  );
  return ({ level: eventLevel = 'info', ...event }: OperationalEvent) => logger[eventLevel](event);
}
