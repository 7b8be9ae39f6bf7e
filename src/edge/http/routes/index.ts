import { z } from 'zod';
import { openApiDocument } from '../openapi.js';
import { defineRoute, type Route } from '../route.js';
import { audit } from './audit.js';
import { backends } from './backends.js';
import { bundle } from './bundle.js';
import { feed } from './feed.js';
import { keys } from './keys.js';
import { leases } from './leases.js';
import { locks } from './locks.js';
import { metadata } from './metadata.js';
import { oauth } from './oauth.js';
import { operations } from './operations.js';
import { revocations } from './revocations.js';
import { secrets } from './secrets.js';
import { tasks } from './tasks.js';

const document = defineRoute({
  method: 'GET',
  path: '/openapi.json',
  auth: 'none',
  summary: 'This document',
  reply: { 200: z.looseObject({ openapi: z.string() }) },
  errors: [],
  handle: () => {
    documentBytes ??= Buffer.from(JSON.stringify(openApiDocument(routes)));
    return {
      status: 200,
      headers: { 'cache-control': 'public, max-age=60', 'content-type': 'application/json' },
      body: documentBytes,
    };
  },
});

let documentBytes: Buffer | undefined;

/** Every way in, in one table. */
export const routes: readonly Route[] = [
  ...operations,
  document,
  ...metadata,
  ...oauth,
  ...tasks,
  ...leases,
  ...secrets,
  ...backends,
  ...revocations,
  ...locks,
  ...feed,
  ...audit,
  ...bundle,
  ...keys,
];
