"""A browser that is a Python script: it plays the page over HTTP, well or badly."""

from __future__ import annotations

import sys
from pathlib import Path

PROGRAM = """#!{python} -SE
import http.client, json, os, sys, time
from urllib.parse import urlsplit

where = urlsplit(sys.argv[-1])
open({marks!r}, "a").write(sys.argv[-1] + chr(10))


def ask(path, body=None, host=None, root=where.path):
    connection = http.client.HTTPConnection(where.netloc)
    headers = {{"Host": host}} if host else {{}}
    connection.request("GET" if body is None else "POST", root + path, body, headers)
    reply = connection.getresponse()
    return reply.status, dict(reply.getheaders()), reply.read()


def alive():
    connection = http.client.HTTPConnection(where.netloc)
    connection.request("GET", where.path + "alive")
    return connection


def commands():
    while True:
        status, _, body = ask("next")
        if status == 200:
            head, _, rest = body.partition(b"\\n")
            yield json.loads(head), rest


def answer(number, head, body=b""):
    ask(f"answer/{{number}}", json.dumps(head).encode() + b"\\n" + body)


{script}
"""

# What a page with an engine answers: every image has the same logits.
GOOD = """
FACTS = {"agent": "Mozilla/5.0 Played/1.0 Chrome/156.0.0.0", "versions": {}, "isolated": True, "adapter": ADAPTER}
OPENED = {"input": {"name": "images", "shape": [None, 6, 5, 3]}, "outputs": ["logits"], "open_ms": 12.5}
held = alive()
for head, body in commands():
    op = head["op"]
    if op in FAULTS:
        FAULTS[op](head)
        continue
    logits = b"\\0\\0\\x80\\x3f" * 4
    samples = [2.5] * (head.get("calls") or 3)
    replies = {"look": FACTS, "start": {}, "open": OPENED, "upload": {}, "time": {"samples_ms": samples}}
    if op == "run":
        about = {"dtype": "float32", "shape": [head["shape"][0], 4]}
        outputs = [about for _ in head["outputs"]]
        answer(head["number"], {"outputs": outputs}, logits * head["shape"][0] * len(outputs))
    else:
        answer(head["number"], replies[op])
"""


def good(faults="", adapter="None"):
    """A script that answers everything, but the commands in `faults`, a dictionary of functions in Python's words."""
    return f"ADAPTER = {adapter}\nFAULTS = {{{faults}}}\n{GOOD}"


def write_browser(folder: Path, script: str) -> tuple[str, Path]:
    """The path of the program, and of a file with the addresses that it was started with."""
    program, marks = folder / "played", folder / "started.txt"
    program.write_text(PROGRAM.format(python=sys.executable, marks=str(marks), script=script))
    program.chmod(0o755)
    return str(program), marks
