// status.js - the masters of sshmux as they are now, asked every few seconds while the page
// is seen: who is connected, why not, what moves, what happened.
//
// What comes from a master may be text that a server chose.  So every text is put in an
// array: LuCI takes a bare string for HTML.
'use strict';
'require view';
'require poll';
'require dom';
'require fs';
'require uci';
'require ui';

const INIT = '/etc/init.d/sshmux';
const SECONDS = 5;
const SAMPLES = 60;		// of the graph: five minutes
const ROWS = 20;		// of sessions and events

const STATES = {
	'up': [ 'success', _('connected') ],
	'login': [ 'notice', _('logging in') ],
	'connecting': [ 'notice', _('connecting') ],
	'waiting': [ 'warning', _('waiting') ],
	'down': [ 'warning', _('down') ],
	'draining': [ 'warning', _('draining') ],
	'held': [ 'warning', _('held') ],
	'stopped': [ 'important', _('no master') ],
	'disabled': [ '', _('not enabled') ]
};

const FORWARDS = {
	'local': _('local'),
	'remote': _('remote'),
	'dynamic': _('SOCKS'),
	'remote-dynamic': _('remote SOCKS'),
	'proxied': _('of a client')
};

const FORWARD_STATES = {
	'resolving': [ 'notice', _('looking up') ],
	'waiting': [ 'warning', _('waiting') ],
	'asked': [ 'notice', _('asked for') ],
	'active': [ 'success', _('active') ]
};

const EVENTS = {
	'uplink-up': _('connected'),
	'uplink-down': _('connection lost'),
	'uplink-trying': _('try failed'),
	'session-opened': _('session began'),
	'session-closed': _('session ended'),
	'forward-up': _('forward is there'),
	'forward-down': _('forward is gone'),
	'forward-failed': _('forward failed'),
	'limit-reached': _('table is full'),
	'keys-exchanged': _('keys exchanged'),
	'client-refused': _('client refused'),
	'master-ending': _('master ends'),
	'lost': _('events lost')
};

function age(seconds) {
	const s = Math.max(0, Math.floor(seconds));

	const text = s < 60 ? _('%d s').format(s)
		: s < 3600 ? _('%d min %d s').format(s / 60, s % 60)
		: s < 86400 ? _('%d h %d min').format(s / 3600, s / 60 % 60)
		: _('%d d %d h').format(s / 86400, s / 3600 % 24);

	return text.replace(/ /g, '\u00a0');
}

function bytes(count) {
	return '%1024.1mB'.format(count);
}

// The text of a link's or a forward's state; a name that is new to us stands for itself.
function badge(table, state) {
	const known = table[state];

	return known ? E('span', { 'class': 'label ' + known[0], 'style': 'white-space:nowrap' }, [ known[1] ])
		: E('span', { 'class': 'label' }, [ state ]);
}

function address(end) {
	if (!end)
		return '';
	if (end.path)
		return end.path;
	if (end.host == null && end.port == null)
		return '';
	return '%s:%d'.format(end.host || '*', end.port);
}

// The state that matters most to who looks at it
function stateOf(server) {
	const s = server.status;

	if (!s)
		return server.enabled ? 'stopped' : 'disabled';
	if (s.mode == 'ending')
		return 'draining';
	if (s.mode == 'held')
		return 'held';
	return s.uplink.state;
}

