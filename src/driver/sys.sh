#!/bin/sh
# sys.sh [--check]: regenerates src/driver/sys/{cuda,nvml}.rs from NVIDIA's public headers: types, constants and typed slots
# of the functions that hooks intercept and of those that the library calls itself. They are the witnesses of the hooks'
# signatures. With --check it writes nothing, and fails if what is there is something else.
#
# All that it needs is pinned and fetched into the cache: the headers (scripts/cuda-toolkit), bindgen
# (scripts/cargo-tool) and libclang, from PyPI.
set -eu
cd "$(dirname "$0")/../.."

sys=src/driver/sys
libclang=18.1.1
cache=${GPUQUOTA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/gpuquota}
headers=$(scripts/cuda-toolkit headers)/include
tools=$(scripts/cargo-tool bindgen)
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT

if [ ! -d "$cache/libclang-$libclang" ]; then
    echo "sys.sh: fetching libclang==$libclang" >&2
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --target "$work/libclang" libclang==$libclang >&2
    mv -T "$work/libclang" "$cache/libclang-$libclang" 2>/dev/null || [ -d "$cache/libclang-$libclang" ]
fi
export LIBCLANG_PATH=$cache/libclang-$libclang/clang/native

# cudaGL.h wants OpenGL's header for two names.
mkdir "$work/GL"
echo 'typedef unsigned int GLenum, GLuint;' >"$work/GL/gl.h"
printf '#include <cuda.h>\n#include <cudaGL.h>\n' >"$work/cuda-all.h"

# names PREFIX: whatever in the sources looks like a function of the driver. A name that no header declares does no harm.
names() {
    grep -rhoE "\b$1[A-Za-z0-9]+(_v[0-9])?(_pt(ds|sz))?\b" src --include='*.rs' --exclude-dir=sys --exclude=tests.rs | LC_ALL=C sort -u | paste -sd'|' -
}

# slots LIBRARY FILE: in place of bindgen's declarations, one list of them in the macro that makes a typed slot of each.
slots() {
    perl -0777 -i -e '
        my $library = shift; my $text = <>; my @slots;
        $text =~ s{unsafe extern "C" \{\s*pub fn (\w+)\s*\((.*?)\)\s*->\s*(\w+)\s*;\s*\}\n?}{
            my ($name, $arguments, $result) = ($1, $2, $3);
            $arguments =~ s/\s+/ /g; $arguments =~ s/^ //; $arguments =~ s/ ?,? ?$//;
            push @slots, "    $name: fn($arguments) -> $result;\n"; ""
        }gse;
        die "sys.sh: a declaration is left\n" if $text =~ /extern "C" \{/;
        print $text, "crate::driver::library::functions! { crate::driver::sys::$library;\n", sort(@slots), "}\n";
    ' "$1" "$2"
}

# generate HEADER PREFIX LIBRARY OUTPUT OPTION...
generate() {
    header=$1 prefix=$2 library=$3 output=$4
    shift 4
    # libclang's wheel lacks the compiler's own headers, such as stddef.h.
    "$tools/bindgen" "$header" --use-core --no-layout-tests --no-doc-comments --default-enum-style consts \
        --no-prepend-enum-name --newtype-enum "cudaError_enum|nvmlReturn_enum" --ctypes-prefix core::ffi \
        --formatter none --allowlist-function "$(names "$prefix")" "$@" \
        -- -D__CUDA_API_VERSION_INTERNAL -DNVML_NO_UNVERSIONED_FUNC_DEFS -I"$headers" -I"$work" \
        -isystem "$(gcc -print-file-name=include)" >"$work/$output"
    rustfmt --edition 2024 --config-path rustfmt.toml "$work/$output"
    slots "$library" "$work/$output"
}
generate "$work/cuda-all.h" cu LIBCUDA cuda.rs \
    --allowlist-var "CUDA_VERSION|CUDA_ARRAY3D_(SPARSE|DEFERRED_MAPPING|LAYERED|CUBEMAP)" \
    --allowlist-type "CUstream_flags|CUmemAttach_flags|CUdriverProcAddress_flags"
generate "$headers/nvml.h" nvml LIBNVML nvml.rs

for output in cuda.rs nvml.rs; do
    if [ "${1:-}" = --check ]; then
        diff -u "$sys/$output" "$work/$output" >&2 || {
            echo "sys.sh: $sys/$output is not what the headers give; make bindings writes it" >&2
            exit 1
        }
    else
        cp "$work/$output" "$sys/$output"
    fi
done
