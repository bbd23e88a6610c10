#!/usr/bin/env python3
"""views.py BROWSER DIRECTORY REPORT [PICTURES] - drives the LuCI views in a browser, TAP out.

REPORT is what the init script said of a real master, `report`; states that it is not in
are made of it.  DIRECTORY is for the browser's files.  With PICTURES, a directory, each state
is photographed there at 1280 and 390 pixels.
"""
import copy
import json
import os
import sys

from browser import Browser
from router import PERMISSION, Router

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGE = os.path.realpath(HERE + "/../../../port/openwrt/luci-app-sshmux")
HOSTILE = "<img src=x onerror=\"hacked=1\"><script>hacked=1</script> 'no' & \"way\""
PRINT = "SHA256:" + "abcdefghij" * 4 + "xyz"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIyIFGxJCyzu7t6sTqFCE3hUTvl2Nprb8aWpzBK3jL4V root@router"

points = [0]


def point(name, good, *notes):
    points[0] += 1
    print("%sok %d - %s" % ("" if good else "not ", points[0], name))
    if not good:
        for note in notes:
            print("#  " + str(note)[:600].replace("\n", " "))


def equal(name, got, want):
    point(name, got == want, "got:  %r" % (got,), "want: %r" % (want,))


def section(kind, name, index, anonymous=False, **options):
    return dict(options, **{".type": kind, ".name": name, ".index": index, ".anonymous": anonymous})


def configuration(*servers):
    all_ = [section("sshmux", "globals", 0, enabled="1")]
    all_ += [section("server", name, i + 1, hostname=name + ".example.org") for i, name in enumerate(servers)]
    return {"sshmux": {s[".name"]: s for s in all_}}


