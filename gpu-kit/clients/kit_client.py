"""What the client programs of the kit share. A client says `key=value` lines, each at once. One whose software or whose
GPU is not there says `skipped=REASON` and ends with status 77; any other failure ends it with its traceback and status 1."""

import ctypes
import hashlib
import importlib
import os
import sys
import time

ALLOCATORS = {"native": None, "expandable": "expandable_segments:True", "async": "backend:cudaMallocAsync"}


def say(key, value):
    print(f"{key}={value}", flush=True)


def skip(reason):
    # One line, whatever an error's text looks like.
    say("skipped", " ".join(str(reason).split()))
    sys.exit(77)


def missing(module):
    """Imports a module, or skips the client where it is not installed. A module that is there and fails is a failure."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.split(".")[0]:
            raise
        skip(f"no module {module}")


def torch_on_gpu():
    torch = missing("torch")
    if not torch.cuda.is_available():
        skip("torch finds no GPU")
    return torch


def deterministic_torch():
    """PyTorch that gives the same bits twice, or says that it cannot."""
    # cuBLAS reads it when it starts, and without it may add up in another order from call to call.
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch = torch_on_gpu()
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.manual_seed(0)
    return torch


def choose_allocator(name):
    """Which of PyTorch's allocators is used. It is read when torch is imported, so this comes first."""
    # The first name is the one of PyTorch 2.9 and later, which warns of the second; earlier ones know only that.
    for variable in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        os.environ.pop(variable, None)
        if ALLOCATORS[name]:
            os.environ[variable] = ALLOCATORS[name]


def digest(*arrays):
    """The sha256 of the bytes of tensors of torch and of arrays of NumPy, one after another."""
    hashed = hashlib.sha256()
    for array in arrays:
        if hasattr(array, "data_ptr"):
            # Not through NumPy, which has no bfloat16 and need not be installed for torch.
            there = array.detach().cpu().contiguous()
            hashed.update(ctypes.string_at(there.data_ptr(), there.numel() * there.element_size()))
        else:
            hashed.update(array.tobytes())
    return hashed.hexdigest()


def serve(loop):
    """Says that the client is ready; then, for each line `go SECONDS`, runs the loop for so long. Ends with standard input."""
    say("ready", os.getpid())
    for line in sys.stdin:
        word, _, seconds = line.partition(" ")
        if word != "go":
            sys.exit(f"{line.strip()!r} is not understood: go SECONDS")
        end = time.perf_counter() + float(seconds)
        loop(lambda: time.perf_counter() >= end)
        say("done", 1)
