"""router.py - what a LuCI page asks for: its files, and ubus over HTTP.

ubus has uci, file.exec and the rest that a page needs; who may run what says the package's
own ACL, in the way of rpcd: a pattern for the program and its words, joined by blanks.
"""
import copy
import fnmatch
import http.server
import json
import os
import threading

PERMISSION = 6
NOT_FOUND = 4


class Router:
    def __init__(self, package, runtime, real=None):
        self.package, self.runtime, self.real = package, runtime, real
        with open(package + "/root/usr/share/rpcd/acl.d/luci-app-sshmux.json") as file:
            self.acl = json.load(file)["luci-app-sshmux"]
        self.uci, self.answers = {}, {}
        self.asked, self.refused = [], []
        self.writable, self.broken = True, None
        router = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def send(self, body, kind, status=200):
                body = body.encode() if isinstance(body, str) else body
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self):
                body, kind = router.file(self.path.split("?")[0])
                self.send(body or "", kind, 404 if body is None else 200)

            def do_POST(self):
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                many = request if isinstance(request, list) else [request]
                replies = [{"jsonrpc": "2.0", "id": r["id"], "result": router.ubus(r)} for r in many]
                self.send(json.dumps(replies if isinstance(request, list) else replies[0]), "application/json")

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = "http://127.0.0.1:%d" % self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def file(self, path):
        kinds = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
        kind = kinds.get(os.path.splitext(path)[1], "text/html; charset=utf-8")
        if path.startswith("/page/"):
            with open(self.runtime + ("/real.html" if self.real else "/page.html")) as file:
                return file.read().replace("VIEW", path[6:]), kind
        if path == "/translations":
            return "window.TR={};", "text/javascript"
        for root in [self.package + "/htdocs", self.runtime] + (self.real or []):
            name = os.path.realpath(root + path)
            if name.startswith(os.path.realpath(root) + "/") and os.path.isfile(name):
                with open(name, "rb") as file:
                    return file.read(), kind
        return None, kind

    # --- ubus ------------------------------------------------------------------------

    def may(self, kind, what, need):
        groups = ["read", "write"] if self.writable else ["read"]
        if kind == "uci":
            return any(what in self.acl[g].get("uci", []) for g in ([need] if need in groups else []))
        return any(fnmatch.fnmatchcase(what, pattern) and need in rights
                   for g in groups for pattern, rights in self.acl[g].get("file", {}).items())

    def ubus(self, request):
        if request["method"] == "list":
            return {"uci": {}, "file": {}}
        _, thing, method, args = request["params"]
        handler = getattr(self, "do_%s_%s" % (thing.replace(".", "_"), method), None)
        if not handler:
            return [0, {}]
        return handler(args)

    def do_uci_get(self, args):
        if not self.may("uci", args["config"], "read"):
            return [PERMISSION]
        return [0, {"values": copy.deepcopy(self.uci[args["config"]])}] if args["config"] in self.uci else [NOT_FOUND]

    def do_uci_set(self, args):
        if not self.may("uci", args["config"], "write"):
            return [PERMISSION]
        self.uci[args["config"]][args["section"]].update(args["values"])
        return [0]

    def do_uci_add(self, args):
        if not self.may("uci", args["config"], "write"):
            return [PERMISSION]
        sections = self.uci[args["config"]]
        name = args.get("name") or "cfg%06x" % len(sections)
        sections[name] = dict(args.get("values") or {}, **{".type": args["type"], ".name": name,
                              ".anonymous": not args.get("name"), ".index": len(sections)})
        return [0, {"section": name}]

    def do_uci_delete(self, args):
        if not self.may("uci", args["config"], "write"):
            return [PERMISSION]
        section = self.uci[args["config"]][args["section"]]
        if args.get("options"):
            for option in args["options"]:
                section.pop(option, None)
        else:
            del self.uci[args["config"]][args["section"]]
        return [0]

    def do_uci_changes(self, _):
        return [0, {"changes": {}}]

    def do_file_exec(self, args):
        words = [args["command"]] + (args.get("params") or [])
        line = " ".join(words)
        if self.broken is not None:
            return [self.broken]
        if not self.may("file", line, "exec"):
            self.refused.append(line)
            return [PERMISSION]
        self.asked.append(line)
        answer = self.answers.get(line.replace("/etc/init.d/sshmux ", ""))
        if callable(answer):
            answer = answer()
        code, out, err = answer if answer else (1, "", "sshmux: there is no answer to '%s'\n" % line)
        return [0, {"code": code, "stdout": out, "stderr": err}]

    def close(self):
        self.server.shutdown()
        self.server.server_close()