class Test:
    def __init__(self, browser, router, real, pictures):
        self.browser, self.router, self.real, self.pictures = browser, router, real, pictures

    def report(self, **servers):
        """Each server with its status, whose counters run on."""
        def answer():
            text = ""
            for name, status in servers.items():
                if status:
                    status["uplink"]["total"]["received_bytes"] += 300000
                    status["uplink"]["total"]["sent_bytes"] += 20000
                text += json.dumps({"name": name, "control_path": "/x", "status": status}) + "\n"
            return 0, text, ""
        return answer

    def status(self, **uplink):
        status = copy.deepcopy(self.real)
        status["uplink"].update(uplink)
        return status

    def world(self, servers, uci=None, **answers):
        self.router.uci = configuration(*servers) if uci is None else uci
        self.router.answers = {"report": self.report(**servers), "keys": (0, "", "")}
        self.router.answers.update({k.replace("_0_", " "): v for k, v in answers.items()})
        self.router.writable, self.router.broken = True, None
        self.router.asked.clear()

    def show(self, name, view, readonly=False):
        """Opens it at both widths; it must be whole, and nothing may stick out."""
        for width in 390, 1280:
            self.browser.open("about:blank")
            self.browser.open("%s/page/sshmux/%s%s" % (self.router.url, view, "#readonly" if readonly else ""), width)
            self.browser.soon("window.ready")
            self.turn()
            if width == 390:
                wide = self.browser.run("document.documentElement.scrollWidth")
                point(name + ": fits 390 pixels", wide <= 390, wide)
            if self.pictures:
                self.browser.picture("%s/%s-%d.png" % (self.pictures, name.replace(" ", "-"), width))
        equal(name + ": LuCI has what it calls", self.run("violations"), [])

    def run(self, expression):
        return self.browser.run(expression)

    def turn(self):
        return self.run("modules.poll.turn()")

    def text(self, selector="#view"):
        return (self.run("(document.querySelector('%s') || {innerText: ''}).innerText" % selector) or "").replace("\xa0", " ")

    def has(self, name, *words, where="#view"):
        text = self.text(where)
        point(name, all(w in text for w in words), [w for w in words if w not in text], text)

    def click(self, text, within="body"):
        self.run("[...document.querySelectorAll('%s button')].find(b => b.innerText == '%s').click()" % (within, text))

    def said(self, name, *words):
        self.browser.soon("document.getElementById('notifications').innerText.includes(%s)" % json.dumps(words[-1]))
        self.has(name, *words, where="#notifications")

    # --- the state ---------------------------------------------------------------------

    def nothing(self):
        self.world({}, uci={})
        self.show("no configuration", "status")
        self.has("no configuration: says so", "No server is configured.")

    def up(self):
        self.world({"office": self.status(), "home": None})
        self.router.uci["sshmux"]["home"]["enabled"] = "0"
        self.router.answers["events office"] = self.events
        self.show("up", "status")
        self.turn()
        self.has("up: the servers and their state", "office", "connected", "home", "not enabled", "iB/s in")
        self.has("up: the connection", self.real["uplink"]["host_key_fingerprint"], self.real["uplink"]["cipher"],
                 "process %d" % self.real["pid"], where="#sshmux-details")
        self.has("up: its forwards", "remote", "127.0.0.1:", "active", where="#sshmux-details")
        self.has("up: its sessions", "echo up; exec cat", where="#sshmux-details")
        self.has("up: its events", "session began", "connected", where="#sshmux-details")
        equal("up: the graph has two lines", self.run("document.querySelectorAll('#sshmux-details svg polyline').length"), 2)
        equal("up: its points are numbers", self.run(
            "[...document.querySelectorAll('polyline, polygon')].every(p => /^(\\d+,-?\\d+ ?)+$/.test(p.getAttribute('points')))"), True)
        self.costs_nothing()

    def costs_nothing(self):
        self.run("Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
        before = len(self.router.asked)
        self.turn()
        equal("up: a page that is hidden asks nothing", len(self.router.asked), before)
        self.run("delete document.hidden")
        self.turn()
        point("up: seen again it asks", len(self.router.asked) > before)
        self.run("document.getElementById('view').replaceChildren()")
        before = len(self.router.asked)
        self.turn()
        equal("up: a view that is gone asks nothing, and is not polled",
              [len(self.router.asked) - before, self.run("modules.poll.queue.length")], [0, 0])

    def hostile(self):
        waiting = self.status(state="waiting", next_try=15, last_error=HOSTILE, last_error_age=3, host="h" + HOSTILE,
                              user=HOSTILE, server_version=HOSTILE, cipher=HOSTILE)
        waiting["sessions"][0].update(command=HOSTILE, program=HOSTILE)
        waiting["forwards"][0].update(last_error=HOSTILE, state=HOSTILE, type=HOSTILE)
        waiting["forwards"][0]["listen"] = {"host": None, "port": None, "path": HOSTILE}
        self.world({"office": waiting})
        event = json.dumps({"event": HOSTILE, "age": 2, "reason": HOSTILE, "command": HOSTILE})
        self.router.answers["events office"] = (0, event + "\n", "")
        self.router.answers["kick office"] = (1, "", HOSTILE + "\n")
        self.show("reconnecting, a hostile reason", "status")
        self.has("hostile: the reason stands there as it is, and the next try", HOSTILE, "waiting", "next try in 15 s")
        self.click("Kick")
        self.said("hostile: a message, too", "kick: ", HOSTILE)
        equal("hostile: nothing became HTML", self.run(
            "document.querySelectorAll('#view img, #view script, #notifications img, #notifications script').length"), 0)
        equal("hostile: nothing ran", self.run("typeof hacked"), "undefined")

    def many(self):
        servers = {"router%d" % i: self.status(host="router%d.example.org" % i) for i in range(1, 21)}
        servers["router7"] = None
        self.world(servers)
        self.show("twenty servers", "status")
        equal("twenty: a row each", self.run("document.querySelectorAll('#sshmux-overview [data-server]').length"), 20)
        self.has("twenty: one without a master", "no master")
        equal("twenty: all in one question, one for events", sorted(set(self.router.asked)),
              ["/etc/init.d/sshmux events router1", "/etc/init.d/sshmux report"])
        self.run("document.querySelector('[data-server=router20]').focus()")
        self.run("document.querySelector('[data-server=router20]').click()")
        self.browser.soon("document.querySelector('#sshmux-details h3').innerText == 'router20'")
        self.turn()
        self.has("twenty: the one that was chosen", "router20", "router20.example.org", where="#sshmux-details")
        equal("twenty: the focus stays", self.run("document.activeElement.getAttribute('data-server')"), "router20")

    def buttons(self):
        self.world({"office": self.status()})
        for action in "kick", "reconnect", "drain":
            self.router.answers[action + " office"] = (0, "", "")
        self.show("buttons", "status")
        self.router.asked.clear()
        for title in "Kick", "Reconnect", "Drain":
            self.click(title)
            self.browser.soon("!document.querySelector('#sshmux-buttons [disabled]')")
        equal("buttons: do what they say", [line for line in self.router.asked if line.split()[1] not in ("report", "events")],
              ["/etc/init.d/sshmux %s office" % a for a in ("kick", "reconnect", "drain")])
        self.router.writable = False
        self.click("Kick")
        self.said("refused: an action", "kick: Permission denied")
        self.show("read only", "status", readonly=True)
        equal("read only: the buttons are off", self.run("document.querySelectorAll('#sshmux-buttons [disabled]').length"), 3)
        self.router.broken = PERMISSION
        self.show("refused", "status")
        self.has("refused: the state", "The state cannot be read: Permission denied")
        self.router.broken = None
        self.turn()
        self.has("refused: and once it is not", "connected")
        self.router.answers["report"] = (0, "no JSON", "")
        self.turn()
        self.has("wrong answers are told", "The state cannot be read: ")

    # --- the configuration ---------------------------------------------------------------

    def forms(self):
        self.world({"office": None}, host_key_0_office="")
        uci = self.router.uci["sshmux"]
        uci["office"]["hostname"] = "office.example.org"
        uci["web"] = section("tunnelR", "web", 5, server="office", remoteport="9009", localaddress="<img src=x>", localport="80")
        self.router.answers["keys"] = (0, "/etc/sshmux/id_%s %s\n" % ("ed25519", KEY + HOSTILE), "")
        self.router.answers["host_key office.example.org 2022"] = (0, PRINT + "\n", "")
        self.show("servers", "servers")
        self.has("servers: server, forward, key", "office.example.org", "9009", "/etc/sshmux/id_ed25519", KEY)
        equal("servers: nothing became HTML", self.run("document.querySelectorAll('#view img').length"), 0)
        self.run("document.querySelector('#cbi-sshmux-server [data-sid=office] button').click()")
        self.put("port", "2022")
        self.click("Show its host key", ".modal")
        self.browser.soon("document.querySelector('.sshmux-fetched code')")
        self.has("host key: is shown", PRINT, where=".sshmux-fetched")
        equal("host key: shown is not pinned", self.run("document.querySelectorAll('[data-list=HostKey] .item').length"), 0)
        self.click("Pin it", ".modal")
        self.browser.soon("document.querySelector('[data-list=HostKey] .item')")
        self.put("ssh_option", "Ciphers aes128-gcm@openssh.com", "[data-list=ssh_option] input")
        if self.pictures:
            self.browser.picture(self.pictures + "/edit-1280.png")
        self.click("Save", ".modal")
        self.save()
        equal("saved: the server", {k: v for k, v in uci["office"].items() if k[0] != "."},
              {"hostname": "office.example.org", "enabled": "1", "port": "2022", "HostKey": [PRINT],
               "ssh_option": ["Ciphers aes128-gcm@openssh.com"]})
        self.wrong_values()
        self.additions(uci)

    def put(self, option, value, selector=None):
        self.run("document.querySelector('.modal ' + %s).value = %s" % (
            json.dumps(selector or "[data-option=%s]" % option), json.dumps(value)))

    def save(self):
        before = self.run("document.getElementById('save').click() || 1")
        self.browser.wait(5, lambda: self.run("Object.keys(modules.uci.changes).length + Object.keys(modules.uci.creates).length") == 0)
        return before

    def wrong_values(self):
        self.run("document.querySelector('#cbi-sshmux-server [data-sid=office] button').click()")
        for option, value, words in (("HostKey", "MD5:aa", "a fingerprint"), ("ssh_option", "nothing", "a keyword and its value")):
            self.put(option, value, "[data-list=%s] input" % option)
            self.click("Save", ".modal")
            self.said("wrong %s: refused" % option, words)
            self.put(option, "", "[data-list=%s] input" % option)
        self.run("modules.ui.hideModal()")

    def additions(self, uci):
        self.run("document.querySelector('[data-add=server]').value = 'hq'")
        self.run("document.querySelector('[data-adds=server]').click()")
        self.put("hostname", "hq.example.org")
        self.click("Save", ".modal")
        self.run("document.querySelector('[data-adds=tunnelD]').click()")
        equal("added: a forward can have either server",
              self.run("[...document.querySelectorAll('.modal select option')].map(o => o.value)"), ["office", "hq"])
        self.put("localport", "1080")
        self.run("document.querySelector('.modal select').value = 'hq'")
        self.click("Save", ".modal")
        self.save()
        equal("added: a server", uci.get("hq", {}).get("hostname"), "hq.example.org")
        equal("added: a forward", [(s["server"], s["localport"]) for s in uci.values() if s[".type"] == "tunnelD"], [("hq", "1080")])
        made = "/etc/sshmux/id_new " + KEY
        self.router.answers["create_key new"] = lambda: (self.router.answers.update(keys=(0, made + "\n", "")), (0, KEY, ""))[1]
        self.run("document.getElementById('sshmux-key-name').value = 'new'")
        self.click("Create key")
        self.browser.soon("document.getElementById('sshmux-keys').innerText.includes('id_new')")
        self.has("a key is made, its public part shown", "/etc/sshmux/id_new", KEY, where="#sshmux-keys")
        self.router.writable = False
        self.click("Create key")
        self.said("a key: refused", "Permission denied")

    # --- rights --------------------------------------------------------------------------

    def rights(self):
        equal("rights: nothing that a view asked for was refused but what was to be",
              sorted(set(self.router.refused)), ["/etc/init.d/sshmux create_key new", "/etc/init.d/sshmux kick office"])
        init = "/etc/init.d/sshmux "
        for writable, lines in ((False, ["report", "events office", "keys"]),
                                (True, ["kick office", "reconnect office", "drain office", "host_key h 22", "create_key x"])):
            self.router.writable = False
            got = [self.router.may("file", init + line, "exec") for line in lines]
            self.router.writable = True
            equal("rights: read%s: %s" % (" alone has not" if writable else "", " ".join(lines)),
                  got + [self.router.may("file", init + line, "exec") for line in lines],
                  [not writable] * len(lines) + [True] * len(lines))
        for line in ("/bin/sh -c id", "/usr/sbin/sshmux office reboot", init + "stop", init + "stop office", init + "report x",
                     init + "import_autossh", init + "keys x", "/etc/init.d/sshmux", "/etc/init.d/dropbear stop"):
            point("rights: nobody may: " + line, not self.router.may("file", line, "exec"))
        point("rights: its own configuration alone", self.router.may("uci", "sshmux", "write") and
              not self.router.may("uci", "network", "read") and not self.router.may("uci", "dropbear", "write"))

    def runtime(self):
        """The runtime itself: it must refuse what LuCI does not have."""
        self.show("the runtime", "status")
        for what in "strict('ui', modules.ui).addBanner", "L.everything", "'%q'.format(1)", "strict('fs', modules.fs).run('x')":
            try:
                self.run(what)
                point("the runtime refuses " + what.replace("#", "."), False)
            except RuntimeError as error:
                point("the runtime refuses " + what, " has no " in str(error) or "format" in str(error), error)


def main():
    browser_program, directory, report = sys.argv[1:4]
    with open(report) as file:
        text = file.read()
    real = [entry["status"] for entry in json.loads("[" + text.strip().replace("\n{", ",{") + "]") if entry["status"]][0]
    router = Router(PACKAGE, HERE)
    browser = Browser(browser_program, directory)
    try:
        test = Test(browser, router, real, sys.argv[4] if len(sys.argv) > 4 else None)
        with open(report + ".events") as file:
            test.events = (0, file.read(), "")
        for part in (test.nothing, test.up, test.hostile, test.many, test.buttons, test.forms, test.rights, test.runtime):
            part()
        equal("the browser met no error", [e for e in browser.errors if "has no" not in e], [])
    finally:
        browser.close()
        router.close()


main()
