import { hotRoutes } from '../../../../src/edge/http/hot-routes.js';
import type { Route } from '../../../../src/edge/http/route.js';
import { routes } from '../../../../src/edge/http/routes/index.js';

const route = (method: Route['method'], path: string, hot = true) =>
  ({ method, path, ...(hot && { hot }) }) as unknown as Route;

const open = route('POST', '/v1/toys');
const end = route('POST', '/v1/toys/{id}/end');
const find = hotRoutes([open, end, route('GET', '/v1/toys', false), route('POST', '/v1/toys/{id}/mend', false)]);
const at = (method: string, path: string) => find({ method, path, query: '', requestId: 'r' });

it('a hot route is found by its method and path, with its parameters decoded', () => {
  expect(at('POST', '/v1/toys')).toEqual({ route: open, params: {} });
  expect(at('POST', '/v1/toys/7/end')).toEqual({ route: end, params: { id: '7' } });
  expect(at('POST', '/v1/toys/ref:a%2Fb/end')).toEqual({ route: end, params: { id: 'ref:a/b' } });
  expect(at('POST', '/v1/toys/__proto__/end')).toEqual({ route: end, params: { id: '__proto__' } });
});

it.each([
  ['GET', '/v1/toys'],
  ['HEAD', '/v1/toys/7/end'],
  ['PUT', '/v1/toys/7/end'],
  ['POST', '/v1/toys/7'],
  ['POST', '/v1/toys/7/mend'],
  ['POST', '/v1/toys/7/end/'],
  ['POST', '/v1/toys//end'],
  ['POST', '/v1/toys/7/8/end'],
  ['POST', '/v1/toys/7/END'],
  ['POST', '/x/v1/toys'],
  ['POST', '/v1/toys/{id}/end/more'],
])('%s %s is left to Express', (method, path) => {
  expect(at(method, path)).toBeUndefined();
});

it('no other route of the API takes what a hot one is found for', () => {
  const shapeOf = ({ method, path }: Route) => `${method} ${path.replaceAll(/\{\w+\}/g, '*')}`;
  const shapes = routes.map(shapeOf);
  const hot = routes.filter((route) => route.hot);
  expect(hot.length).toBeGreaterThan(5);
  for (const one of hot) {
    const pattern = new RegExp(`^${shapeOf(one).replaceAll('*', '[^/]+')}$`);
    expect(shapes.filter((shape) => pattern.test(shape))).toEqual([shapeOf(one)]);
  }
});
