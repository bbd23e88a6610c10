// runtime.js - stands for LuCI in the tests of the views: what they call, with the arguments
// and the results that it has there, on the same ubus.  Nothing else: a module's member, an
// option's property or a format that is not here is an error, which fails the test.  Only
// what LuCI documents may be added.
'use strict';

const violations = [];

function violation(text) {
	violations.push(text);
	throw new Error(text);
}

// strict: that object, whose members are those that it has
function strict(name, object, settable) {
	return new Proxy(object, {
		get(target, key, receiver) {
			if (!(key in target) && typeof key == 'string' && key != 'then' && key != 'toJSON')
				violation(name + ' has no ' + key);
			return Reflect.get(target, key, receiver);
		},
		set(target, key, value) {
			if (settable && !settable.includes(key))
				violation(name + ' has no property ' + key);
			target[key] = value;
			return true;
		}
	});
}

// --- strings, nodes ---------------------------------------------------------------------------

String.prototype.format = function(...values) {
	return this.replace(/%(%|(\d+)?(\.\d+)?([a-zA-Z]))/g, (all, what, width, precision, type) => {
		if (what == '%')
			return '%';
		const value = values.shift();
		switch (type) {
		case 's': return value;
		case 'd': return Math.floor(+value || 0).toFixed(0);
		case 'm': {
			const units = [ ' ', ' K', ' M', ' G', ' T', ' P', ' E' ];
			let v = +value || 0, i = 0;
			for (; i < units.length && v > +width; i++)
				v /= +width;
			return i ? v.toFixed(precision ? +precision.slice(1) : 2) + units[i] + 'i' : v + ' ';
		}
		default: return violation('format: %' + type);
		}
	});
};

window._ = text => text;

const dom = {
	// A bare string is HTML; in an array it is text.
	append(node, children) {
		if (Array.isArray(children))
			for (const child of children) {
				if (child instanceof Node)
					node.appendChild(child);
				else if (child != null)
					node.appendChild(document.createTextNode(child));
			}
		else if (children instanceof Node)
			node.appendChild(children);
		else if (children != null)
			node.innerHTML = children;
		return node.lastChild;
	},
	content(node, children) {
		while (node.firstChild)
			node.removeChild(node.firstChild);
		return dom.append(node, children);
	}
};

window.E = function(tag, attributes, children) {
	if (!(attributes instanceof Object) || Array.isArray(attributes) || attributes instanceof Node) {
		children = attributes;
		attributes = {};
	}
	const node = document.createElement(tag);
	for (const name in attributes) {
		if (typeof attributes[name] == 'function')
			node.addEventListener(name, attributes[name]);
		else if (attributes[name] != null)
			node.setAttribute(name, attributes[name]);
	}
	dom.append(node, children);
	return node;
};

window.L = strict('L', {
	bind: (fn, self, ...args) => fn.bind(self, ...args),
	resolveDefault: (promise, value) => Promise.resolve(promise).then(v => v != null ? v : value).catch(() => value),
	toArray: value => value == null ? [] : Array.isArray(value) ? value : String(value).trim().split(/\s+/).filter(w => w),
	hasViewPermission: () => location.hash != '#readonly'
});

// --- ubus -------------------------------------------------------------------------------------

const STATUS = { 4: 'Resource not found', 6: 'Permission denied', 7: 'Request timed out' };

function ubus(object, method, params) {
	return fetch('/ubus/', { method: 'POST', body: JSON.stringify(
		{ jsonrpc: '2.0', id: 1, method: 'call', params: [ '1', object, method, params ] }) })
		.then(reply => reply.json()).then(reply => {
			if (reply.result[0])
				throw new Error(STATUS[reply.result[0]] || 'ubus code ' + reply.result[0]);
			return reply.result[1];
		});
}

const fs = {
	exec: (command, params) => ubus('file', 'exec', { command, params })
};

