#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Reads the shared region of gpuquota (gpuquota_region.h, docs/region.md). Python 3.8 or later, nothing else.

    python3 gpuquota_region.py FILE...      one JSON object per region and line, as `gpuquota inspect --json` prints it

or, from a program:

    import gpuquota_region
    region = gpuquota_region.read("/tmp/cudevshr.cache")
    for device in region["devices"]:
        print(device["uuid"], device["used"], device["memory_limit"])

It only reads, and never maps the file: a tenant may truncate it at any time. Numbers in it may be lies; nothing that
stands there makes this module read out of bounds or without end.
"""

import fcntl
import json
import os
import stat
import struct
import sys

# Constants of the header, without GPUQUOTA_ in front.
NUMBERS = {
    "MAGIC": 0x41544F5551555047,
    "ABI_MAJOR": 1,
    "ABI_MINOR": 4,
    "OURS": 0x1EB000,
    "FILE_BYTES": 0x3F5000,
    "DEVICES": 32,
    "SLOTS": 1024,
    "JOURNALS": 32,
    "EVENTS": 256,
    "LIMIT_ROWS": 1032,
    "OPERATOR_ROW": 1024,
    "SLOT_BYTE": 1 << 44,
    "PID_BYTE": (1 << 44) + 0x10000,
    "STATE_READY": 1,
    "POLICY_REQUEST": 0xFF,
    "POLICY_BURST": 0x100,
    "POLICY_IDLE_ONLY": 0x200,
    "DEVICE_READY": 2,
    "CONTEXT_BYTES_UNSEEN": 1,
    "SLOT_TAKEN": 1,
    "SLOT_LEFT": 2,
    "KIND_DATA": 0,
    "KIND_CONTEXT": 1,
    "KIND_MODULE": 2,
    "KIND_POOL": 3,
    "KIND_GRAPH": 4,
    "KINDS": 5,
    "KIND_SPILLED": 5,
    "REASONS": 8,
    "EVENT_DENIED": 1,
    "EVENT_BAD_LIMITS": 2,
    "EVENT_REAPED": 3,
    "EVENT_STARTED_ANEW": 4,
    "EVENT_HOLDER": 5,
    "EVENT_KILLED": 6,
    "EVENT_LIMIT_DIFFERS": 7,
    "EVENT_LIMIT_CHANGED": 8,
    "EVENT_NAME_RESTORED": 9,
    "EVENT_TWO_REGIONS": 10,
    "EVENT_SHARED": 11,
    "EVENT_CONTENTS_LOST": 12,
    "LIMIT_KIND_MEMORY": 0,
    "LIMIT_KIND_PHYSICAL": 1,
    "LIMIT_KIND_CORES": 2,
    "LIMIT_KIND_REQUEST": 3,
    "LIMIT_KIND_POLICY": 4,
    "NO_DEVICE": 0xFFFFFFFF,
    "USED_MASK": (1 << 46) - 1,
    "HELD_SHIFT": 16,
    "LIMIT_BYTES": (1 << 46) - 1,
    "LIMIT_BYTES_FROM_FILE": 1 << 47,
    "LIMIT_CORES_SHIFT": 48,
    "LIMIT_CORES_FROM_FILE": 1 << 55,
    "LIMIT_REQUEST_SHIFT": 56,
    "LIMIT_REQUEST_FROM_FILE": 1 << 63,
    "LIMIT_BURST": 1 << 48,
    "LIMIT_IDLE_ONLY": 1 << 49,
    "LIMIT_WRITTEN": 1 << 50,
}
globals().update(NUMBERS)

# The fields of each record: offset and format (module struct, little-endian).
RECORDS = {
    "header": {
        "magic": (0, "Q"),
        "abi_major": (8, "I"),
        "abi_minor": (12, "I"),
        "length": (16, "Q"),
        "record_bytes": (24, "4I"),
        "record_count": (40, "4I"),
        "record_offset": (56, "4Q"),
        "generation": (88, "Q"),
        "boot_id": (96, "2Q"),
        "time_namespace": (112, "Q"),
        "created_at_ns": (120, "Q"),
        "state": (128, "I"),
        "warned": (132, "I"),
        "slot_high": (136, "I"),
        "event_next": (144, "Q"),
        "fallbacks": (152, "Q"),
        "shares": (160, "I"),
        "limits_seq": (164, "I"),
        "monitor_ns": (168, "Q"),
        "maker_user": (176, "I"),
        "maker_mounts": (180, "I"),
        "maker_pids": (184, "I"),
        "shared_told": (188, "I"),
        "leases": (192, "2048s"),
        "refusals": (2240, "1024s"),
    },
    "lease": {
        "lease": (0, "Q"),
        "renewed_at_ns": (8, "Q"),
        "wake_seq": (16, "I"),
        "policy": (20, "I"),
        "asked_at_ns": (24, "Q"),
        "in_flight_ns": (32, "Q"),
        "uncertainty_ns": (40, "Q"),
        "waited_ns": (48, "Q"),
        "held_ns": (56, "Q"),
    },
    "device": {
        "uuid": (0, "96s"),
        "state": (96, "I"),
        "core_limit": (100, "I"),
        "memory_limit": (104, "Q"),
        "memory_total": (112, "Q"),
        "claimed_by": (120, "I"),
        "used": (128, "Q"),
        "peak": (136, "Q"),
        "denied": (144, "Q"),
        "would_deny": (152, "Q"),
        "reaped_at_ns": (160, "Q"),
        "spilled": (168, "Q"),
        "spills": (176, "Q"),
        "physical_limit": (184, "Q"),
        "virtual_time_ns": (192, "Q"),
        "busy_until_ns": (200, "Q"),
        "largest_charge_ns": (208, "Q"),
        "virtual_percent": (216, "Q"),
        "idle_at_ns": (224, "Q"),
        "in_flight_until_ns": (232, "Q"),
        "gaps_from_ns": (240, "Q"),
        "idle_ns": (248, "Q"),
        "gpu_time_ns": (256, "Q"),
        "waited_ns": (264, "Q"),
        "launches": (272, "Q"),
        "waits": (280, "Q"),
        "would_wait": (288, "Q"),
        "clamped": (296, "Q"),
        "waited_in_flight_ns": (304, "Q"),
        "limit_conflicts": (312, "Q"),
        "gaps": (320, "14Q"),
        "wait_times": (432, "8Q"),
        "context_bytes": (496, "Q"),
        "estimated_contexts": (504, "Q"),
    },
    "slot": {
        "state": (0, "I"),
        "pid": (4, "I"),
        "start_time": (8, "Q"),
        "pid_namespace": (16, "Q"),
        "imports": (24, "I"),
        "priority": (28, "I"),
        "last_launch_ns": (32, "Q"),
        "exported": (40, "Q"),
        "exporters_lost": (48, "Q"),
        "losses_measured": (56, "Q"),
        "journal_device": (64, "32s"),
        "journal_kind": (96, "32s"),
        "pending_ns": (128, "32Q"),
    },
    "journal": {
        "amount": (0, "Q"),
        "operation": (8, "Q"),
        "held": (16, "Q"),
        "reserving": (24, "Q"),
    },
    "limit": {
        "memory": (0, "Q"),
        "physical": (8, "Q"),
    },
    "event": {
        "stamp": (0, "Q"),
        "code": (8, "I"),
        "pid": (12, "I"),
        "device": (16, "I"),
        "requested": (24, "Q"),
        "used": (32, "Q"),
        "limit": (40, "Q"),
        "time_ns": (48, "Q"),
    },
}

# Bytes of a device, slot, journal and event record in version 1.0: no later minor version has shorter ones.
LEAST_BYTES = (512, 512, 32, 64)
HEADER_BYTES = 4096
LEASE_BYTES = 64
# The limits: the first minor version that has them, where they begin, and the bytes of one of them.
MINOR_WITH_LIMITS = 3
LIMITS = OURS + 0x189000
LIMIT_BYTES_EACH = 16
# Longer files are read up to here.
LONGEST = 2 * FILE_BYTES

KIND_NAMES = ("allocations", "contexts", "code", "pools", "graphs")
LIMIT_NAMES = ("memory_limit", "physical_limit", "core_limit", "request_percent", "policy")
REASON_NAMES = ("memory_limit", "physical_limit", "context", "code", "uncounted", "driver")
KIND_KEYS = ("data_bytes", "context_bytes", "module_bytes", "pool_bytes", "graph_bytes")

# Linux's F_OFD_GETLK; Python names it from 3.9 on, on some platforms.
F_OFD_GETLK = getattr(fcntl, "F_OFD_GETLK", 36)
# struct flock on 64-bit Linux: type, whence, start, length, pid.
FLOCK = struct.Struct("@hhqqi4x")


class NotARegion(Exception):
    """The file is no region that this reader can read; the message says why."""


def record(name, data):
    """The fields of one record, by name. `data` begins with it and may be longer."""
    fields = {}
    for field, (offset, form) in RECORDS[name].items():
        values = struct.unpack_from("<" + form, data, offset)
        fields[field] = values[0] if len(values) == 1 else list(values)
    return fields


def _file(fd):
    """The file's first bytes, at most LONGEST, whatever its size says."""
    parts, length = [], 0
    while length < LONGEST:
        part = os.pread(fd, min(1 << 20, LONGEST - length), length)
        if not part:
            break
        parts.append(part)
        length += len(part)
    return b"".join(parts)


