// servers.js - /etc/config/sshmux: servers, their forwards, their keys.
//
// Every text that comes from the router is put in an array: LuCI takes a bare string for
// HTML.
'use strict';
'require view';
'require form';
'require dom';
'require fs';
'require uci';
'require ui';

const INIT = '/etc/init.d/sshmux';

// What the init script says on its standard output, or an error with its message
function run(...words) {
	return fs.exec(INIT, words).then(result => {
		if (result.code)
			throw new Error((result.stderr || result.stdout || '').trim() || _('it failed'));
		return (result.stdout || '').trim();
	});
}

// A line a key: its file, type, key and comment
function parseKeys(text) {
	return text.split('\n').filter(line => line != '').map(line => ({
		file: line.replace(/ .*/, ''),
		line: line.replace(/^\S+ ?/, '')
	}));
}

function notify(error) {
	ui.addNotification(null, E('p', [ error.message ]), 'error');
}

function checkHostKey(section_id, value) {
	return value == '' || /^SHA256:[A-Za-z0-9+/]{43}=?$/.test(value) ||
		/^((ssh|ecdsa)-\S+ )?AAAA[A-Za-z0-9+/]+=*( \S+)?$/.test(value) ||
		_('a fingerprint (SHA256:…), or the line of a public key');
}

function checkLine(section_id, value) {
	return value == '' || /^[A-Za-z0-9]+[ =]\s*\S/.test(value) || _('a keyword and its value');
}

