import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import http from 'node:http';
import net from 'node:net';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { contrast, parseColour } from './contrast.js';
import { createServer } from './server.js';

async function started(t) {
  const server = createServer('AA').listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close().closeAllConnections());
  const { port } = server.address();
  const ask = (body) => fetch(`http://127.0.0.1:${port}/contrast`, { method: 'POST', body });
  return { port, ask };
}

test('a colour is three or six hexadecimal digits', () => {
  assert.deepEqual(parseColour('#f80'), [255, 136, 0]);
  assert.deepEqual(parseColour('FF8800'), [255, 136, 0]);
  for (const bad of ['', '#ff', '#ggg', 'red', null, undefined, {}, '#fff"><script>']) {
    assert.equal(parseColour(bad), null);
  }
});

test('black on white is 21 to 1, either way round', () => {
  assert.equal(contrast([0, 0, 0], [255, 255, 255]), 21);
  assert.equal(contrast([255, 255, 255], [0, 0, 0]), 21);
  assert.equal(contrast([9, 9, 9], [9, 9, 9]), 1);
});

test('the API judges two colours', async (t) => {
  const { ask } = await started(t);
  const good = await ask('{"text": "#777", "background": "#fff"}');
  assert.deepEqual(await good.json(), { contrast: 4.48, level: 'AA', passes: false });
  for (const bad of ['', '{', 'null', '{"text": "#777"}', '{"text": [], "background": {}}']) {
    assert.equal((await ask(bad)).status, 400, bad);
  }
  assert.equal((await ask('x'.repeat(20_000))).status, 413);
});

test('the page shows only colours of what it was given', async (t) => {
  const { port } = await started(t);
  const page = await (await fetch(`http://127.0.0.1:${port}/?text=%22%3E%3Cscript%3E&background=000`)).text();
  assert.match(page, /value="#444444"/);
  assert.match(page, /value="#000"/);
});

test('garbage gets 400 and hurts nobody', async (t) => {
  const { port } = await started(t);
  const raw = net.connect(port, '127.0.0.1').end('\x16\x03\x01garbage\r\n\r\n');
  const [said] = await once(raw, 'data');
  assert.match(said.toString(), /^HTTP\/1.1 400 /);
  assert.equal((await fetch(`http://127.0.0.1:${port}/healthz`)).status, 200);
  assert.equal((await fetch(`http://127.0.0.1:${port}//`)).status, 404);
});

test('SIGTERM ends the process while a client is connected', async (t) => {
  const script = fileURLToPath(new URL('server.js', import.meta.url));
  const child = spawn(process.execPath, [script], { env: { ...process.env, PORT: '0' } });
  t.after(() => child.kill('SIGKILL'));
  const [line] = await once(child.stdout, 'data');
  const port = Number(/:(\d+)\n/.exec(line.toString())[1]);
  const agent = new http.Agent({ keepAlive: true });
  t.after(() => agent.destroy());
  const [response] = await once(http.get({ port, path: '/healthz', agent }), 'response');
  response.resume();
  await once(response, 'end');
  child.kill('SIGTERM');
  const [code] = await once(child, 'exit');
  assert.equal(code, 0);
});
