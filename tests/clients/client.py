"""What the client programs share. A client says `key=value` lines: which device it sees, every step that it got
through, and how filling the device ended. The test compares what it says with and without the library."""


def say(key, value):
    print(f"{key}={value}", flush=True)


def steps(*functions):
    """Does one thing after another; the first that fails ends the program with its traceback."""
    for function in functions:
        function()
        say(f"step.{function.__name__}", 1)


def fill(piece, take, refusals):
    """Takes pieces of memory until the client's own error of running out of it; says how much was had and how it was
    refused. The pieces go again before it returns."""
    held = []
    try:
        while True:
            held.append(take(piece))
    except refusals as error:
        say("held", piece * len(held))
        say("refusal", f"{type(error).__module__}.{type(error).__name__}")
        return str(error)
