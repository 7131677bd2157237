"""What a tenant without a device can do with a region file of its own. Each attack goes on until it is ended. Where root starts
it, it goes on as a user without rights.

    tenant.py ATTACK VICTIM ROOT [NUMBER]

ATTACK is one of those below, VICTIM the region of a container whose device is attacked, ROOT a directory that the agent
searches. It says `ready` once it has begun.
"""

import ctypes
import fcntl
import os
import shutil
import signal
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../../include"))
from gpuquota_region import NUMBERS  # noqa: E402

OURS, SLOT_BYTE, DEVICES = NUMBERS["OURS"], NUMBERS["SLOT_BYTE"], NUMBERS["DEVICES"]
LEASES, LEASE_BYTES = OURS + 192, 64
RECORDS, RECORD_BYTES = OURS + 0x1000, 512
STATE, TOTAL, UNTIL = 96, 256, 232
F_OFD_SETLK, F_SETLEASE = 37, 1024
ENDLESS = 2**64 - 1
NOBODY = 65534


def be_nobody(root):
    """The directory is the tenant's; root it is not."""
    if os.geteuid() == 0:
        os.chown(root, NOBODY, NOBODY)
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)


def copy(victim, path):
    with open(path, "wb") as file:
        file.write(victim)


def lives(file, kind=fcntl.F_WRLCK):
    """Takes the lock that says that a process of the region lives."""
    fcntl.fcntl(file, F_OFD_SETLK, struct.pack("hhqqi4x", kind, os.SEEK_SET, SLOT_BYTE, 1, 0))


def copies(victim, root, number):
    """So many regions with the victim's contents, each of a container of its own."""
    files = []
    for index in range(number):
        directory = os.path.join(root, f"tenant_{os.getpid()}_{index}")
        os.makedirs(directory)
        path = os.path.join(directory, "tenant.cache")
        copy(victim, path)
        file = os.open(path, os.O_RDWR)
        lives(file)
        files.append(file)
    return files


def clock():
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def lies(victim, root, number, says, devices=1, every=0.003, uuid=None):
    """`says(index, now)` gives total, until, asked at, in flight, uncertainty."""
    files = copies(victim, root, number)
    for at, file in enumerate(files):
        record = bytearray(os.pread(file, RECORD_BYTES, RECORDS))
        record[STATE : STATE + 4] = struct.pack("<I", NUMBERS["DEVICE_READY"])
        for index in range(devices):
            if uuid:
                record[0:96] = uuid(at, index).ljust(96, b"\0")
            os.pwrite(file, record, RECORDS + index * RECORD_BYTES)
            os.pwrite(file, struct.pack("<I", 0xFF | 0x100), LEASES + index * LEASE_BYTES + 20)
    print("ready=1", flush=True)
    while True:
        for file in files:
            for index in range(devices):
                total, until, *lease = says(index, clock())
                os.pwrite(file, struct.pack("<Q", until), RECORDS + index * RECORD_BYTES + UNTIL)
                if total is not None:
                    os.pwrite(file, struct.pack("<Q", total), RECORDS + index * RECORD_BYTES + TOTAL)
                os.pwrite(file, struct.pack("<3Q", *lease), LEASES + index * LEASE_BYTES + 24)
        time.sleep(every)


def nothing(victim, root, number):
    """A container that is there and does nothing."""
    files = copies(victim, root, number)
    print("ready=1", flush=True)
    while files:
        time.sleep(1)


def future(victim, root, number):
    lies(victim, root, 1, lambda _, now: (None, 0, ENDLESS, 0, 0), devices=number)


def endless(victim, root, number):
    lies(victim, root, 1, lambda _, now: (None, ENDLESS, ENDLESS, ENDLESS, 0), devices=number)


def asks(victim, root, number):
    lies(victim, root, number, lambda _, now: (None, ENDLESS, now, ENDLESS, ENDLESS))


def uuids(victim, root, number):
    """Devices that are not there, each wanted by all of the regions."""
    name = lambda at, index: b"GPU-%08d-0000-0000-0000-000000000000" % index  # noqa: E731
    lies(victim, root, number, lambda _, now: (None, 0, now, 1, 0), devices=DEVICES, every=0.05, uuid=name)


def lease(victim, root, number):
    """A lease of the kernel's: whoever opens the file to write waits until it is broken."""
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    files = []
    for index in range(number):
        directory = os.path.join(root, f"tenant_{index}")
        os.makedirs(directory)
        path = os.path.join(directory, "tenant.cache")
        copy(victim, path)
        file = os.open(path, os.O_RDONLY)
        fcntl.fcntl(file, F_SETLEASE, fcntl.F_RDLCK)
        lives(file, fcntl.F_RDLCK)
        files.append(file)
    print("ready=1", flush=True)
    while files:
        time.sleep(1)


def busy(victim, root, number):
    """The kernel's lock on the file is held nearly all the time, by one large write after the other."""
    files = copies(victim, root, number)
    print("ready=1", flush=True)
    block = bytes(256 << 20)
    for file in files[1:]:
        if os.fork() == 0:
            files[0] = file
            break
    while True:
        os.pwrite(files[0], block, 16 << 20)


def comes_and_goes(victim, root, number):
    """A file that lives, dies, is cut off and comes again."""
    print("ready=1", flush=True)
    while True:
        for file in copies(victim, root, number):
            path = os.readlink(f"/proc/self/fd/{file}")
            os.ftruncate(file, OURS + 64)
            time.sleep(0.02)
            os.close(file)
            shutil.rmtree(os.path.dirname(path))


def page(victim, root, number):
    """The page on which the agent wakes launches is taken out of the file and comes back, again and again."""
    files = copies(victim, root, number)
    contents = os.pread(files[0], 4096, OURS)
    libc = ctypes.CDLL(None, use_errno=True)
    print("ready=1", flush=True)
    while True:
        for file in files:
            libc.fallocate(file, 3, ctypes.c_long(OURS), ctypes.c_long(4096))
            os.pwrite(file, contents, OURS)
        time.sleep(0.002)


if __name__ == "__main__":
    attack, victim, root = sys.argv[1:4]
    with open(victim, "rb") as region:
        contents = region.read()
    be_nobody(root)
    globals()[attack](contents, root, int(sys.argv[4]) if len(sys.argv) > 4 else 1)