class _Array:
    """Records of one kind, each of the length that the header says."""

    def __init__(self, name, data, offset, size, count, least):
        if size < least or offset + size * count > len(data):
            raise NotARegion("the file is too short to be a region")
        self.name, self.data, self.offset, self.size, self.count = name, data, offset, size, count

    def raw(self, index):
        start = self.offset + self.size * index
        return memoryview(self.data)[start : start + self.size]

    def half(self, index, field):
        """One 32-bit field: cheaper than the whole record."""
        return struct.unpack_from("<I", self.raw(index), RECORDS[self.name][field][0])[0]

    def __getitem__(self, index):
        return record(self.name, self.raw(index))


def _arrays(data):
    """The header, and the devices, slots, journals and events behind it."""
    if len(data) < OURS:
        raise NotARegion("the file is too short to be a region")
    head = data[OURS : OURS + HEADER_BYTES]
    if len(head) < 8 or struct.unpack_from("<Q", head)[0] != MAGIC:
        raise NotARegion("the file is no gpuquota region")
    if len(head) < HEADER_BYTES:
        raise NotARegion("the file is too short to be a region")
    header = record("header", head)
    if header["abi_major"] != ABI_MAJOR:
        raise NotARegion("the region was made by an incompatible version")
    if header["state"] != STATE_READY:
        raise NotARegion("the region is not initialised yet")
    if header["abi_minor"] >= MINOR_WITH_LIMITS and len(data) < FILE_BYTES:
        raise NotARegion("the file is too short to be a region")
    arrays = []
    for kind, name in enumerate(("device", "slot", "journal", "event")):
        rows = header["record_count"][1] if name == "journal" else 1
        arrays.append(
            _Array(
                name,
                data,
                header["record_offset"][kind],
                header["record_bytes"][kind],
                header["record_count"][kind] * rows,
                LEAST_BYTES[kind],
            )
        )
    return header, arrays


