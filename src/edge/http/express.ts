import express, { type Express, type Request as ExpressRequest, type Response as ExpressResponse } from 'express';
import { BrokerError } from '../../core/errors.js';
import type { Route } from './route.js';

/** What the listener does with a request once Express has found its route, or what is wrong with it. */
export interface Carrier {
  carry(route: Route, params: Record<string, string>, request: ExpressRequest, response: ExpressResponse): void;
  refuse(error: unknown, request: ExpressRequest, response: ExpressResponse, allow?: readonly string[]): void;
  /** No route has this path. */
  miss(request: ExpressRequest, response: ExpressResponse): void;
}

/**
 * Express finds the route; everything else is ours. Paths are compared letter by letter, bodies and queries are not touched, and a path
 * that exists under another method says so.
 */
export function expressOf(routes: readonly Route[], { carry, refuse, miss }: Carrier): Express {
  const app = express();
  app.disable('x-powered-by');
  app.disable('etag');
  app.enable('case sensitive routing');
  app.enable('strict routing');
  app.set('query parser', false);
  for (const [path, samePath] of groupByPath(routes)) {
    const at = app.route(path.replaceAll(/\{(\w+)\}/g, ':$1'));
    for (const route of samePath) {
      const method = route.method.toLowerCase() as Lowercase<Route['method']>;
      at[method]((request: ExpressRequest, response: ExpressResponse, next) => {
        // Express brings HEAD to a GET route: probes and caches may look at what is public, nobody else has a use for it.
        if (request.method !== route.method && !isPublic(route)) return next();
        carry(route, request.params as Record<string, string>, request, response);
      });
    }
    const allow = samePath.flatMap((route) => (isPublic(route) ? [route.method, 'HEAD'] : [route.method]));
    at.all((request, response) => refuse(methodNotAllowed(allow), request, response, allow));
  }
  app.use(miss);
  // Express knows an error handler by its four parameters.
  app.use((error: unknown, request: ExpressRequest, response: ExpressResponse, _next: express.NextFunction) => {
    refuse(
      isUndecodable(error) ? new BrokerError('invalid_request', 'The path is malformed.') : error,
      request,
      response,
    );
  });
  return app;
}

function methodNotAllowed(allow: readonly string[]): BrokerError {
  return new BrokerError('method_not_allowed', `This address takes ${allow.join(', ')}.`);
}

function isPublic({ method, auth }: Route): boolean {
  return method === 'GET' && auth === 'none';
}

function isUndecodable(error: unknown): boolean {
  return error instanceof URIError;
}

function groupByPath(routes: readonly Route[]): Map<string, Route[]> {
  const groups = new Map<string, Route[]>();
  for (const route of routes) groups.set(route.path, [...(groups.get(route.path) ?? []), route]);
  return groups;
}
