// A contender of bench/run: Stripe's webhooks taken in by Node, the way Stripe's documentation shows
// (the raw body to stripe.webhooks.constructEvent, then the database), with prepared statements.
//
//   rival.mjs inproc CLIENTS SECONDS    handler called directly, CLIENTS at a time
//   rival.mjs http CLIENTS SECONDS      the same behind node:http, called by another process
//   rival.mjs load PORT CLIENTS SECONDS that other process
//   rival.mjs verify                    constructEvent alone
//
// PGHOST, PGUSER and PGDATABASE say where the database is, BENCH_SECRET holds the webhook secret. The events
// are read from bench.events before the clock starts. The last line of output is the result as JSON.

import http from 'node:http';
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import Stripe from 'stripe';

const MOST_PER_SECOND = 6000; // events to have at hand for each second
const TOLERANCE = 86400; // seconds, as the server has it
const stripe = new Stripe('sk_test_bench');
const secret = process.env.BENCH_SECRET;

const TARGET = {
	'payment_intent.requires_action': 'requires_action',
	'payment_intent.processing': 'processing',
	'payment_intent.amount_capturable_updated': 'processing',
	'payment_intent.succeeded': 'succeeded',
	'payment_intent.payment_failed': 'failed',
	'payment_intent.canceled': 'failed',
};
const ENDS = new Set(['succeeded', 'failed']);

const FIND = {
	name: 'find',
	text: `SELECT id, state, amount, currency, livemode, amount_received, transitions, last_event_created
		FROM bench.node_payments WHERE payment_intent_id = $1 FOR UPDATE`,
};
const FIND_BY_ID = {
	name: 'find_by_id',
	text: `SELECT id, state, amount, currency, livemode, amount_received, transitions, last_event_created
		FROM bench.node_payments WHERE id = $1 FOR UPDATE`,
};
const KEEP = {
	name: 'keep',
	text: `INSERT INTO bench.node_events (event_id, type, created, livemode, api_version, account, object_id,
			payment_intent_id, payment_id, outcome, source, received_at, applied_at, payload)
		VALUES ($1, $2, to_timestamp($3), $4, $5, $6, $7, $7, $8, $9, 'webhook', now(), now(), $10)
		ON CONFLICT (event_id) DO NOTHING`,
};
const MOVE = {
	name: 'move',
	text: `UPDATE bench.node_payments SET state = $2::stripe_lifecycle.payment_state,
			amount_received = greatest(amount_received, $3), amount_capturable = $4,
			latest_charge = coalesce($5, latest_charge), transitions = transitions + 1, updated_at = now(),
			client_secret = CASE WHEN $6 THEN NULL ELSE client_secret END,
			finished_at = CASE WHEN $6 THEN now() END
		WHERE id = $1`,
};
const AUDIT = {
	name: 'audit',
	text: `INSERT INTO bench.node_transitions (payment_id, seq, from_state, to_state, at, source, event_id,
			event_type, event_created, role, amount, currency, livemode)
		VALUES ($1, $2, $3, $4, now(), 'webhook', $5, $6, to_timestamp($7), session_user, $8, $9, $10)`,
};

function judge(payment, event, intent, target) {
	if (!payment) return 'unmatched';
	if (Number(payment.amount) !== intent.amount || payment.currency !== intent.currency
		|| payment.livemode !== event.livemode) return 'conflict';
	if (!target) return 'ignored';
	if (payment.state === 'succeeded' || (payment.state === 'failed' && target !== 'succeeded')
		|| (!ENDS.has(target) && payment.last_event_created
			&& payment.last_event_created.getTime() >= event.created * 1000)) return 'stale';
	return 'applied';
}

function reduced(event, intent) {
	return {
		id: event.id, type: event.type, created: event.created, livemode: event.livemode,
		request: event.request,
		data: {
			object: {
				id: intent.id, object: intent.object, status: intent.status, amount: intent.amount,
				amount_capturable: intent.amount_capturable, amount_received: intent.amount_received,
				currency: intent.currency, latest_charge: intent.latest_charge,
				cancellation_reason: intent.cancellation_reason,
				last_payment_error: intent.last_payment_error, metadata: intent.metadata,
			},
		},
	};
}

async function ingest(client, body, header) {
	const event = stripe.webhooks.constructEvent(body, header, secret, TOLERANCE);
	const intent = event.data.object;
	const target = TARGET[event.type];
	await client.query('BEGIN');
	try {
		let payment = (await client.query({ ...FIND, values: [intent.id] })).rows[0];
		if (!payment && intent.metadata.stripe_lifecycle_payment_id) {
			payment = (await client.query({
				...FIND_BY_ID, values: [intent.metadata.stripe_lifecycle_payment_id],
			})).rows[0];
		}
		const outcome = judge(payment, event, intent, target);
		const kept = await client.query({
			...KEEP,
			values: [event.id, event.type, event.created, event.livemode, event.api_version,
				event.account, intent.id, payment?.id, outcome, reduced(event, intent)],
		});
		if (kept.rowCount === 1 && outcome === 'applied') {
			await client.query({
				...MOVE,
				values: [payment.id, target, intent.amount_received, intent.amount_capturable,
					intent.latest_charge, ENDS.has(target)],
			});
			await client.query({
				...AUDIT,
				values: [payment.id, payment.transitions + 1, payment.state, target, event.id,
					event.type, event.created, payment.amount, payment.currency, payment.livemode],
			});
		}
		await client.query('COMMIT');
		return kept.rowCount === 1 ? outcome : 'duplicate';
	} catch (error) {
		await client.query('ROLLBACK');
		throw error;
	}
}

