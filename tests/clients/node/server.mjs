// Evaluates with OpenFeature's server SDK and its OFREP provider what standard input asks for:
//   {"baseUrl", "headers": [[name, value]], "evaluations": [{"type", "key", "default", "context"}]}
// and prints {"details": […], "requests": [{"method", "path", "status", "retryAfter"}]}.
import { text } from 'node:stream/consumers';
import { OFREPProvider } from '@openfeature/ofrep-provider';
import { OpenFeature } from '@openfeature/server-sdk';

const asked = JSON.parse(await text(process.stdin));
const requests = [];

async function fetchAndNote(request) {
  const response = await fetch(request);
  requests.push({
    method: request.method,
    path: new URL(request.url).pathname,
    status: response.status,
    retryAfter: response.headers.get('Retry-After'),
  });
  return response;
}

OpenFeature.setLogger({ error() {}, warn() {}, info() {}, debug() {} });
await OpenFeature.setProviderAndWait(
  new OFREPProvider({
    baseUrl: asked.baseUrl,
    headers: asked.headers,
    fetchImplementation: fetchAndNote,
  }),
);
const client = OpenFeature.getClient();
const evaluate = {
  boolean: (...args) => client.getBooleanDetails(...args),
  string: (...args) => client.getStringDetails(...args),
  number: (...args) => client.getNumberDetails(...args),
  object: (...args) => client.getObjectDetails(...args),
};
const details = [];
for (const { type, key, default: otherwise, context } of asked.evaluations) {
  details.push(await evaluate[type](key, otherwise, context ?? {}));
}
console.log(JSON.stringify({ details, requests }));
await OpenFeature.close();
