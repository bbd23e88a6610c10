/* unit_op.c - the command line. */

/* Parses the words after the program's name; false if it ended with an error
 * (or a text), whose exit status and log the world keeps. */
static bool op_words_parse(const char *const *words)
{
	static char store[16][300];
	static char *argv[18];
	int n = 1;
	argv[0] = (char *)(uintptr_t)"sshmux";
	for (; words[n - 1] && n < 17; n++) {
		snprintf(store[n - 1], sizeof store[0], "%s", words[n - 1]);
		argv[n] = store[n - 1];
	}
	argv[n] = NULL;
	world_clear();
	g.log.level = TP_INFO;
	g.op.control_path = g.op.given = g.op.host_name = NULL;
	g.op.send_env.n = 0;
	world.exit_code = -1;
	if (setjmp(world.exited))
		return false;
	av_parse(argv);
	return true;
}
#define PARSE(...) op_words_parse((const char *const[]){ __VA_ARGS__, NULL })

/* One -o option. */
static bool op_one(const char *option)
{
	return PARSE("-o", option, "host");
}

static bool op_refused(const char *option)
{
	bool refused = !op_one(option) && world.exit_code == 255 && world.log_len > 0;
	if (!refused)
		printf("# taken: %s\n", option);
	return refused;
}

/* A test point that shows what was said. */
static void said(bool ok, const char *name)
{
	world.log[strcspn(world.log, "\r\n")] = 0;
	check(ok, "%s: %s", name, world.log);
}

static void unit_op_words(void)
{
	check(PARSE("-MNS/ctl", "-p22022", "-l", "root", "host") && g.op.master &&
		g.op.session_type == 1 && !strcmp(g.op.control_path, "/ctl") &&
	      g.op.port == 22022 && !strcmp(g.op.user, "root") && !strcmp(g.op.given, "host"),
		"options: letters bundled, arguments attached or apart");
	check(PARSE("-S", "/ctl", "me@host", "-p", "7", "ls", "-l", "-p", "9") && g.op.port == 7 &&
		g.op.n_command == 4 && !strcmp(g.op.command[1], "-l") &&
	      !strcmp(g.op.user, "me"), "options: after the host too, none after the command");
	check(PARSE("-S", "/ctl", "--", "host", "--", "-x") && g.op.n_command == 2,
		"options: none after --");
	check(PARSE("a@b@host") && !strcmp(g.op.given, "host") && !strcmp(g.op.user, "a@b"),
		"options: the last @ parts user and host");
	check(PARSE("-l", "first", "second@host") && !strcmp(g.op.user, "first"),
		"options: -l before user@");
	check(PARSE("-4", "-c", "aes128-ctr", "-m", "hmac-sha2-256", "-i", "/etc/passwd", "-i",
		"/etc/group", "-q", "-s", "host") && g.op.family == AF_INET &&
		g.op.identity.n == 2 &&
	      g.log.level == TP_ERROR && g.op.session_type == 2 &&
		!strcmp(g.op.tp.ciphers, "aes128-ctr"), "options: the other letters");
	check(PARSE("-p6", "-p4", "host") && g.op.port == 6 && PARSE("-6", "-4", "host") &&
		g.op.family == AF_INET, "options: the first of two wins, of some letters the last");
	check(PARSE("-v", "host") && g.log.level == TP_VERBOSE && PARSE("-vv", "host") &&
		g.log.level == TP_DEBUG && PARSE("-vvvv", "host") &&
	      g.log.level == TP_DEBUG, "options: -v, -vv and more");
	check(PARSE("-O", "check", "-S", "x") && !strcmp(g.op.mux_command, "check"), "options: -O");
	said(PARSE("-Z", "host") == false && world.exit_code == 255 &&
		strstr(world.log, "unknown option -- Z"), "options: an unknown letter");
	said(!PARSE("--nonsense") && strstr(world.log, "--nonsense"), "options: an unknown word");
	said(!PARSE("host", "-p") && strstr(world.log, "requires an argument -- p"),
		"options: argument missing");
	check(!PARSE("@host") && !PARSE("me@") && !PARSE(""),
		"options: destinations that are none");
	check(PARSE("-n", "host") && g.op.stdin_null, "options: -n");
}

