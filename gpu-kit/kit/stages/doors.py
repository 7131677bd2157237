"""Doors: however a program comes to the driver's functions, each call reaches its hook once."""

from kit.programs import LIBRARY, in_parallel, program

WEIGHT = 30
LEAST = 3
MIB = 1 << 20
CAP = 4 << 30
WANTED = {"total": CAP, "charged": 64 * MIB, "over": 2, "returned": 64 * MIB}

WAYS = (
    ("linked symbols", ("door_linked",)),
    ("dlsym", ("door_dlsym",)),
    ("a driver closed and opened anew", ("door_dlclose",)),
    ("cuGetProcAddress version 1", ("door_getproc", "1", "0")),
    ("cuGetProcAddress version 1, per-thread streams", ("door_getproc", "1", "2")),
    ("cuGetProcAddress version 2", ("door_getproc", "2", "0")),
    ("cuGetProcAddress version 2, per-thread streams", ("door_getproc", "2", "2")),
    ("a local plugin that is linked", ("plugin_host", program("plugin_linked.so"), "local")),
    ("a local plugin that uses dlsym", ("plugin_host", program("plugin_dlsym.so"), "local")),
    ("RTLD_NEXT", ("plugin_host", program("plugin_next.so"), "local")),
    ("RTLD_DEEPBIND, linked", ("plugin_host", program("plugin_linked.so"), "deepbind")),
    ("RTLD_DEEPBIND, dlsym", ("plugin_host", program("plugin_dlsym.so"), "deepbind")),
    ("RTLD_DEEPBIND after the driver, linked", ("plugin_host", program("plugin_linked.so"), "deepbind_later")),
    ("RTLD_DEEPBIND after the driver, dlsym", ("plugin_host", program("plugin_dlsym.so"), "deepbind_later")),
    ("a constructor, linked", ("plugin_host", program("plugin_linked_constructor.so"), "constructor")),
    ("a constructor, dlsym", ("plugin_host", program("plugin_dlsym_constructor.so"), "constructor")),
    ("cudart 13, static", ("cudart_13_static",)),
    ("cudart 12, static", ("cudart_12_static",)),
)


def run(stage):
    # Without the library each walk has the whole card, which it asks for more than: so one after another.
    bare = [walk(stage, stage.machine.bare(), command) for _, command in WAYS if stage.left() > 1]
    under = in_parallel([job(stage, command) for _, command in WAYS])
    for at, (name, _) in enumerate(WAYS):
        if at >= len(bare):
            stage.skip(name, "no time to walk it without the library")
            continue
        if not bare[at].good or int(bare[at].text("total") or 0) <= CAP:
            # What cannot be walked without the library says nothing about it.
            stage.skip(name, f"without the library: {bare[at]}")
            continue
        seen = {key: int(under[at].text(key) or -1) for key in WANTED}
        stage.promise(name, under[at].good and seen == WANTED, "reached once" if seen == WANTED else f"{seen}; {under[at]}")
    twice(stage)
    redirection(stage)


def walk(stage, setting, command):
    return setting.run(*command, limit=stage.patience())


def job(stage, command):
    return lambda: walk(stage, stage.machine.container(memory=CAP), command)


def twice(stage):
    """Another preloaded tool before and behind, and the library preloaded twice."""
    tool = program("tool_next.so")
    orders = (
        ("a tool in front of the library", f"{tool}:{LIBRARY}"),
        ("a tool behind the library", f"{LIBRARY}:{tool}"),
        ("the library preloaded twice", f"{LIBRARY}:{LIBRARY}"),
    )
    for name, preload in orders:
        container = stage.machine.container(memory=CAP).with_variables(LD_PRELOAD=preload)
        walked = container.run("door_linked", limit=stage.patience())
        good = walked.good and walked.text("total") == str(CAP) and walked.text("charged") == str(64 * MIB)
        stage.promise(name, good, "reached once" if good else walked)


def redirection(stage):
    """Whether the driver's own symbol table was redirected, and if not, why that may be."""
    under = stage.machine.container(memory=CAP).run("redirected", limit=stage.patience())
    if not under.good:
        stage.skip("the driver's symbol table", under)
        return
    redirected = under.text("redirected") == "1"
    where = f"its segment is {under.text('segment')}, relro {under.text('relro')}"
    stage.note("the driver's symbol table", f"{'redirected' if redirected else 'not redirected'}; {where}")
    bare = stage.machine.bare().run("redirected", limit=stage.patience())
    stage.promise("without the library the table is the driver's own", bare.text("redirected") == "0", bare)
