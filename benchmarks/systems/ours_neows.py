"""This workspace: `neows` through its own pipeline, asked of a server on loopback."""

import json
import os
import subprocess
import sys
import time
from datetime import date, timedelta
from pathlib import Path

feeds, folder = sys.argv[1:]
SERVER = """
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

class Feeds(BaseHTTPRequestHandler):
    def do_GET(self):
        (first,) = parse_qs(urlsplit(self.path).query)["start_date"]
        body = Path(sys.argv[1], first + ".json").read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Feeds)
print(server.server_port, flush=True)
server.serve_forever()
"""
os.environ["WAREHOUSE_PATH"] = str(Path(folder) / "warehouse.duckdb")


from shared import warehouse
from shared.sources.neows import neows

with subprocess.Popen(
    [sys.executable, "-c", SERVER, feeds], stdout=subprocess.PIPE, text=True
) as server:
    assert server.stdout is not None
    os.environ["NASA_BASE_URL"] = f"http://127.0.0.1:{server.stdout.readline().strip()}"
    firsts = [date.fromisoformat(feed.stem) for feed in sorted(Path(feeds).glob("*.json"))]
    days = [(first + timedelta(days=n)).isoformat() for first in firsts for n in range(8)]
    source = neows(days, table="items")
    began = time.perf_counter()
    spec = warehouse.pipeline("bench", dataset_name="bench")
    warehouse.load(warehouse.plan_load(spec, source, days))
    print(json.dumps({"seconds": time.perf_counter() - began}))
    server.kill()
