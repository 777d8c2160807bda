// OpenFeature's web SDK and its OFREP provider, told what to do by lines of JSON on standard input;
// each is answered by one line {"answer": …}. Lines {"request": …}, {"stream": …} and {"event": …}
// say what happens meanwhile. Needs `node --experimental-eventsource`, for the browser's EventSource.
import { createInterface } from 'node:readline';
import { OFREPWebProvider } from '@openfeature/ofrep-web-provider';
import { OpenFeature, ProviderEvents } from '@openfeature/web-sdk';

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

async function fetchAndSay(request, options) {
  const response = await fetch(request, options);
  const url = new URL(request.url);
  say({
    request: {
      method: request.method,
      path: url.pathname,
      because: url.searchParams.get('flagConfigEtag'),
      held: request.headers.get('If-None-Match'),
      status: response.status,
      etag: response.headers.get('ETag'),
    },
  });
  return response;
}

globalThis.EventSource = class extends EventSource {
  constructor(url) {
    super(url);
    this.addEventListener('open', () => say({ stream: { opened: url } }));
    this.addEventListener('error', () => say({ stream: { failed: url, state: this.readyState } }));
  }
};

const actions = {
  async start({ options, context }) {
    OpenFeature.setLogger({ error() {}, warn() {}, info() {}, debug() {} });
    for (const name of [ProviderEvents.ConfigurationChanged, ProviderEvents.Stale]) {
      OpenFeature.addHandler(name, (details) =>
        say({ event: { name, flags: details?.flagsChanged ?? null } }),
      );
    }
    await OpenFeature.setContext(context);
    const provider = new OFREPWebProvider({
      cacheMode: 'disabled', // there is no localStorage here
      fetchImplementation: fetchAndSay,
      ...options,
    });
    await OpenFeature.setProviderAndWait(provider);
  },
  async context({ context }) {
    await OpenFeature.setContext(context);
  },
  evaluate({ type, key, default: otherwise }) {
    const client = OpenFeature.getClient();
    return {
      boolean: () => client.getBooleanDetails(key, otherwise),
      string: () => client.getStringDetails(key, otherwise),
      number: () => client.getNumberDetails(key, otherwise),
      object: () => client.getObjectDetails(key, otherwise),
    }[type]();
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line);
  try {
    say({ answer: (await actions[asked.do](asked)) ?? null });
  } catch (error) {
    say({ answer: { error: String(error) } });
  }
}
await OpenFeature.close();
process.exit(0);