const uci = {
	values: {}, changes: {}, creates: {}, deletes: {},
	load(config) {
		if (uci.values[config])
			return Promise.resolve([]);
		return ubus('uci', 'get', { config }).then(reply => { uci.values[config] = reply.values; return [ config ]; });
	},
	all(config) {
		const all = {};
		for (const sid in uci.values[config] || {})
			if (uci.deletes[sid] !== true)
				all[sid] = Object.assign({}, uci.values[config][sid], uci.changes[sid]);
		return Object.assign(all, uci.creates);
	},
	sections(config, type, each) {
		const found = Object.values(uci.all(config)).filter(s => s['.type'] == type).sort((a, b) => a['.index'] - b['.index']);
		if (each)
			found.forEach(s => each.call(uci, s, s['.name']));
		return found;
	},
	get(config, sid, option) {
		const section = uci.all(config)[sid];
		return section ? option == null ? section : section[option] : null;
	},
	set(config, sid, option, value) {
		const section = uci.creates[sid] || (uci.changes[sid] = uci.changes[sid] || {});
		section[option] = value;
	},
	unset(config, sid, option) {
		if (uci.get(config, sid, option) == null)
			return;
		uci.set(config, sid, option, null);
	},
	add(config, type, name) {
		const sid = name || 'new%d'.format(Object.keys(uci.creates).length);
		uci.creates[sid] = { '.type': type, '.name': sid, '.anonymous': !name, '.index': 1000 + Object.keys(uci.creates).length };
		return sid;
	},
	remove(config, sid) {
		if (uci.creates[sid])
			delete uci.creates[sid];
		else
			uci.deletes[sid] = true;
	},
	async save() {
		const config = 'sshmux';
		for (const sid in uci.deletes)
			await ubus('uci', 'delete', { config, section: sid });
		for (const sid in uci.creates) {
			const values = Object.fromEntries(Object.entries(uci.creates[sid]).filter(([ k, v ]) => k[0] != '.' && v != null));
			await ubus('uci', 'add', { config, type: uci.creates[sid]['.type'],
				name: uci.creates[sid]['.anonymous'] ? null : sid, values });
		}
		for (const sid in uci.changes) {
			const all = Object.entries(uci.changes[sid]);
			const values = Object.fromEntries(all.filter(e => e[1] != null)), gone = all.filter(e => e[1] == null).map(e => e[0]);
			if (Object.keys(values).length)
				await ubus('uci', 'set', { config, section: sid, values });
			if (gone.length)
				await ubus('uci', 'delete', { config, section: sid, options: gone });
		}
		const reply = await ubus('uci', 'get', { config });
		Object.assign(uci, { values: { [config]: reply.values }, changes: {}, creates: {}, deletes: {} });
	}
};

// --- poll, ui ---------------------------------------------------------------------------------

// As LuCI's it calls at once what is added while it runs; the test lets time pass: turn().
const poll = {
	queue: [],
	add(fn, seconds) {
		if (typeof fn != 'function' || isNaN(seconds))
			throw new TypeError('poll.add');
		poll.queue.push(fn);
		fn();
		return true;
	},
	remove(fn) {
		const before = poll.queue.length;
		poll.queue = poll.queue.filter(f => f !== fn);
		return poll.queue.length != before;
	},
	turn: () => Promise.all(poll.queue.map(fn => fn()))
};

const ui = {
	createHandlerFn(self, fn, ...args) {
		const handler = typeof fn == 'string' ? self[fn] : fn;
		if (typeof handler != 'function')
			violation('createHandlerFn: no function ' + fn);
		return ev => {
			const button = ev.currentTarget;
			button.disabled = true;
			return Promise.resolve(handler.apply(self, args.concat(ev))).finally(() => { button.disabled = false; });
		};
	},
	addNotification(title, children, ...classes) {
		const node = E('div', { 'class': 'alert-message ' + classes.join(' ') });
		if (title != null)
			dom.append(node, E('h4', {}, title));
		dom.append(node, children);
		document.getElementById('notifications').appendChild(node);
		return node;
	},
	showModal(title, children) {
		ui.hideModal();
		const node = E('div', { 'class': 'modal' }, [ E('h4', [ title ]) ]);
		dom.append(node, children);
		document.body.appendChild(node);
		return node;
	},
	hideModal() {
		document.querySelectorAll('.modal').forEach(node => node.remove());
	}
};

// --- form -------------------------------------------------------------------------------------

const PROPERTIES = [ 'default', 'rmempty', 'optional', 'datatype', 'placeholder', 'modalonly', 'editable',
	'validate', 'renderWidget', 'load', 'keylist', 'vallist' ];
const SECTION = [ 'addremove', 'anonymous', 'nodescriptions', 'addbtntitle', 'modaltitle' ];
const TYPES = /^(host|port|uciname|range\(\d+,\d+\)|or\(host, "\*"\))$/;

class Widget {
	constructor(option, sid, value) { Object.assign(this, { option, sid, value }); }
	getValue() { return this.input.value; }
	setValue(value) { this.input.value = value; }
	render() {
		this.input = E('input', { type: 'text', 'data-option': this.option.option, placeholder: this.option.placeholder });
		this.input.value = this.value == null ? '' : this.value;
		return this.input;
	}
}

