#!/bin/sh
# Regenerates src/driver/sys/{cuda,nvml}.rs from NVIDIA's public headers: types, constants and the declarations of
# the functions in the hook table and of those that the library calls itself. They are the witnesses of the table's
# signatures. Usage: src/driver/sys.sh DIRECTORY-WITH-cuda.h-AND-nvml.h
# Needs bindgen (cargo install bindgen-cli) and libclang. Checked in: made from CUDA 13.0's headers.
set -eu
headers=$1
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$here/sys"
names() { grep -rhoE "\b$1[A-Za-z0-9]+(_v[0-9])?(_pts[zd])?\b" "$here/../hook" "$here/.." --include='*.rs' --exclude-dir=sys |
    sort -u | paste -sd'|' -; }
generate() { # header prefix output
    bindgen "$headers/$1" --use-core --no-layout-tests --no-doc-comments --default-enum-style consts \
        --no-prepend-enum-name --newtype-enum "cudaError_enum|nvmlReturn_enum" --allowlist-function "$(names "$2")" $4 --ctypes-prefix core::ffi \
        -- -D__CUDA_API_VERSION_INTERNAL -DNVML_NO_UNVERSIONED_FUNC_DEFS -I"$headers" > "$here/sys/$3"
}
generate cuda.h cu cuda.rs "--allowlist-var CUDA_VERSION|CUDA_ARRAY3D_SPARSE|CUDA_ARRAY3D_DEFERRED_MAPPING --allowlist-type CUstream_flags"
generate nvml.h nvml nvml.rs ""