static void unit_op_numbers(void)
{
	check(op_one("Port=1") && g.op.port == 1 && op_one("Port=65535") && g.op.port == 65535,
		"options: Port");
	check(op_refused("Port=0") && op_refused("Port=65536") && op_refused("Port=-1") &&
		op_refused("Port=22x") && op_refused("Port=") && op_refused("Port") &&
	      op_refused("Port=99999999999999999999999") && op_refused("Port=0x16") &&
		op_refused("Port= "), "options: ports that are none");
	check(op_one("ConnectTimeout=90") && g.op.connect_timeout == 90 &&
		op_one("ConnectTimeout=1h30m") && g.op.connect_timeout == 5400 &&
	      op_one("ConnectTimeout=1D") && g.op.connect_timeout == 86400 &&
		op_one("ConnectTimeout=1m5") && g.op.connect_timeout == 65,
		"options: times with units");
	check(op_refused("ConnectTimeout=5x") && op_refused("ConnectTimeout=m") &&
	      op_refused("ConnectTimeout=-5") && op_refused("ConnectTimeout=99999999999w") &&
		op_refused("ConnectTimeout=9999999999999999999999s"),
		"options: times that are none");
	check(op_one("ServerAliveInterval=0") && op_one("ServerAliveInterval 15") &&
		g.op.alive_interval == 15 && op_one("ServerAliveCountMax=1000") &&
	      g.op.alive_count == 1000 && op_refused("ServerAliveCountMax=-1") &&
		op_refused("ServerAliveCountMax=2147483648"), "options: keepalive");
}

static void unit_op_rekey(void)
{
	check(op_one("RekeyLimit=16") && g.op.tp.rekey_bytes == 16 && op_one("RekeyLimit=1k") &&
		g.op.tp.rekey_bytes == 1024 && op_one("RekeyLimit 3M") &&
	      g.op.tp.rekey_bytes == 3 << 20 && op_one("RekeyLimit=2G 1h") &&
		g.op.tp.rekey_bytes == UINT64_C(2) << 30 && g.op.tp.rekey_seconds == 3600,
	      "options: RekeyLimit in bytes and time");
	check(op_one("RekeyLimit=default none") && g.op.tp.rekey_bytes == 0 &&
		g.op.tp.rekey_seconds == 0 && op_one("RekeyLimit=default 5m") &&
	      g.op.tp.rekey_seconds == 300 && op_one("RekeyLimit=none"),
		"options: RekeyLimit default and none");
	check(op_refused("RekeyLimit=15") && op_refused("RekeyLimit=x") &&
		op_refused("RekeyLimit=1T") && op_refused("RekeyLimit=1KK") &&
		op_refused("RekeyLimit=-1") &&
	      op_refused("RekeyLimit=1M 5x") && op_refused("RekeyLimit="),
		"options: RekeyLimit: values that are none");
	check(op_refused("RekeyLimit=d") && op_refused("RekeyLimit=non") &&
		op_refused("RekeyLimit=17179869185G"),
		"options: RekeyLimit: half words and overflow");
}

