import { describe, expect, it } from '@jest/globals';
import { ERRORS } from '../../../../src/core/errors.js';
import { openApiDocument } from '../../../../src/edge/http/openapi.js';
import { routes } from '../../../../src/edge/http/routes/index.js';

// biome-ignore lint/suspicious/noExplicitAny: a document is looked into everywhere.
const document = openApiDocument(routes) as any;
const operations = routes.map((route) => ({
  route,
  operation: document.paths[route.path][route.method.toLowerCase()],
}));

describe('the API document', () => {
  it('is OpenAPI 3.1, the same each time, and plain JSON', () => {
    expect(document.openapi).toBe('3.1.0');
    expect(JSON.stringify(openApiDocument(routes))).toBe(JSON.stringify(document));
    expect(JSON.parse(JSON.stringify(document))).toEqual(document);
  });

  it('has every route, each with an id of its own', () => {
    expect(operations.every(({ operation }) => operation)).toBe(true);
    const ids = operations.map(({ operation }) => operation.operationId);
    expect(new Set(ids).size).toBe(routes.length);
    expect(ids).toContain('post-oauth2-token');
    expect(ids).toContain('get-tasks-by-id');
  });

  it('says every status a route declares, and every error', () => {
    for (const { route, operation } of operations) {
      const oauth = route.path.startsWith('/oauth2/');
      const statuses = [
        ...Object.keys(route.reply),
        ...route.errors.map((code) => String(oauth ? ERRORS[code].oauthStatus : ERRORS[code].status)),
        '400',
        '500',
        ...(route.auth === 'none' ? [] : ['401']),
        ...(route.auth === 'bound' ? ['403'] : []),
        ...(route.body ? ['413', '415'] : []),
      ];
      expect(Object.keys(operation.responses)).toEqual(expect.arrayContaining(statuses));
    }
  });

  it('names every path parameter of a path, and requires it', () => {
    for (const { route, operation } of operations) {
      const inPath = [...route.path.matchAll(/\{(\w+)\}/g)].map((match) => match[1]);
      const named = (operation.parameters ?? []).filter((one: { in: string }) => one.in === 'path');
      expect(named.map((one: { name: string }) => one.name)).toEqual(inPath);
      expect(named.every((one: { required: boolean }) => one.required)).toBe(true);
    }
  });

  it('closes its objects: what a route refuses, its schema refuses', () => {
    const { schema } = document.paths['/v1/tasks'].post.requestBody.content['application/json'];
    expect(schema.additionalProperties).toBe(false);
    expect(schema.required).toEqual(['purpose']);
    expect(schema.properties.ttl_seconds).toMatchObject({ type: 'integer' });
    expect(schema.properties.context.additionalProperties).not.toBe(false);
  });

  it('every reference leads somewhere', () => {
    const references = [...JSON.stringify(document).matchAll(/"\$ref":"#\/components\/schemas\/(\w+)"/g)];
    expect(references.length).toBeGreaterThan(0);
    for (const [, name] of references) expect(document.components.schemas).toHaveProperty(name as string);
  });

  it('wants a bound identity where a route does', () => {
    expect(document.paths['/v1/recover'].post.security).toEqual([{ dpop: [] }, { mtls: [] }]);
    expect(document.paths['/livez'].get.security).toBeUndefined();
  });
});
