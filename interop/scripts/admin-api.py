#!/usr/bin/env python3
"""Holds the admin API of a real relay to its own OpenAPI document, by schemathesis, its metrics to promtool, and
what operators are told to watch (docs/operators/watch.md, alerts.yml, grafana.json) to its metrics and its log.

    interop/scripts/admin-api.py PATH/TO/millrace-relay

Everything runs on loopback and in a folder that is gone afterwards, within a bounded number of requests. schemathesis speaks no Unix
sockets, so a bridge stands between. Three addresses are left out: /v1/events, whose answer has no end; /v1/upgrade, after which
another process is the relay; and /v1/drain, which ends the relay; it is sent last, and the relay must then end by itself.
"""

import http.client
import http.server
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

import watch_docs

PATIENCE_S = 60
SCHEMATHESIS_S = 60
EXAMPLES = 25
HERE = os.path.dirname(os.path.abspath(__file__))


class Origin(http.server.BaseHTTPRequestHandler):
    """Has a small file under every path."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = self.path.encode().ljust(4096, b".")[:4096]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"fixed"')
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("relay", timeout=PATIENCE_S)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def ask(admin, method, path):
    connection = UnixConnection(admin)
    connection.request(method, path)
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    return response.status, body


def pump(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def bridge(admin):
    """Accepts on a port of loopback, and connects each to the socket. Returns the port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def carry(client):
        with client, socket.socket(socket.AF_UNIX) as relay:
            relay.connect(admin)
            back = threading.Thread(target=pump, args=(relay, client), daemon=True)
            back.start()
            pump(client, relay)
            back.join()

    def accept():
        while True:
            client, _ = listener.accept()
            threading.Thread(target=carry, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


def wait_until_ready(relay, admin):
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if relay.poll() is not None:
            sys.exit(f"the relay ended with status {relay.returncode}")
        try:
            if ask(admin, "GET", "/readyz")[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.05)
    sys.exit("the relay does not become ready")


def configure(folder):
    """What brings the metrics that not every relay has: HTTPS, and a cap on a volume. Returns the configuration's file."""
    certificate, key, path = (os.path.join(folder, name) for name in ("certificate.pem", "key.pem", "millrace.toml"))
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
        capture_output=True, text=True,
    )
    if made.returncode != 0:
        sys.exit(f"openssl: {made.stderr}")
    with open(path, "w") as file:
        file.write(f'https = "127.0.0.1:0"\ntls-certificate = "{certificate}"\ntls-key = "{key}"\n')
        file.write('[caps.origin]\nvolume = [{ window = "month", bytes = "50TB" }]\n')
    return path


def metrics_of(admin):
    status, text = ask(admin, "GET", "/metrics")
    if status != 200:
        sys.exit(f"/metrics: status {status}")
    return text


def check_watch(admin):
    problems = list(watch_docs.problems(metrics_of(admin)))
    if problems:
        sys.exit("\n".join(problems))
    print("docs/operators: metrics, log events, alerts and dashboard are as the relay has them")


def check_metrics(admin):
    text = metrics_of(admin)
    found = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
    said = (found.stdout + found.stderr).strip()
    if found.returncode != 0 or said:
        sys.exit(f"promtool check metrics: {said}")
    count = sum(line.startswith("# TYPE") for line in text.splitlines())
    print(f"promtool check metrics: {count} metrics, nothing found")


def check_api(folder, admin, origin_port):
    port = bridge(admin)
    environment = os.environ | {
        "SCHEMATHESIS_HOOKS": os.path.join(HERE, "admin_api_hooks.py"),
        "MILLRACE_ORIGIN": f"http://127.0.0.1:{origin_port}",
        "NO_COLOR": "1",
    }
    url = f"http://127.0.0.1:{port}"
    command = [
        "schemathesis", "--config-file", os.path.join(HERE, "schemathesis.toml"),
        "run", f"{url}/v1/openapi.json", "--url", url,
        "--exclude-path", "/v1/events", "--exclude-path", "/v1/drain", "--exclude-path", "/v1/upgrade",
        "--max-examples", str(EXAMPLES), "--seed", "20", "--request-timeout", "30",
    ]
    began = time.monotonic()
    ran = subprocess.run(command, cwd=folder, env=environment)
    took = time.monotonic() - began
    if ran.returncode != 0:
        sys.exit(f"schemathesis: status {ran.returncode}")
    print(f"schemathesis: nothing found in {took:.0f} s")


def main():
    relay_program = os.path.abspath(sys.argv[1])
    folder = tempfile.mkdtemp(prefix="millrace-admin-")
    admin = os.path.join(folder, "admin.sock")
    origin = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Origin)
    threading.Thread(target=origin.serve_forever, daemon=True).start()
    log_path = os.path.join(folder, "log")
    command = [
        relay_program, "serve", f"http://127.0.0.1:{origin.server_port}/first.bin",
        "--store", os.path.join(folder, "store"), "--admin", admin,
        "--http", "127.0.0.1:0", "--bt", "127.0.0.1:0", "--metrics", "off", "--cores", str(min(os.sched_getaffinity(0))),
        "--config", configure(folder),
    ]
    with open(log_path, "w") as log:
        relay = subprocess.Popen(command, stderr=log, cwd=folder)
    try:
        wait_until_ready(relay, admin)
        check_metrics(admin)
        check_watch(admin)
        check_api(folder, admin, origin.server_port)
        check_metrics(admin)
        if ask(admin, "GET", "/readyz")[0] != 200:
            sys.exit("the relay is not ready any more")
        status, _ = ask(admin, "POST", "/v1/drain")
        if status != 202 or relay.wait(PATIENCE_S) != 0:
            sys.exit(f"drain: answered {status}, ended with {relay.returncode}")
        if "panicked" in open(log_path).read():
            sys.exit("the relay panicked")
    except BaseException:
        sys.stderr.write("".join(open(log_path).readlines()[-20:]))
        raise
    finally:
        if relay.poll() is None:
            relay.kill()
            relay.wait()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