static void unit_op_choices(void)
{
	static const struct { const char *option; const int64_t *at; int64_t value; } good[] = {
		{ "BatchMode=yes", &g.op.batch, 1 }, { "batchmode no", &g.op.batch, 0 },
		{ "ControlMaster=yes", &g.op.master, 1 },
		{ "IdentitiesOnly=YES", &g.op.identities_only, 1 },
		{ "AddressFamily=inet6", &g.op.family, AF_INET6 },
		{ "AddressFamily=any", &g.op.family, AF_UNSPEC },
		{ "StrictHostKeyChecking=yes", &g.op.strict, TP_STRICT_YES },
		{ "StrictHostKeyChecking=no", &g.op.strict, TP_STRICT_NO },
		{ "StrictHostKeyChecking=off", &g.op.strict, TP_STRICT_NO },
		{ "StrictHostKeyChecking=ask", &g.op.strict, TP_STRICT_ASK },
		{ "STRICTHOSTKEYCHECKING=accept-new", &g.op.strict, TP_STRICT_ACCEPT_NEW },
		{ "SessionType=none", &g.op.session_type, 1 },
		{ "SessionType=subsystem", &g.op.session_type, 2 },
		{ "SessionType=default", &g.op.session_type, 0 },
		{ "LogLevel=QUIET", &g.log.level, TP_ERROR },
		{ "LogLevel=debug3", &g.log.level, TP_DEBUG },
		{ "LogLevel=VERBOSE", &g.log.level, TP_VERBOSE },
	};
	bool all = true;
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
		also(&all, op_one(good[i].option) && *good[i].at == good[i].value,
		     "%s", good[i].option);
	check(all, "options: choices, in any case of letters");
	static const char *const kinds[] = {
		"AddressFamily", "BatchMode", "ControlMaster", "IdentitiesOnly", "LogLevel",
		"SessionType", "StrictHostKeyChecking",
	};
	char text[64];
	all = true;
	for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
		snprintf(text, sizeof text, "%s=maybe", kinds[i]);
		also(&all, op_refused(text) && strstr(world.log, "maybe") &&
			strstr(world.log, kinds[i]),
		     "%s", text);
		snprintf(text, sizeof text, "%s=", kinds[i]);
		also(&all, op_refused(text), "%s", text);
	}
	check(all, "options: choices that are none, named in the error");
}

static void unit_op_lists(void)
{
	check(op_one("IdentityFile=~/key") && g.op.identity.n == 1 && g.op.identity.at[0][0] == '/',
		"options: ~/ is the home directory");
	check(op_one("UserKnownHostsFile=/a /b") && g.op.known_hosts.n == 2 &&
		!strcmp(g.op.known_hosts.at[1], "/b"), "options: words");
	check(PARSE("-oSendEnv=A B", "-o", "SendEnv=C", "host") && g.op.send_env.n == 3,
		"options: SendEnv adds up");
	check(PARSE("-oSetEnv=A=1 B=2", "-o", "SetEnv=C=3", "host") && g.op.set_env.n == 2,
		"options: of SetEnv the first wins");
	check(op_refused("SetEnv=NOVALUE"), "options: SetEnv without a value");
	check(PARSE("-oHostKeyFingerprint=a", "-oHostKeyFingerprint=b", "host") && g.op.pin.n == 2,
		"options: HostKeyFingerprint adds up");
	said(!PARSE("-oIdentityFile=k1", "-oIdentityFile=k2", "-oIdentityFile=k3",
		"-oIdentityFile=k4", "-oIdentityFile=k5", "host") && strstr(world.log,
		"more than 4"), "options: too many keys");
	check(op_refused("SendEnv=A B C D E"), "options: too many words");
	static const char *const texts[] = { "Ciphers", "PreferredAuthentications",
		"HostKeyAlgorithms", "KexAlgorithms", "MACs", "User", "ControlPath" };
	char text[64];
	bool all = true;
	for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
		snprintf(text, sizeof text, "%s = some,text", texts[i]);
		also(&all, op_one(text), "%s", text);
		snprintf(text, sizeof text, "%s=", texts[i]);
		also(&all, op_refused(text), "%s", text);
	}
	check(all && op_one("HostKeyAlias=x") && !strcmp(g.op.host_key_alias, "x"),
		"options: texts, none empty");
}

static void unit_op_unknown(void)
{
	said(op_refused("ForwardX12=yes") && strstr(world.log, "ForwardX12"),
		"options: an unknown keyword is named");
	check(op_refused("Por=22") && op_refused("Ports=22") && op_refused("=22") &&
		op_refused("") && op_refused(" "), "options: half keywords are unknown");
	bool first = true, parsed = true;
	for (size_t i = 0; i < OP_KEYWORDS; i++) {
		char text[64];
		snprintf(text, sizeof text, "-o%s=", op_keywords[i].name);
		first = !PARSE(text, "host") && first;
		parsed = parsed && world.exit_code == 255;
	}
	check(first && parsed, "options: no keyword takes an empty value");
	check(PARSE("-oPort=1", "-oPort=2", "-p3", "host") && g.op.port == 1,
		"options: the first Port wins");
}

