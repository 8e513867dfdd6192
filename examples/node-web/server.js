// Two colours in, their contrast out: as a page on `/`, as JSON on `POST /contrast`.

import http from 'node:http';
import { pathToFileURL } from 'node:url';
import { contrast, parseColour } from './contrast.js';

const LARGEST_BODY = 16 * 1024;
const BARS = { AA: 4.5, AAA: 7 };

/** @param {'AA' | 'AAA'} level the bar to pass */
export function createServer(level) {
  const server = http.createServer((request, response) => {
    answer(request, response, level).catch((error) => {
      console.error('contrast:', error);
      if (!response.headersSent) send(response, 500, { error: 'see the log' });
      else response.destroy();
    });
  });
  // A client may pause between two requests: closing sooner would cut one that is on its way.
  server.keepAliveTimeout = 75_000;
  return server;
}

async function answer(request, response, level) {
  const url = URL.canParse(request.url, 'http://app') ? new URL(request.url, 'http://app') : null;
  switch (`${request.method === 'HEAD' ? 'GET' : request.method} ${url?.pathname}`) {
    case 'GET /':
      return send(response, 200, page(url.searchParams, level), 'text/html');
    case 'GET /healthz':
      return send(response, 200, { ok: true });
    case 'POST /contrast': {
      const asked = await readJson(request);
      if (asked.tooLarge) {
        response.setHeader('Connection', 'close');
        return send(response, 413, { error: 'the body is too large' });
      }
      const result = judge(asked.value?.text, asked.value?.background, level);
      if (!result) return send(response, 400, { error: 'send {"text": "#333", "background": "#fff"}' });
      return send(response, 200, result);
    }
    default:
      return send(response, 404, { error: 'not here' });
  }
}

function judge(text, background, level) {
  const [one, other] = [parseColour(text), parseColour(background)];
  if (!one || !other) return null;
  const ratio = contrast(one, other);
  return { contrast: Math.round(ratio * 100) / 100, level, passes: ratio >= BARS[level] };
}

async function readJson(request) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > LARGEST_BODY) return { tooLarge: true };
    chunks.push(chunk);
  }
  try {
    return { value: JSON.parse(Buffer.concat(chunks).toString()) };
  } catch {
    return { value: null };
  }
}

function send(response, status, body, kind = 'application/json') {
  const data = typeof body === 'string' ? body : `${JSON.stringify(body)}\n`;
  const headers = { 'Content-Type': `${kind}; charset=utf-8`, 'Content-Length': Buffer.byteLength(data) };
  response.writeHead(status, headers);
  response.end(data);
}

function page(asked, level) {
  // Only what reads as a colour reaches the page.
  const colour = (name, otherwise) => {
    const given = asked.get(name);
    return parseColour(given) ? `#${given.replace('#', '')}` : otherwise;
  };
  const [text, background] = [colour('text', '#444444'), colour('background', '#fff8e7')];
  const result = judge(text, background, level);
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Contrast</title>
<style>
  body { font: 1.1rem/1.5 system-ui, sans-serif; max-width: 34rem; margin: 4rem auto; padding: 0 1rem }
  input, button { font: inherit }
  output { display: block; padding: 2rem; color: ${text}; background: ${background} }
</style>
<h1>Contrast</h1>
<form>
  <label>Text <input name="text" value="${text}" size="8"></label>
  <label>on <input name="background" value="${background}" size="8"></label>
  <button>Compare</button>
</form>
<p><output>${result.contrast} : 1, which ${result.passes ? 'passes' : 'fails'} ${level}</output>
<footer><small>Answered by process ${process.pid}.</small></footer>
</html>
`;
}

function main() {
  const level = process.env.LEVEL ?? 'AA';
  if (!Object.hasOwn(BARS, level)) {
    console.error(`contrast: LEVEL is ${JSON.stringify(level)}: use AA or AAA`);
    process.exit(1);
  }
  const server = createServer(level);
  server.listen(Number(process.env.PORT ?? 8080), '127.0.0.1', () => {
    console.log(`contrast: listening on http://127.0.0.1:${server.address().port}`);
  });
  process.on('SIGTERM', () => {
    // Takes no more connections; those with an answer under way close after it.
    server.prependListener('request', (_, response) => response.setHeader('Connection', 'close'));
    server.keepAliveTimeout = 1;
    server.close(() => console.log('contrast: stopped'));
  });
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) main();
