/* unit_text.c - foreign text on its way to people. */

#define TEXT_EVIL "\033]0;x\007\n\rsshmux: forged\302\233J\377 caf\303\251"
#define TEXT_SHOWN "\\033]0;x\\007\\012\\015sshmux: forged\\302\\233J\\377 caf\303\251"

static void unit_text_clean(void)
{
	static const struct { const char *text, *line, *lines; } rows[] = {
		{ "plain ~!\t", "plain ~!\t", "plain ~!\t" },
		{ "a\nb\r\nc\rd", "a\\012b\\015\\012c\\015d", "a\nb\r\nc\\015d" },
		{ "\033[1m\177\b\a", "\\033[1m\\177\\010\\007", "\\033[1m\\177\\010\\007" },
		{ "\302\240 \337\277 \340\240\200 \357\277\275 \360\220\200\200 \364\217\277\277",
		"\302\240 \337\277 \340\240\200 \357\277\275 \360\220\200\200 \364\217\277\277",
		  "\302\240 \337\277 \340\240\200 \357\277\275 \360\220\200\200 \364\217\277\277" },
		{ "\302\200 \302\237 \300\257 \340\237\277 \355\240\200 "
		  "\360\217\277\277 \364\220\200\200 \365.",
		  "\\302\\200 \\302\\237 \\300\\257 \\340\\237\\277 \\355\\240\\200 "
		  "\\360\\217\\277\\277 \\364\\220\\200\\200 \\365.",
		  "\\302\\200 \\302\\237 \\300\\257 \\340\\237\\277 \\355\\240\\200 "
		  "\\360\\217\\277\\277 \\364\\220\\200\\200 \\365." },
		{ "\200\277\376\377 \303( \342\202( \360\237\230x",
		"\\200\\277\\376\\377 \\303( \\342\\202( \\360\\237\\230x",
		"\\200\\277\\376\\377 \\303( \\342\\202( \\360\\237\\230x" },
		{ "cut \303", "cut ", "cut " }, { "cut \342\202", "cut ", "cut " },
		{ "cut \360\237\230", "cut ", "cut " },
		{ "back\\slash", "back\\slash", "back\\slash" },
	};
	char to[200];
	bool all = true, parts = true;
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
		for (int lines = 0; lines < 2; lines++) {
			const char *want = lines ? rows[i].lines : rows[i].line;
			size_t len = strlen(rows[i].text), used = tp_clean(rows[i].text, len, lines,
				to, sizeof to);
			also(&all, strcmp(to, want) == 0 && used <= len, "row %zu: %s", i, to);
			/* in pieces: the same */
			for (size_t size = 1; size < strlen(want); size++) {
				char piece[200], joined[400] = "";
				size_t at = 0, n;
				while ((n = tp_clean(rows[i].text + at, len - at, lines, piece,
					size)) > 0) {
					parts = parts && strlen(piece) < size;
					snprintf(joined + strlen(joined),
						sizeof joined - strlen(joined), "%s", piece);
					at += n;
				}
				parts = parts && strncmp(joined, want, strlen(joined)) == 0 &&
					(size < 6 || !strcmp(joined, want));
			}
		}
	check(all, "text: what stays and what becomes octal");
	check(parts, "text: in pieces of any size");
}

/* Every line of the log begins as ours do and holds nothing harmful; the text is there. */
static bool text_harmless(void)
{
	bool line_start = true, ok = world.log_len > 0;
	for (size_t i = 0; i < world.log_len; i++) {
		uint8_t c = (uint8_t)world.log[i];
		if (line_start)
			ok = ok && strncmp(world.log + i, "sshmux: ", 8) == 0;
		ok = ok && (c >= ' ' || c == '\n') && c != 127 && c != 0xff && c != 0xc2;
		line_start = c == '\n';
	}
	return ok && line_start && strstr(world.log, TEXT_SHOWN) &&
		!strstr(world.log, "\nsshmux: forged");
}

static void text_point(const char *from)
{
	bool ok = text_harmless();
	check(ok, "text: %s", from);
	if (!ok)
		printf("# %.300s\n", world.log);
	world.log[world.log_len = 0] = 0;
}

