//! Promises of `gpuquota dra`.
