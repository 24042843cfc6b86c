"""Stops a guest, moves it out of QEMU with its own `migrate`, and lets it run on; tells the seconds of the move.

usage: qemu-migrate.py QMP_SOCKET exec|lz4|fd FILE

A program of its own because `fd:` wants a descriptor passed over the socket, which Node.js cannot do.
"""

import array
import json
import os
import socket
import sys
import time


class Qmp:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.lines = self.socket.makefile("r")
        self.lines.readline()
        self.execute("qmp_capabilities")

    def execute(self, command, descriptor=None, **arguments):
        line = json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n"
        rights = [] if descriptor is None else [
            (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))
        ]
        self.socket.sendmsg([line], rights)
        while True:
            answer = json.loads(self.lines.readline())
            if "error" in answer:
                raise SystemExit(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]


def main():
    path, kind, target = sys.argv[1:]
    qmp = Qmp(path)
    qmp.execute(
        "migrate-set-capabilities",
        capabilities=[{"capability": "x-ignore-shared", "state": False}],
    )
    qmp.execute("migrate-set-parameters", **{"max-bandwidth": 1 << 48})
    if os.path.exists(target):
        os.unlink(target)
    # QEMU does not migrate a guest a second time that has not run since.
    qmp.execute("stop")
    begin = time.monotonic()
    if kind == "fd":
        descriptor = os.open(target, os.O_CREAT | os.O_WRONLY, 0o600)
        qmp.execute("getfd", descriptor=descriptor, fdname="out")
        os.close(descriptor)
        qmp.execute("migrate", uri="fd:out")
    else:
        qmp.execute("migrate", uri={"exec": f"exec:cat > {target}", "lz4": f"exec:lz4 -1 > {target}"}[kind])
    while (status := qmp.execute("query-migrate")["status"]) != "completed":
        if status in ("failed", "cancelled"):
            raise SystemExit(f"migrate {kind}: {status}")
        time.sleep(0.002)
    seconds = time.monotonic() - begin
    qmp.execute("cont")
    print(seconds)


main()