async function connect() {
	const client = new pg.Client();
	await client.connect();
	return client;
}

// The next events of the table, which no other run will get.
async function takeEvents(count) {
	const client = await connect();
	const { rows: [{ last }] } = await client.query(
		"SELECT setval('bench.node_next', nextval('bench.node_next') + $1 - 1) AS last", [count]);
	const { rows } = await client.query({
		text: 'SELECT body, header FROM bench.events WHERE n > $1::bigint - $2::bigint AND n <= $1::bigint ORDER BY n',
		values: [last, count], rowMode: 'array',
	});
	await client.end();
	return rows;
}

async function giveBack(count) {
	const client = await connect();
	await client.query("SELECT setval('bench.node_next', last_value - $1) FROM bench.node_next", [count]);
	await client.end();
}

// Gives events to `clients` loops until the time is up.
async function drive(events, clients, seconds, handle) {
	const started = performance.now();
	const end = started + seconds * 1000;
	let next = 0;
	let done = 0;
	await Promise.all(Array.from({ length: clients }, async (_, n) => {
		while (performance.now() < end) {
			if (next >= events.length) throw new Error(`ran out of events after ${done}`);
			const [body, header] = events[next++];
			const outcome = await handle(n, body, header);
			if (outcome !== 'applied') throw new Error(`outcome ${outcome}`);
			done++;
		}
	}));
	const tps = done / (performance.now() - started) * 1000;
	await giveBack(events.length - next);
	return { tps, count: done };
}

async function inproc(clients, seconds) {
	const events = await takeEvents(MOST_PER_SECOND * seconds);
	const connections = await Promise.all(Array.from({ length: clients }, connect));
	const result = await drive(events, clients, seconds,
		(n, body, header) => ingest(connections[n], body, header));
	await Promise.all(connections.map((c) => c.end()));
	return result;
}

async function serve(clients, seconds) {
	const pool = new pg.Pool({ max: clients });
	const server = http.createServer((request, response) => {
		const chunks = [];
		request.on('data', (chunk) => chunks.push(chunk));
		request.on('end', async () => {
			const client = await pool.connect();
			try {
				const outcome = await ingest(client, Buffer.concat(chunks), request.headers['stripe-signature']);
				response.end(outcome);
			} catch (error) {
				response.writeHead(400).end(String(error));
			} finally {
				client.release();
			}
		});
	});
	await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
	const child = spawn(process.execPath,
		[fileURLToPath(import.meta.url), 'load', server.address().port, clients, seconds],
		{ stdio: ['ignore', 'pipe', 'inherit'] });
	let output = '';
	child.stdout.on('data', (data) => { output += data; });
	const code = await new Promise((resolve) => child.on('close', resolve));
	server.close();
	await pool.end();
	if (code !== 0) throw new Error('the load generator failed');
	return JSON.parse(output);
}

async function load(port, clients, seconds) {
	const events = await takeEvents(MOST_PER_SECOND * seconds);
	const agent = new http.Agent({ keepAlive: true, maxSockets: clients });
	const post = (_, body, header) => new Promise((resolve, reject) => {
		const request = http.request({
			agent, host: '127.0.0.1', port, method: 'POST', path: '/webhook',
			headers: { 'content-type': 'application/json', 'stripe-signature': header,
				'content-length': Buffer.byteLength(body) },
		}, (response) => {
			let text = '';
			response.on('data', (data) => { text += data; });
			response.on('end', () => resolve(text));
		});
		request.on('error', reject);
		request.end(body);
	});
	const result = await drive(events, clients, seconds, post);
	agent.destroy();
	return result;
}

async function verify() {
	const client = await connect();
	const { rows } = await client.query({
		text: 'SELECT body, header FROM bench.events WHERE n <= 1000', rowMode: 'array',
	});
	await client.end();
	const bodies = rows.map(([body, header]) => [Buffer.from(body), header]);
	const pass = () => bodies.forEach(([body, header]) =>
		stripe.webhooks.constructEvent(body, header, secret, TOLERANCE));
	for (let i = 0; i < 5; i++) pass(); // let the compiler have its say
	const started = performance.now();
	for (let i = 0; i < 20; i++) pass();
	return { us: (performance.now() - started) * 1000 / (20 * bodies.length) };
}

const [mode, ...numbers] = process.argv.slice(2);
const modes = { inproc, http: serve, load, verify };
console.log(JSON.stringify(await modes[mode](...numbers.map(Number))));
