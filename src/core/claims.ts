import { isId } from './ids.js';
import { isPosition, type Position } from './position.js';

/** `act` of RFC 8693 section 4.1: identity claims only; nested ones inform and never authorise. */
export interface Actor {
  sub: string;
  act?: Actor;
}

export type Confirmation = { jkt: string } | { 'x5t#S256': string };

/** The claims of a task token (RFC 9068 and ours). Times are seconds, as JWT has them. */
export interface TaskClaims {
  iss: string;
  sub: string;
  aud: string;
  client_id: string;
  iat: number;
  exp: number;
  /** The lease id. */
  jti: string;
  scope: string;
  authorization_details: { type: 'urn:mayfly:task'; identifier: string }[];
  act?: Actor;
  cnf?: Confirmation;
  mayfly: MayflyClaims;
}

export interface MayflyClaims {
  cell: string;
  /** Ids from the root: tasks, then (delegated tokens) the leases above. Empty for an operator token. */
  path: string[];
  /** The position its minter had read. */
  pos: Position;
  /** Short keyed hashes of what selectors can name beyond the claims (core/selector.ts). */
  sel: string[];
  bundle: string;
  /** True when policies constrain single calls: refused unless a decision point is asked. */
  call?: true;
  /** Operator tokens: the person's roles. */
  roles?: string[];
}

export const TASK_DETAIL_TYPE = 'urn:mayfly:task';

/** Reads the verified payload of a token as task claims; undefined when any part has not its exact shape. */
export function readTaskClaims(payload: Record<string, unknown>): TaskClaims | undefined {
  const claims = payload as unknown as TaskClaims;
  const own = claims.mayfly;
  const wellFormed =
    isText(claims.iss) &&
    isText(claims.sub) &&
    isText(claims.aud) &&
    isText(claims.client_id) &&
    isSeconds(claims.iat) &&
    isSeconds(claims.exp) &&
    isId('lse', claims.jti) &&
    typeof claims.scope === 'string' &&
    Array.isArray(claims.authorization_details) &&
    typeof own === 'object' &&
    own !== null &&
    isText(own.cell) &&
    isTexts(own.path) &&
    isPosition(own.pos) &&
    isTexts(own.sel) &&
    isText(own.bundle) &&
    (own.call === undefined || own.call === true) &&
    (own.roles === undefined || isTexts(own.roles)) &&
    (claims.act === undefined || isActor(claims.act, 8)) &&
    (claims.cnf === undefined || isConfirmation(claims.cnf));
  return wellFormed ? claims : undefined;
}

/** Everybody named in the token: `client_id`, `sub` and each `act.sub`. Read to refuse, never to allow. */
export function namesIn(claims: Pick<TaskClaims, 'client_id' | 'sub' | 'act'>): string[] {
  const names = new Set([claims.client_id, claims.sub]);
  for (let actor = claims.act; actor; actor = actor.act) names.add(actor.sub);
  return [...names];
}

export function toolsOf(claims: Pick<TaskClaims, 'scope'>): string[] {
  return claims.scope === '' ? [] : claims.scope.split(' ');
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && value.length > 0 && value.length <= 2048;
}

function isTexts(value: unknown): value is string[] {
  return Array.isArray(value) && value.length <= 512 && value.every(isText);
}

function isSeconds(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) > 0;
}

function isActor(value: unknown, depth: number): boolean {
  if (depth === 0 || typeof value !== 'object' || value === null) return false;
  const actor = value as Actor;
  return isText(actor.sub) && (actor.act === undefined || isActor(actor.act, depth - 1));
}

function isConfirmation(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  const members = Object.keys(value);
  return members.length === 1 && (members[0] === 'jkt' || members[0] === 'x5t#S256') && isText(Object.values(value)[0]);
}
