// ssh2.js PORT HOSTKEY AUTHORIZED - a server of npm's ssh2: commands, -L, -D, -W, -R.
const [port, hostkey, authorized] = process.argv.slice(2);
const fs = require('fs'), net = require('net'), { spawn } = require('child_process');
const { Server, utils } = require('ssh2');
const allowed = utils.parseKey(fs.readFileSync(authorized));

function join(a, b) {
	a.on('error', () => b.destroy());
	b.on('error', () => a.destroy());
	a.pipe(b);
	b.pipe(a);
}

function run(accept, reject, info) {
	const channel = accept();
	const child = spawn('/bin/sh', ['-c', info.command]);
	child.stdin.on('error', () => {});
	channel.pipe(child.stdin);
	child.stdout.pipe(channel, { end: false });
	child.stderr.pipe(channel.stderr, { end: false });
	child.on('close', (status) => {
		channel.exit(status);
		channel.end();
	});
}

new Server({ hostKeys: [fs.readFileSync(hostkey)] }, (client) => {
	client.on('error', () => {});
	client.on('authentication', (ctx) => {
		if (ctx.method !== 'publickey' || !ctx.key.data.equals(allowed.getPublicSSH()) ||
		    (ctx.signature && allowed.verify(ctx.blob, ctx.signature, ctx.hashAlgo) !== true))
			return ctx.reject(['publickey']);
		ctx.accept();
	});
	let seen = 0;		// it has no limit of its own
	const rekey = Number(process.env.REKEY_BYTES || 0);
	const timer = rekey && setInterval(() => {
		const socket = client._sock, moved = socket.bytesRead + socket.bytesWritten;
		if (moved - seen < rekey)
			return;
		seen = moved;
		client.rekey();
	}, 20);
	client.on('close', () => clearInterval(timer));
	client.on('session', (accept) => accept().on('exec', run).on('env', (ok) => ok && ok()));
	client.on('tcpip', (accept, reject, info) => {
		const socket = net.connect({ port: info.destPort, host: info.destIP, allowHalfOpen: true });
		socket.on('error', reject);
		socket.on('connect', () => {
			socket.removeListener('error', reject);
			join(accept(), socket);
		});
	});
	client.on('request', (accept, reject, name, info) => {
		if (name !== 'tcpip-forward')
			return name === 'cancel-tcpip-forward' ? accept && accept() : reject && reject();
		const listener = net.createServer({ allowHalfOpen: true }, (socket) => {
			client.forwardOut(info.bindAddr, listener.address().port, socket.remoteAddress, socket.remotePort,
				(err, channel) => err ? socket.destroy() : join(channel, socket));
		});
		listener.listen(info.bindPort, '127.0.0.1', () => accept(listener.address().port));
		client.on('close', () => listener.close());
	});
}).listen(Number(port), '127.0.0.1');
