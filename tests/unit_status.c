/* unit_status.c - the reports: each field and each event is in the manual's section
 * REPORTS, and each that is there is told. */

#define SCHEMA_NAMES 128
struct schema {
	char name[SCHEMA_NAMES][64];
	int n;
};

/* Adds what is not there yet. */
static void schema_add(struct schema *s, const char *name, size_t len)
{
	for (int i = 0; i < s->n; i++)
		if (strlen(s->name[i]) == len && memcmp(s->name[i], name, len) == 0)
			return;
	if (len > 0 && len < sizeof s->name[0] && s->n < SCHEMA_NAMES)
		snprintf(s->name[s->n++], sizeof s->name[0], "%.*s", (int)len, name);
}

/* One value at p, called `at`; the names of what it consists of are added.  Returns
 * where it ends, NULL if it is no JSON. */
static const char *schema_value(struct schema *s, const char *at, const char *p)
{
	char below[64];
	char open = *p;
	if (open != '{' && open != '[') {
		schema_add(s, at, strlen(at));
		if (*p == '"') {
			for (p++; *p && *p != '"'; p++)
				p += *p == '\\';
			return *p ? p + 1 : NULL;
		}
		return p + strcspn(p, ",]}");
	}
	for (p++; p && *p && *p != ']' && *p != '}'; p += p && *p == ',') {
		size_t len = 0;
		if (open == '{') {
			len = strcspn(p + 1, "\"");
			snprintf(below, sizeof below, "%s%s%.*s", at, *at ? "." : "", (int)len,
				p + 1);
			p += len + 3;		/* two quotes and a colon */
		} else
			snprintf(below, sizeof below, "%s[]", at);
		p = schema_value(s, below, p);
	}
	return p && *p ? p + 1 : NULL;
}

/* The words at p before `end`, which commas, blanks and lines part; not those in
 * brackets. */
static void schema_words(struct schema *s, const char *p, const char *end)
{
	while (p < end) {
		size_t n = strcspn(p, ", \n");
		n = n < (size_t)(end - p) ? n : (size_t)(end - p);
		if (*p == '(')
			p = strchr(p, ')') + 1;
		else {
			schema_add(s, p, n);
			p += n ? n : 1;
		}
	}
}

static void schema_same(const struct schema *told, const struct schema *documented,
	const char *what)
{
	bool all = told->n > 0;
	for (int i = 0; i < told->n; i++) {
		bool there = false;
		for (int k = 0; k < documented->n; k++)
			there |= strcmp(told->name[i], documented->name[k]) == 0;
		also(&all, there, "%s is told and not in the manual", told->name[i]);
	}
	for (int k = 0; k < documented->n; k++) {
		bool there = false;
		for (int i = 0; i < told->n; i++)
			there |= strcmp(told->name[i], documented->name[k]) == 0;
		also(&all, there, "%s is in the manual and not told", documented->name[k]);
	}
	check(all, "reports: %s: what is told is what the manual says", what);
}

/* A status with one of everything that can be in it. */
static void schema_status(const char *manual, const char *end)
{
	static struct schema told, documented;
	static char text[65536];
	struct session s;
	struct client c = { .fd = -1 };
	struct buf b = buf_over((uint8_t *)text, sizeof text - 1);
	world_begin();
	session_open(&s, 1000, 1000);
	for (int i = 0; i < 2; i++) {
		struct endpoint tcp = { "localhost", 80 }, path = { "/path", FW_PATH };
		g.fw.slot[i] = (struct forward){ .state = FW_ACTIVE, .type = FW_LOCAL, .client = -1,
			.connector = -1,
			.listen = i ? path : tcp, .connect = i ? tcp : path,
				.socket = { -1, -1, -1, -1 } };
	}
	int proxy = 0;
	while (g.mc.slot[proxy].phase != MX_FREE)
		proxy++;
	g.mc.slot[proxy].phase = MX_PROXY_HEAD;
	g.mc.slot[proxy].fd = -1;
	st_begin(&c, str_of("status-json"), 0);
	while (st_next(&c, &b) == ST_PIECE)
		;
	text[b.pos] = 0;
	const char *rest = schema_value(&told, "", text);
	g.mc.slot[proxy].phase = MX_FREE;
	g.fw.slot[0].state = g.fw.slot[1].state = FW_FREE;
	check(!b.bad && rest && strcmp(rest, "\n") == 0,
		"reports: a status is one object and a newline");
	for (const char *p = manual; (p = strstr(p, "\n.It Li ")) && p < end;) {
		p += 8;
		schema_words(&documented, p, p + strcspn(p, "\n"));
	}
	schema_same(&told, &documented, "status");
	session_close(&s);
	check_clean("reports: a status");
}