// An object a server; one may go over several lines.
function parseReport(text) {
	return JSON.parse('[' + text.trim().replace(/\n(?=\{)/g, ',') + ']');
}

function parseEvents(text) {
	return text.trim().split('\n').filter(line => line != '').map(line => JSON.parse(line)).reverse();
}

// table: texts of the columns `long` may be broken anywhere, others between words.
function table(titles, rows, nothing, long) {
	return E('table', { 'class': 'table' }, [
		E('tr', { 'class': 'tr table-titles' }, titles.map(title => E('th', { 'class': 'th' }, [ title ])))
	].concat(rows.length ? rows.map(cells =>
		E('tr', { 'class': 'tr' }, cells.map((cell, i) =>
			E('td', { 'class': 'td left', 'data-title': titles[i],
				'style': 'overflow-wrap:' + (long.includes(i) ? 'anywhere' : 'break-word') },
				[ cell == null ? '' : cell ])))
	) : [
		E('tr', { 'class': 'tr placeholder' }, [ E('td', { 'class': 'td' }, [ E('em', [ nothing ]) ]) ])
	]));
}

function svg(tag, attributes, children) {
	const node = document.createElementNS('http://www.w3.org/2000/svg', tag);

	for (const name in attributes)
		node.setAttribute(name, attributes[name]);
	(children || []).forEach(child => node.appendChild(child));
	return node;
}

const RECEIVED = '#2a9d4a', SENT = '#3477c8';

// The newest sample is at the right edge, however many there are.
function points(samples, field, peak) {
	return samples.map((sample, i) => '%d,%d'.format(
		(SAMPLES - samples.length + i) * 600 / (SAMPLES - 1), 98 - 94 * sample[field] / peak)).join(' ');
}

function graph(samples) {
	const peak = Math.max(1024, ...samples.map(s => Math.max(s.received, s.sent)));
	const last = samples[samples.length - 1] || { received: 0, sent: 0 };
	const first = (SAMPLES - samples.length) * 600 / (SAMPLES - 1);
	const lines = [ 25, 50, 75 ].map(y =>
		svg('line', { x1: 0, x2: 600, y1: y, y2: y, stroke: 'currentColor', 'stroke-opacity': 0.15 }));

	if (samples.length > 1)
		lines.push(
			svg('polygon', { points: '%d,100 %s 600,100'.format(first, points(samples, 'received', peak)),
				fill: RECEIVED, 'fill-opacity': 0.25 }),
			svg('polyline', { points: points(samples, 'received', peak), fill: 'none', stroke: RECEIVED,
				'stroke-width': 2, 'vector-effect': 'non-scaling-stroke' }),
			svg('polyline', { points: points(samples, 'sent', peak), fill: 'none', stroke: SENT,
				'stroke-width': 2, 'vector-effect': 'non-scaling-stroke' }));

	return E('div', { 'class': 'cbi-section' }, [
		E('div', { 'style': 'display:flex;flex-wrap:wrap;gap:0 1.5em;margin-bottom:.3em' }, [
			E('span', [ E('strong', { 'style': 'color:' + RECEIVED }, [ '■ ' ]),
				_('received: %s/s').format(bytes(last.received)) ]),
			E('span', [ E('strong', { 'style': 'color:' + SENT }, [ '■ ' ]),
				_('sent: %s/s').format(bytes(last.sent)) ]),
			E('span', { 'style': 'margin-left:auto;opacity:.7' },
				[ _('full height: %s/s, width: %d min').format(bytes(peak), SAMPLES * SECONDS / 60) ])
		]),
		svg('svg', { viewBox: '0 0 600 100', preserveAspectRatio: 'none', role: 'img',
			'aria-label': _('Traffic'),
			style: 'display:block;width:100%;height:100px;border:1px solid rgba(128,128,128,.4)' }, lines)
	]);
}

return view.extend({
	handleSaveApply: null,
	handleSave: null,
	handleReset: null,

	load() {
		return Promise.all([
			L.resolveDefault(uci.load('sshmux'), []),
			this.ask()
		]);
	},

	// The answer of the init script, or why there is none
	ask() {
		return fs.exec(INIT, [ 'report' ]).then(result => parseReport(result.stdout || ''))
			.catch(error => error);
	},

	askEvents() {
		if (this.selected == null)
			return Promise.resolve([]);
		return fs.exec(INIT, [ 'events', this.selected ])
			.then(result => result.code ? [] : parseEvents(result.stdout || ''))
			.catch(() => []);
	},

	render([ , answer ]) {
		this.samples = {};
		this.overview = E('div', { 'class': 'cbi-section', 'id': 'sshmux-overview' });
		this.buttons = E('div', { 'id': 'sshmux-buttons', 'style': 'display:flex;flex-wrap:wrap;gap:.5em;margin:.5em 0' });
		this.details = E('div', { 'id': 'sshmux-details' });
		this.root = E('div', [
			E('h2', [ _('SSH connections') ]),
			this.overview, this.buttons, this.details
		]);
		this.take(answer);
		this.tick = L.bind(this.refresh, this);
		poll.add(this.tick, SECONDS);
		return this.askEvents().then(events => {
			this.events = events;
			this.show();
			return this.root;
		});
	},

	refresh() {
		if (this.root.isConnected) {
			this.shown = true;
			return document.hidden ? Promise.resolve() : this.update();
		}
		if (this.shown)		// the page shows something else
			poll.remove(this.tick);
		return Promise.resolve();
	},

	update() {
		return Promise.all([ this.ask(), this.askEvents() ]).then(([ answer, events ]) => {
			this.take(answer);
			this.events = events;
			this.show();
		});
	},

	// take: what the configuration names, and the report
	take(answer) {
		const servers = {};

		this.failure = Array.isArray(answer) ? null : answer;
		uci.sections('sshmux', 'server', section => {
			servers[section['.name']] = { name: section['.name'], host: section.hostname || '',
				enabled: section.enabled != '0' && uci.get('sshmux', 'globals', 'enabled') != '0' };
		});
		for (const entry of this.failure ? [] : answer) {
			servers[entry.name] = servers[entry.name] || { name: entry.name, host: '', enabled: true };
			servers[entry.name].status = entry.status;
			this.sample(entry);
		}
		this.servers = Object.values(servers);
		if (!servers[this.selected])
			this.selected = this.servers.length ? this.servers[0].name : null;
		this.server = servers[this.selected];
	},

	// sample: bytes a second since the last report of the same master
	sample(entry) {
		const now = performance.now() / 1000;
		const total = entry.status && entry.status.uplink.total;
		const before = this.samples[entry.name] || { list: [] };

		if (total && before.pid == entry.status.pid && now > before.when) {
			before.list.push({
				received: Math.max(0, total.received_bytes - before.received) / (now - before.when),
				sent: Math.max(0, total.sent_bytes - before.sent) / (now - before.when)
			});
			before.list.splice(0, before.list.length - SAMPLES);
		}
		this.samples[entry.name] = total
			? { list: before.list, pid: entry.status.pid, when: now,
				received: total.received_bytes, sent: total.sent_bytes }
			: { list: [] };
	},

	rate(name) {
		const list = (this.samples[name] || { list: [] }).list;
		const last = list[list.length - 1];

		return last ? _('%s/s in, %s/s out').format(bytes(last.received), bytes(last.sent)) : '';
	},

	select(name) {
		this.selected = name;
		this.events = [];
		return this.update().then(() => {
			if (this.details.getBoundingClientRect().top > window.innerHeight * 2 / 3)
				this.buttons.scrollIntoView();
		});
	},

	show() {
		const focus = document.activeElement && document.activeElement.getAttribute('data-server');

		dom.content(this.overview, this.failure
			? [ E('div', { 'class': 'alert-message warning' },
				[ _('The state cannot be read: %s').format(this.failure.message) ]) ]
			: [ this.showServers() ]);
		if (this.buttonsOf != this.selected || !this.buttons.firstChild)
			this.showButtons();
		dom.content(this.details, this.failure || !this.server ? [] : this.showServer(this.server));
		if (focus != null)
			this.overview.querySelectorAll('[data-server]').forEach(node => {
				if (node.getAttribute('data-server') == focus)
					node.focus();
			});
	},

	showServers() {
		return table([ _('Server'), _('Host'), _('State'), _('Since'), _('Sessions'), _('Traffic') ],
			this.servers.map(server => {
				const s = server.status;

				return [
					E('a', {
						'href': '#', 'data-server': server.name,
						'style': server.name == this.selected ? 'font-weight:bold' : '',
						'click': ev => { ev.preventDefault(); return this.select(server.name); }
					}, [ server.name ]),
					s && s.uplink.host || server.host,
					E('span', [ badge(STATES, stateOf(server)), ' ', this.whyNot(s) ]),
					s ? age(s.uplink.age) : '',
					s ? '%d'.format(s.sessions.length) : '',
					this.rate(server.name)
				];
			}), _('No server is configured.'), [ 2 ]);
	},

	// whyNot: the reason, and when the next try is
	whyNot(s) {
		if (!s || s.uplink.state == 'up')
			return '';
		return [
			s.uplink.last_error || '',
			s.uplink.next_try != null ? _('next try in %s').format(age(s.uplink.next_try)) : ''
		].filter(text => text != '').join('; ');
	},

	// The buttons stay while the rest is drawn anew, so that none goes away under a finger.
	showButtons() {
		const button = (action, style, title, hint) => E('button', {
			'class': 'btn cbi-button cbi-button-' + style, 'data-action': action, 'title': hint,
			'disabled': L.hasViewPermission() ? null : '',
			'click': ui.createHandlerFn(this, 'act', action)
		}, [ title ]);

		this.buttonsOf = this.selected;
		dom.content(this.buttons, this.failure || this.selected == null ? [] : [
			button('kick', 'neutral', _('Kick'),
				_('Tries now if it waits; else asks the server for a sign of life')),
			button('reconnect', 'action', _('Reconnect'),
				_('Logs in anew; sessions that run are cut off')),
			button('drain', 'negative', _('Drain'),
				_('Takes no new sessions, lets those that run end, then starts anew'))
		]);
	},

	act(action) {
		return fs.exec(INIT, [ action, this.selected ]).then(result => {
			if (result.code)
				throw new Error((result.stderr || result.stdout || '').trim() || _('it failed'));
		}).catch(error => {
			ui.addNotification(null, E('p', [ '%s: %s'.format(action, error.message) ]), 'error');
		}).then(() => this.update());
	},

	showServer(server) {
		const s = server.status;

		if (!s)
			return [ E('h3', [ server.name ]), E('p', [ server.enabled
				? _('No master runs for this server; the system log says why.')
				: _('This server is not enabled.') ]) ];
		return [
			E('h3', [ server.name ]),
			this.showUplink(s),
			graph((this.samples[server.name] || { list: [] }).list),
			E('h3', [ _('Forwards') ]), this.showForwards(s.forwards),
			E('h3', [ _('Sessions') ]), this.showSessions(s.sessions),
			E('h3', [ _('Events') ]), this.showEvents()
		];
	},

	showUplink(s) {
		const u = s.uplink;
		const facts = [
			[ _('Connection'), E('span', [ badge(STATES, u.state), ' ', age(u.age) ]) ],
			[ _('Next try'), u.next_try != null ? age(u.next_try) : null ],
			[ _('Last error'), u.last_error
				? _('%s (%s ago)').format(u.last_error, age(u.last_error_age)) : null ],
			[ _('Login'), '%s@%s:%d'.format(u.user || '', u.host || '', u.port) ],
			[ _('Server'), u.server_version ],
			[ _('Host key'), u.host_key_fingerprint ],
			[ _('Cipher'), u.cipher ],
			[ _('Round trip'), u.round_trip_ms.count
				? _('%d ms, mean %d ms').format(u.round_trip_ms.last, u.round_trip_ms.mean) : null ],
			[ _('Logins'), '%d'.format(u.logins) ],
			[ _('Traffic'), _('%s received, %s sent').format(
				bytes(u.total.received_bytes), bytes(u.total.sent_bytes)) ],
			[ _('Master'), _('process %d, runs for %s').format(s.pid, age(s.age)) ]
		];

		return E('table', { 'class': 'table' }, facts.filter(fact => fact[1]).map(fact =>
			E('tr', { 'class': 'tr' }, [
				E('td', { 'class': 'td left', 'width': '25%' }, [ fact[0] ]),
				E('td', { 'class': 'td left', 'style': 'overflow-wrap:anywhere' }, [ fact[1] ])
			])));
	},

	showForwards(forwards) {
		return table([ _('Kind'), _('Listens'), _('Leads to'), _('State'), _('Connections'), _('Traffic') ],
			forwards.map(f => [
				FORWARDS[f.type] || f.type,
				address(f.listen),
				address(f.connect),
				E('span', [ badge(FORWARD_STATES, f.state), ' ', f.last_error || '' ]),
				_('%d, %d in all').format(f.connections, f.connections_total),
				_('%s received, %s sent').format(bytes(f.received_bytes), bytes(f.sent_bytes))
			]), _('None.'), [ 1, 2, 3 ]);
	},

	showSessions(sessions) {
		const rows = sessions.slice(0, ROWS).map(x => [
			x.command || (x.state == 'waiting' ? _('waits') : _('shell')),
			x.program ? '%s (%d)'.format(x.program, x.pid) : '%d'.format(x.pid),
			age(x.age),
			_('%s received, %s sent').format(bytes(x.stdout_bytes + x.stderr_bytes), bytes(x.stdin_bytes))
		]);

		if (sessions.length > ROWS)
			rows.push([ _('and %d more').format(sessions.length - ROWS), '', '', '' ]);
		return table([ _('Command'), _('Client'), _('For'), _('Traffic') ], rows, _('None.'), [ 0 ]);
	},

	showEvents() {
		return table([ _('Ago'), _('Event'), '' ], (this.events || []).slice(0, ROWS).map(e => [
			age(e.age),
			EVENTS[e.event] || e.event,
			[ e.reason, e.forward, e.address, e.table, e.kex, e.command,
				e.status > 0 ? _('status %d').format(e.status) : null ]
				.filter(text => text != null && text !== '').join(', ')
		]), _('None.'), [ 2 ]);
	}
});