/* The whole of main() where it ends without a network. */
static int op_main(const char *const *words)
{
	static char *argv[16];
	static int n;
	argv[0] = (char *)(uintptr_t)"sshmux";
	for (n = 1; words[n - 1] && n < 15; n++)
		argv[n] = (char *)(uintptr_t)words[n - 1];
	argv[n] = NULL;
	fd_close(&cl.fd);
	world_clear();
	memset(&g, 0, sizeof g);	/* main() does the rest */
	world.exit_code = -1;
	if (setjmp(world.exited))
		return world.exit_code;
	return sshmux_main(n, argv);
}
#define MAIN(...) op_main((const char *const[]){ __VA_ARGS__, NULL })

static void unit_op_main(void)
{
	char path[128];
	snprintf(path, sizeof path, "%s/none", world.dir);
	said(MAIN("-O", "check", "host") == 255 && strstr(world.log, "No ControlPath"),
		"options: no control path");
	said(MAIN("-MN", "-S", path) == 255 && strstr(world.log, "no host"),
		"options: a master needs a host");
	said(MAIN("-MN", "-S", "/nowhere/ctl", "host") == 255 && strstr(world.log, "/nowhere/ctl"),
		"options: a control path that cannot be");
	check(MAIN("-S", path, "-O", "check", "host") == 255 && strstr(world.log, path) &&
		strstr(world.log, "No such file"), "options: -O without a master");
	check(MAIN("-oFallback=no", "-S", path, "host", "true") == 75 &&
		strstr(world.log, "No such file"), "options: a command without a master");
	said(MAIN("-oFallback=no", "host", "true") == 255 && strstr(world.log, "no ControlPath"),
		"options: Fallback=no without a path");
	check(MAIN("-S", path, "-O", "dance", "host") == 255 &&
		strstr(world.log, "Invalid multiplex command."), "options: an unknown -O");
}

/* --- what reaches a shell by a token ------------------------------------------- */

/* Reads the file and resolves what was parsed; false if it ends with an error. */
static bool op_resolves(void)
{
	if (setjmp(world.exited))
		return false;
	cf_files();
	dv_resolve();
	return true;
}

/* What all tokens stand for, each in brackets; false if one is refused. */
static bool op_expands(char *to, size_t size)
{
	if (setjmp(world.exited))
		return false;
	snprintf(to, size, "%s", tk_expand("[%C][%d][%h][%i][%j][%k][%L][%l][%n][%p][%r][%u]", NULL,
		false));
	return true;
}

static bool op_holds(const char *text, const char *bytes)
{
	for (; *text; text++)
		if ((unsigned char)*text < ' ' || *text == 127 || strchr(bytes, *text))
			return true;
	return false;
}

/* Where a value comes from; a form has its place as %s. */
enum op_from { OP_WORD, OP_OPTION, OP_URI, OP_FILE, OP_MACHINE };

/* One value from one source: what comes out must be free of control characters, and
 * of the shell's where ssh says so. */
static bool op_passes(enum op_from from, const char *form, const char *value, const char *bad)
{
	static struct passwd me;
	static char text[300], conf[120], out[2048];
	char path[120];
	FILE *f;
	snprintf(path, sizeof path, "%s/conf", world.dir);
	snprintf(conf, sizeof conf, form, value);
	me = (struct passwd){ .pw_name = conf, .pw_dir = conf };
	f = fopen(path, "w");
	if (f && from == OP_FILE)
		fprintf(f, "%s\n", conf);
	if (f)
		fclose(f);
	snprintf(text, sizeof text, form, value);
	world.host_name = from == OP_MACHINE ? conf : NULL;
	world.user = from == OP_MACHINE ? &me : NULL;
	bool parsed = from == OP_FILE || from == OP_MACHINE ? PARSE("-F", path, "host") :
		      from == OP_OPTION ? PARSE("-F", path, "-o", text, "host") :
		      from == OP_URI ? PARSE("-F", path, text) :
			PARSE("-F", path, strncmp(text, "-", 1) ? "--" : text,
			strncmp(text, "-", 1) ? text : "host");
	bool taken = parsed && op_resolves() && op_expands(out, sizeof out);
	world.host_name = NULL;
	world.user = NULL;
	if (!taken)
		return world.exit_code == 255;
	return !op_holds(out, bad);
}