function checkProgram(section_id, value) {
	return value == '' || /^\/[^\s"'\\#*?[%]*$/.test(value) || _('an absolute path');
}

// pin: into the list of the form, where it is saved with the rest
function pin(section, section_id, print) {
	const list = section.getUIElement(section_id, 'HostKey');

	list.setValue(L.toArray(list.getValue()).filter(key => key != print).concat([ print ]));
	return Promise.resolve();
}

// renderFetch: a button that shows the server's fingerprint, and one that pins it.  It asks
// the host and the port of the form as it is now.
function renderFetch(section, section_id) {
	const answer = E('div', { 'class': 'sshmux-fetched', 'style': 'margin-top:.5em' });
	const show = print => dom.content(answer, [
		E('div', [ E('code', { 'style': 'overflow-wrap:anywhere' }, [ print ]) ]),
		E('p', [ _('Compare it with what the server itself says: ssh-keygen -lf, or dropbearkey -y -f, of its host key.') ]),
		E('button', { 'class': 'btn cbi-button cbi-button-apply',
			'click': ui.createHandlerFn(this, pin, section, section_id, print) }, [ _('Pin it') ])
	]);
	const fetch = () => {
		dom.content(answer, []);
		return run('host_key', section.formvalue(section_id, 'hostname') || '',
			section.formvalue(section_id, 'port') || '22').then(show)
			.catch(error => dom.content(answer, [ E('em', [ error.message ]) ]));
	};

	return E('div', [
		E('button', { 'class': 'btn cbi-button cbi-button-action',
			'click': ui.createHandlerFn(this, fetch) }, [ _('Show its host key') ]),
		answer
	]);
}

return view.extend({
	load() {
		return run('keys').then(parseKeys).catch(error => error);
	},

	render(keys) {
		const map = new form.Map('sshmux', _('SSH connections'),
			_('A connection to each server is kept; jobs and forwards go through it. ') +
			_('A job runs with <code>sshmux NAME COMMAND</code>.'));

		this.keys = Array.isArray(keys) ? keys : [];
		this.keysFailure = Array.isArray(keys) ? null : keys;
		this.addGlobals(map);
		this.addServers(map);
		this.addForwards(map, 'tunnelL', _('Local forwards'),
			_('A port of this router leads to a machine that the server reaches.'));
		this.addForwards(map, 'tunnelR', _('Remote forwards'),
			_('A port of the server leads to a machine that this router reaches.'));
		this.addForwards(map, 'tunnelD', _('SOCKS'),
			_('Connections of SOCKS clients go out at the server.'));
		return map.render().then(nodes => E('div', [ nodes, this.renderKeys() ]));
	},

	addGlobals(map) {
		const s = map.section(form.NamedSection, 'globals', 'sshmux');
		let o;

		o = s.option(form.Flag, 'enabled', _('Enabled'));
		o.default = '1';
		o.rmempty = false;

		o = s.option(form.ListValue, 'log_level', _('Log'));
		o.value('', _('default'));
		[ 'QUIET', 'ERROR', 'INFO', 'VERBOSE', 'DEBUG' ].forEach(level => o.value(level));
		o.optional = true;
	},

	addServers(map) {
		const s = map.section(form.GridSection, 'server', _('Servers'));
		let o;

		s.addremove = true;
		s.anonymous = false;
		s.nodescriptions = true;
		s.addbtntitle = _('Add server');
		s.modaltitle = section_id => _('Server %s').format(section_id);
		s.tab('general', _('General'));
		s.tab('connection', _('Connection'));
		s.tab('more', _('More'));

		o = s.taboption('general', form.Flag, 'enabled', _('Enabled'));
		o.default = '1';
		o.rmempty = false;
		o.editable = true;

		o = s.taboption('general', form.Value, 'hostname', _('Host'));
		o.datatype = 'host';
		o.placeholder = 'server.example.org';
		o.rmempty = false;

		o = s.taboption('general', form.Value, 'port', _('Port'));
		o.datatype = 'port';
		o.placeholder = '22';

		o = s.taboption('general', form.Value, 'user', _('User'));
		o.placeholder = 'root';

		o = s.taboption('general', form.DynamicList, 'IdentityFile', _('Keys'),
			_('Without one: all of /etc/sshmux/id_*, else those in /root/.ssh.'));
		o.modalonly = true;
		this.keys.forEach(key => o.value(key.file));

		this.addHostKey(s);
		this.addConnection(s);
		this.addMore(s);
	},

	addHostKey(s) {
		let o;

		o = s.taboption('general', form.DynamicList, 'HostKey', _('Host keys'),
			_('Fingerprints (SHA256:…) or public keys; nothing else is accepted then.'));
		o.modalonly = true;
		o.validate = checkHostKey;

		o = s.taboption('general', form.DummyValue, '_fetch', _('Ask the server'));
		o.modalonly = true;
		o.renderWidget = function(section_id) { return renderFetch(this.section, section_id); };
	},

	addConnection(s) {
		const number = (name, title, placeholder, type, description) => {
			const o = s.taboption('connection', form.Value, name, title, description);

			o.datatype = type;
			o.placeholder = placeholder;
			o.modalonly = true;
		};
		let o;

		number('ServerAliveInterval', _('Sign of life every'), '0', 'range(0,86400)',
			_('Seconds; 30 notices a dead link after 120 seconds, 0 never asks.'));
		number('ServerAliveCountMax', _('Without an answer'), '3', 'range(1,1000)',
			_('So many times, and the link is lost.'));
		number('ConnectTimeout', _('Time for a login'), '120', 'range(1,86400)', _('Seconds.'));
		number('retry_max', _('Longest pause between tries'), '300', 'range(1,86400)', _('Seconds.'));

		o = s.taboption('connection', form.DynamicList, 'interface', _('Interfaces'),
			_('One of them comes up, and a new connection is tried at once; without any: all.'));
		o.datatype = 'uciname';
		o.modalonly = true;

		o = s.taboption('connection', form.Value, 'ProxyCommand', _('Proxy command'),
			_('Runs in place of a connection; its input and output lead to the server.'));
		o.modalonly = true;
	},

	addMore(s) {
		const list = (name, title, values, description) => {
			const o = s.taboption('more', form.ListValue, name, title, description);

			o.value('', _('default'));
			values.forEach(value => o.value(value));
			o.optional = true;
			o.modalonly = true;
		};
		const programs = (name, title, description) => {
			const o = s.taboption('more', form.DynamicList, name, title, description);

			o.validate = checkProgram;
			o.modalonly = true;
		};
		let o;

		list('StrictHostKeyChecking', _('Unknown host keys'), [ 'accept-new', 'yes', 'no' ],
			_('accept-new: the first one is trusted; yes: only those that are known.'));
		list('TCPKeepAlive', _('TCP keepalive'), [ 'yes', 'no' ]);
		list('LogLevel', _('Log'), [ 'QUIET', 'ERROR', 'INFO', 'VERBOSE', 'DEBUG' ]);
		programs('on_up', _('Programs when it is up'));
		programs('on_down', _('Programs when it is down'),
			_('Absolute paths; they run one after another, when it has been down for 10 seconds.'));

		o = s.taboption('more', form.DynamicList, 'ssh_option', _('Further options'),
			_('A line each, as in ssh_config, for example <code>Ciphers aes128-gcm@openssh.com</code>.'));
		o.validate = checkLine;
		o.modalonly = true;
	},

	// addForwards: sides in the order of what happens: where it listens, where it goes
	addForwards(map, type, title, description) {
		const s = map.section(form.GridSection, type, title, description);
		const end = (side, name, port, any) => {
			let o = s.option(form.Value, side + 'address', name);

			o.datatype = 'or(host, "*")';
			o.placeholder = any ? '*' : '127.0.0.1';
			o.rmempty = any;
			o = s.option(form.Value, side + 'port', port);
			o.datatype = 'port';
			o.rmempty = false;
		};
		let o;

		s.addremove = true;
		s.anonymous = true;
		s.nodescriptions = true;
		s.addbtntitle = _('Add forward');

		o = s.option(form.Flag, 'enabled', _('Enabled'));
		o.default = '1';
		o.rmempty = false;
		o.editable = true;

		o = s.option(form.ListValue, 'server', _('Server'));
		o.rmempty = false;
		o.load = function(section_id) {
			this.keylist = [];
			this.vallist = [];
			uci.sections('sshmux', 'server', section => this.value(section['.name']));
			return form.ListValue.prototype.load.apply(this, [ section_id ]);
		};

		if (type == 'tunnelR') {
			end('remote', _('Listens at the server'), _('Port there'), true);
			end('local', _('Leads to'), _('Its port'), false);
		}
		else {
			end('local', _('Listens here'), _('Port here'), true);
			if (type == 'tunnelL')
				end('remote', _('Leads to'), _('Its port'), false);
		}
	},

	renderKeys() {
		this.keysNode = E('div');
		this.showKeys();
		return E('div', { 'class': 'cbi-section', 'id': 'sshmux-keys' }, [
			E('h3', [ _('Keys') ]),
			E('div', { 'class': 'cbi-section-descr' },
				[ _('The public part goes into authorized_keys at the server. Keys in /etc/sshmux are kept by sysupgrade.') ]),
			this.keysNode,
			E('div', { 'style': 'display:flex;flex-wrap:wrap;gap:.5em;align-items:center;margin-top:.5em' }, [
				E('code', [ '/etc/sshmux/id_' ]),
				E('input', { 'type': 'text', 'class': 'cbi-input-text', 'id': 'sshmux-key-name',
					'value': 'ed25519', 'aria-label': _('Name of the key') }),
				E('button', { 'class': 'btn cbi-button cbi-button-add', 'id': 'sshmux-create-key',
					'disabled': L.hasViewPermission() ? null : '',
					'click': ui.createHandlerFn(this, 'createKey') }, [ _('Create key') ])
			])
		]);
	},

	showKeys() {
		if (this.keysFailure)
			return dom.content(this.keysNode, [ E('div', { 'class': 'alert-message warning' },
				[ _('The keys cannot be read: %s').format(this.keysFailure.message) ]) ]);
		return dom.content(this.keysNode, [
			E('table', { 'class': 'table' }, [
				E('tr', { 'class': 'tr table-titles' }, [
					E('th', { 'class': 'th' }, [ _('File') ]), E('th', { 'class': 'th' }, [ _('Public part') ])
				])
			].concat(this.keys.length ? this.keys.map(key => E('tr', { 'class': 'tr' }, [
				E('td', { 'class': 'td left', 'data-title': _('File'), 'style': 'white-space:nowrap' }, [ key.file ]),
				E('td', { 'class': 'td left', 'data-title': _('Public part') }, [
					E('code', { 'style': 'overflow-wrap:anywhere;user-select:all' },
						[ key.line || _('cannot be read') ]) ])
			])) : [
				E('tr', { 'class': 'tr placeholder' }, [ E('td', { 'class': 'td' }, [ E('em', [ _('There is no key yet.') ]) ]) ])
			]))
		]);
	},

	createKey() {
		return run('create_key', document.getElementById('sshmux-key-name').value.trim())
			.then(() => run('keys'))
			.then(text => {
				this.keys = parseKeys(text);
				this.keysFailure = null;
				this.showKeys();
			}).catch(notify);
	}
});