class ListWidget extends Widget {
	getValue() { return [ ...this.node.querySelectorAll('.item') ].map(n => n.textContent).concat(this.input.value || []); }
	setValue(values) {
		this.node.querySelectorAll('.item').forEach(n => n.remove());
		values.forEach(v => this.node.insertBefore(E('div', { 'class': 'item' }, [ v ]), this.input));
	}
	render() {
		this.node = E('div', { 'data-list': this.option.option }, [ super.render() ]);
		this.input.value = '';
		this.setValue(L.toArray(this.value));
		return this.node;
	}
}

class FlagWidget extends Widget {
	getValue() { return this.input.checked ? '1' : '0'; }
	render() {
		this.input = E('input', { type: 'checkbox', 'data-option': this.option.option });
		this.input.checked = this.value == '1';
		return this.input;
	}
}

class SelectWidget extends Widget {
	render() {
		this.input = E('select', { 'data-option': this.option.option }, this.option.keylist.map((key, i) =>
			E('option', { value: key }, [ this.option.vallist[i] ])));
		this.input.value = this.value == null ? this.option.keylist[0] : this.value;
		return this.input;
	}
}

class Value {
	constructor(section, option, title, description) {
		Object.assign(this, { section, option, title, description, keylist: [], vallist: [], widgets: {},
			default: null, rmempty: true, optional: false, datatype: null, placeholder: null, modalonly: null,
			editable: false, validate: null, tab: null });
	}
	value(key, text) { this.keylist.push(key); this.vallist.push(text == null ? key : text); }
	load(sid) { return uci.get('sshmux', sid, this.option); }
	widget() { return Widget; }
	renderWidget(sid, index, value) {
		this.widgets[sid] = new (this.widget())(this, sid, value == null ? this.default : value);
		return this.widgets[sid].render();
	}
	getUIElement(sid) { return this.widgets[sid]; }
	formvalue(sid) { return this.widgets[sid] ? this.widgets[sid].getValue() : null; }
	// A text in the table, or the first error
	textvalue(sid) { const v = this.load(sid); return v == null ? this.default : v; }
	error(sid) {
		const value = this.formvalue(sid);
		if (this.datatype != null && !TYPES.test(this.datatype))
			violation('no datatype ' + this.datatype);
		if (!this.rmempty && (value == null || value === ''))
			return this.option + ' is missing';
		if (this.datatype == 'port' && value !== '' && !(+value > 0 && +value < 65536))
			return this.option + ' is no port';
		for (const one of Array.isArray(value) ? value : [ value ]) {
			const answer = this.validate ? this.validate(sid, one) : true;
			if (answer !== true)
				return answer;
		}
		return null;
	}
	save(sid) {
		const value = this.formvalue(sid), empty = value == null || value.length == 0;
		if (empty || this.rmempty && !Array.isArray(value) && value === this.default)
			uci.unset('sshmux', sid, this.option);
		else if (JSON.stringify(value) != JSON.stringify(uci.get('sshmux', sid, this.option)))
			uci.set('sshmux', sid, this.option, value);
	}
}
class ListValue extends Value { widget() { return SelectWidget; } }
class Flag extends Value { widget() { return FlagWidget; } }
class DynamicList extends Value { widget() { return ListWidget; } }
class DummyValue extends Value { save() {} }

function make(section, Class, args, tab) {
	if (!(Class.prototype instanceof Value) && Class !== Value)
		violation('option: not a class of form');
	const option = new Class(section, ...args);
	option.tab = tab;
	section.children.push(option);
	return strict('option', option, PROPERTIES);
}

class Section {
	constructor(map, type, title, description) {
		Object.assign(this, { map, type, title, description, children: [], tabs: [], addremove: false,
			anonymous: false, nodescriptions: false, addbtntitle: null, modaltitle: null });
	}
	option(Class, ...args) { return make(this, Class, args); }
	tab(name, title) { this.tabs.push({ name, title }); }
	taboption(tab, Class, ...args) {
		if (!this.tabs.some(t => t.name == tab))
			violation('no tab ' + tab);
		return make(this, Class, args, tab);
	}
	formvalue(sid, option) { return this.children.find(o => o.option == option).formvalue(sid); }
	getUIElement(sid, option) { return this.children.find(o => o.option == option).getUIElement(sid); }
	rows(sid, options) {
		return options.map(o => E('div', { 'class': 'cbi-value', 'data-tab': o.tab }, [
			E('label', { 'class': 'cbi-value-title' }, o.title),
			E('div', { 'class': 'cbi-value-field' }, [ o.renderWidget(sid, 0, o.load(sid)),
				o.description ? E('div', {}, o.description) : '' ])
		]));
	}
	save(sid, options) {
		const wrong = options.map(o => o.error(sid)).filter(e => e != null);
		if (wrong.length)
			throw new Error(wrong[0]);
		options.forEach(o => o.save(sid));
	}
}