static void unit_op_shell(void)
{
	static const char host[] = "'`\"$\\;&<>|(){},", user[] = "'`\";&<>|(){}", none[] = "";
	static const struct { enum op_from from; const char *form, *bad; } sources[] = {
		{ OP_WORD, "-l%s", user }, { OP_WORD, "%s@host", user }, { OP_WORD, "%s", host },
		{ OP_WORD, "me@%s", host },
		{ OP_WORD, "-p%s", host }, { OP_WORD, "-J%s", host }, { OP_WORD, "-Ja,%s,b", host },
		{ OP_WORD, "-Ja,b@%s", host },
		{ OP_WORD, "-J%s@a", user }, { OP_WORD, "-Jssh://%s:7", host },
		{ OP_WORD, "-P%s", user },
		{ OP_URI, "ssh://%s", host }, { OP_URI, "ssh://%s@host", user },
		{ OP_URI, "ssh://host:%s", host },
		{ OP_OPTION, "User=%s", user }, { OP_OPTION, "User=\"%s\"", user },
		{ OP_OPTION, "HostName=\"%s\"", host }, { OP_OPTION, "Port=%s", host },
		{ OP_OPTION, "HostKeyAlias=\"%s\"", host }, { OP_OPTION, "ProxyJump=\"%s\"", host },
		{ OP_OPTION, "Tag=\"%s\"", user },
		{ OP_FILE, "User \"%s\"", none }, { OP_FILE, "HostName \"%s\"", host },
		{ OP_FILE, "HostKeyAlias \"%s\"", none },
		{ OP_FILE, "ProxyJump \"%s\"", host }, { OP_FILE, "Port \"%s\"", host },
		{ OP_FILE, "Tag \"%s\"", none },
		{ OP_MACHINE, "%s", none },
	};
	static const char *const shapes[] = { "a%cb", "%cb", "a%c", "a%%%02xb",
		"a $%c(touch pwned)" };
	unsigned wrong = 0, tried = 0;
	char value[64];
	for (size_t s = 0; s < sizeof sources / sizeof sources[0]; s++)
		for (int byte = 1; byte < 128; byte++)
			for (size_t shape = 0; shape < sizeof shapes / sizeof shapes[0] &&
				!isalnum(byte); shape++) {
				snprintf(value, sizeof value, shapes[shape], byte);
				tried++;
				if (op_passes(sources[s].from, sources[s].form, value,
					sources[s].bad))
					continue;
				if (wrong++ < 10)
					printf("# taken from \"%s\": byte %d in shape %zu\n",
						sources[s].form, byte, shape);
			}
	check(wrong == 0, "tokens: %u values from %zu sources, %u let bad bytes through", tried,
		sizeof sources / sizeof sources[0], wrong);
	check(!PARSE("-l", "-x", "host") && !PARSE("-l", "a -x", "host") &&
		!PARSE("-l", "a\\", "host") && !PARSE("ssh://ro%00ot@host") &&
	      !PARSE("--", "-x") && !PARSE("-J", "a,-x", "host"),
		"tokens: what looks like an option, or would end a quote");
	check(PARSE("-l", "DOM\\me", "host") && PARSE("a b@host") && PARSE("me$1@host") &&
		PARSE("-J", "DOM\\u@[::1]:22,ssh://a%40b@c", "host") &&
	      PARSE("x%y@host"), "tokens: names that ssh takes");
	check(op_passes(OP_FILE, "User \"%s\"", "a;b", ";") == false,
		"tokens: the test sees what passes");
}

static void unit_op(void)
{
	unit_op_shell();
	int in = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3), fds = world_count_fds();
	unit_op_words();
	unit_op_numbers();
	unit_op_rekey();
	unit_op_choices();
	unit_op_lists();
	unit_op_unknown();
	unit_op_main();
	fd_close(&cl.fd);
	check(world_count_fds() == fds, "options: no descriptor leaked");
	if (in >= 0) {
		dup2(in, STDIN_FILENO);
		close(in);
	}
}
