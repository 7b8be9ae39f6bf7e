/**
 * A place in the cell's line: `(epoch, ms, seq)`, written `1795300000-1795382752123-4`. It is the feed's
 * stream id under the cell's epoch. Positions are compared as integers; no wall clock takes part.
 */
export type Position = string;

const PATTERN = /^(\d{1,15})-(\d{1,15})-(\d{1,15})$/;

/** Before everything. */
export const ORIGIN: Position = '0-0-0';

export function isPosition(text: unknown): text is Position {
  return typeof text === 'string' && PATTERN.test(text);
}

export function positionOf(epoch: number, streamId: string): Position {
  return `${epoch}-${streamId}`;
}

export function epochOf(position: Position): number {
  return Number(position.slice(0, position.indexOf('-')));
}

/** The feed's stream id inside a position. */
export function streamIdOf(position: Position): string {
  return position.slice(position.indexOf('-') + 1);
}

/** Negative when `a` comes before `b`, 0 when they are the same place, positive when it comes after. */
export function comparePositions(a: Position, b: Position): number {
  const left = a.split('-');
  const right = b.split('-');
  for (let at = 0; at < 3; at++) {
    const difference = Number(left[at]) - Number(right[at]);
    if (difference !== 0) return difference;
  }
  return 0;
}

export function isBefore(a: Position, b: Position): boolean {
  return comparePositions(a, b) < 0;
}

export function latest(...positions: Position[]): Position {
  return positions.reduce((a, b) => (isBefore(a, b) ? b : a), ORIGIN);
}
