/* nulls LIBRARY: what the driver of this path answers before cuInit to a call of nulls, for each function named on
 * standard input: "name=CUresult", or "name=-signal" for a crash; and what it calls the errors 0 to 999: "error.N=name"
 * and "text.N=text". Each call is a process of its own. */
#include "common.h"

typedef CUresult (*nulls)(void *, void *, void *, void *, void *, void *, void *, void *, void *, void *, void *, void *);

static void answer(const char *name, nulls function)
{
    int status;
    pid_t child = fork();
    if (child == 0) {
        freopen("/dev/null", "w", stderr);
        alarm(10);
        CUresult rc = function(NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
        say(name, rc);
        _exit(0);
    }
    must(waitpid(child, &status, 0) != child);
    if (WIFSIGNALED(status))
        say(name, -WTERMSIG(status));
}

int main(int argc, char **argv)
{
    char line[128];
    void *driver = argc > 1 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
    if (!driver) {
        fprintf(stderr, "nulls: %s\n", dlerror());
        return 2;
    }
    CUresult (*error_name)(CUresult, const char **) = dlsym(driver, "cuGetErrorName");
    CUresult (*error_text)(CUresult, const char **) = dlsym(driver, "cuGetErrorString");
    for (int code = 0; code < 1000; code++) {
        const char *name, *text;
        if (error_name(code, &name) == CUDA_SUCCESS && error_text(code, &text) == CUDA_SUCCESS)
            printf("error.%d=%s\ntext.%d=%s\n", code, name, code, text);
    }
    while (next_line(line, sizeof line)) {
        line[strcspn(line, "\n")] = 0;
        nulls function = (nulls)dlsym(driver, line);
        if (function)
            answer(line, function);
    }
    return 0;
}