static void schema_events(const char *manual)
{
	bool all = true;
	for (int kind = 0; kind < EV_KINDS; kind++) {
		struct schema told = { .n = 0 }, documented = { .n = 0 };
		char text[1024], item[64];
		struct buf b = buf_over((uint8_t *)text, sizeof text - 1);
		struct event e = { .kind = (uint8_t)kind, .text = "text" };
		st_json_event(&b, &e);
		text[b.pos] = 0;
		schema_value(&told, "", text);
		snprintf(item, sizeof item, "\n.It Li %s\n", st_events[kind].name);
		const char *p = strstr(manual, item);
		also(&all, p != NULL, "%s is not in the manual", st_events[kind].name);
		if (!p)
			continue;
		const char *always = "event, age";
		schema_words(&documented, always, always + strlen(always));
		p += strlen(item);
		schema_words(&documented, p, strstr(p, "\n.") + 1);
		schema_same(&told, &documented, st_events[kind].name);
	}
	check(all, "reports: each event is in the manual");
	check(strstr(manual, "\n.It Li lost\ncount\n") != NULL,
		"reports: and that events were lost");
}

/* A watcher that did not read is told what it has missed. */
static void status_lost(void)
{
	char text[1024];
	struct client c = { .fd = -1 };
	struct buf b = buf_over((uint8_t *)text, sizeof text - 1);
	world_begin();
	st_begin(&c, str_of("watch"), 0);
	check(st_next(&c, &b) == ST_WAIT && b.pos == 0, "reports: a watcher waits for events");
	for (int i = 0; i < EVENTS + 3; i++)
		ev_add((struct event){ .kind = EV_REKEY }, i == 3 ? "fourth" : "");
	bool told = st_next(&c, &b) == ST_PIECE;
	text[b.pos] = 0;
	check(told && strcmp(text, "{\"event\":\"lost\",\"count\":3}\n") == 0,
		"reports: events that a watcher lost are counted");
	b.pos = 0;
	told = st_next(&c, &b) == ST_PIECE;
	text[b.pos] = 0;
	check(told && strstr(text, "\"fourth\""), "reports: and the next one follows");
	check_clean("reports: a watcher");
}

/* What was reached once is not reached "1 times". */
static void status_counts(void)
{
	char text[2][128];
	uint32_t was = g.ev.refused[TABLE_CLIENTS];
	for (uint32_t i = 0; i < 2; i++) {
		struct buf b = buf_over((uint8_t *)text[i], sizeof text[i] - 1);
		g.ev.refused[TABLE_CLIENTS] = i + 1;
		st_people_table(&b, TABLE_CLIENTS);
		text[i][b.pos] = 0;
	}
	g.ev.refused[TABLE_CLIENTS] = was;
	check(strstr(text[0], "reached 1 time\n") && strstr(text[1], "reached 2 times\n"),
		"reports: one of a thing, and more");
}

static void unit_status(void)
{
	static char manual[262144];
	const char *name = getenv("MANUAL");
	FILE *f = fopen(name ? name : "sshmux.1", "r");
	size_t n = f ? fread(manual, 1, sizeof manual - 1, f) : 0;
	if (f)
		fclose(f);
	const char *from = strstr(manual, "\n.Sh REPORTS"), *events = from ?
		strstr(from, "\n.Fl O Cm watch") : NULL;
	if (n == 0) {
		printf("ok %d - reports: the manual # SKIP sshmux.1 is not here\n",
			passed + failed + ++skipped);
		return;
	}
	check(events != NULL, "reports: the manual has a section of them");
	if (!events)
		return;
	schema_status(from, events);
	schema_events(events);
	status_counts();
	status_lost();
}