static void unit_text_log(void)
{
	char text[2000];
	world_clear();
	tp_log(TP_ERROR, TEXT_EVIL);
	text_point("what the transport says");
	log_at(TP_ERROR, "%s", TEXT_EVIL);
	text_point("what we say");
	if (setjmp(world.exited) == 0)
		op_die("%s", TEXT_EVIL);
	text_point("why we end");
	cl_say("sshmux: %s", TEXT_EVIL);
	check(strstr(world.log, TEXT_SHOWN "\r\n") &&
		strlen(world.log) == strlen("sshmux: " TEXT_SHOWN "\r\n"),
		"text: what a client says");
	world.log[world.log_len = 0] = 0;
	memset(text, 1, sizeof text - 1);
	text[sizeof text - 1] = 0;
	log_line(TP_ERROR, text);
	check(world.log_len > 4 * 500 && world.log[world.log_len - 1] == '\n' &&
		strspn(world.log + 8, "\\01") == world.log_len - 9,
		"text: a long line of the worst fits");
}

/* Whether the answer, a frame of five words and a text, has this part. */
static bool text_told(struct peer *p, const char *part)
{
	return p->got > 20 && memmem(p->in, p->got, part, strlen(part)) &&
		!memchr(p->in + 20, '\033', p->got - 20);
}

/* What a server says about channels and of itself. */
static void unit_text_server(void)
{
	struct session s;
	world_begin();
	g.log.level = TP_DEBUG;
	session_ask(&s, "run");
	fake_put(SSH_CHANNEL_OPEN_FAILURE, "uuss", (uint32_t)s.id, 2, TEXT_EVIL, "en");
	world_run();
	text_point("why an open failed");
	session_close(&s);
	world_end();
	world_begin();
	g.log.level = TP_DEBUG;
	session_open(&s, 1000, 1000);
	world.log[world.log_len = 0] = 0;
	fake_put(SSH_CHANNEL_REQUEST, "usbsbss", (uint32_t)s.id, "exit-signal", 0, TEXT_EVIL, 0,
		TEXT_EVIL, "");
	world_run();
	text_point("the name of an exit signal");
	session_close(&s);
	fake.info.peer_version = "SSH-2.0-" TEXT_EVIL;
	fake.info.cipher = TEXT_EVIL;
	struct peer p;
	peer_hello(&p);
	peer_put(&p, MUX_C_EXT_INFO, "us", 7, "connection");
	world_run();
	peer_drain(&p);
	check(text_told(&p, "  server SSH-2.0-" TEXT_SHOWN "\r\n"),
		"text: the server's version, to whoever asks for it");
	peer_close(&p);
	world.log[world.log_len = 0] = 0;
	g.log.level = TP_INFO;
	fake_fail("Received disconnect: " TEXT_EVIL);
	world_run();
	text_point("why the connection ended");
	world_end();
}

/* What one client names: others are told. */
static void unit_text_names(void)
{
	struct peer p;
	world_begin();
	g.log.level = TP_DEBUG;
	peer_hello(&p);
	peer_put(&p, MUX_C_OPEN_FWD, "uususu", 5, FW_REMOTE, TEXT_EVIL, 8080, TEXT_EVIL, 80);
	world_run();
	fake_put(SSH_REQUEST_FAILURE, "");
	world_run();
	text_point("a forward that the server refuses");
	peer_drain(&p);
	peer_put(&p, MUX_C_OPEN_FWD, "uususu", 6, FW_REMOTE, "", 8081, TEXT_EVIL, 80);
	world_run();
	fake_put(SSH_REQUEST_SUCCESS, "");
	world_run();
	text_point("a forward that it takes");
	p.got = 0;
	peer_put(&p, MUX_C_EXT_INFO, "us", 7, "channels");
	world_run();
	peer_drain(&p);
	check(text_told(&p, TEXT_SHOWN), "text: forwards, to whoever lists them");
	peer_close(&p);
	world_end();
}

static void unit_text(void)
{
	unit_text_clean();
	unit_text_log();
	unit_text_server();
	unit_text_names();
}
