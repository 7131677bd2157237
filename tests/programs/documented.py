"""documented.py CUDA_H: reads NVIDIA's header and writes a C table of its functions: the export that a program gets,
what kinds its parameters are, and the errors that the documentation names. Kinds, one character each:

    c e s m k l a y g n x p   a handle: context, event, stream, module, function or kernel, library, array, mipmapped
                              array, graph, node, executable graph, pool
    h   any other handle          d   a device address
    i   a number                  #   how many of something
    z   a size in bytes           *   a place in memory
    t   a text                    0   a function to call back
"""

import re
import sys

HANDLES = {
    "CUcontext": "c", "CUevent": "e", "CUstream": "s", "CUmodule": "m", "CUfunction": "k", "CUkernel": "k",
    "CUlibrary": "l", "CUarray": "a", "CUmipmappedArray": "y", "CUgraph": "g", "CUgraphNode": "n",
    "CUgraphExec": "x", "CUmemoryPool": "p",
}
OTHERS = {
    "CUtexref", "CUsurfref", "CUlinkState", "CUexternalMemory", "CUexternalSemaphore", "CUgreenCtx", "CUuserObject",
    "CUtexObject", "CUsurfObject", "CUgraphicsResource", "CUmemGenericAllocationHandle", "CUdevResourceDesc",
    "CUgraphConditionalHandle", "CUgraphDeviceNode", "CUlogsCallbackHandle", "CUasyncCallbackHandle",
}
CALLBACKS = {"CUhostFn", "CUstreamCallback", "CUoccupancyB2DSize", "CUlogsCallback", "CUasyncCallback"}


def kind(parameter):
    """The character of one parameter; None for what cannot be passed as a number."""
    words = re.sub(r"\bconst\b|\bstruct\b|\bunsigned\b", " ", parameter)
    if "*" in parameter or "[" in parameter:
        return "t" if re.match(r"\s*const\s+char\s*\*\s*\w+$", parameter) else "*"
    name = words.split()[0]
    if name in HANDLES:
        return HANDLES[name]
    if name in OTHERS:
        return "h"
    if name in CALLBACKS:
        return "0"
    if name == "CUdeviceptr":
        return "d"
    if name in ("CUipcMemHandle", "CUipcEventHandle", "CUmemLocation", "CUuuid", "float", "double"):
        return None
    if re.search(r"num|count", words.split()[-1], re.I):
        return "#"
    return "z" if name == "size_t" else "i"


def main(path):
    text = open(path, encoding="utf-8", errors="replace").read()
    codes = {name: int(code) for name, code in re.findall(r"^\s+(CUDA_ERROR_\w+|CUDA_SUCCESS)\s*=\s*(\d+)", text, re.M)}
    renamed = {}
    alias = r"^\s*#\s*define\s+(cu[A-Z]\w+)\s+(?:__CUDA_API_PT[DS][SZ]\()?(cu[A-Z]\w+)\)?\s*$"
    for old, new in re.findall(alias, text, re.M):
        renamed.setdefault(old, new)
    calls = {}
    pattern = r"/\*\*(?P<doc>(?:(?!\*/).)*)\*/\s*(?:__CUDA_DEPRECATED\s+)?CUresult\s+CUDAAPI\s+(?P<name>cu\w+)\((?P<list>[^;]*)\);"
    for found in re.finditer(pattern, text, re.S):
        parameters = re.sub(r"/\*.*?\*/", "", found["list"].replace("\n", " ")).strip()
        kinds = [kind(parameter.strip()) for parameter in parameters.split(",")] if parameters not in ("", "void") else []
        name = renamed.get(found["name"], found["name"])
        if None in kinds or len(kinds) > 12:
            continue
        returned = re.search(r"\\return(.*?)(?:\\n\s*\\note|\\note|\\sa|\Z)", found["doc"], re.S)
        documented = sorted({codes[code] for code in re.findall(r"CUDA_ERROR_\w+", returned[1] if returned else "") if code in codes})
        calls[name] = ("".join(kinds), documented)
    for name, (kinds, documented) in sorted(calls.items()):
        print(f'{{ "{name}", "{kinds}", {{ {", ".join(map(str, documented + [0]))} }} }},')


main(sys.argv[1])