def _text(raw):
    """A zero-padded text; whatever is not printable ASCII in it is escaped, as Rust's escape_ascii does."""
    names = {9: "\\t", 10: "\\n", 13: "\\r", 34: '\\"', 39: "\\'", 92: "\\\\"}
    plain = (names.get(byte) or (chr(byte) if 32 <= byte < 127 else "\\x%02x" % byte) for byte in raw.split(b"\0")[0])
    return "".join(plain)


def _time(ns):
    """UTC in RFC 3339, to milliseconds, from nanoseconds since 1970."""
    import datetime

    seconds, rest = divmod(ns, 1_000_000_000)
    try:
        day = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=seconds)
    except OverflowError:
        return "9999-12-31T23:59:59.999Z"
    return "%s.%03dZ" % (day.strftime("%Y-%m-%dT%H:%M:%S"), rest // 1_000_000)


def _lock(fd, command, byte):
    """Who holds a lock on a byte: None if nobody does, else a pid as seen from here (0 or -1 if there is none to see)."""
    ask = FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    try:
        kind, _, _, _, pid = FLOCK.unpack(fcntl.fcntl(fd, command, ask))
    except OSError:
        return None
    return None if kind == fcntl.F_UNLCK else pid


def _runs(pid, start_time):
    """Whether the process with this pid and start time runs, or is on its way out, as far as /proc here tells. Its lock is free:
    one that has arguments and is not on its way out has executed another program."""
    try:
        with open("/proc/%d/stat" % pid, "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        with open("/proc/%d/cmdline" % pid, "rb") as file:
            executed = not int(fields[6]) & 4 and file.read(1)
        return fields[0] not in (b"Z", b"X", b"x") and int(fields[19]) == start_time and not executed
    except (OSError, IndexError, ValueError):
        return False


def _namespace():
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0


def _device(index, device, lease, refused, minor):
    policy, core_limit = lease["policy"], device["core_limit"]
    request = policy & POLICY_REQUEST
    context_bytes = device["context_bytes"] if minor >= MINOR_WITH_LIMITS else 0
    return {
        "index": index,
        "uuid": _text(device["uuid"]),
        "memory_limit": device["memory_limit"] or None,
        "memory_total": device["memory_total"],
        "used": device["used"] & USED_MASK,
        "peak": device["peak"],
        "denied": device["denied"],
        "denied_by": dict(zip(REASON_NAMES, refused)),
        "would_deny": device["would_deny"],
        "spilled": device["spilled"] & USED_MASK,
        "spills": device["spills"],
        "physical_limit": device["physical_limit"] or None,
        "core_limit": core_limit or None,
        "gpu_time_ns": device["gpu_time_ns"] if device["gpu_time_ns"] or device["launches"] or core_limit else None,
        "waited_ns": device["waited_ns"],
        "waited_in_flight_ns": device["waited_in_flight_ns"],
        "launches": device["launches"],
        "waits": device["waits"],
        "wait_times": device["wait_times"],
        "would_wait": device["would_wait"],
        "clamped": device["clamped"],
        "limit_conflicts": device["limit_conflicts"] if minor >= MINOR_WITH_LIMITS else 0,
        "context_bytes": context_bytes if context_bytes != CONTEXT_BYTES_UNSEEN else 0,
        "estimated_contexts": device["estimated_contexts"] if minor >= MINOR_WITH_LIMITS else 0,
        "lease": {
            "request_percent": min(request, core_limit or 100) if request else None,
            "burst": bool(policy & POLICY_BURST),
            "idle_only": bool(policy & POLICY_IDLE_ONLY),
            "waited_ns": lease["waited_ns"],
            "held_ns": lease["held_ns"],
        },
    }


def _asked(data, row, device, by, pid):
    """The limits of one row on a device; None where nothing was written."""
    at = LIMITS + (row * DEVICES + device) * LIMIT_BYTES_EACH
    words = record("limit", data[at : at + LIMIT_BYTES_EACH])
    memory, physical = words["memory"], words["physical"]
    if not physical & LIMIT_WRITTEN:
        return None
    from_file = {
        "memory_limit": memory & LIMIT_BYTES_FROM_FILE,
        "physical_limit": physical & LIMIT_BYTES_FROM_FILE,
        "core_limit": memory & LIMIT_CORES_FROM_FILE,
        "request_percent": memory & LIMIT_REQUEST_FROM_FILE,
    }
    return {
        "by": by,
        "pid": pid,
        "memory_limit": memory & LIMIT_BYTES or None,
        "physical_limit": physical & LIMIT_BYTES or None,
        "core_limit": memory >> LIMIT_CORES_SHIFT & 0x7F or None,
        "request_percent": memory >> LIMIT_REQUEST_SHIFT & 0x7F or None,
        "burst": bool(physical & LIMIT_BURST),
        "idle_only": bool(physical & LIMIT_IDLE_ONLY),
        "from_file": [key for key, bit in from_file.items() if bit],
    }


def _all_asked(data, header, processes, device):
    """The limits that the operator set and that processes brought on a device."""
    if header["abi_minor"] < MINOR_WITH_LIMITS:
        return []
    rows = [(OPERATOR_ROW, "operator", None)]
    rows += [(process["slot"], "process", process["pid"]) for process in processes if process["slot"] < SLOTS]
    asked = [_asked(data, row, device, by, pid) for row, by, pid in rows]
    return [limits for limits in asked if limits]


def _held(slot, journals, device):
    """Bytes that a process holds of a device, by kind."""
    held = [0] * KINDS
    for journal, serves, kind in zip(journals, slot["journal_device"], slot["journal_kind"]):
        if serves == device + 1 and kind != KIND_SPILLED:
            # What is of a kind that this version does not know counts as asked for.
            held[kind if kind < KINDS else KIND_DATA] += journal["held"] >> HELD_SHIFT
    return held


def _process(fd, index, slot, journals, devices):
    here = slot["pid_namespace"] == _namespace()
    locked = _lock(fd, F_OFD_GETLK, SLOT_BYTE + index) is not None
    shares = []
    for device in devices:
        held = _held(slot, journals, device["index"])
        pending = slot["pending_ns"][device["index"]] if device["index"] < DEVICES else 0
        if any(held) or pending:
            share = {"device": device["index"], "bytes": sum(held)}
            share.update(zip(KIND_KEYS, held))
            share["pending_ns"] = pending
            shares.append(share)
    holder = _lock(fd, fcntl.F_GETLK, PID_BYTE + index)
    return {
        "slot": index,
        "pid": slot["pid"],
        "host_pid": holder if holder and holder > 0 else slot["pid"] if here else None,
        "priority": slot["priority"],
        "alive": locked or holder is not None or (here and _runs(slot["pid"], slot["start_time"])),
        "devices": shares,
    }


def _event(event):
    requested, used, limit = event["requested"], event["used"], event["limit"]
    about = {
        "number": event["stamp"] - 1,
        "time": _time(event["time_ns"]),
        "pid": event["pid"],
        "device": None if event["device"] == NO_DEVICE else event["device"],
    }
    code = event["code"]
    if code == EVENT_DENIED:
        about.update(event="denied", requested=requested, used=used, limit=limit)
    elif code == EVENT_HOLDER:
        kind = KIND_NAMES[limit] if limit < KINDS else "unknown"
        about.update(event="holder", holder=requested, bytes=used, kind=kind)
    elif code == EVENT_KILLED:
        about.update(event="killed", killed=requested, bytes=used, priority=limit)
    elif code == EVENT_BAD_LIMITS:
        about.update(event="bad_limits", problems=requested)
    elif code == EVENT_REAPED:
        about.update(event="reaped", bytes=used)
    elif code in (EVENT_LIMIT_DIFFERS, EVENT_LIMIT_CHANGED):
        limit_of = LIMIT_NAMES[used] if used < len(LIMIT_NAMES) else "unknown"
        if code == EVENT_LIMIT_DIFFERS:
            about.update(event="limit_differs", limit_of=limit_of, asked=requested, limit=limit)
        else:
            about.update(event="limit_changed", limit_of=limit_of, before=requested, limit=limit)
    elif code == EVENT_STARTED_ANEW:
        about.update(event="started_anew")
    elif code == EVENT_NAME_RESTORED:
        about.update(event="name_restored", nameless=requested == 1, holder=used)
    elif code == EVENT_TWO_REGIONS:
        about.update(event="two_regions", holder=used)
    elif code == EVENT_SHARED:
        about.update(event="shared", user=requested, mount_namespace=used)
    elif code == EVENT_CONTENTS_LOST:
        about.update(event="contents_lost", anew=requested == 1, bytes=used)
    else:
        about.update(event="unknown", code=code)
    return about


def read(path):
    """A region as it is now, with the keys of `gpuquota inspect --json`. Raises NotARegion or OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise NotARegion("it is no regular file")
        data = _file(fd)
        header, (devices, slots, journals, events) = _arrays(data)
        found = []
        for index in range(min(devices.count, DEVICES)):
            if devices.half(index, "state") == DEVICE_READY:
                lease = record("lease", header["leases"][LEASE_BYTES * index :])
                refused = struct.unpack_from("<%dI" % REASONS, header["refusals"], index * REASONS * 4)
                found.append(_device(index, devices[index], lease, refused, header["abi_minor"]))
        processes = []
        per_slot = header["record_count"][2]
        for index in range(slots.count):
            if slots.half(index, "state") == SLOT_TAKEN and len(processes) < SLOTS:
                own = [journals[index * per_slot + journal] for journal in range(min(per_slot, JOURNALS))]
                processes.append(_process(fd, index, slots[index], own, found))
        dead = [share for process in processes if not process["alive"] for share in process["devices"]]
        for device in found:
            of_dead = sum(share["bytes"] for share in dead if share["device"] == device["index"])
            device["used"] = max(0, device["used"] - of_dead)
            device["asked"] = _all_asked(data, header, processes, device["index"])
        told = [_event(event) for event in map(events.__getitem__, range(min(events.count, EVENTS))) if event["stamp"]]
        return {
            "region": os.fspath(path),
            "abi": [header["abi_major"], header["abi_minor"]],
            "generation": header["generation"],
            "fallbacks": header["fallbacks"],
            "devices": found,
            "processes": processes,
            "events": sorted(told, key=lambda event: event["number"]),
        }
    finally:
        os.close(fd)


def main(paths):
    if not paths:
        sys.exit("usage: gpuquota_region.py FILE...")
    failed = False
    for path in paths:
        try:
            print(json.dumps(read(path)))
        except (NotARegion, OSError) as why:
            print("region %s: %s" % (path, why), file=sys.stderr)
            failed = True
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
