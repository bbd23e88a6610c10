"""browser.py - a headless Chromium, by its DevTools protocol over two pipes."""
import base64
import json
import os
import select
import subprocess
import time


class Browser:
    """One page of one browser; every wait has a deadline."""

    def __init__(self, program, directory):
        to_it, ours = os.pipe()
        theirs, from_it = os.pipe()
        self.out, self.inp, self.rest = ours, theirs, b""
        self.count, self.errors = 0, []

        def ends():
            os.dup2(os.dup(to_it), 203)
            os.dup2(os.dup(from_it), 204)
            os.dup2(203, 3)
            os.dup2(204, 4)

        self.process = subprocess.Popen(
            [program, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run",
             "--disable-background-networking", "--disable-dev-shm-usage", "--user-data-dir=" + directory, "about:blank"],
            preexec_fn=ends, close_fds=False, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=open(directory + ".log", "wb"))
        os.close(to_it)
        os.close(from_it)
        self.session = None
        pages = self.wait(30, lambda: [t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page"])
        self.session = self.call("Target.attachToTarget", targetId=pages[0]["targetId"], flatten=True)["sessionId"]
        for domain in "Page", "Runtime", "Log":
            self.call(domain + ".enable")

    def message(self, deadline):
        while b"\0" not in self.rest:
            if not select.select([self.inp], [], [], max(0, deadline - time.monotonic()))[0]:
                raise TimeoutError("the browser does not answer")
            got = os.read(self.inp, 1 << 20)
            if not got:
                raise EOFError("the browser has ended")
            self.rest += got
        text, self.rest = self.rest.split(b"\0", 1)
        return json.loads(text)

    def call(self, method, **params):
        self.count += 1
        request = {"id": self.count, "method": method, "params": params}
        if self.session:
            request["sessionId"] = self.session
        os.write(self.out, json.dumps(request).encode() + b"\0")
        deadline = time.monotonic() + 60
        while True:
            answer = self.message(deadline)
            if answer.get("method") == "Runtime.exceptionThrown":
                details = answer["params"]["exceptionDetails"]
                self.errors.append(details.get("exception", {}).get("description", details["text"]))
            if answer.get("id") == self.count:
                if "error" in answer:
                    raise RuntimeError("%s: %s" % (method, answer["error"]["message"]))
                return answer["result"]

    def run(self, expression):
        """The value of an expression in the page, a promise's, too."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"].get("description", "?"))
        return answer["result"].get("value")

    @staticmethod
    def wait(seconds, ready):
        deadline = time.monotonic() + seconds
        while True:
            value = ready()
            if value or time.monotonic() > deadline:
                return value
            time.sleep(0.05)

    def soon(self, expression, seconds=20):
        """Waits until it is true; whether it is."""
        return self.wait(seconds, lambda: self.run("!!(%s)" % expression))

    def open(self, url, width=1280, height=800):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                  mobile=width < 600)
        self.call("Page.navigate", url=url)

    def picture(self, file):
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True,
                         clip={"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 4000), "scale": 1})
        with open(file, "wb") as out:
            out.write(base64.b64decode(shot["data"]))

    def close(self):
        try:
            self.call("Browser.close")
        except (EOFError, TimeoutError, OSError, RuntimeError):
            pass
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