class NamedSection extends Section {
	render() { return E('div', { 'class': 'cbi-section' }, this.rows(this.type, this.children)); }
	saveAll() { this.save(this.type, this.children); }
}

class GridSection extends Section {
	sids() { return uci.sections('sshmux', this.type).map(s => s['.name']); }
	render() {
		const columns = this.children.filter(o => !o.modalonly);
		const name = E('input', { type: 'text', 'data-add': this.type });
		const titles = E('tr', { 'class': 'tr table-titles' },
			[ '' ].concat(columns.map(o => o.title), '').map(t => E('th', { 'class': 'th' }, [ t ])));
		return E('div', { 'class': 'cbi-section', id: 'cbi-sshmux-' + this.type }, [
			E('h3', {}, this.title), E('div', {}, this.description),
			E('table', { 'class': 'table' }, [ titles ].concat(this.sids().map(sid => this.row(sid, columns)))),
			this.anonymous ? '' : name,
			E('button', { 'data-adds': this.type, click: () => {
				if (!this.anonymous && !/^[A-Za-z0-9_]+$/.test(name.value))
					return;
				this.edit(uci.add('sshmux', this.type, this.anonymous ? null : name.value));
			} }, [ this.addbtntitle ])
		]);
	}
	row(sid, columns) {
		const cells = columns.map(o => E('td', { 'class': 'td', 'data-title': o.title },
			[ o.editable ? o.renderWidget(sid, 0, o.load(sid)) : o.textvalue(sid) ]));
		return E('tr', { 'class': 'tr', 'data-sid': sid }, [
			E('td', { 'class': 'td' }, [ this.anonymous ? '' : sid ]), ...cells,
			E('td', { 'class': 'td' }, [
				E('button', { click: () => this.edit(sid) }, [ 'Edit' ]),
				E('button', { click: () => { uci.remove('sshmux', sid); this.map.draw(); } }, [ 'Delete' ])
			])
		]);
	}
	edit(sid) {
		const title = this.modaltitle ? this.modaltitle(sid) : sid;
		ui.showModal(title, this.rows(sid, this.children).concat([
			E('button', { 'class': 'save', click: () => {
				try {
					this.save(sid, this.children);
				}
				catch (e) {
					ui.addNotification(null, E('p', [ e.message ]));
					return;
				}
				ui.hideModal();
				this.map.draw();
			} }, [ 'Save' ])
		]));
	}
	saveAll() { this.sids().forEach(sid => this.save(sid, this.children.filter(o => o.editable))); }
}

class FormMap {
	constructor(config, title, description) { Object.assign(this, { config, title, description, sections: [], data: uci }); }
	section(Class, ...args) {
		const section = new Class(this, ...args);
		this.sections.push(section);
		return strict('section', section, SECTION);
	}
	render() { return uci.load(this.config).then(() => this.draw()); }
	draw() {
		const nodes = [ E('h2', {}, this.title), E('div', {}, this.description) ].concat(this.sections.map(s => s.render()));
		this.root = this.root || E('div', { id: 'cbi-' + this.config });
		dom.content(this.root, nodes);
		return this.root;
	}
	async save() {
		this.sections.forEach(s => s.saveAll());
		await uci.save();
		this.draw();
	}
}

const form = { Map: FormMap, NamedSection, GridSection, Value, ListValue, Flag, DynamicList, DummyValue };

// --- views ------------------------------------------------------------------------------------

let shown, map;
const view = {
	extend: members => function() {
		const self = Object.assign(Object.create({ load() {} }), members);
		for (const name of [ 'handleSave', 'handleSaveApply', 'handleReset' ])
			self[name] = name in members ? members[name] : true;
		shown = self;
		return Promise.resolve(self.load()).then(data => self.render(data)).then(nodes => {
			dom.content(document.getElementById('view'), nodes);
			if (self.handleSave)
				document.getElementById('view').appendChild(E('button', { id: 'save', click: () => map.save() }, [ 'Save' ]));
		});
	}
};

const Map_ = form.Map;
form.Map = class extends Map_ {
	constructor(...args) { super(...args); map = this; }
};

const modules = { view, form, dom, fs, uci, ui, poll };

async function start(name) {
	try {
		const source = await (await fetch('/luci-static/resources/view/' + name + '.js')).text();
		const needs = [ ...source.matchAll(/^'require ([a-z]+)';$/mg) ].map(m => m[1]);
		const given = needs.map(n => modules[n] ? strict(n, modules[n]) : violation('no module ' + n));
		await new Function(...needs, source)(...given)();
		window.ready = true;
	}
	catch (e) {
		violations.push(String(e.stack || e));
		window.ready = true;
	}
}
