#!/bin/sh
# Regenerates src/driver/sys/{cuda,nvml}.rs from NVIDIA's public headers: types, constants and the declarations of
# the functions in the hook table and of those that the library calls itself. They are the witnesses of the table's
# signatures. Usage: src/driver/sys.sh DIRECTORY-WITH-cuda.h-cudaGL.h-AND-nvml.h
# Needs bindgen (cargo install bindgen-cli) and libclang. Checked in: made from CUDA 13.5's headers.
set -eu
headers=$1
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$here/sys"
# cudaGL.h wants OpenGL's header for two names.
gl=$(mktemp -d)
trap 'rm -r "$gl"' EXIT
mkdir "$gl/GL"
echo 'typedef unsigned int GLenum, GLuint;' > "$gl/GL/gl.h"
printf '#include <cuda.h>\n#include <cudaGL.h>\n' > "$gl/cuda-all.h"
names() { grep -rhoE "\b$1[A-Za-z0-9]+(_v[0-9])?(_pt(ds|sz))?\b" "$here/../hook" "$here/.." --include='*.rs' --exclude-dir=sys |
    sort -u | paste -sd'|' -; }
generate() { # header prefix output
    bindgen "$1" --use-core --no-layout-tests --no-doc-comments --default-enum-style consts \
        --no-prepend-enum-name --newtype-enum "cudaError_enum|nvmlReturn_enum" --allowlist-function "$(names "$2")" $4 --ctypes-prefix core::ffi \
        -- -D__CUDA_API_VERSION_INTERNAL -DNVML_NO_UNVERSIONED_FUNC_DEFS -I"$headers" -I"$gl" > "$here/sys/$3"
}
generate "$gl/cuda-all.h" cu cuda.rs "--allowlist-var CUDA_VERSION|CUDA_ARRAY3D_(SPARSE|DEFERRED_MAPPING|LAYERED|CUBEMAP) --allowlist-type CUstream_flags|CUmemAttach_flags|CUdriverProcAddress_flags"
generate "$headers/nvml.h" nvml nvml.rs ""
