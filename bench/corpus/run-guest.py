"""Boots the corpus guest in QEMU, waits until its work is done, stops it and copies its RAM.

Usage: run-guest.py WORK RAM OUT MEMORY_MIB
WORK holds vmlinuz, initrd.cpio and root.ext4 and gets qemu.pid and serial.log. RAM is the file that is the guest's
memory while it runs, OUT the sparse copy taken while the guest is stopped.

Every wait has a deadline. A guest that does not boot is started again: QEMU 7.2 was seen to stand still before
the kernel's first line. On failure the serial log goes to stderr and the exit code is 1. QEMU never outlives this
process: it is ended on every way out, and the kernel ends it when this process is killed.
"""

import ctypes
import json
import pathlib
import signal
import socket
import subprocess
import sys
import time

BOOT_SECONDS = 90
BOOT_TRIES = 3
WORK_SECONDS = 900
QMP_SECONDS = 20
PR_SET_PDEATHSIG = 1


class GuestError(Exception):
    """The guest or QEMU did not do what this script waited for."""


class SilentGuestError(GuestError):
    """A deadline passed."""


class Qmp:
    """One QMP connection; every call waits for its answer, events are skipped."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(QMP_SECONDS)
        self.socket.connect(path)
        self.lines = self.socket.makefile('r', encoding='utf-8')
        self.lines.readline()
        self.call('qmp_capabilities')

    def call(self, command):
        self.socket.sendall(json.dumps({'execute': command}).encode() + b'\n')
        while line := self.lines.readline():
            answer = json.loads(line)
            if 'error' in answer:
                raise GuestError(f'QMP {command}: {answer["error"]["desc"]}')
            if 'return' in answer:
                return answer['return']
        raise GuestError(f'QMP {command}: connection closed')


def start_qemu(work, ram, memory_mib):
    command = [
        'qemu-system-x86_64', '-nodefaults', '-display', 'none', '-no-reboot',
        '-machine', 'q35,memory-backend=ram', '-accel', 'tcg,thread=multi',
        '-cpu', 'qemu64', '-smp', '2', '-m', str(memory_mib),
        '-object', f'memory-backend-file,id=ram,size={memory_mib}M,mem-path={ram},share=on',
        '-kernel', f'{work}/vmlinuz', '-initrd', f'{work}/initrd.cpio',
        '-append', 'console=ttyS0 quiet mitigations=off random.trust_cpu=on nokaslr panic=1',
        '-drive', f'file={work}/root.ext4,format=raw,if=none,id=disk,cache=unsafe',
        '-device', 'virtio-blk-pci,drive=disk',
        '-chardev', f'file,id=serial,path={work}/serial.log', '-serial', 'chardev:serial',
        '-qmp', f'unix:{work}/qmp,server=on,wait=off', '-pidfile', f'{work}/qemu.pid',
    ]
    libc = ctypes.CDLL(None)
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL,
        preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL))


def wait_for_marker(qemu, log, marker, seconds, shown=0):
    """Returns when the guest printed `marker`, and prints its lines after the first `shown`; returns their number."""
    deadline = time.monotonic() + seconds
    while True:
        text = log.read_text(errors='replace') if log.exists() else ''
        lines = [line.strip() for line in text.splitlines() if line.startswith('CORPUS-')]
        for line in lines[shown:]:
            print(f'guest: {line}', flush=True)
        shown = len(lines)
        failed = [line for line in lines if line.startswith('CORPUS-FAILED')]
        if failed:
            raise GuestError(failed[0])
        if any(line.startswith(marker) for line in lines):
            return shown
        if qemu.poll() is not None:
            raise GuestError(f'QEMU ended with {qemu.returncode} before {marker}')
        if time.monotonic() > deadline:
            raise SilentGuestError(f'no {marker} within {seconds} s')
        time.sleep(0.2)


def boot(work, ram, memory_mib, log):
    """Returns QEMU with a guest that has booted, and the number of marker lines that were printed."""
    for tries_left in reversed(range(BOOT_TRIES)):
        log.unlink(missing_ok=True)
        pathlib.Path(ram).unlink(missing_ok=True)
        qemu = start_qemu(work, ram, memory_mib)
        try:
            return qemu, wait_for_marker(qemu, log, 'CORPUS-KERNEL', BOOT_SECONDS)
        except SilentGuestError as error:
            end(qemu)
            if tries_left == 0:
                raise
            print(f'run-guest.py: {error}, started again', file=sys.stderr)
        except BaseException:
            end(qemu)
            raise


def end(qemu):
    if qemu is not None and qemu.poll() is None:
        qemu.kill()
        qemu.wait()


def main():
    work, ram, out, memory_mib = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    log = work / 'serial.log'
    qemu = None
    try:
        qemu, shown = boot(work, ram, memory_mib, log)
        wait_for_marker(qemu, log, 'CORPUS-READY', WORK_SECONDS, shown)
        qmp = Qmp(f'{work}/qmp')
        qmp.call('stop')
        subprocess.run(['cp', '--sparse=always', ram, out], check=True)
        qmp.call('quit')
        qemu.wait(QMP_SECONDS)
        return 0
    except (GuestError, OSError, subprocess.SubprocessError) as error:
        print(f'run-guest.py: {error}; the serial log follows', file=sys.stderr)
        print(log.read_text(errors='replace') if log.exists() else '(empty)', file=sys.stderr)
        return 1
    finally:
        end(qemu)


if __name__ == '__main__':
    sys.exit(main())
