import v8 from 'node:v8';

/**
 * Without this flag the policy engine can abort the whole process: V8 of Node 20 and 22 inlines the call from JavaScript into
 * WebAssembly, and such a call that returns a reference cannot be deoptimised while it runs ("unreachable code", not catchable).
 * A module of its own because in ESM every import runs before the first statement: import it before the engine. The flag acts
 * on the whole process and costs nothing measurable. `NODE_OPTIONS` does not accept it.
 */
v8.setFlagsFromString('--no-turbo-inline-js-wasm-calls');
